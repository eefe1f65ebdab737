/**
 * What this process can do for clients: sessions, subscriptions, publications, presence.
 * Knows nothing of Bayeux, HTTP or tokens: it is given a Grant and does the deed.
 */
import { setTimeout as delay } from "node:timers/promises";
import type { AppId, Channel, Grant, KeyId, ParsedChannel, Pattern } from "@pandapush/protocol";
import { ownText, parseChannel } from "@pandapush/protocol";
import type { Broker, BrokerHandler } from "./broker/broker.js";
import { Refusal } from "./errors.js";
import { type AppView, type Backlog, Hub, type HubLimits } from "./hub.js";
import { AppLimiter, type LimitsOf } from "./limits.js";
import { after, type MaybePromise, orUndo } from "./maybe-promise.js";
import { NetworkCounter } from "./network.js";
import type { Announce, Presence } from "./presence/presence.js";
import { randomText } from "./random-text.js";
import {
  type ClientSession,
  type Encoder,
  type EndReason,
  type Floors,
  type Joined,
  type ListBudget,
  type Member,
  type Position,
  type Publication,
  Session,
  type SessionHome,
  type SessionLimits,
  type Sessions,
  type Subscribed,
  type Subscription,
} from "./session.js";
import { inSlices } from "./slices.js";
import { batchesOf, type Origin, type TransportKind } from "./transports/transport.js";

export { maxListLength } from "./presence/presence.js";

export interface NodeLimits extends HubLimits {
  readonly outboxMessages: number;
  readonly outboxBytes: number;
  readonly subscriptionsPerSession: number;
  readonly sessionsPerAddress: number;
}

export interface NodeParts {
  /** What this node is called among others; another one after it was declared dead. */
  readonly identity?: { readonly id: string };
  /** Makes the broker, given what handles the publications that come back from it. */
  readonly createBroker: (handler: BrokerHandler) => Broker;
  /** @param nextId makes an id for a publication */
  readonly createPresence: (announce: Announce, nextId: () => string) => Presence;
  readonly limits: NodeLimits;
  /** What applications may do beside these. Absent: whatever they like. */
  readonly limitsOf?: LimitsOf;
  /** A session ends this long after its last handshake or connect. */
  readonly sessionExpiryMs: number;
  readonly statisticsIntervalMs: number;
  /**
   * Where there are other nodes: told at each interval which applications' statistics are heard
   * here. Whoever is told sees to it that they are published, once.
   */
  readonly onStatisticsDue?: (heard: readonly AppId[]) => void;
  /** Told of every session that ended. */
  readonly onSessionEnd?: (session: Session, reason: EndReason) => void;
  /** Told how many publications of an application are delivered together, each time. */
  readonly onBatch?: (publications: number) => void;
  /** Publications of other nodes were lost: more waits for delivery here than may. */
  readonly onLoss?: (appId: AppId) => void;
  readonly logError: (error: unknown, what: string) => void;
  /** Told of each thing that clients do. Absent: nobody wants to know. */
  readonly trace?: ((what: string, fields: Readonly<Record<string, unknown>>) => void) | undefined;
}

/** What an application has done at this node. */
interface Traffic {
  published: number;
  /** Subscriptions that began and ended, but of `meta` channels. */
  subscribed: number;
  unsubscribed: number;
  /** Given to the broker and not yet taken. */
  untaken: number;
  untakenLength: number;
  /** How its totals stood at the end of the last interval. */
  counted: { at: number; published: number; delivered: number };
  /** Of the last interval. */
  publishedPerSecond: number;
  deliveredPerSecond: number;
}

/** What goes on in an application, in the words of the event. META-1 */
export interface Statistics {
  readonly connections: number;
  readonly subscriptions: number;
  readonly channels: number;
  readonly published: number;
  readonly delivered: number;
  readonly publishedPerSecond: number;
  readonly deliveredPerSecond: number;
}

/** What goes on in an application, and what has happened in it; those of `meta` channels do not count. */
export interface Activity extends Statistics {
  /** Subscriptions that clients began, and those that ended. */
  readonly subscribed: number;
  readonly unsubscribed: number;
}

/** What has happened at this node. A session that moves neither begins anything nor ends it. */
export interface Totals {
  /** Sessions, by a handshake. */
  begun: number;
  subscribed: number;
  unsubscribed: number;
  published: number;
  /** Channels and patterns of which something may have been missed, as the broker said. */
  missed: number;
}

/** How the sessions of this node are. */
export interface Census {
  /** How they are connected; those that are not are missing. */
  readonly transports: Readonly<Record<TransportKind, number>>;
  /** What waits for them, in characters of JSON text. */
  readonly waitingLength: number;
  /** The same of the one for which most waits. */
  readonly longestWaiting: number;
}

/** How long a session that goes to another node waits for its client to take what it was sent. */
const flushMs = 500;
/** Sessions counted between two looks at the clock. */
const sessionsBetweenLooks = 512;

/** What a session that goes to another node has subscribed to. */
export interface Interest {
  readonly name: Channel | Pattern;
  readonly keyId: KeyId | undefined;
  readonly member: Member | undefined;
  /** `Subscription.snapshot` */
  readonly snapshot: Position | undefined;
}

/** What it takes along. */
export interface Baggage {
  /** As it is at last: some may have ended since its interests were asked for. */
  readonly interests: readonly Interest[];
  /** What its client has been given, or is given by `waiting`. */
  readonly floors: Floors;
  readonly waiting: readonly string[];
  readonly sent: number;
  readonly isCounting: boolean;
  /** When it began, in ms since 1970. */
  readonly since: number;
  readonly address: string | undefined;
  readonly origin: Origin | undefined;
}

export class Node implements SessionHome, Sessions {
  private readonly ownId = randomText(5);
  private readonly sessions = new Map<string, Session>();
  /** Sessions that may come from other nodes, and who waits for each. */
  private readonly arriving = new Map<Session, (() => void)[]>();
  private readonly addresses: NetworkCounter;
  private readonly hub: Hub;
  private readonly broker: Broker;
  private readonly presence: Presence;
  private readonly traffic = new Map<AppId, Traffic>();
  private readonly limiter: AppLimiter;
  /** Why subscriptions were ended that somebody still waits for. */
  private readonly endings = new WeakMap<Subscription, Refusal>();
  private readonly statisticsTimer: NodeJS.Timeout;
  private readonly sessionLimits: SessionLimits;
  private publications = 0;
  private readonly counts: Totals = {
    begun: 0,
    subscribed: 0,
    unsubscribed: 0,
    published: 0,
    missed: 0,
  };

  /**
   * Part of every clientId and publication id made here, so that other nodes know whose they are.
   * Another one after this node was declared dead.
   */
  get id(): string {
    return this.parts.identity?.id ?? this.ownId;
  }

  constructor(private readonly parts: NodeParts) {
    this.sessionLimits = { ...parts.limits, expiryMs: parts.sessionExpiryMs };
    this.addresses = new NetworkCounter(parts.limits.sessionsPerAddress);
    this.hub = new Hub(parts.limits, parts.onBatch);
    this.limiter = new AppLimiter(parts.limitsOf ?? (() => undefined));
    this.broker = parts.createBroker({
      received: (appId, publication, position) => {
        if (!this.hub.receive(appId, publication, position)) parts.onLoss?.(appId);
      },
      missed: (appId, name) => {
        this.counts.missed++;
        this.hub.miss(appId, name);
      },
    });
    this.presence = parts.createPresence(
      (appId, channel, data) => this.announce(appId, channel, data),
      () => this.nextId(),
    );
    this.statisticsTimer = setInterval(() => this.countStatistics(), parts.statisticsIntervalMs);
    this.statisticsTimer.unref();
  }

  /**
   * Starts a session that nothing is subscribed in yet.
   * @param address the client's, counted against `sessionsPerAddress`
   * @throws Refusal `tooManySessions`
   */
  createSession(encoder: Encoder, address: string | undefined): Session {
    if (!this.addresses.add(address)) throw this.tooManySessions();
    const session = new Session(
      // 160 random bits: the id is all that a client proves itself with.
      [this.id, randomText(20)].join(""),
      encoder,
      address,
      this.sessionLimits,
      this,
    );
    this.sessions.set(session.clientId, session);
    this.counts.begun++;
    this.parts.trace?.("session began", { client: session.hash, address });
    return session;
  }

  findSession(clientId: string): Session | undefined {
    return this.sessions.get(clientId);
  }

  // A node that stands alone has all sessions that there are.

  ready(): void {}

  find(clientId: string): Session | undefined {
    return this.sessions.get(clientId);
  }

  fetch(clientId: string): Session | undefined {
    return this.sessions.get(clientId);
  }

  get sessionCount(): number {
    return this.sessions.size;
  }

  /** For `Session.subscribe`. */
  subscribe(
    session: Session,
    channel: ParsedChannel,
    grant: Grant,
    lists: ListBudget,
  ): MaybePromise<Subscribed> {
    // It may have ended while its key was looked up.
    if (session.hasEnded) throw new Refusal("unknownClient", [session.clientId]);
    const { subscriptionsPerSession } = this.parts.limits;
    const isNew = !session.subscriptions.has(channel.name);
    if (isNew && session.subscriptions.size >= subscriptionsPerSession) {
      throw new Refusal(
        "tooManySubscriptions",
        [],
        `A session may have ${subscriptionsPerSession} subscriptions; a pattern can stand for many channels.`,
      );
    }
    const { presence } = grant;
    const joins = isRoom(channel);
    if (joins && presence === undefined) throw new Refusal("noPresenceId");
    this.admit(session, channel);
    const subscription = this.hub.subscribe(session, channel.appId, channel.name, grant.keyId);
    const joined = this.untilEffective(subscription, channel, () =>
      after(this.broker.subscribe(channel.appId, channel.name), () => {
        if (!this.isLive(subscription) || !joins || presence === undefined) return undefined;
        return this.join(subscription, channel.appId, channel.name as Channel, presence, lists);
      }),
    );
    return after(joined, (members) => ({ isNew, joined: members }));
  }

  /** Harmless when not subscribed. */
  unsubscribe(session: Session, name: string): void {
    const channel = parseChannel(name);
    const subscription = channel && session.subscriptions.get(channel.name);
    if (channel === undefined || subscription === undefined) return;
    if (subscription.isEffective) this.countSubscription(subscription, channel, "unsubscribed");
    this.stopHearing(session, channel.name);
    if (isRoom(channel)) {
      const left = this.presence.leave(channel.appId, channel.name as Channel, session.clientId);
      this.supervise(left, "leave presence");
    }
  }

  /**
   * The one door into a channel: Bayeux and REST publishes come through here.
   * @param data JSON text, delivered as it is
   * @param ext JSON text of an object
   * @throws Refusal
   */
  publish(grant: Grant, channel: Channel, data: string, ext?: string): MaybePromise<unknown> {
    const traffic = this.trafficOf(grant.appId);
    this.limiter.checkSize(grant.appId, channel, data, ext);
    // What the broker has not taken will wait for delivery as well. PUB-9
    if (this.hub.isBusy(grant.appId, traffic.untaken, traffic.untakenLength)) {
      throw new Refusal("busy", [channel]);
    }
    this.limiter.countPublish(grant.appId, channel);
    if (isPresence(channel) && claimsMembership(data)) throw new Refusal("membershipPublish");
    traffic.published++;
    this.counts.published++;
    const { appId: app, keyId: key } = grant;
    this.parts.trace?.("published", { app, channel, key, length: data.length });
    // It is kept until its slowest subscriber has it, and is part of a request that may be large.
    const ownExt = ext === undefined ? undefined : ownText(ext);
    const taken = this.send(grant.appId, ownText(channel), ownText(data), ownExt);
    return taken instanceof Promise ? untilTaken(taken, traffic, data.length) : taken;
  }

  /**
   * Ends every live subscription made with one of these keys, or in one of these applications,
   * and tells its client. A rare event: it looks at all subscriptions of this node, in slices,
   * for they may be many. Whoever revokes has seen to it that no new ones are permitted.
   */
  revoke({ appIds, keyIds }: { appIds: readonly AppId[]; keyIds: readonly KeyId[] }): void {
    for (const appId of appIds) {
      this.traffic.delete(appId);
      this.limiter.forget(appId);
    }
    const ended = this.endSubscriptions(new Set(appIds), new Set(keyIds));
    this.supervise(ended, "end revoked subscriptions");
  }

  /**
   * Ends what the session is subscribed to in this application, and tells its client. It goes on
   * in others, and may subscribe again. SUB-8
   */
  disconnect(session: Session, appId: AppId): void {
    const reason = new Refusal("disconnected");
    this.endSubscriptionsOf(session, ({ name }) => (appOf(name) === appId ? reason : undefined));
  }

  /**
   * What a session would need at another node. It makes no new subscriptions from now on.
   * @param decided where it lives then. `Session.prepareToLeave`
   */
  async prepareToLeave(session: Session, decided: Promise<ClientSession>): Promise<Interest[]> {
    session.prepareToLeave(decided);
    await session.settled();
    return interestsOf(session);
  }

  /**
   * Ends a session here, to go on at another node. It stays present where it is, if it arrives there.
   * @throws Refusal `unknownClient` when it has ended meanwhile
   */
  async moveOut(session: Session): Promise<Baggage> {
    // The other node hears for it by now; this one may have to catch up with that moment first.
    if (!(await this.broker.caughtUp())) session.miss();
    const floors = await this.hub.silence(session);
    // What is half written would have to be taken back, and might come twice.
    await Promise.race([session.flushed(), delay(flushMs, undefined, { ref: false })]);
    if (session.hasEnded) throw new Refusal("unknownClient", [session.clientId]);
    const interests = interestsOf(session);
    for (const [appId, room] of roomsOf(interests)) {
      this.presence.forget(appId, room, session.clientId);
    }
    const { isCounting, since, address, origin } = session;
    const waiting = session.moveOut();
    const sent = session.sentCount;
    return { interests, floors, waiting, sent, isCounting, since, address, origin };
  }

  /**
   * Begins to hear for a session that may come from another node. What is unavailable it hears
   * later, and may have missed something of it.
   * @param address counted here from now on
   * @param isForced also when its address has no room
   * @returns resolves when it hears all that it can; what it hears waits until `moveIn`
   */
  async expect(
    clientId: string,
    encoder: Encoder,
    address: string | undefined,
    interests: readonly Interest[],
    isForced: boolean,
  ): Promise<Session> {
    const hasRoom = this.addresses.add(address);
    if (!hasRoom && !isForced) throw this.tooManySessions();
    const counted = hasRoom ? address : undefined;
    const session = new Session(clientId, encoder, counted, this.sessionLimits, this);
    this.arriving.set(session, []);
    this.hub.expect(session);
    const heard = interests.map(async ({ name, keyId, member }) => {
      const appId = appOf(name);
      const subscription = this.hub.subscribe(session, appId, name, keyId);
      subscription.member = member;
      subscription.isEffective = true;
      await this.broker.subscribe(appId, name);
    });
    for (const result of await Promise.allSettled(heard)) {
      if (result.status === "fulfilled") continue;
      session.miss();
      this.logFault(result.reason, "subscribe for a session that moves");
    }
    return session;
  }

  /** It does not come. */
  turnAway(session: Session): void {
    this.hub.settle(session, new Map());
    session.end("moved");
    this.hasArrived(session);
  }

  /** Waits for a session that is expected: afterwards it lives here, or does not come. */
  async arrival(session: Session): Promise<void> {
    await new Promise<void>((resolve) => {
      const waiting = this.arriving.get(session);
      if (waiting === undefined) resolve();
      else waiting.push(resolve);
    });
  }

  private hasArrived(session: Session): void {
    const waiting = this.arriving.get(session) ?? [];
    this.arriving.delete(session);
    for (const each of waiting) each();
  }

  /** The session lives here from now on, and is present where it was. */
  async moveIn(session: Session, baggage: Baggage): Promise<void> {
    session.isCounting = baggage.isCounting;
    session.since = baggage.since;
    if (baggage.origin !== undefined) session.notice(baggage.origin);
    session.moveIn(baggage.waiting, baggage.sent);
    this.sessions.set(session.clientId, session);
    const interests = new Map(baggage.interests.map((each) => [each.name, each]));
    for (const subscription of [...session.subscriptions.values()]) {
      const interest = interests.get(subscription.name);
      if (interest === undefined) this.stopHearing(session, subscription.name);
      else if (interest.snapshot !== undefined) subscription.snapshot = interest.snapshot;
    }
    this.hub.settle(session, baggage.floors);
    this.hasArrived(session);
    const joins = roomsOf(baggage.interests).map(([appId, room, member]) =>
      this.presence.adopt(appId, room, session.clientId, member),
    );
    const results = await Promise.allSettled(joins);
    for (const result of results) {
      if (result.status === "rejected") this.logFault(result.reason, "adopt presence");
    }
  }

  /** Ends what a key permitted to this session, for it was revoked. */
  endPermittedBy(session: Session, appId: AppId, keyId: KeyId | undefined): void {
    const reason = new Refusal("revokedKey");
    this.endSubscriptionsOf(session, (each) =>
      appOf(each.name) === appId && each.keyId === keyId ? reason : undefined,
    );
  }

  /** Of all sessions that live here. */
  clientIds(): string[] {
    return [...this.sessions.keys()];
  }

  /** Who is subscribed to what at this node. */
  view(appId: AppId): AppView | undefined {
    return this.hub.view(appId);
  }

  /** What goes on in an application at this node; the rates are those of the last interval. */
  statistics(appId: AppId): Statistics {
    const { delivered, ...sizes } = this.hub.countersOf(appId);
    const traffic = this.traffic.get(appId);
    return {
      ...sizes,
      published: traffic?.published ?? 0,
      delivered,
      publishedPerSecond: traffic?.publishedPerSecond ?? 0,
      deliveredPerSecond: traffic?.deliveredPerSecond ?? 0,
    };
  }

  get totals(): Readonly<Totals> {
    return this.counts;
  }

  get backlog(): Backlog {
    return this.hub.backlog;
  }

  /** Of every application in which something has happened here. */
  activities(): Map<AppId, Activity> {
    for (const [appId] of this.hub.counters()) this.trafficOf(appId);
    const activities = new Map<AppId, Activity>();
    for (const [appId, { subscribed, unsubscribed }] of this.traffic) {
      activities.set(appId, { ...this.statistics(appId), subscribed, unsubscribed });
    }
    return activities;
  }

  /** Looks at each session, in slices. */
  async census(): Promise<Census> {
    const transports = {
      websocket: 0,
      eventsource: 0,
      "long-polling": 0,
      "callback-polling": 0,
    };
    let waitingLength = 0;
    let longestWaiting = 0;
    await inSlices(
      this.sessions.values(),
      (session) => {
        const { transport, waitingLength: length } = session;
        if (transport !== undefined) transports[transport]++;
        waitingLength += length;
        if (length > longestWaiting) longestWaiting = length;
      },
      sessionsBetweenLooks,
    );
    return { transports, waitingLength, longestWaiting };
  }

  /** Those that hear an application's statistics get these. */
  publishStatistics(appId: AppId, statistics: Statistics): void {
    const sent = this.send(appId, statisticsOf(appId), JSON.stringify(statistics), undefined);
    this.supervise(sent, "publish statistics");
  }

  /** Everyone on a presence channel, as JSON text: `{"<id>":{…},…}` */
  members(appId: AppId, channel: Channel): MaybePromise<string> {
    return this.presence.members(appId, channel);
  }

  /** How many are on each of these presence channels. */
  memberCounts(appId: AppId, channels: readonly Channel[]): MaybePromise<readonly number[]> {
    return this.presence.counts(appId, channels);
  }

  /** Ends all sessions that live here. */
  endAll(reason: "shutdown" | "lost"): void {
    for (const session of [...this.sessions.values()]) session.end(reason);
  }

  async close(): Promise<void> {
    clearInterval(this.statisticsTimer);
    this.endAll("shutdown");
    await this.broker.close();
  }

  /**
   * A session that is new to an application has to fit into its limits. Whoever looks at `meta`
   * channels is always let in: an admin sees what goes on most of all when nothing fits any more.
   * @throws Refusal
   */
  private admit(session: Session, { appId, kind, name }: ParsedChannel): void {
    if (kind === "meta" || !this.limiter.hasGate(appId)) return;
    for (const other of session.subscriptions.keys()) {
      if (appOf(other) === appId && !isMeta(other)) return;
    }
    const sessions = this.hub.view(appId)?.sessions;
    const others = (sessions?.size ?? 0) - (sessions?.has(session) === true ? 1 : 0);
    this.limiter.countSession(appId, name, others);
  }

  /**
   * A subscription that fails before it was ever acknowledged goes, unless another request still
   * waits for it.
   */
  private untilEffective<T>(
    subscription: Subscription,
    channel: ParsedChannel,
    work: () => MaybePromise<T>,
  ): MaybePromise<T> {
    subscription.waiting++;
    const { session, name } = subscription;
    const done = orUndo(work, () => {
      subscription.waiting--;
      const { isEffective, waiting } = subscription;
      const isGone = session.subscriptions.get(name) !== subscription;
      if (!isEffective && waiting === 0 && !isGone) this.unsubscribe(session, name);
    });
    return after(done, (result) => {
      subscription.waiting--;
      const isThere = session.subscriptions.get(name) === subscription;
      if (isThere && !subscription.isEffective)
        this.countSubscription(subscription, channel, "subscribed");
      subscription.isEffective = true;
      return result;
    });
  }

  /**
   * False when its client has unsubscribed meanwhile.
   * @throws Refusal when the server has ended it
   */
  private isLive(subscription: Subscription): boolean {
    const { session, name } = subscription;
    const ending = this.endings.get(subscription);
    if (ending !== undefined) throw ending;
    if (session.hasEnded) throw new Refusal("unknownClient", [session.clientId]);
    return session.subscriptions.get(name) === subscription;
  }

  /** Heard first, joined then: no change that follows the list can be missed. PRES-3, PRES-4 */
  private join(
    subscription: Subscription,
    appId: AppId,
    channel: Channel,
    member: Member,
    lists: ListBudget,
  ): MaybePromise<Joined | undefined> {
    this.hub.hold(subscription);
    const release = (): void => this.hub.release(subscription, appId);
    return orUndo(() => {
      const { clientId } = subscription.session;
      const joined = this.presence.join(appId, channel, clientId, member, lists.left);
      return after(joined, ({ list, position }) => {
        if (!this.isLive(subscription)) return undefined;
        subscription.member = member;
        if (position !== undefined) subscription.snapshot = position;
        lists.left -= list.length;
        return { list, release };
      });
    }, release);
  }

  private tooManySessions(): Refusal {
    const { sessionsPerAddress } = this.parts.limits;
    return new Refusal(
      "tooManySessions",
      [],
      `An address may have ${sessionsPerAddress} sessions; try again later.`,
    );
  }

  private countSubscription(
    { session, keyId: key }: Subscription,
    { name: channel, appId, kind }: ParsedChannel,
    what: "subscribed" | "unsubscribed",
  ): void {
    this.counts[what]++;
    if (kind !== "meta") this.trafficOf(appId)[what]++;
    this.parts.trace?.(what, { client: session.hash, app: appId, channel, key });
  }

  private stopHearing(session: Session, name: Channel | Pattern): void {
    const appId = appOf(name);
    if (this.hub.unsubscribe(session, appId, name)) this.broker.unsubscribe(appId, name);
  }

  private send(
    appId: AppId,
    channel: Channel,
    data: string,
    ext: string | undefined,
    isMembership?: boolean,
  ): MaybePromise<Position> {
    const publication: Publication = { id: this.nextId(), channel, data, ext, isMembership };
    return this.broker.publish(appId, publication);
  }

  private nextId(): string {
    return `${this.id}-${(++this.publications).toString(36)}`;
  }

  private announce(
    appId: AppId,
    channel: Channel,
    data: string,
  ): MaybePromise<Position | undefined> {
    const sent = this.send(appId, channel, data, undefined, true);
    if (!(sent instanceof Promise)) return sent;
    return sent.catch((error: unknown) => {
      this.logFault(error, "announce presence");
      return undefined;
    });
  }

  /** For `Session.end`. */
  ended(session: Session, reason: EndReason): void {
    this.sessions.delete(session.clientId);
    this.addresses.remove(session.address);
    for (const name of [...session.subscriptions.keys()]) {
      if (reason === "moved") this.stopHearing(session, name);
      else this.unsubscribe(session, name);
    }
    this.parts.onSessionEnd?.(session, reason);
  }

  private async endSubscriptions(
    appIds: ReadonlySet<string>,
    keyIds: ReadonlySet<KeyId | undefined>,
  ): Promise<void> {
    const appGone = new Refusal("unknownApplication");
    const keyGone = new Refusal("revokedKey");
    await inSlices(this.sessions.values(), (session) => {
      this.endSubscriptionsOf(session, ({ name, keyId }) => {
        if (appIds.has(appOf(name))) return appGone;
        return keyIds.has(keyId) ? keyGone : undefined;
      });
    });
  }

  /** @param reasonOf why a subscription ends; undefined: it does not */
  private endSubscriptionsOf(
    session: Session,
    reasonOf: (subscription: Subscription) => Refusal | undefined,
  ): void {
    const { clientId, encoder } = session;
    const texts: string[] = [];
    for (const subscription of session.subscriptions.values()) {
      const reason = reasonOf(subscription);
      if (reason === undefined) continue;
      const { name } = subscription;
      if (subscription.waiting > 0) this.endings.set(subscription, reason);
      this.unsubscribe(session, name);
      texts.push(encoder.subscriptionEnded(clientId, name, reason.toBayeux()));
    }
    for (const batch of batchesOf(texts, encoder.join)) session.deliver(batch);
  }

  private trafficOf(appId: AppId): Traffic {
    let traffic = this.traffic.get(appId);
    if (traffic === undefined) {
      traffic = {
        published: 0,
        subscribed: 0,
        unsubscribed: 0,
        untaken: 0,
        untakenLength: 0,
        counted: { at: performance.now(), published: 0, delivered: 0 },
        publishedPerSecond: 0,
        deliveredPerSecond: 0,
      };
      this.traffic.set(appId, traffic);
    }
    return traffic;
  }

  /** An interval is over. */
  private countStatistics(): void {
    const heard: AppId[] = [];
    for (const [appId] of this.hub.counters()) {
      this.trafficOf(appId);
      if (this.hub.isHeard(appId, statisticsOf(appId))) heard.push(appId);
    }
    const at = performance.now();
    for (const [appId, traffic] of this.traffic) {
      const { published, counted } = traffic;
      const { delivered } = this.hub.countersOf(appId);
      const seconds = (at - counted.at) / 1000;
      traffic.publishedPerSecond = rate(published - counted.published, seconds);
      traffic.deliveredPerSecond = rate(delivered - counted.delivered, seconds);
      traffic.counted = { at, published, delivered };
    }
    const { onStatisticsDue } = this.parts;
    if (onStatisticsDue !== undefined) onStatisticsDue(heard);
    else for (const appId of heard) this.publishStatistics(appId, this.statistics(appId));
  }

  /** Work that nobody waits for. */
  private supervise(work: MaybePromise<unknown>, what: string): void {
    if (work instanceof Promise) work.catch((error: unknown) => this.logFault(error, what));
  }

  /** A broker that is unavailable says so itself, once; what it refuses can be much. */
  private logFault(error: unknown, what: string): void {
    if (!(error instanceof Refusal)) this.parts.logError(error, what);
  }
}

function untilTaken<T>(taken: Promise<T>, traffic: Traffic, length: number): Promise<T> {
  traffic.untaken++;
  traffic.untakenLength += length;
  return taken.finally(() => {
    traffic.untaken--;
    traffic.untakenLength -= length;
  });
}

function rate(count: number, seconds: number): number {
  return seconds > 0 ? Math.round((count / seconds) * 100) / 100 : 0;
}

function statisticsOf(appId: AppId): Channel {
  return `/${appId}/meta/statistics` as Channel;
}

function appOf(name: string): AppId {
  return name.slice(1, name.indexOf("/", 1)) as AppId;
}

function isRoom({ kind, isPattern }: ParsedChannel): boolean {
  return kind === "presence" && !isPattern;
}

function roomsOf(interests: readonly Interest[]): [AppId, Channel, Member][] {
  const rooms: [AppId, Channel, Member][] = [];
  for (const { name, member } of interests) {
    if (member !== undefined) rooms.push([appOf(name), name as Channel, member]);
  }
  return rooms;
}

function interestsOf(session: Session): Interest[] {
  return Array.from(session.subscriptions.values(), ({ name, keyId, member, snapshot }) => ({
    name,
    keyId,
    member,
    snapshot,
  }));
}

function isPresence(channel: Channel): boolean {
  return channel.startsWith("/presence", channel.indexOf("/", 1));
}

function isMeta(name: Channel | Pattern): boolean {
  return name.startsWith("/meta/", name.indexOf("/", 1));
}

/** Only the server says who came and went on a presence channel. */
function claimsMembership(data: string): boolean {
  const value: unknown = JSON.parse(data);
  if (typeof value !== "object" || value === null || Array.isArray(value)) return false;
  return Object.hasOwn(value, "subscribe") || Object.hasOwn(value, "unsubscribe");
}
