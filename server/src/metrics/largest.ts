/** Which applications have series of their own, and what counts for the others together. */
import type { AppId } from "@pandapush/protocol";
import type { Activity } from "../node.js";

/** What rises, of an application or several. */
export interface Risen {
  readonly published: number;
  readonly delivered: number;
  readonly subscribed: number;
  readonly unsubscribed: number;
}

/** What is shown under one name. */
export interface Shown extends Risen {
  readonly connections: number;
  readonly subscriptions: number;
  readonly channels: number;
}

type Sums = { -readonly [K in keyof Shown]: Shown[K] };

/** An application that is called so is counted among them. */
const others = "other";
/** One that is shown stays until another is larger by this factor: series shall not come and go. */
const stickiness = 1.5;

export class LargestApps {
  private shown: ReadonlySet<AppId> = new Set();
  /** How far each application was counted. */
  private readonly counted = new Map<AppId, Risen>();
  /** By name: what was counted under it. It never falls, whoever joins the others or leaves them. */
  private readonly sums = new Map<string, Sums>();

  /** @param limit how many have a name of their own */
  constructor(private readonly limit: number) {}

  /** @returns by name; `other` among them */
  count(apps: ReadonlyMap<AppId, Activity>): ReadonlyMap<string, Shown> {
    this.choose(apps);
    const result = new Map<string, Sums>([[others, this.restart(others)]]);
    for (const [appId, activity] of apps) {
      const name = this.shown.has(appId) ? appId : others;
      let sums = result.get(name);
      if (sums === undefined) {
        sums = this.restart(name);
        result.set(name, sums);
      }
      addTo(sums, activity, this.counted.get(appId));
      this.counted.set(appId, activity);
    }
    for (const appId of this.counted.keys()) if (!apps.has(appId)) this.counted.delete(appId);
    for (const name of this.sums.keys()) {
      if (name !== others && !apps.has(name as AppId)) this.sums.delete(name);
    }
    return result;
  }

  private choose(apps: ReadonlyMap<AppId, Activity>): void {
    const sizes = Array.from(apps, ([appId, activity]) => {
      const size = sizeOf(activity);
      return { appId, size: this.shown.has(appId) ? size * stickiness : size };
    });
    const candidates = sizes.filter(({ appId }) => appId !== others);
    candidates.sort((one, other) => other.size - one.size || (one.appId < other.appId ? -1 : 1));
    this.shown = new Set(candidates.slice(0, this.limit).map(({ appId }) => appId));
  }

  private restart(name: string): Sums {
    const sums = this.sums.get(name) ?? {
      connections: 0,
      subscriptions: 0,
      channels: 0,
      published: 0,
      delivered: 0,
      subscribed: 0,
      unsubscribed: 0,
    };
    this.sums.set(name, sums);
    return Object.assign(sums, { connections: 0, subscriptions: 0, channels: 0 });
  }
}

/** Whoever is connected, and what goes on: each is a reason to look at an application. */
function sizeOf(activity: Activity): number {
  return activity.connections + activity.publishedPerSecond + activity.deliveredPerSecond;
}

function addTo(sums: Sums, activity: Activity, counted: Risen | undefined): void {
  sums.connections += activity.connections;
  sums.subscriptions += activity.subscriptions;
  sums.channels += activity.channels;
  for (const name of ["published", "delivered", "subscribed", "unsubscribed"] as const) {
    sums[name] += risen(activity[name], counted?.[name]);
  }
}

/** How much was added to a count that begins again when its application is deleted. */
export function risen(now: number, before = 0): number {
  return now >= before ? now - before : now;
}
