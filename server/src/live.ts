/**
 * What goes on in an application at this moment, for its admins and back ends to look at and to
 * end. Asked rarely: a query looks at all there is, instead of clients paying for indexes.
 */
import {
  type AppId,
  type Channel,
  type ParsedChannel,
  type Pattern,
  parseChannel,
} from "@pandapush/protocol";
import { Refusal } from "./errors.js";
import { shownAddress } from "./network.js";
import type { Node } from "./node.js";
import type { RefusalLog, Refused } from "./refusals.js";
import type { Session, Subscription } from "./session.js";
import { inSlices } from "./slices.js";
import type { TransportKind } from "./transports/transport.js";

/** A part of a list. */
export interface Window {
  readonly limit: number;
  readonly offset: number;
}

/** An answer for which several nodes may have been asked. */
export interface Gathered {
  /** What is missing in it and why, for people: `1 of 3 nodes did not answer`. Absent: nothing. */
  readonly incomplete?: string | undefined;
}

export interface Listed<T> extends Gathered {
  readonly items: readonly T[];
  /** How many there are in all. */
  readonly total: number;
}

export interface ActiveChannel {
  readonly channel: Channel | Pattern;
  /** Sessions that subscribed to exactly this name. */
  readonly subscribers: number;
  /** Ids that are present; undefined for what is no presence channel. */
  readonly members: number | undefined;
}

export interface ChannelInfo extends ActiveChannel {
  /** Sessions that would hear a publication, by patterns too, each once. A pattern's subscribers. */
  readonly listeners: number;
}

export interface Disconnected extends Gathered {
  /** How many sessions that were. */
  readonly count: number;
}

/** A session with a subscription in the application. */
export interface Connection {
  /** Stays the same as long as the session; the same that logs show. */
  readonly id: string;
  /** How it is connected now; undefined while its socket or stream is lost. */
  readonly transport: TransportKind | undefined;
  /** When it began, in ms since 1970. */
  readonly since: number;
  readonly userAgent: string | undefined;
  readonly address: string | undefined;
  /** In this application; the first `maxShownSubscriptions` of them. */
  readonly subscriptions: readonly (Channel | Pattern)[];
  readonly subscriptionCount: number;
  /** The ids that it is present as, at most `maxShownIds`. */
  readonly presence: readonly string[];
}

/**
 * Answers are of one moment, or of several close by when there is much to look at, or several nodes
 * to ask. What a node does not tell in time is missing, and the answer says so.
 * @throws Refusal `unavailable` when an application asks too much at once (all of them reject)
 */
export interface Live {
  /**
   * What somebody is subscribed to, patterns too; the busiest first, then by name.
   * @param filter.prefix of what follows `/<appId>/`
   */
  channels(
    appId: AppId,
    filter: { readonly prefix: string } & Window,
  ): Promise<Listed<ActiveChannel>>;
  /** Zeros where nobody is. */
  channel(channel: ParsedChannel): Promise<ChannelInfo & Gathered>;
  /** Who is on a presence channel, as JSON text: `{"<id>":{…},…}`. */
  members(appId: AppId, channel: Channel): Promise<string>;
  /**
   * The newest first.
   * @param filter.search a part of anything that a connection shows; upper and lower case are the same
   */
  connections(
    appId: AppId,
    filter: { readonly search: string } & Window,
  ): Promise<Listed<Connection>>;
  /**
   * Ends all that a session is subscribed to in this application, and tells its client. SUB-8
   * @returns 0 when there is none of this id
   */
  disconnect(appId: AppId, connectionId: string): Promise<Disconnected>;
  /** The same for all sessions that are present in this application as this user. */
  disconnectUser(appId: AppId, presenceId: string): Promise<Disconnected>;
  /** What was refused lately, the last first. */
  refusals(appId: AppId, window: Window): Promise<Listed<Refused>>;
}

export const maxShownSubscriptions = 100;
export const maxShownIds = 10;
/** Subscriptions or sessions looked at between two looks at the clock. */
const betweenLooks = 8;

/** Of this node alone. */
export class LocalLive implements Live {
  private readonly looks = new Looks();
  private lastScan: Promise<void> = Promise.resolve();

  constructor(
    private readonly node: Node,
    private readonly refusalLog: RefusalLog,
  ) {}

  async channels(
    appId: AppId,
    { prefix, ...window }: { readonly prefix: string } & Window,
  ): Promise<Listed<ActiveChannel>> {
    const { items, total } = await this.names(appId, prefix, window);
    return { items: await this.withMembers(appId, items), total };
  }

  /** `channels` without who is present. */
  async names(appId: AppId, prefix: string, window: Window): Promise<Listed<NamedCount>> {
    const start = `/${appId}/${prefix}`;
    const busiest = new Best<NamedCount>(window, ({ name }) => name, byCountThenName);
    const channels = this.node.view(appId)?.channels ?? [];
    await this.scan(appId, channels, ([name, { size }]) => {
      if (name.startsWith(start)) busiest.add({ name, count: size });
    });
    return { items: busiest.items(), total: busiest.total };
  }

  /** Adds who is present, by ids. */
  async withMembers(appId: AppId, names: readonly NamedCount[]): Promise<ActiveChannel[]> {
    const rooms = names.map(({ name }) => name).filter(isRoom);
    const counts = await this.node.memberCounts(appId, rooms);
    const members = new Map<string, number | undefined>(
      rooms.map((room, index) => [room, counts[index]]),
    );
    return names.map(({ name, count }) => ({
      channel: name,
      subscribers: count,
      members: members.get(name),
    }));
  }

  async channel({ appId, name, isPattern }: ParsedChannel): Promise<ChannelInfo> {
    const app = this.node.view(appId);
    const subscribers = app?.channels.get(name)?.size ?? 0;
    const [members] = isRoom(name) ? await this.node.memberCounts(appId, [name]) : [];
    const sets = isPattern || app === undefined ? [] : app.audience(name);
    const listeners = isPattern ? subscribers : await this.countSessions(appId, sets);
    return { channel: name, subscribers, listeners, members };
  }

  async members(appId: AppId, channel: Channel): Promise<string> {
    return this.node.members(appId, channel);
  }

  async connections(
    appId: AppId,
    { search, ...window }: { readonly search: string } & Window,
  ): Promise<Listed<Connection>> {
    const newest = await this.newest(appId, search, window);
    const items: Connection[] = [];
    await this.scan(appId, newest.items, (session) => {
      const connection = toConnection(session, appId);
      // It may have left meanwhile.
      if (connection.subscriptionCount > 0) items.push(connection);
    });
    return { items, total: newest.total };
  }

  /** Since when the connections are there that `connections` gives, in ms since 1970. */
  async ages(appId: AppId, search: string, window: Window): Promise<Listed<number>> {
    const { items, total } = await this.newest(appId, search, window);
    return { items: items.map(({ since }) => since), total };
  }

  disconnect(appId: AppId, connectionId: string): Promise<Disconnected> {
    return this.disconnectWhere(appId, ({ hash }) => hash === connectionId);
  }

  disconnectUser(appId: AppId, presenceId: string): Promise<Disconnected> {
    return this.disconnectWhere(appId, (session) => {
      for (const each of subscriptionsIn(session, appId)) {
        if (each.member?.id === presenceId) return true;
      }
      return false;
    });
  }

  async refusals(appId: AppId, { limit, offset }: Window): Promise<Listed<Refused>> {
    const all = this.refusalLog.list(appId);
    return { items: all.slice(offset, offset + limit), total: all.length };
  }

  private async newest(appId: AppId, search: string, window: Window): Promise<Listed<Session>> {
    const text = search.toLowerCase();
    const newest = new Best<Session>(window, ({ clientId }) => clientId, byAge);
    await this.scan(appId, this.sessions(appId), (session) => {
      // Others are listed where they come from.
      if (!this.lives(session)) return;
      if (text === "" || shows(session, appId, text)) newest.add(session);
    });
    return { items: newest.items(), total: newest.total };
  }

  private async disconnectWhere(
    appId: AppId,
    isMeant: (session: Session) => boolean,
  ): Promise<Disconnected> {
    let count = 0;
    const arriving: Session[] = [];
    const visit = (session: Session): void => {
      if (!this.lives(session)) arriving.push(session);
      else if (isMeant(session)) {
        this.node.disconnect(session, appId);
        count++;
      }
    };
    await this.scan(appId, this.sessions(appId), visit);
    // What is ended at the node that it comes from does not arrive, and counts there.
    await Promise.all(arriving.map((session) => this.node.arrival(session)));
    await this.scan(
      appId,
      arriving.filter((session) => this.lives(session)),
      visit,
    );
    return { count };
  }

  /** Not so one that is about to come from another node. */
  private lives(session: Session): boolean {
    return this.node.findSession(session.clientId) === session;
  }

  private sessions(appId: AppId): Iterable<Session> {
    return this.node.view(appId)?.sessions.keys() ?? [];
  }

  private async countSessions(
    appId: AppId,
    sets: readonly ReadonlySet<Subscription>[],
  ): Promise<number> {
    const [only, ...others] = sets;
    if (only === undefined) return 0;
    // Whoever is in several sets counts once; within one a session is once.
    if (others.length === 0) return only.size;
    const sessions = new Set<Session>();
    for (const set of sets) await this.scan(appId, set, ({ session }) => sessions.add(session));
    return sessions.size;
  }

  /** One after the other, so that however many ask, everybody else waits for one slice at a time. */
  private async scan<T>(appId: AppId, items: Iterable<T>, visit: (item: T) => void): Promise<void> {
    const done = this.looks.begin(appId);
    const scan = this.lastScan.then(() => inSlices(items, visit, betweenLooks));
    this.lastScan = scan.catch(() => undefined);
    try {
      await scan;
    } finally {
      done();
    }
  }
}

/** Looks at all channels or connections of one application that run or wait. LIM-9 */
const maxLooks = 16;

/** So many at once for each application. */
export class Looks {
  private readonly running = new Map<AppId, number>();

  /**
   * @returns to be called when it is over
   * @throws Refusal `unavailable`
   */
  begin(appId: AppId): () => void {
    const running = this.running.get(appId) ?? 0;
    if (running >= maxLooks) {
      throw new Refusal(
        "unavailable",
        [],
        `An application may ask ${maxLooks} things at once about its channels and connections; try again in a moment.`,
      );
    }
    this.running.set(appId, running + 1);
    return () => {
      const rest = (this.running.get(appId) ?? 1) - 1;
      if (rest > 0) this.running.set(appId, rest);
      else this.running.delete(appId);
    };
  }
}

export interface NamedCount {
  readonly name: Channel | Pattern;
  readonly count: number;
}

/** Those of a list that are in a window of it, found without sorting all of the list. */
export class Best<T> {
  private added = 0;
  private kept: T[] = [];
  private worst: T | undefined;
  private readonly size: number;

  /** @param keyOf tells items apart: what leaves a list and returns may be seen twice on the way */
  constructor(
    private readonly window: Window,
    private readonly keyOf: (item: T) => unknown,
    private readonly order: (one: T, other: T) => number,
  ) {
    this.size = window.offset + window.limit;
  }

  get total(): number {
    return this.added;
  }

  add(item: T): void {
    this.added++;
    if (this.worst !== undefined && this.order(item, this.worst) >= 0) return;
    this.kept.push(item);
    if (this.kept.length >= 2 * this.size) this.settle();
  }

  items(): T[] {
    this.settle();
    return this.kept.slice(this.window.offset);
  }

  private settle(): void {
    const byKey = new Map(this.kept.map((item) => [this.keyOf(item), item]));
    this.kept = [...byKey.values()].sort(this.order).slice(0, this.size);
    if (this.kept.length === this.size) this.worst = this.kept.at(-1);
  }
}

export function byCountThenName(one: NamedCount, other: NamedCount): number {
  return other.count - one.count || compare(one.name, other.name);
}

function byAge(one: Session, other: Session): number {
  return other.since - one.since || compare(one.clientId, other.clientId);
}

/** By code units: the same everywhere, and quick. */
function compare(one: string, other: string): number {
  return one < other ? -1 : Number(one > other);
}

/** Whether ids are present there. */
function isRoom(name: Channel | Pattern): name is Channel {
  const channel = parseChannel(name);
  return channel?.kind === "presence" && !channel.isPattern;
}

function* subscriptionsIn(session: Session, appId: AppId): Generator<Subscription> {
  const start = `/${appId}/`;
  for (const subscription of session.subscriptions.values()) {
    if (subscription.name.startsWith(start)) yield subscription;
  }
}

function toConnection(session: Session, appId: AppId): Connection {
  const subscriptions: (Channel | Pattern)[] = [];
  const presence = new Set<string>();
  let subscriptionCount = 0;
  for (const { name, member } of subscriptionsIn(session, appId)) {
    subscriptionCount++;
    if (subscriptions.length < maxShownSubscriptions) subscriptions.push(name);
    if (member !== undefined && presence.size < maxShownIds) presence.add(member.id);
  }
  return {
    id: session.hash,
    transport: session.transport,
    since: session.since,
    userAgent: session.userAgent,
    address: shownAddress(session.lastAddress),
    subscriptions,
    subscriptionCount,
    presence: [...presence],
  };
}

/** @param text in lower case */
function shows(session: Session, appId: AppId, text: string): boolean {
  const has = (value: string | undefined): boolean => value?.toLowerCase().includes(text) === true;
  if (has(session.transport) || has(session.userAgent) || has(shownAddress(session.lastAddress)))
    return true;
  if (isPartOfHash(text) && has(session.hash)) return true;
  for (const { name, member } of subscriptionsIn(session, appId)) {
    if (has(name) || has(member?.id)) return true;
  }
  return false;
}

/** Hashing every session is most of the work of a search, and most searches are for words. */
function isPartOfHash(text: string): boolean {
  return /^[0-9a-f]{1,16}$/.test(text);
}
