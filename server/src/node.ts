/**
 * What this process can do for clients: sessions, subscriptions, publications, presence.
 * Knows nothing of Bayeux, HTTP or tokens: it is given a Grant and does the deed.
 */
import { randomFillSync } from "node:crypto";
import type { AppId, Channel, Grant, KeyId, ParsedChannel, Pattern } from "@pandapush/protocol";
import { ownText, parseChannel } from "@pandapush/protocol";
import { AddressCounter } from "./addresses.js";
import type { Broker, PublicationHandler } from "./broker/broker.js";
import { Refusal } from "./errors.js";
import { type AppView, Hub, type HubLimits } from "./hub.js";
import { after, type MaybePromise } from "./maybe-promise.js";
import type { Announce, Presence } from "./presence/presence.js";
import {
  type Encoder,
  type EndReason,
  type Publication,
  Session,
  type SessionLimits,
  type Subscription,
} from "./session.js";
import { inSlices } from "./slices.js";
import { batchesOf } from "./transports/transport.js";

export { maxListLength } from "./presence/presence.js";

export interface NodeLimits extends HubLimits {
  readonly outboxMessages: number;
  readonly outboxBytes: number;
  readonly subscriptionsPerSession: number;
  readonly sessionsPerAddress: number;
}

export interface NodeParts {
  /** Makes the broker, given what handles the publications that come back from it. */
  readonly createBroker: (handle: PublicationHandler) => Broker;
  readonly createPresence: (announce: Announce) => Presence;
  readonly limits: NodeLimits;
  /** A session ends this long after its last handshake or connect. */
  readonly sessionExpiryMs: number;
  readonly statisticsIntervalMs: number;
  /** Told of every session that ended. */
  readonly onSessionEnd?: (session: Session, reason: EndReason) => void;
  readonly logError: (error: unknown, what: string) => void;
}

/** What an application has published at this node, and how its totals stood at the last report. */
interface Traffic {
  published: number;
  reported: { at: number; published: number; delivered: number };
}

export class Node {
  /** Part of every clientId and publication id made here, so that other nodes know whose they are. */
  readonly id = randomText(5);
  private readonly sessions = new Map<string, Session>();
  private readonly addresses: AddressCounter;
  private readonly hub: Hub;
  private readonly broker: Broker;
  private readonly presence: Presence;
  private readonly traffic = new Map<AppId, Traffic>();
  private readonly statisticsTimer: NodeJS.Timeout;
  private readonly sessionLimits: SessionLimits;
  private publications = 0;

  constructor(private readonly parts: NodeParts) {
    this.sessionLimits = { ...parts.limits, expiryMs: parts.sessionExpiryMs };
    this.addresses = new AddressCounter(parts.limits.sessionsPerAddress);
    this.hub = new Hub(parts.limits);
    this.broker = parts.createBroker((appId, publication) => this.hub.receive(appId, publication));
    this.presence = parts.createPresence((appId, channel, data) =>
      this.supervise(this.send(appId, channel, data, undefined), "announce presence"),
    );
    this.statisticsTimer = setInterval(() => this.reportStatistics(), parts.statisticsIntervalMs);
    this.statisticsTimer.unref();
  }

  /**
   * Starts a session that nothing is subscribed in yet.
   * @param address the client's, counted against `sessionsPerAddress`
   * @throws Refusal `tooManySessions`
   */
  createSession(encoder: Encoder, address: string | undefined): Session {
    const { limits } = this.parts;
    if (!this.addresses.add(address)) {
      throw new Refusal(
        "tooManySessions",
        [],
        `An address may have ${limits.sessionsPerAddress} sessions; try again later.`,
      );
    }
    const session = new Session(
      // 160 random bits: the id is all that a client proves itself with.
      [this.id, randomText(20)].join(""),
      encoder,
      address,
      this.sessionLimits,
      (ended, reason) => this.afterEnd(ended, reason),
    );
    this.sessions.set(session.clientId, session);
    return session;
  }

  findSession(clientId: string): Session | undefined {
    return this.sessions.get(clientId);
  }

  get sessionCount(): number {
    return this.sessions.size;
  }

  /**
   * Effective when it returns (or resolves). Subscribing twice is the same as once.
   * @param listLength how many characters the list of a presence channel's members may have
   * @returns for a presence channel all its members as JSON text, `{"<id>":{…},…}`
   * @throws Refusal
   */
  subscribe(
    session: Session,
    channel: ParsedChannel,
    grant: Grant,
    listLength: number,
  ): MaybePromise<string | undefined> {
    const { subscriptionsPerSession } = this.parts.limits;
    const isNew = !session.subscriptions.has(channel.name);
    if (isNew && session.subscriptions.size >= subscriptionsPerSession) {
      throw new Refusal(
        "tooManySubscriptions",
        [],
        `A session may have ${subscriptionsPerSession} subscriptions; a pattern can stand for many channels.`,
      );
    }
    if (channel.kind === "presence" && !channel.isPattern) {
      const { presence } = grant;
      if (presence === undefined) throw new Refusal("noPresenceId");
      // The join is announced before this session hears the channel: it does not hear of itself.
      // PRES-3
      // One that is there already under another id changes it without hearing so. PRES-7
      const { appId, name } = channel;
      const join = (): MaybePromise<string> =>
        this.presence.join(appId, name, session.clientId, presence, listLength);
      const existing = session.subscriptions.get(name);
      const members = existing === undefined ? join() : this.hub.mute(existing, join);
      return after(members, (snapshot) =>
        after(this.hear(session, channel, grant.keyId, presence.id), () => snapshot),
      );
    }
    return after(this.hear(session, channel, grant.keyId), () => undefined);
  }

  /** Harmless when not subscribed. */
  unsubscribe(session: Session, name: string): void {
    const channel = parseChannel(name);
    if (channel === undefined || !session.subscriptions.has(channel.name)) return;
    if (this.hub.unsubscribe(session, channel.appId, channel.name)) {
      this.broker.unsubscribe(channel.appId, channel.name);
    }
    if (channel.kind === "presence" && !channel.isPattern) {
      const left = this.presence.leave(channel.appId, channel.name, session.clientId);
      this.supervise(left, "leave presence");
    }
  }

  /**
   * The one door into a channel: Bayeux and REST publishes come through here.
   * @param data JSON text, delivered as it is
   * @param ext JSON text of an object
   * @throws Refusal
   */
  publish(grant: Grant, channel: Channel, data: string, ext?: string): MaybePromise<void> {
    if (this.hub.isBusy(grant.appId)) throw new Refusal("busy", [channel]);
    if (isPresence(channel) && claimsMembership(data)) throw new Refusal("membershipPublish");
    this.trafficOf(grant.appId).published++;
    // It is kept until its slowest subscriber has it, and is part of a request that may be large.
    const ownExt = ext === undefined ? undefined : ownText(ext);
    return this.send(grant.appId, ownText(channel), ownText(data), ownExt);
  }

  /**
   * Ends every live subscription made with one of these keys, or in one of these applications,
   * and tells its client. A rare event: it looks at all subscriptions of this node, in slices,
   * for they may be many. Whoever revokes has seen to it that no new ones are permitted.
   */
  revoke({ appIds, keyIds }: { appIds: readonly AppId[]; keyIds: readonly KeyId[] }): void {
    for (const appId of appIds) this.traffic.delete(appId);
    const ended = this.endSubscriptions(new Set(appIds), new Set(keyIds));
    this.supervise(ended, "end revoked subscriptions");
  }

  /**
   * Ends what the session is subscribed to in this application, and tells its client. It goes on
   * in others, and may subscribe again. SUB-8
   */
  disconnect(session: Session, appId: AppId): void {
    const error = new Refusal("disconnected").toBayeux();
    this.endSubscriptionsOf(session, ({ name }) => (appOf(name) === appId ? error : undefined));
  }

  /** Who is subscribed to what at this node. */
  view(appId: AppId): AppView | undefined {
    return this.hub.view(appId);
  }

  /** Everyone on a presence channel, as JSON text: `{"<id>":{…},…}` */
  members(appId: AppId, channel: Channel): MaybePromise<string> {
    return this.presence.members(appId, channel);
  }

  /** How many are on each of these presence channels. */
  memberCounts(appId: AppId, channels: readonly Channel[]): MaybePromise<readonly number[]> {
    return this.presence.counts(appId, channels);
  }

  /** Ends all sessions. */
  async close(): Promise<void> {
    clearInterval(this.statisticsTimer);
    for (const session of [...this.sessions.values()]) session.end("shutdown");
    await this.broker.close();
  }

  private hear(
    session: Session,
    channel: ParsedChannel,
    keyId: KeyId | undefined,
    presenceId?: string,
  ): MaybePromise<void> {
    const isFirst = this.hub.subscribe(session, channel.appId, channel.name, keyId, presenceId);
    return isFirst ? this.broker.subscribe(channel.appId, channel.name) : undefined;
  }

  private send(
    appId: AppId,
    channel: Channel,
    data: string,
    ext: string | undefined,
  ): MaybePromise<void> {
    const id = `${this.id}-${(++this.publications).toString(36)}`;
    const publication: Publication = { id, channel, data, ext };
    return this.broker.publish(appId, publication);
  }

  private afterEnd(session: Session, reason: EndReason): void {
    this.sessions.delete(session.clientId);
    this.addresses.remove(session.address);
    for (const name of [...session.subscriptions.keys()]) this.unsubscribe(session, name);
    this.parts.onSessionEnd?.(session, reason);
  }

  private async endSubscriptions(
    appIds: ReadonlySet<string>,
    keyIds: ReadonlySet<KeyId | undefined>,
  ): Promise<void> {
    const appGone = new Refusal("unknownApplication").toBayeux();
    const keyGone = new Refusal("revokedKey").toBayeux();
    await inSlices(this.sessions.values(), (session) => {
      this.endSubscriptionsOf(session, ({ name, keyId }) => {
        if (appIds.has(appOf(name))) return appGone;
        return keyIds.has(keyId) ? keyGone : undefined;
      });
    });
  }

  /** @param errorOf why a subscription ends; undefined: it does not */
  private endSubscriptionsOf(
    session: Session,
    errorOf: (subscription: Subscription) => string | undefined,
  ): void {
    const { clientId, encoder } = session;
    const texts: string[] = [];
    for (const subscription of session.subscriptions.values()) {
      const error = errorOf(subscription);
      if (error === undefined) continue;
      const { name } = subscription;
      this.unsubscribe(session, name);
      texts.push(encoder.subscriptionEnded(clientId, name, error));
    }
    for (const batch of batchesOf(texts, encoder.join)) session.deliver(batch);
  }

  private trafficOf(appId: AppId): Traffic {
    let traffic = this.traffic.get(appId);
    if (traffic === undefined) {
      traffic = { published: 0, reported: { at: performance.now(), published: 0, delivered: 0 } };
      this.traffic.set(appId, traffic);
    }
    return traffic;
  }

  /** One event on `/<app>/meta/statistics` for each application where somebody listens. */
  private reportStatistics(): void {
    const at = performance.now();
    for (const [
      appId,
      { connections, subscriptions, channels, delivered },
    ] of this.hub.counters()) {
      const traffic = this.trafficOf(appId);
      const { published, reported } = traffic;
      const seconds = (at - reported.at) / 1000;
      traffic.reported = { at, published, delivered };
      const channel = `/${appId}/meta/statistics` as Channel;
      if (!this.hub.isHeard(appId, channel)) continue;
      const statistics = {
        connections,
        subscriptions,
        channels,
        published,
        delivered,
        publishedPerSecond: rate(published - reported.published, seconds),
        deliveredPerSecond: rate(delivered - reported.delivered, seconds),
      };
      const sent = this.send(appId, channel, JSON.stringify(statistics), undefined);
      this.supervise(sent, "publish statistics");
    }
  }

  /** Work that nobody waits for: its failure is logged. */
  private supervise(work: MaybePromise<unknown>, what: string): void {
    if (work instanceof Promise) work.catch((error: unknown) => this.parts.logError(error, what));
  }
}

function rate(count: number, seconds: number): number {
  return seconds > 0 ? Math.round((count / seconds) * 100) / 100 : 0;
}

function appOf(name: Channel | Pattern): string {
  return name.slice(1, name.indexOf("/", 1));
}

function isPresence(channel: Channel): boolean {
  return channel.startsWith("/presence", channel.indexOf("/", 1));
}

/** Only the server says who came and went on a presence channel. */
function claimsMembership(data: string): boolean {
  const value: unknown = JSON.parse(data);
  if (typeof value !== "object" || value === null || Array.isArray(value)) return false;
  return Object.hasOwn(value, "subscribe") || Object.hasOwn(value, "unsubscribe");
}

/** Asking the system for randomness costs more than all the rest of making an id. */
const randomPool = Buffer.alloc(4096);
let randomsUsed = randomPool.length;

/** Random text of `[a-z0-9]`, 8 bits of randomness for each byte. */
function randomText(bytes: number): string {
  if (randomsUsed + bytes > randomPool.length) {
    randomFillSync(randomPool);
    randomsUsed = 0;
  }
  const hex = randomPool.toString("hex", randomsUsed, randomsUsed + bytes);
  // Ids are bearer secrets: no second copy of one stays behind.
  randomPool.fill(0, randomsUsed, randomsUsed + bytes);
  randomsUsed += bytes;
  return BigInt(`0x${hex}`)
    .toString(36)
    .padStart(Math.ceil((bytes * 8) / Math.log2(36)), "0");
}
