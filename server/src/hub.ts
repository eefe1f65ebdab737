/**
 * Which local sessions hear which channel, and delivery to them.
 *
 * One write to one socket costs about 7 µs, nearly all of it in the kernel, so throughput is
 * decided by messages per write and by not encoding per receiver. The publications of one
 * event-loop turn are therefore gathered and encoded once, and everyone who hears the same of
 * them gets the same frame. While an application's delivery is still under way its next
 * publications gather, so that batches grow with load; when idle nothing waits.
 */
import type { AppId, Channel, KeyId, Pattern } from "@pandapush/protocol";
import { expand } from "@pandapush/protocol";
import type { Encoder, Publication, Session, Subscription } from "./session.js";
import { sliceMs } from "./slices.js";
import { type Batch, batchesOf } from "./transports/transport.js";

/** Work between two looks at the clock: a session is 1, and so are `workLength` written characters. */
const sliceWork = 32;
const workLength = 4_096;
/** Subscriptions looked at between two looks at the clock. */
const sliceSubscriptions = 512;
/** What of one application is delivered together: bounds what is done for a session in one piece. */
const turnMessages = 1_000;
const turnLength = 1_048_576;

/** What an application does at this node. */
export interface AppCounters {
  readonly connections: number;
  readonly subscriptions: number;
  readonly channels: number;
  readonly delivered: number;
}

/** A publication of the current turn; its text is made once for each encoder. */
class Gathered {
  /** In characters. */
  readonly length: number;
  private encoder: Encoder | undefined;
  private encoded = "";
  private batch: Batch | undefined;

  constructor(
    readonly publication: Publication,
    readonly seq: number,
    /** Who heard its channel or a pattern over it when it came. */
    readonly audience: readonly Set<Subscription>[],
  ) {
    this.length = publication.data.length + (publication.ext?.length ?? 0);
  }

  text(encoder: Encoder): string {
    if (this.encoder !== encoder) {
      this.encoder = encoder;
      this.encoded = encoder.event(this.publication);
      this.batch = undefined;
    }
    return this.encoded;
  }

  /** Instead of `made`, a batch of this publication alone, the first such batch that was made. */
  shared(made: Batch): Batch {
    this.batch ??= made;
    return this.batch;
  }
}

/** Publications that some sessions hear exactly, in order; their frames are shared. */
class Run {
  private static count = 0;
  readonly number = ++Run.count;
  /** What it costs to deliver it to one session. */
  readonly work: number;
  private encoder: Encoder | undefined;
  private encoded: readonly Batch[] = [];

  constructor(readonly gathered: readonly Gathered[]) {
    this.work = 1 + Math.floor(lengthOf(gathered) / workLength);
  }

  batches(encoder: Encoder): readonly Batch[] {
    if (this.encoder !== encoder) {
      this.encoder = encoder;
      this.encoded = this.encode(encoder);
    }
    return this.encoded;
  }

  /** A large publication fills a batch by itself: all who hear it share that, whatever else they hear. */
  private encode(encoder: Encoder): Batch[] {
    const texts = this.gathered.map((gathered) => gathered.text(encoder));
    const batches = batchesOf(texts, encoder.join);
    let at = 0;
    for (const [index, batch] of batches.entries()) {
      const first = this.gathered[at];
      at += batch.messages.length;
      if (batch.messages.length === 1 && first !== undefined) batches[index] = first.shared(batch);
    }
    return batches;
  }

  /** What a subscription hears of this run. */
  heardBy({ since, deaf }: Subscription): Run | undefined {
    const { gathered } = this;
    if (since < (gathered[0]?.seq ?? 0) && deaf === undefined) return this;
    if (since >= (gathered.at(-1)?.seq ?? 0)) return undefined;
    const heard = gathered.filter(
      ({ seq }) => seq > since && !(deaf && seq > deaf.from && seq <= deaf.to),
    );
    if (heard.length === gathered.length) return this;
    return heard.length === 0 ? undefined : new Run(heard);
  }
}

/** Who is subscribed to what in one application, to look at. Changes as it is looked at. */
export interface AppView {
  readonly channels: ReadonlyMap<Channel | Pattern, ReadonlySet<Subscription>>;
  /** Everybody with a subscription in it. */
  readonly sessions: ReadonlyMap<Session, number>;
  /** Who would hear a publication; some perhaps in several of the sets. */
  audience(channel: Channel): readonly ReadonlySet<Subscription>[];
}

/** One application's part of the hub. */
class App implements AppView {
  readonly channels = new Map<Channel | Pattern, Set<Subscription>>();
  /** How many subscriptions each session has here. */
  readonly sessions = new Map<Session, number>();
  subscriptions = 0;
  delivered = 0;
  gathering: Gathered[] = [];
  delivery: Generator<void, void> | undefined;
  waitingMessages = 0;
  waitingLength = 0;

  /** The publications of the next delivery, oldest first. */
  take(): Gathered[] {
    const taken = this.gathering;
    let count = 0;
    let length = 0;
    for (const gathered of taken) {
      if (count === turnMessages || length >= turnLength) break;
      count++;
      length += gathered.length;
    }
    this.gathering = taken.splice(count);
    return taken;
  }

  audience(channel: Channel): Set<Subscription>[] {
    const sets: Set<Subscription>[] = [];
    for (const name of expand(channel)) {
      const set = this.channels.get(name);
      if (set !== undefined) sets.push(set);
    }
    return sets;
  }
}

export interface HubLimits {
  /** Publications of one application that wait for delivery. */
  readonly backlogMessages: number;
  readonly backlogBytes: number;
}

export class Hub {
  private readonly apps = new Map<AppId, App>();
  /** Applications with something to deliver, in the order of their turns. */
  private readonly ring = new Set<App>();
  private seq = 0;
  private isScheduled = false;

  constructor(private readonly limits: HubLimits) {}

  /**
   * The session hears what is received from now on.
   * @returns whether it is the first at this node to do so; false also when it did already
   */
  subscribe(
    session: Session,
    appId: AppId,
    name: Channel | Pattern,
    keyId: KeyId | undefined,
    presenceId?: string,
  ): boolean {
    const existing = session.subscriptions.get(name);
    if (existing !== undefined) {
      existing.keyId = keyId;
      existing.presenceId = presenceId;
      return false;
    }
    const subscription: Subscription = { session, name, keyId, presenceId, since: this.seq };
    session.subscriptions.set(name, subscription);
    const app = this.app(appId);
    app.subscriptions++;
    app.sessions.set(session, (app.sessions.get(session) ?? 0) + 1);
    const set = app.channels.get(name);
    if (set === undefined) app.channels.set(name, new Set([subscription]));
    else set.add(subscription);
    return set === undefined;
  }

  /**
   * What `change` publishes at once is not heard by this subscription of the session. What came
   * before it in the same turn is.
   */
  mute<T>(subscription: Subscription, change: () => T): T {
    const from = this.seq;
    const result = change();
    if (this.seq > from) subscription.deaf = { from, to: this.seq };
    return result;
  }

  /** @returns whether that was the last at this node */
  unsubscribe(session: Session, appId: AppId, name: Channel | Pattern): boolean {
    const subscription = session.subscriptions.get(name);
    const app = this.apps.get(appId);
    if (subscription === undefined || app === undefined) return false;
    session.subscriptions.delete(name);
    app.subscriptions--;
    const rest = (app.sessions.get(session) ?? 1) - 1;
    if (rest > 0) app.sessions.set(session, rest);
    else app.sessions.delete(session);
    const set = app.channels.get(name);
    set?.delete(subscription);
    if (set?.size !== 0) return false;
    app.channels.delete(name);
    return true;
  }

  /** Takes a publication for delivery at the end of this turn; cheap when nobody hears it. */
  receive(appId: AppId, publication: Publication): void {
    const app = this.apps.get(appId);
    if (app === undefined) return;
    const audience = app.audience(publication.channel);
    if (audience.length === 0) return;
    const gathered = new Gathered(publication, ++this.seq, audience);
    app.gathering.push(gathered);
    app.waitingMessages++;
    app.waitingLength += gathered.length;
    this.ring.add(app);
    this.schedule();
  }

  /** Whether so much waits for delivery that nothing more should be published. */
  isBusy(appId: AppId): boolean {
    const app = this.apps.get(appId);
    return (
      app !== undefined &&
      (app.waitingMessages >= this.limits.backlogMessages ||
        app.waitingLength >= this.limits.backlogBytes)
    );
  }

  isHeard(appId: AppId, channel: Channel): boolean {
    return (this.apps.get(appId)?.audience(channel).length ?? 0) > 0;
  }

  /** undefined: nobody ever subscribed to anything in it. */
  view(appId: AppId): AppView | undefined {
    return this.apps.get(appId);
  }

  *counters(): Generator<[AppId, AppCounters]> {
    for (const [appId, app] of this.apps) {
      yield [
        appId,
        {
          connections: app.sessions.size,
          subscriptions: app.subscriptions,
          channels: app.channels.size,
          delivered: app.delivered,
        },
      ];
    }
  }

  private app(appId: AppId): App {
    let app = this.apps.get(appId);
    if (app === undefined) {
      app = new App();
      this.apps.set(appId, app);
    }
    return app;
  }

  private schedule(): void {
    if (this.isScheduled) return;
    this.isScheduled = true;
    setImmediate(() => this.flush());
  }

  /** Delivers in turn over applications, so that a large one delays no other. */
  private flush(): void {
    this.isScheduled = false;
    const deadline = performance.now() + sliceMs;
    for (const app of this.ring) {
      // Moving it behind the others makes this loop a round robin.
      this.ring.delete(app);
      app.delivery ??= this.deliverGathered(app);
      if (app.delivery.next().done === true) app.delivery = undefined;
      if (app.delivery !== undefined || app.gathering.length > 0) this.ring.add(app);
      if (this.ring.size > 0 && performance.now() > deadline) {
        this.schedule();
        return;
      }
    }
  }

  private *deliverGathered(app: App): Generator<void, void> {
    const gathered = app.take();
    const channels = new Map<Channel, Gathered[]>();
    for (const item of gathered) {
      const others = channels.get(item.publication.channel);
      if (others === undefined) channels.set(item.publication.channel, [item]);
      else others.push(item);
    }
    const [items] = channels.values();
    const [only, ...others] = audienceOf(items);
    if (channels.size === 1 && items !== undefined && only !== undefined && others.length === 0) {
      yield* this.deliverToAll(app, new Run(items), only);
    } else {
      yield* this.deliverToEach(app, channels.values());
    }
    app.waitingMessages -= gathered.length;
    app.waitingLength -= lengthOf(gathered);
  }

  /** One channel, nobody hears it twice. Who subscribes meanwhile is visited, and `since` skips it. */
  private *deliverToAll(app: App, run: Run, set: Set<Subscription>): Generator<void, void> {
    let work = 0;
    for (const subscription of set) {
      const heard = run.heardBy(subscription);
      work += heard === undefined ? 1 : this.deliver(app, subscription.session, heard);
      if (work < sliceWork) continue;
      work = 0;
      yield;
    }
  }

  /** Several channels or patterns: first who hears what, then one delivery each. */
  private *deliverToEach(app: App, channels: Iterable<Gathered[]>): Generator<void, void> {
    const heardBy = new Map<Session, Run[]>();
    let seen = 0;
    for (const gathered of channels) {
      const run = new Run(gathered);
      for (const set of audienceOf(gathered)) {
        for (const subscription of set) {
          if (++seen % sliceSubscriptions === 0) yield;
          const heard = run.heardBy(subscription);
          if (heard === undefined) continue;
          const { session } = subscription;
          const runs = heardBy.get(session);
          if (runs === undefined) heardBy.set(session, [heard]);
          else if (runs.at(-1) !== heard) runs.push(heard);
        }
      }
    }
    const merged = new Map<string, Run>();
    let work = 0;
    for (const [session, runs] of heardBy) {
      work += this.deliver(app, session, mergeRuns(runs, merged));
      if (work < sliceWork) continue;
      work = 0;
      yield;
    }
  }

  /** @returns how much work it was */
  private deliver(app: App, session: Session, run: Run): number {
    for (const batch of run.batches(session.encoder)) session.deliver(batch);
    app.delivered += run.gathered.length;
    return run.work;
  }
}

/**
 * Who hears a channel's publications: what was subscribed when the last of them came. Sets that
 * were given up before have nobody to tell; those that began between are told by `since`.
 */
function audienceOf(gathered: readonly Gathered[] | undefined): readonly Set<Subscription>[] {
  return gathered?.at(-1)?.audience ?? [];
}

function lengthOf(gathered: readonly Gathered[]): number {
  let length = 0;
  for (const each of gathered) length += each.length;
  return length;
}

/**
 * Everything of these runs once, in publication order. Sessions that hear the same runs get the
 * same result, and so the same frames.
 */
function mergeRuns(runs: readonly Run[], merged: Map<string, Run>): Run {
  const [first] = runs;
  if (first !== undefined && runs.length === 1) return first;
  const key = runs.map(({ number }) => number).join();
  let run = merged.get(key);
  if (run === undefined) {
    const all = new Set(runs.flatMap(({ gathered }) => gathered));
    run = new Run([...all].sort((a, b) => a.seq - b.seq));
    merged.set(key, run);
  }
  return run;
}
