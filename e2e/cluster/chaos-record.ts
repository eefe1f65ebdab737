/** What was published and heard in a chaos test, and what is wrong with it. Knows no server. */
import { type Channel, expand } from "@pandapush/protocol";
import type { Message } from "../../server/test/harness.js";

/** Something that was published, or may have been. */
export interface Publication {
  /** Stands in its data. */
  readonly key: string;
  readonly channel: string;
  /** Who published it, one after the other. */
  readonly lane: string;
  readonly sentAt: number;
  /** When it was answered as taken; what was refused or not answered may be heard all the same. */
  takenAt?: number;
}

/** A subscription as its client sees it. All times are those of the client. */
export interface Interest {
  readonly name: string;
  readonly askedAt: number;
  effectiveAt?: number;
  endAskedAt?: number;
  endedAt?: number;
  /** Whom it makes present. */
  readonly memberId?: string;
}

interface Hearing {
  readonly key: string;
  readonly at: number;
  readonly isPolled: boolean;
}

/** Joins and leaves as one session hears them by its patterns. */
class Roll {
  /** Room and id of whom it takes to be there; undefined until somebody has told it. */
  present: Set<string> | undefined;
  readonly faults: string[] = [];

  note(room: string, data: Record<string, Record<string, unknown>>): void {
    if (this.present === undefined) return;
    for (const id of Object.keys(data.subscribe ?? {})) {
      if (this.present.has(`${room} ${id}`)) this.faults.push(`${id} joined ${room} twice`);
      this.present.add(`${room} ${id}`);
    }
    for (const id of Object.keys(data.unsubscribe ?? {})) {
      if (!this.present.delete(`${room} ${id}`)) this.faults.push(`${id} left ${room} twice`);
    }
  }
}

/** One session, from its handshake to its end. */
export class SessionRecord {
  readonly beganAt = performance.now();
  /** When its client was told that it is no more. */
  endedAt: number | undefined;
  readonly interests: Interest[] = [];
  /** Names of which requests were not answered: they may be acted on at any time. */
  readonly unsure = new Set<string>();
  readonly heard = new Map<string, Hearing[]>();
  /** What its client did, for people. */
  readonly story: string[] = [];
  readonly roll = new Roll();
  /** Its client ends it. */
  isLeaving = false;
  /** Ports of the nodes that it may live at. */
  homes: Set<number>;
  /** When the last connect was sent that was answered well. */
  seenAt = 0;
  /** How many messages it was sent by CON-11, less those that it received: when it was seen last. */
  excess = 0;
  /** The same when all was last known to be well. */
  formerExcess = 0;
  private received = 0;
  private readonly hearings = new Map<string, Hearing>();

  constructor(
    readonly name: string,
    readonly clientId: string,
    bornAt: number,
    private readonly record: ChaosRecord,
  ) {
    this.homes = new Set([bornAt]);
  }

  /** Whether the server has told it that it missed something since all was well. */
  get hasGap(): boolean {
    return this.excess > this.formerExcess;
  }

  get effective(): Interest[] {
    return this.interests.filter(
      ({ effectiveAt, endAskedAt }) => effectiveAt !== undefined && endAskedAt === undefined,
    );
  }

  tell(what: string): void {
    this.story.push(`${this.record.seconds()} s: ${what}`);
  }

  noteSent(sent: number, connectSentAt: number): void {
    this.excess = sent - this.received;
    this.seenAt = connectSentAt;
  }

  hear(message: Message, isPolled: boolean): void {
    const { id, channel = "", data } = message;
    if (channel.startsWith("/meta/")) {
      this.record.complain(`${this.name} was told ${JSON.stringify(message)}`);
      return;
    }
    const now = performance.now();
    const before = this.hearings.get(String(id));
    if (before !== undefined) {
      this.record.repeated(this, before, { key: before.key, at: now, isPolled });
      return;
    }
    this.received++;
    const content = data as { p?: string } & Record<string, Record<string, unknown>>;
    const key = content.p ?? `${channel} ${String(id)}`;
    const hearing = { key, at: now, isPolled };
    this.tell(`heard ${key} ${isPolled ? "polled" : "pushed"}`);
    this.hearings.set(String(id), hearing);
    const publication = this.record.publications.get(key);
    if (content.p === undefined) this.roll.note(channel, content);
    else if (publication?.channel !== channel || !this.record.isIdOf(String(id), key)) {
      this.record.complain(`${this.name} heard ${JSON.stringify(message)}: nobody published that`);
    }
    this.requireInterest(channel, publication);
    const others = this.heard.get(channel);
    if (others === undefined) this.heard.set(channel, [hearing]);
    else others.push(hearing);
  }

  /** Publications since then that it should have heard, and did not. */
  missing(since: number): string[] {
    const wanted = this.effective.filter(({ name }) => !this.unsure.has(name));
    const missing: string[] = [];
    for (const { key, channel, sentAt, takenAt } of this.record.publications.values()) {
      if (sentAt < since || takenAt === undefined) continue;
      const isWanted = wanted.some(
        ({ name, effectiveAt = Number.POSITIVE_INFINITY }) =>
          covers(name, channel) && effectiveAt < sentAt,
      );
      if (isWanted && !this.heard.get(channel)?.some((each) => each.key === key)) missing.push(key);
    }
    return missing;
  }

  private requireInterest(channel: string, publication: Publication | undefined): void {
    const { sentAt = Number.NEGATIVE_INFINITY } = publication ?? {};
    const isWanted = this.interests.some(
      ({ name, endedAt = Number.POSITIVE_INFINITY }) =>
        covers(name, channel) && (sentAt < endedAt || this.unsure.has(name)),
    );
    if (!isWanted && !this.unsure.has(channel)) {
      this.unsure.add(channel);
      this.record.complain(
        `${this.name} heard ${publication?.key ?? channel} without being subscribed`,
      );
    }
  }
}

/** Whether a subscription to `name` hears `channel`. */
function covers(name: string, channel: string): boolean {
  const names: readonly string[] = expand(channel as Channel);
  return names.includes(name);
}

export class ChaosRecord {
  readonly publications = new Map<string, Publication>();
  readonly sessions: SessionRecord[] = [];
  readonly complaints: string[] = [];
  readonly counts = new Map<string, number>();
  readonly beganAt = performance.now();
  private readonly keys = new Map<string, string>();
  private readonly lanes = new Map<string, number>();

  /** @param isTroubled whether there was any fault between these times */
  constructor(private readonly isTroubled: (from: number, to: number) => boolean) {}

  complain(what: string): void {
    this.complaints.push(`${this.seconds()} s: ${what}`);
  }

  seconds(time = performance.now()): string {
    return ((time - this.beganAt) / 1_000).toFixed(1);
  }

  count(what: string, by = 1): void {
    this.counts.set(what, (this.counts.get(what) ?? 0) + by);
  }

  /** It is about to be sent. */
  publication(lane: string, channel: string): Publication {
    const number = (this.lanes.get(lane) ?? 0) + 1;
    this.lanes.set(lane, number);
    const sentAt = performance.now();
    const publication: Publication = { key: `${lane}-${number}`, channel, lane, sentAt };
    this.publications.set(publication.key, publication);
    return publication;
  }

  /** An id belongs to one publication, and a publication has one id. */
  isIdOf(id: string, key: string): boolean {
    const known = this.keys.get(id) ?? this.keys.get(key);
    if (known === undefined) {
      this.keys.set(id, key);
      this.keys.set(key, id);
      return true;
    }
    return this.keys.get(id) === key && this.keys.get(key) === id;
  }

  /**
   * A poll that was answered by another node than its session's is put back when that node's word
   * for it was lost: only then, and only in times of trouble, may something come twice.
   */
  repeated({ name }: SessionRecord, first: Hearing, second: Hearing): void {
    const { key } = first;
    const isAllowed = first.isPolled && this.isTroubled(first.at - confirmMs, second.at);
    if (isAllowed) this.count("repetitions of what was not known to have arrived");
    else this.complain(`${name} heard ${key} twice, ${Math.round(second.at - first.at)} ms apart`);
  }

  /** Per channel there is one order that all sessions and all publishers agree with. */
  checkOrder(): void {
    const channels = new Map<string, Order[]>();
    const add = (channel: string, order: Order): void => {
      const others = channels.get(channel);
      if (others === undefined) channels.set(channel, [order]);
      else others.push(order);
    };
    for (const { heard, name } of this.sessions) {
      for (const [channel, hearings] of heard) {
        add(channel, { by: name, keys: hearings.map(({ key }) => key) });
      }
    }
    const lanes = new Map<string, string[]>();
    for (const { key, channel, lane, takenAt } of this.publications.values()) {
      if (takenAt === undefined) continue;
      let keys = lanes.get(`${lane} ${channel}`);
      if (keys === undefined) {
        keys = [];
        lanes.set(`${lane} ${channel}`, keys);
        add(channel, { by: `publisher ${lane}`, keys });
      }
      keys.push(key);
    }
    for (const [channel, orders] of channels) {
      if (haveCommonOrder(orders)) continue;
      this.complain(`${channel}: no order that all agree with: ${contradictionOf(orders)}`);
    }
  }
}

/** How long an owner waits for another node's word. */
const confirmMs = 12_000;

/** What came in which order at a session, or from a publisher. */
interface Order {
  readonly by: string;
  readonly keys: readonly string[];
}

function haveCommonOrder(orders: readonly Order[]): boolean {
  const before = new Map<string, number>();
  const after = new Map<string, string[]>();
  for (const { keys } of orders) {
    for (const [index, key] of keys.entries()) {
      before.set(key, (before.get(key) ?? 0) + (index > 0 ? 1 : 0));
      const previous = keys[index - 1];
      if (previous === undefined) continue;
      const followers = after.get(previous);
      if (followers === undefined) after.set(previous, [key]);
      else followers.push(key);
    }
  }
  const free = [...before].filter(([, count]) => count === 0).map(([key]) => key);
  for (const key of free) {
    for (const follower of after.get(key) ?? []) {
      const left = (before.get(follower) ?? 0) - 1;
      before.set(follower, left);
      if (left === 0) free.push(follower);
    }
  }
  return free.length === before.size;
}

/** Two that do not agree, if any two are enough. */
function contradictionOf(orders: readonly Order[]): string {
  for (const [index, one] of orders.entries()) {
    const places = new Map(one.keys.map((key, place) => [key, place]));
    for (const other of orders.slice(index + 1)) {
      const common = other.keys.filter((key) => places.has(key));
      for (const [at, key] of common.entries()) {
        const next = common[at + 1];
        if (next === undefined || (places.get(key) ?? 0) < (places.get(next) ?? 0)) continue;
        return `${next} before ${key} for ${one.by}, behind it for ${other.by}`;
      }
    }
  }
  return orders.map(({ by }) => by).join(", ");
}
