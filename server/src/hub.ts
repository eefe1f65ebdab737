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
import type { MaybePromise } from "./maybe-promise.js";
import type { Encoder, Floors, Position, Publication, Session, Subscription } from "./session.js";
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
/**
 * At the backlog's limits nothing more is published here. What other nodes publish is taken up to
 * this many times as much, at least what is delivered together; what comes then is lost.
 */
const lossFactor = 2;

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
    readonly position: Position,
    /** In the order in which this node received them, whatever the application. */
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

  isIn(snapshot: Position): boolean {
    const { epoch, seq } = this.position;
    return (
      this.publication.isMembership === true && epoch === snapshot.epoch && seq <= snapshot.seq
    );
  }

  /** Whether another node has not delivered it already. */
  isAbove(floors: ReadonlyMap<string, number>): boolean {
    const { epoch, seq } = this.position;
    const floor = floors.get(epoch);
    return floor === undefined || seq > floor;
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
  private readonly hasMembership: boolean;
  private encoder: Encoder | undefined;
  private encoded: readonly Batch[] = [];

  constructor(readonly gathered: readonly Gathered[]) {
    this.work = 1 + Math.floor(lengthOf(gathered) / workLength);
    this.hasMembership = gathered.some(({ publication }) => publication.isMembership);
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

  /**
   * Positions rise as they come, so what comes behind one above the floor need not be compared. But
   * what comes in one turn is delivered channel by channel: another channel of a pattern may have
   * something that came before. Runs of a turn begin in order, so behind the next but one nothing has.
   */
  private forgetFloor(subscription: Subscription, above: Gathered): void {
    const { floors, passed, name } = subscription;
    if (floors === undefined) return;
    const { epoch } = above.position;
    const passedAt = passed?.get(epoch);
    if (passedAt === undefined) subscription.passed = new Map(passed).set(epoch, above.seq);
    else if ((this.gathered[0]?.seq ?? 0) > passedAt) floors.delete(epoch);
    // A channel's publications are of one epoch; a pattern's are of as many as there are hosts.
    if (floors.size > 0 && name.endsWith("*")) return;
    delete subscription.floors;
    delete subscription.passed;
  }

  /** What a subscription hears of this run. All of it is of one channel. */
  heardBy(subscription: Subscription): Run | undefined {
    const { gathered } = this;
    const { since, until = Number.POSITIVE_INFINITY, floors } = subscription;
    const snapshot = this.hasMembership ? subscription.snapshot : undefined;
    const first = gathered[0]?.seq ?? 0;
    const last = gathered.at(-1)?.seq ?? 0;
    if (since < first && until >= last && snapshot === undefined && floors === undefined) {
      return this;
    }
    if (since >= last || until < first) return undefined;
    const heard = gathered.filter(
      (each) =>
        each.seq > since &&
        each.seq <= until &&
        !(snapshot !== undefined && each.isIn(snapshot)) &&
        (floors === undefined || each.isAbove(floors)),
    );
    if (heard[0] !== undefined) this.forgetFloor(subscription, heard[0]);
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
  /** The last of each epoch that was received, delivered or not. */
  readonly positions = new Map<string, number>();
  /** Told when everything up to a sequence number of the hub's is delivered. */
  private deliveringUpTo: number | undefined;
  private barriers: { readonly seq: number; readonly reached: () => void }[] = [];
  /** Who would have heard what is lost while so much waits. */
  readonly losing = new Set<Set<Subscription>>();

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
    this.deliveringUpTo = taken.at(-1)?.seq;
    return taken;
  }

  /** Resolves when all that waits now is delivered. */
  caughtUp(): MaybePromise<void> {
    const last = this.gathering.at(-1)?.seq ?? this.deliveringUpTo;
    if (last === undefined) return;
    return new Promise((reached) => {
      this.barriers.push({ seq: last, reached });
    });
  }

  /** Everything up to this sequence number is delivered. */
  reach(seq: number): void {
    this.deliveringUpTo = undefined;
    if (this.barriers.length === 0) return;
    for (const barrier of this.barriers) if (barrier.seq <= seq) barrier.reached();
    this.barriers = this.barriers.filter((barrier) => barrier.seq > seq);
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

/** What a session would have heard of a channel while its client waits for a reply. */
interface Held {
  /** In order; by a pattern as well, a session hears it once. */
  readonly gathered: Set<Gathered>;
  /** How many replies are waited for. */
  replies: number;
}

/** What waits for its delivery, of all applications. */
export interface Backlog {
  readonly publications: number;
  /** In characters. */
  readonly length: number;
}

export class Hub {
  private readonly apps = new Map<AppId, App>();
  private readonly held = new Map<Session, Map<Channel | Pattern, Held>>();
  /** What sessions hear that are on their way here from another node. */
  private readonly arriving = new Map<Session, Set<Gathered>>();
  /** Applications with something to deliver, in the order of their turns. */
  private readonly ring = new Set<App>();
  private seq = 0;
  private isScheduled = false;

  /** @param onBatch told of each delivery of an application, how many publications it has */
  constructor(
    private readonly limits: HubLimits,
    private readonly onBatch: (publications: number) => void = () => {},
  ) {}

  /** The session hears what is received from now on, if it did not already. */
  subscribe(
    session: Session,
    appId: AppId,
    name: Channel | Pattern,
    keyId: KeyId | undefined,
  ): Subscription {
    const existing = session.subscriptions.get(name);
    if (existing !== undefined) {
      existing.keyId = keyId;
      return existing;
    }
    const subscription: Subscription = {
      session,
      name,
      keyId,
      member: undefined,
      since: this.seq,
      isEffective: false,
      waiting: 0,
    };
    session.subscriptions.set(name, subscription);
    const app = this.app(appId);
    app.subscriptions++;
    app.sessions.set(session, (app.sessions.get(session) ?? 0) + 1);
    const set = app.channels.get(name);
    if (set === undefined) app.channels.set(name, new Set([subscription]));
    else set.add(subscription);
    return subscription;
  }

  /**
   * Its client is about to be sent the list of a presence channel's members. What the session hears
   * of that channel meanwhile waits, until `release` was called as often as this.
   */
  hold({ session, name }: Subscription): void {
    let channels = this.held.get(session);
    if (channels === undefined) {
      channels = new Map();
      this.held.set(session, channels);
    }
    const held = channels.get(name);
    if (held === undefined) channels.set(name, { gathered: new Set(), replies: 1 });
    else held.replies++;
  }

  /** The list is on its way, or there will be none. `Subscription.snapshot` says what it has. */
  release(subscription: Subscription, appId: AppId): void {
    const { session, name } = subscription;
    const held = this.held.get(session)?.get(name);
    if (held === undefined || --held.replies > 0) return;
    this.forgetHeld(session, name);
    const app = this.apps.get(appId);
    const heard = new Run([...held.gathered]).heardBy(subscription);
    if (app !== undefined && heard !== undefined) this.deliver(app, session, heard);
  }

  /** The session is on its way here: what it hears waits until it is `settle`d. */
  expect(session: Session): void {
    this.arriving.set(session, new Set());
  }

  /**
   * It is here, and is given what came meanwhile.
   * @param floors what the other node has received, which the session has
   */
  settle(session: Session, floors: Floors): void {
    const waiting = this.arriving.get(session);
    this.arriving.delete(session);
    for (const subscription of session.subscriptions.values()) {
      const floor = floors.get(appOf(subscription.name));
      if (floor !== undefined && floor.size > 0) subscription.floors = new Map(floor);
    }
    const news = new Map<App, Gathered[]>();
    for (const gathered of [...(waiting ?? [])].sort((a, b) => a.seq - b.seq)) {
      const snapshot = session.subscriptions.get(gathered.publication.channel)?.snapshot;
      if (snapshot !== undefined && gathered.isIn(snapshot)) continue;
      const appId = appOf(gathered.publication.channel);
      const app = this.apps.get(appId);
      const floor = floors.get(appId);
      if (app === undefined || (floor !== undefined && !gathered.isAbove(floor))) continue;
      const others = news.get(app);
      if (others === undefined) news.set(app, [gathered]);
      else others.push(gathered);
    }
    for (const [app, gathered] of news) this.deliver(app, session, new Run(gathered));
  }

  /**
   * The session hears nothing that comes from now on. Resolves when it was given what came before.
   * @returns by application, what that was
   */
  silence(session: Session): MaybePromise<Floors> {
    const floors = new Map<AppId, ReadonlyMap<string, number>>();
    const waits: Promise<void>[] = [];
    for (const subscription of session.subscriptions.values()) {
      subscription.until = this.seq;
      const appId = appOf(subscription.name);
      const app = this.apps.get(appId);
      if (app === undefined || floors.has(appId)) continue;
      floors.set(appId, new Map(app.positions));
      const wait = app.caughtUp();
      if (wait !== undefined) waits.push(wait);
    }
    // Lists of members are on their way to its client, or lost: it hears what waits for them.
    for (const [name, held] of [...(this.held.get(session) ?? [])]) {
      const subscription = session.subscriptions.get(name);
      held.replies = 1;
      if (subscription !== undefined) this.release(subscription, appOf(name));
    }
    return waits.length === 0 ? floors : Promise.all(waits).then(() => floors);
  }

  /** @returns whether that was the last at this node */
  unsubscribe(session: Session, appId: AppId, name: Channel | Pattern): boolean {
    const subscription = session.subscriptions.get(name);
    const app = this.apps.get(appId);
    if (subscription === undefined || app === undefined) return false;
    session.subscriptions.delete(name);
    this.forgetHeld(session, name);
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

  /**
   * Takes a publication for delivery at the end of this turn; cheap when nobody hears it.
   * @returns false when it was lost, and the last before it was not: too much waits already
   */
  receive(appId: AppId, publication: Publication, position: Position): boolean {
    const app = this.apps.get(appId);
    if (app === undefined) return true;
    app.positions.set(position.epoch, position.seq);
    const audience = app.audience(publication.channel);
    if (audience.length === 0) return true;
    if (this.isLosing(app)) return this.lose(app, audience);
    const gathered = new Gathered(publication, position, ++this.seq, audience);
    app.gathering.push(gathered);
    app.waitingMessages++;
    app.waitingLength += gathered.length;
    this.ring.add(app);
    this.schedule();
    return true;
  }

  /** Something was published to `name` that was not received, and will not be. */
  miss(appId: AppId, name: Channel | Pattern): void {
    missAll(this.apps.get(appId)?.channels.get(name));
  }

  /**
   * Whether so much waits for delivery that nothing more should be published.
   * @param coming messages that are published already and will come
   * @param comingLength their characters
   */
  isBusy(appId: AppId, coming = 0, comingLength = 0): boolean {
    return this.isBusyWith(this.apps.get(appId), coming, comingLength);
  }

  isHeard(appId: AppId, channel: Channel): boolean {
    return (this.apps.get(appId)?.audience(channel).length ?? 0) > 0;
  }

  /** undefined: nobody ever subscribed to anything in it. */
  view(appId: AppId): AppView | undefined {
    return this.apps.get(appId);
  }

  *counters(): Generator<[AppId, AppCounters]> {
    for (const appId of this.apps.keys()) yield [appId, this.countersOf(appId)];
  }

  /** Zeros where nobody ever subscribed to anything. */
  countersOf(appId: AppId): AppCounters {
    const app = this.apps.get(appId);
    return {
      connections: app?.sessions.size ?? 0,
      subscriptions: app?.subscriptions ?? 0,
      channels: app?.channels.size ?? 0,
      delivered: app?.delivered ?? 0,
    };
  }

  get backlog(): Backlog {
    let publications = 0;
    let length = 0;
    for (const app of this.apps.values()) {
      publications += app.waitingMessages;
      length += app.waitingLength;
    }
    return { publications, length };
  }

  private isBusyWith(app: App | undefined, coming = 0, comingLength = 0): boolean {
    const { backlogMessages, backlogBytes } = this.limits;
    return (
      coming + (app?.waitingMessages ?? 0) >= backlogMessages ||
      comingLength + (app?.waitingLength ?? 0) >= backlogBytes
    );
  }

  private isLosing({ waitingMessages, waitingLength }: App): boolean {
    const { backlogMessages, backlogBytes } = this.limits;
    return (
      waitingMessages >= Math.max(backlogMessages * lossFactor, turnMessages) ||
      waitingLength >= Math.max(backlogBytes * lossFactor, turnLength)
    );
  }

  private lose(app: App, audience: readonly Set<Subscription>[]): boolean {
    const isFirst = app.losing.size === 0;
    for (const set of audience) app.losing.add(set);
    return !isFirst;
  }

  /** Told when it is over: what clients then fetch by other ways is complete. */
  private endLoss(app: App): void {
    for (const set of app.losing) missAll(set);
    app.losing.clear();
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
    this.onBatch(gathered.length);
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
    app.reach(gathered.at(-1)?.seq ?? 0);
    if (app.losing.size > 0 && !this.isBusyWith(app)) this.endLoss(app);
  }

  /** One channel, nobody hears it twice. Who subscribes meanwhile is visited, and `since` skips it. */
  private *deliverToAll(app: App, run: Run, set: Set<Subscription>): Generator<void, void> {
    let work = 0;
    for (const subscription of set) {
      const heard = this.hear(run, subscription);
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
          const heard = this.hear(run, subscription);
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

  private hear(run: Run, subscription: Subscription): Run | undefined {
    const heard = run.heardBy(subscription);
    if (heard === undefined || this.held.size + this.arriving.size === 0) return heard;
    const arriving = this.arriving.get(subscription.session);
    if (arriving !== undefined) {
      if (arriving.size >= this.limits.backlogMessages) subscription.session.miss();
      else for (const each of heard.gathered) arriving.add(each);
      return undefined;
    }
    const [first] = heard.gathered;
    // All of a run are of one channel when it is asked who hears it.
    const channel = first?.publication.channel;
    const held = channel && this.held.get(subscription.session)?.get(channel);
    if (held === undefined) return heard;
    if (held.gathered.size >= this.limits.backlogMessages) subscription.session.miss();
    else for (const each of heard.gathered) held.gathered.add(each);
    return undefined;
  }

  private forgetHeld(session: Session, name: Channel | Pattern): void {
    const channels = this.held.get(session);
    channels?.delete(name);
    if (channels?.size === 0) this.held.delete(session);
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

function appOf(name: Channel | Pattern): AppId {
  return name.slice(1, name.indexOf("/", 1)) as AppId;
}

/** Those that are not yet effective miss nothing. */
function missAll(subscriptions: ReadonlySet<Subscription> | undefined): void {
  for (const { session, isEffective } of subscriptions ?? []) if (isEffective) session.miss();
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
