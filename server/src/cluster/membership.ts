/**
 * Which nodes live. Each keeps a lease on every Redis host, and renews it all the time; the answer
 * to a renewal says how all others stand.
 *
 * A node is dead when its lease has run out on all hosts that can be reached. Whoever is dead on one
 * host is made so on all: it is fenced, the scripts refuse what it writes afterwards, so that it
 * cannot come back as the one it was. A node that leaves declares itself dead.
 *
 * Nobody is declared dead until a host has been back for one lease period, and has shown the same
 * lease for as long: neither a host that comes back empty nor a clock that is set kills anybody.
 * ADR 0009
 */
import type { AppId } from "@pandapush/protocol";
import { Refusal } from "../errors.js";
import type { MaybePromise } from "../maybe-promise.js";
import { randomText } from "../random-text.js";
import type { Log, RedisHost, RedisHosts } from "../redis/hosts.js";
import { HostUnavailable, luaUrl, readScript } from "../redis/hosts.js";

/** What a node knows of itself and the others. */
export interface Membership {
  /** This node's own id: another one after it was declared dead. `[a-z0-9]` */
  readonly id: string;
  /** All that live and do not leave, this one included; sorted. */
  readonly nodes: readonly string[];
  /** Those and the ones that leave: all that may have sessions. Sorted. */
  readonly all: readonly string[];
  /**
   * Whether the node lives, as far as known: until it is declared dead, or has left. One that
   * started a moment ago may not be known yet; then Redis is asked.
   * @throws Refusal `brokerUnavailable` when that cannot be known: no host can be reached, or they
   *   have come back so empty and so lately that any node may be missing
   */
  isAlive(nodeId: string): MaybePromise<boolean>;
  /**
   * To be waited for before anything is done in the name of this node: when it stood still for
   * longer than its lease, the others may have declared it dead, and it has to find out first.
   * Nothing to wait for, nearly always. Does not wait for hosts that are down.
   */
  verified(): MaybePromise<void>;
  /**
   * To be waited for before something of the application is kept on that host in the name of this
   * node: when it dies, somebody is told to clean that up. Nothing to wait for but the first time.
   * @throws HostUnavailable
   * @throws Refusal `brokerUnavailable` when this node was just declared dead
   */
  register(host: RedisHost, appId: AppId): MaybePromise<void>;
}

/** Told of what changes. */
export interface MembershipHandler {
  /**
   * Another node was declared dead, by whichever node, or has left; told once for each. Also of
   * those that died lately, before this one started.
   */
  died(nodeId: string): void;
  /** This node was declared dead: whatever it held is lost. It has another id already. */
  lost(): void;
  /**
   * To clean up what a dead node kept of an application on that host. Other nodes may be doing the
   * same at the same time. When it fails it is tried again.
   */
  clean(host: RedisHost, nodeId: string, appId: AppId): Promise<void>;
}

export interface MembershipOptions {
  /** A node that is not heard of for this long may be declared dead. */
  readonly leaseMs: number;
  readonly renewMs: number;
}

/** A node's membership, to be started and ended. */
export interface OwnMembership extends Membership {
  /** Resolves when each host that is up has taken the lease. */
  start(): Promise<void>;
  /** Resolves when this node knows all that each host that is up knows now. */
  look(): Promise<void>;
  /** Nobody should give this node anything any more; what it has it keeps. */
  leave(): Promise<void>;
  /** Whatever it still has is lost; others need not wait for its lease to run out. */
  close(): Promise<void>;
}

/** The dead are remembered, and fenced, for this long after their death. */
const memoryMs = 3_600_000;
/** How many applications of a dead node are cleaned up between two questions for more. */
const cleanedTogether = 50;

const renewScript = readScript(luaUrl("time"), luaUrl("renew"));
const buryScript = readScript(luaUrl("time"), luaUrl("bury"));
const aliveScript = readScript(luaUrl("time"), luaUrl("alive"));
const cleanScript = readScript(luaUrl("clean"));
const registerScript = readScript(luaUrl("register"));

/** Begins with `start`. */
export function createMembership(
  hosts: RedisHosts,
  handler: MembershipHandler,
  options: MembershipOptions,
  log: Log,
): OwnMembership {
  return new RedisMembership(hosts, handler, options, log);
}

/** A node's lease as one host last showed it. */
interface Lease {
  /** When it runs out, by the host's clock; empty: there is none. */
  readonly end: string;
  /** Since when, by our clock, the host shows that. */
  readonly since: number;
  readonly hasRunOut: boolean;
}

/** What one host knows of the nodes. */
class View {
  readonly leases = new Map<string, Lease>();
  /** By our clock, when the last renewal was sent that was answered. */
  renewedAt = Number.NEGATIVE_INFINITY;
  /** The host's time at that renewal; 0 when the host may have lost our lease since. */
  hostTime = "0";
  upSince: number | undefined;
  renewing: Promise<void> | undefined;
  leaving: readonly string[] = [];
  /** Who is known to be fenced here. */
  fenced: ReadonlySet<string> = new Set();
  /** Dead nodes that we are cleaning up after. */
  readonly cleaning = new Set<string>();
  /** Applications that are registered for us, or about to be. */
  readonly apps = new Map<AppId, MaybePromise<void>>();

  constructor(readonly host: RedisHost) {}

  key(rest: string): string {
    return this.host.key("nodes", rest);
  }

  appsOf(nodeId: string): string {
    return this.key(`:apps:${nodeId}`);
  }
}

/** When a node died, by the clock of the host where it was declared dead. */
interface Death {
  readonly time: string;
  /** It is so long ago that everybody knows. */
  isOld: boolean;
}

class RedisMembership implements OwnMembership {
  id = randomText(5);
  private readonly views: readonly View[];
  /** Everybody who has a lease, or had one, and is not dead. */
  private readonly known = new Set<string>();
  private readonly dead = new Map<string, Death>();
  /** The ids that this node had. */
  private readonly former = new Set<string>();
  private living: readonly string[] = [this.id];
  private present: readonly string[] = [this.id];
  private timer: NodeJS.Timeout | undefined;
  private verifying: Promise<void> | undefined;
  private isLeaving = false;
  private isClosed = false;

  constructor(
    hosts: RedisHosts,
    private readonly handler: MembershipHandler,
    private readonly options: MembershipOptions,
    private readonly log: Log,
  ) {
    this.views = hosts.all.map((host) => new View(host));
    for (const view of this.views) {
      if (view.host.isUp) view.upSince = performance.now();
      view.host.onState((state) => {
        view.upSince = state.isUp ? performance.now() : undefined;
        if (!state.isUp) return;
        // What it showed before is not what it has shown since.
        view.leases.clear();
        if (state.mayLackData) {
          view.hostTime = "0";
          view.fenced = new Set();
          view.apps.clear();
        }
        if (this.timer !== undefined) void this.renew(view);
      });
    }
  }

  get nodes(): readonly string[] {
    return this.living;
  }

  get all(): readonly string[] {
    return this.present;
  }

  async start(): Promise<void> {
    this.timer = setInterval(() => {
      for (const view of this.views) void this.renew(view);
    }, this.options.renewMs);
    this.timer.unref();
    await Promise.all(this.views.map((view) => this.renew(view)));
  }

  look(): Promise<void> {
    return this.renewAgain(this.views);
  }

  async leave(): Promise<void> {
    this.isLeaving = true;
    await this.renewAgain(this.views);
  }

  async close(): Promise<void> {
    if (this.isClosed) return;
    this.isClosed = true;
    clearInterval(this.timer);
    const { id } = this;
    const left = this.views.map((view) => this.bury(view, id, "now"));
    await Promise.allSettled(left);
  }

  isAlive(nodeId: string): MaybePromise<boolean> {
    if (nodeId === this.id) return true;
    if (this.dead.has(nodeId)) return false;
    return this.known.has(nodeId) || this.ask(nodeId);
  }

  verified(): MaybePromise<void> {
    const stale = this.stale();
    if (stale.length === 0) return;
    this.verifying ??= this.renewAgain(stale).finally(() => {
      this.verifying = undefined;
    });
    return this.verifying;
  }

  register(host: RedisHost, appId: AppId): MaybePromise<void> {
    const view = this.views.find((each) => each.host === host);
    if (view === undefined) throw new Error(`${host.name} is no host of this node`);
    const { apps } = view;
    if (!apps.has(appId)) {
      const registering = this.registerNow(view, appId);
      apps.set(appId, registering);
      registering.then(
        () => apps.get(appId) === registering && apps.set(appId, undefined),
        () => apps.get(appId) === registering && apps.delete(appId),
      );
    }
    return apps.get(appId);
  }

  private async registerNow(view: View, appId: AppId): Promise<void> {
    const { id } = this;
    const keys = [view.key(":dead"), view.appsOf(id)];
    const answer = await view.host.run(registerScript, keys, [id, appId]);
    if (answer !== "fenced") return;
    this.lose(id);
    throw new Refusal("brokerUnavailable");
  }

  /** Hosts that are up, and where our lease may have run out. */
  private stale(): View[] {
    const now = performance.now();
    return this.views.filter(
      ({ host, renewedAt }) => host.isUp && now - renewedAt > this.options.leaseMs,
    );
  }

  /** Also when the answer to a renewal is on its way: it may have been given long ago. */
  private async renewAgain(views: readonly View[]): Promise<void> {
    await Promise.all(views.map(({ renewing }) => renewing));
    await Promise.all(views.map((view) => this.renew(view)));
  }

  private renew(view: View): Promise<void> {
    view.renewing ??= this.renewNow(view)
      .catch((error: unknown) => {
        // What is down says so itself.
        if (error instanceof HostUnavailable) return;
        this.log("error", "renew the lease of this node", { host: view.host.name, err: error });
      })
      .finally(() => {
        view.renewing = undefined;
      });
    return view.renewing;
  }

  private async renewNow(view: View): Promise<void> {
    if (this.isClosed) return;
    const { id } = this;
    const sentAt = performance.now();
    const answer = await view.host.run(
      renewScript,
      [":leases", ":dead", ":leaving", ":unclean", ":since"].map((rest) => view.key(rest)),
      [
        id,
        String(this.options.leaseMs),
        this.isLeaving ? "1" : "0",
        // Before the host counts as up, nobody knows what it has lost.
        view.host.isUp ? view.hostTime : "0",
        String(memoryMs),
      ],
    );
    if (this.isClosed || id !== this.id) return;
    if (answer === "fenced") {
      this.lose(id);
      return;
    }
    const [hostTime, leases, leaving, dead, unclean] = answer as Renewal;
    view.renewedAt = sentAt;
    view.hostTime = hostTime;
    view.leaving = leaving;
    const ends = new Map(pairs(leases));
    this.noteDead(view, new Map(pairs(dead)), ends, Number(hostTime));
    this.noteLeases(view, ends, Number(hostTime));
    this.noteLiving();
    for (const nodeId of unclean) this.clean(view, nodeId);
    this.buryRunOut();
  }

  private noteDead(
    view: View,
    dead: ReadonlyMap<string, string>,
    leases: ReadonlyMap<string, string>,
    hostTime: number,
  ): void {
    view.fenced = new Set(dead.keys());
    for (const [nodeId, time] of dead) this.learnDeath(nodeId, time);
    for (const [nodeId, death] of this.dead) {
      const ageMs = hostTime - Number(death.time);
      // Long before it is forgotten: no host gets it back from another that forgets it later.
      death.isOld ||= ageMs > memoryMs / 2;
      const isFenced = this.views.some(({ fenced }) => fenced.has(nodeId));
      if (ageMs > 2 * memoryMs && !isFenced) this.dead.delete(nodeId);
      // Its data may be older than the death.
      const isMissing = !death.isOld || leases.has(nodeId);
      if (isMissing && !view.fenced.has(nodeId)) void this.fence(view, nodeId, death.time);
    }
  }

  private noteLeases(view: View, leases: ReadonlyMap<string, string>, hostTime: number): void {
    const now = performance.now();
    for (const nodeId of leases.keys()) if (!this.dead.has(nodeId)) this.known.add(nodeId);
    for (const nodeId of view.leases.keys()) {
      if (!this.known.has(nodeId)) view.leases.delete(nodeId);
    }
    for (const nodeId of this.known) {
      const end = leases.get(nodeId) ?? "";
      const before = view.leases.get(nodeId);
      const since = before?.end === end ? before.since : now;
      view.leases.set(nodeId, { end, since, hasRunOut: Number(end) <= hostTime });
    }
  }

  private noteLiving(): void {
    const leaving = new Set(this.views.flatMap((view) => view.leaving));
    const holds = (nodeId: string): boolean =>
      this.views.some(({ leases }) => leases.get(nodeId)?.hasRunOut === false);
    const others = [...this.known].filter((nodeId) => nodeId !== this.id && holds(nodeId));
    this.present = [...others, this.id].sort();
    this.living = this.present.filter((nodeId) =>
      nodeId === this.id ? !this.isLeaving : !leaving.has(nodeId),
    );
  }

  /** Declares dead whose lease has run out wherever we can look. */
  private buryRunOut(): void {
    const { leaseMs, renewMs } = this.options;
    const now = performance.now();
    const reachable = this.views.filter(({ host }) => host.isUp);
    for (const { upSince = now, renewedAt } of reachable) {
      if (now - upSince < leaseMs || now - renewedAt > 2 * renewMs) return;
    }
    for (const nodeId of this.known) {
      if (nodeId === this.id) continue;
      const hasRunOut = reachable.every(({ leases }) => {
        const lease = leases.get(nodeId);
        return lease?.hasRunOut === true && now - lease.since >= leaseMs;
      });
      const [first] = reachable;
      // One host decides; once it is dead there, it is dead everywhere.
      if (hasRunOut && first !== undefined) void this.declareDead(first, nodeId);
    }
  }

  private async declareDead(view: View, nodeId: string): Promise<void> {
    const answer = await this.fence(view, nodeId, "lapsed");
    if (answer === "dead") {
      this.log("warn", "a node was declared dead: its lease has run out", { node: nodeId });
    }
    // What there is to do elsewhere, and to clean up, follows from the next answers.
    for (const each of this.views) void this.renew(each);
  }

  /** @returns undefined when that failed; whatever is still right is then tried again */
  private async fence(view: View, nodeId: string, time: string): Promise<string | undefined> {
    try {
      return await this.bury(view, nodeId, time);
    } catch (error) {
      if (!(error instanceof HostUnavailable)) {
        this.log("error", "declare a node dead", { host: view.host.name, err: error });
      }
      return undefined;
    }
  }

  private async bury(view: View, nodeId: string, time: string): Promise<string> {
    const keys = [":leases", ":dead", ":leaving", ":unclean"].map((rest) => view.key(rest));
    const answer = await view.host.run(buryScript, [...keys, view.appsOf(nodeId)], [nodeId, time]);
    return String(answer);
  }

  private learnDeath(nodeId: string, time: string): void {
    if (this.dead.has(nodeId)) return;
    this.dead.set(nodeId, { time, isOld: false });
    this.known.delete(nodeId);
    if (!this.former.has(nodeId)) this.tell(() => this.handler.died(nodeId));
  }

  /** Only for the id that the answer was about: it may have another one meanwhile. */
  private lose(id: string): void {
    if (id !== this.id || this.isClosed) return;
    this.former.add(id);
    this.known.delete(id);
    this.id = randomText(5);
    for (const view of this.views) {
      view.hostTime = "0";
      view.apps.clear();
    }
    this.noteLiving();
    this.log(
      "warn",
      "this node was declared dead: it stood still, or was cut off, for longer than its lease",
      {
        node: id,
        next: this.id,
      },
    );
    this.tell(() => this.handler.lost());
    void this.renewAgain(this.views);
  }

  private clean(view: View, nodeId: string): void {
    if (view.cleaning.has(nodeId)) return;
    view.cleaning.add(nodeId);
    this.cleanNow(view, nodeId)
      .catch((error: unknown) => {
        if (error instanceof HostUnavailable || error instanceof Refusal) return;
        this.log("error", "clean up after a dead node", { node: nodeId, err: error });
      })
      .finally(() => view.cleaning.delete(nodeId));
  }

  private async cleanNow(view: View, nodeId: string): Promise<void> {
    const keys = [view.key(":unclean"), view.appsOf(nodeId)];
    let cleaned: AppId[] = [];
    while (!this.isClosed) {
      const args = [nodeId, String(cleanedTogether), ...cleaned];
      const rest = (await view.host.run(cleanScript, keys, args)) as AppId[];
      if (rest.length === 0) return;
      cleaned = [];
      for (const appId of rest) {
        await this.handler.clean(view.host, nodeId, appId);
        cleaned.push(appId);
      }
    }
  }

  /** It is not known here, but may be known to Redis. */
  private async ask(nodeId: string): Promise<boolean> {
    const args = [nodeId, String(this.options.leaseMs)];
    const answers = await Promise.all(
      this.views.map(async (view) => {
        const keys = [":leases", ":dead", ":since"].map((rest) => view.key(rest));
        try {
          return await view.host.run(aliveScript, keys, args);
        } catch (error) {
          if (error instanceof HostUnavailable) return "unknown";
          throw error;
        }
      }),
    );
    if (answers.includes("dead")) return false;
    if (answers.includes("alive")) return true;
    if (answers.includes("absent")) return false;
    throw new Refusal("brokerUnavailable");
  }

  private tell(say: () => void): void {
    try {
      say();
    } catch (error) {
      this.log("error", "handle a change of the nodes", { err: error });
    }
  }
}

/** See `renew.lua`. */
type Renewal = readonly [
  hostTime: string,
  leases: readonly string[],
  leaving: readonly string[],
  dead: readonly string[],
  unclean: readonly string[],
];

function* pairs(flat: readonly string[]): Generator<[string, string]> {
  for (let i = 0; i + 1 < flat.length; i += 2) yield [flat[i] as string, flat[i + 1] as string];
}
