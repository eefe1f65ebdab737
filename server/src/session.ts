import { createHash } from "node:crypto";
import type { AppId, Channel, Grant, KeyId, ParsedChannel, Pattern } from "@pandapush/protocol";
import type { MaybePromise } from "./maybe-promise.js";
import {
  type Batch,
  batchesOf,
  type Origin,
  type PushConnection,
  type Receiver,
  type TransportKind,
} from "./transports/transport.js";

/** A thing published, inside this process. `data` and `ext` are JSON text, as they arrived. */
export interface Publication {
  /** Birth node's id and a counter; holds a `-`, so no client's message id can equal it. */
  readonly id: string;
  readonly channel: Channel;
  readonly data: string;
  readonly ext?: string | undefined;
  /** It says who came to a presence channel or left it: the server's own word. */
  readonly isMembership?: boolean | undefined;
}

/**
 * A publication's place in the sequence that its broker keeps. Only those of one epoch can be
 * compared; all publications of one channel have the same, unless the broker lost its memory.
 */
export interface Position {
  readonly epoch: string;
  readonly seq: number;
}

/** How a session's protocol writes what the server tells its client. */
export interface Encoder {
  event(publication: Publication): string;
  /** A live subscription was ended by the server. */
  subscriptionEnded(clientId: string, name: Channel | Pattern, error: string): string;
  /** Several messages as one frame or body. */
  join(messages: readonly string[]): string;
}

/** A session's interest in a channel or pattern. */
export interface Subscription {
  readonly session: Session;
  readonly name: Channel | Pattern;
  /** The key that allowed it last; when that is revoked the subscription ends. */
  keyId: KeyId | undefined;
  /** Whom it makes present: on presence channels, not on patterns. */
  member: Member | undefined;
  /** Sequence number of the last publication that this subscription does not hear. */
  readonly since: number;
  /** Sequence number of the last that it hears; it goes on at another node. */
  until?: number;
  /**
   * It began at another node, which has delivered what has these positions or earlier ones: epoch
   * to number.
   */
  floors?: Map<string, number>;
  /** By epoch, sequence number of the first that it heard above its floor. */
  passed?: Map<string, number>;
  /**
   * Its client was given the list of a presence channel's members as it was at this position: it
   * does not hear of changes up to there, its own among them.
   */
  snapshot?: Position;
  /** It has been acknowledged: whatever fails from now on, it stays. */
  isEffective: boolean;
  /** How many subscribes wait for it to become effective. */
  waiting: number;
}

/** A user on a presence channel, present by one or more sessions. */
export interface Member {
  readonly id: string;
  /** The presence object as JSON text. */
  readonly json: string;
}

/** What the replies to one request may still hold. */
export interface ListBudget {
  /** Characters of lists of members. LIM-7 */
  left: number;
}

/** A session is present on a channel. */
export interface Joined {
  /** All members as JSON text, `{"<id>":{…},…}` */
  readonly list: string;
  /** To be called when the list is on its way: what the session hears of the channel waits for that. */
  readonly release: () => void;
}

export interface Subscribed {
  /** It was not subscribed before. */
  readonly isNew: boolean;
  /** On presence channels, unless the client has left meanwhile. */
  readonly joined?: Joined | undefined;
}

/** Told whether an answer reached the kernel, once. */
export type Outcome = (hasReached: boolean) => void;

/** A request that waits for events: a held `/meta/connect`. */
export interface Waiter {
  /** The HTTP request or WebSocket that it came by. */
  readonly source: object;
  /** How many characters of events an answer may have, if not all that wait; one is always allowed. */
  readonly maxLength?: number;
  /**
   * Answers it, once.
   * @param sent what the client was sent before, if it counts
   */
  answer(events: readonly string[], sent: number | undefined, outcome: Outcome): void;
  /** Instead of an answer: it cannot be held. */
  refuse(error: unknown): void;
}

/** A session as protocols use it, at whichever node it lives. */
export interface ClientSession {
  readonly clientId: string;
  /** Names it to people: all that may be shown of a clientId. */
  readonly hash: string;
  /** Its client came by this. */
  notice(origin: Origin): void;
  /**
   * Effective when it returns (or resolves). Subscribing twice is the same as once.
   * @param lists bounds the list of a presence channel's members, and is reduced by it
   * @throws Refusal; a subscription that was not there before is then undone
   */
  subscribe(channel: ParsedChannel, grant: Grant, lists: ListBudget): MaybePromise<Subscribed>;
  /** Harmless when not subscribed. */
  unsubscribe(name: string): MaybePromise<void>;
  /**
   * Holds a connect until an event waits, `holdMs` has passed or the session ends. A connect
   * that is held already is superseded: answered now, without events. CON-5
   */
  hold(request: Waiter, holdMs: number): void;
  /** The request or socket that a connect came by is gone: it can no longer be answered. */
  forget(source: object): void;
  /** Answers the held connect that came by `source`, if there is one. */
  answerFrom(source: object): void;
  /**
   * Ends it for good; held connect answered, connection closed. Harmless twice. Never rejects: a
   * session that cannot be told expires.
   */
  end(reason: "disconnect"): MaybePromise<void>;
}

/** Finds sessions by what their clients prove themselves with. */
export interface Sessions {
  /**
   * To be waited for before anything is done for a client. Nothing to wait for, nearly always.
   * `Membership.verified`
   */
  ready(): MaybePromise<void>;
  /**
   * The session, wherever it lives; undefined when there is none.
   * @throws Refusal when that cannot be known at the moment
   */
  find(clientId: string): MaybePromise<ClientSession | undefined>;
  /** The same, but it lives here from now on, so that it can be pushed to. */
  fetch(clientId: string): MaybePromise<Session | undefined>;
}

/** By application and epoch: the last number of that epoch that a node has received. */
export type Floors = ReadonlyMap<AppId, ReadonlyMap<string, number>>;

/** The node that a session lives at. */
export interface SessionHome {
  subscribe(
    session: Session,
    channel: ParsedChannel,
    grant: Grant,
    lists: ListBudget,
  ): MaybePromise<Subscribed>;
  unsubscribe(session: Session, name: string): void;
  ended(session: Session, reason: EndReason): void;
}

/** `moved`: it goes on at another node. `lost`: the node that it was on had to give it up. */
export type EndReason = "disconnect" | "expiry" | "overflow" | "shutdown" | "moved" | "lost";

export interface SessionLimits {
  /** A session ends this long after its last handshake or connect. */
  readonly expiryMs: number;
  readonly outboxMessages: number;
  /** Counted in characters of JSON text. */
  readonly outboxBytes: number;
}

/** Messages that wait for a connection, oldest first. */
class Outbox {
  private messages: string[] = [];
  private size = 0;

  get isEmpty(): boolean {
    return this.messages.length === 0;
  }

  /** In characters. */
  get length(): number {
    return this.size;
  }

  append(messages: readonly string[]): void {
    for (const message of messages) {
      this.messages.push(message);
      this.size += message.length;
    }
  }

  prepend(messages: readonly string[]): void {
    this.messages = messages.concat(this.messages);
    for (const message of messages) this.size += message.length;
  }

  exceeds(limits: SessionLimits): boolean {
    return this.messages.length > limits.outboxMessages || this.size > limits.outboxBytes;
  }

  /** @param maxLength of all together, in characters; the oldest is taken in any case */
  take(maxLength = Number.POSITIVE_INFINITY): string[] {
    const messages = this.messages;
    if (this.size <= maxLength) {
      this.messages = [];
      this.size = 0;
      return messages;
    }
    let length = 0;
    let count = 0;
    for (const message of messages) {
      if (count > 0 && length + message.length > maxLength) break;
      length += message.length;
      count++;
    }
    this.messages = messages.slice(count);
    this.size -= length;
    return messages.slice(0, count);
  }
}

/**
 * Where a session's events go: over a connection that pushes, or into an outbox that the next
 * connect (or connection) empties.
 */
type State =
  | { readonly name: "queueing"; readonly outbox: Outbox; draining?: PushConnection | undefined }
  | { readonly name: "pushing"; readonly connection: PushConnection }
  | { readonly name: "ended" };

/**
 * One client as the server sees it. It outlives its connections: a lost socket or an aborted
 * poll costs nothing until `expiryMs` after the last handshake or connect. CON-7
 */
export class Session implements Receiver, ClientSession {
  readonly subscriptions = new Map<Channel | Pattern, Subscription>();
  /** Whether the client is told `sentCount`, to compare it with what it received. */
  isCounting = false;
  /** When it began, in ms since 1970. */
  since = Date.now();
  /** How its client came last. */
  private cameBy: TransportKind | undefined;
  private cameFrom: string | undefined;
  private cameAs: string | undefined;
  private state: State = { name: "queueing", outbox: new Outbox() };
  private sent = 0;
  /** While it waits nothing is queued: whatever comes answers it. */
  private waiter:
    | { readonly request: Waiter; readonly timer: NodeJS.Timeout | undefined }
    | undefined;
  private readonly expiry: NodeJS.Timeout;
  /** Subscribes that are not answered yet. */
  private pending: Set<Promise<unknown>> | undefined;
  /** An answer of which another node has not said whether it reached the client. */
  private confirming: Promise<unknown> | undefined;
  /** Pushes its events as soon as that is known. */
  private next: PushConnection | undefined;
  /** It is about to live at another node: whoever wants something of it waits. */
  private leaving: Promise<ClientSession> | undefined;

  constructor(
    readonly clientId: string,
    readonly encoder: Encoder,
    /** The client's network address at its handshake, which limits count. */
    readonly address: string | undefined,
    private readonly limits: SessionLimits,
    private readonly home: SessionHome,
  ) {
    this.expiry = setTimeout(expire, limits.expiryMs, this);
    this.expiry.unref();
  }

  /**
   * How many messages were written for this client on their own account, events most of all:
   * handed to the kernel, as far as that can be known, and not taken back since.
   */
  get sentCount(): number {
    return this.sent;
  }

  get hasEnded(): boolean {
    return this.state.name === "ended";
  }

  /** The connection that pushes this session's events, if one does. */
  get connection(): PushConnection | undefined {
    return this.state.name === "pushing" ? this.state.connection : undefined;
  }

  /** What waits for its next connection or poll, in characters. */
  get waitingLength(): number {
    return this.state.name === "queueing" ? this.state.outbox.length : 0;
  }

  get hash(): string {
    return hashOf(this.clientId);
  }

  /** How its client came last; undefined before its first connect. */
  get origin(): Origin | undefined {
    const { cameBy: kind, cameFrom: address, cameAs: userAgent } = this;
    return kind && { kind, address, userAgent };
  }

  /** How its client is connected; undefined while a socket or stream is lost. */
  get transport(): TransportKind | undefined {
    if (this.connection !== undefined) return this.connection.kind;
    return this.cameBy === "websocket" || this.cameBy === "eventsource" ? undefined : this.cameBy;
  }

  /** Where its client was last. */
  get lastAddress(): string | undefined {
    return this.cameFrom;
  }

  /** What its client's program last called itself. */
  get userAgent(): string | undefined {
    return this.cameAs;
  }

  /** Posts beside a stream or socket tell nothing of how its client is connected. */
  notice({ kind, address, userAgent }: Origin): void {
    if (this.connection !== undefined && this.connection.kind !== kind) return;
    this.cameBy = kind;
    this.cameAs = userAgent;
    // Most come from where they began: the same text is kept once.
    if (this.cameFrom !== address)
      this.cameFrom = address === this.address ? this.address : address;
  }

  subscribe(channel: ParsedChannel, grant: Grant, lists: ListBudget): MaybePromise<Subscribed> {
    if (this.leaving !== undefined) {
      return this.leaving.then((there) => there.subscribe(channel, grant, lists));
    }
    const done = this.home.subscribe(this, channel, grant, lists);
    if (done instanceof Promise) this.remember(done);
    return done;
  }

  unsubscribe(name: string): MaybePromise<void> {
    if (this.leaving !== undefined) return this.leaving.then((there) => there.unsubscribe(name));
    this.home.unsubscribe(this, name);
  }

  deliver(batch: Batch): void {
    switch (this.state.name) {
      case "pushing":
        this.sent += batch.messages.length;
        this.state.connection.deliver(batch, this);
        return;
      case "queueing":
        this.state.outbox.append(batch.messages);
        this.afterQueueing(this.state.outbox);
        return;
      case "ended":
        return;
    }
  }

  putBack(messages: readonly string[]): void {
    if (messages.length === 0) return;
    this.sent -= messages.length;
    switch (this.state.name) {
      case "pushing":
        this.handOver(this.state.connection, messages);
        return;
      case "queueing":
        this.state.outbox.prepend(messages);
        this.afterQueueing(this.state.outbox);
        return;
      case "ended":
        return;
    }
  }

  /**
   * It did not get something that it should have, and will not: a client that counts notices by
   * the next `sentCount`. CON-11
   */
  miss(): void {
    this.sent++;
  }

  /** From now on `connection` pushes this session's events, beginning with all that waited. */
  attach(connection: PushConnection): void {
    if (this.state.name === "ended" || this.connection === connection) return;
    if (this.confirming !== undefined) {
      // What is put back comes before what waits here.
      this.next = connection;
      void this.confirming.then(() => this.attachNext(connection));
      return;
    }
    const waiting =
      this.state.name === "pushing"
        ? this.takeBack(this.state.connection)
        : this.settle(this.state).take();
    if (this.hasEnded) return;
    this.state = { name: "pushing", connection };
    this.handOver(connection, waiting);
  }

  /**
   * `connection` no longer pushes for this session. Compares identity: the client may long since
   * push over another one. A connect that is held elsewhere is answered.
   * @param isDraining it still tries to write what it was given; that comes first, so it has
   *   to be released before this session's events go any other way
   */
  detach(connection: PushConnection, isDraining = false): void {
    if (this.next === connection) this.next = undefined;
    if (this.connection !== connection) return;
    this.state = {
      name: "queueing",
      outbox: new Outbox(),
      draining: isDraining ? connection : undefined,
    };
    this.answer();
  }

  hold(request: Waiter, holdMs: number): void {
    // Whoever asks is there, also while he waits for what is to come first.
    this.expiry.refresh();
    const elsewhere = this.leaving ?? this.confirming?.then(() => this);
    if (elsewhere !== undefined) {
      elsewhere.then(
        (there) => there.hold(request, holdMs),
        (error: unknown) => request.refuse(error),
      );
      return;
    }
    this.answer();
    if (this.state.name === "queueing") this.settle(this.state);
    const hasEvents = this.state.name === "queueing" && !this.state.outbox.isEmpty;
    const isOver = holdMs === 0 || hasEvents || this.hasEnded;
    this.waiter = { request, timer: isOver ? undefined : setTimeout(release, holdMs, this) };
    if (isOver) this.answer();
  }

  forget(source: object): void {
    if (this.waiter?.request.source !== source) return;
    clearTimeout(this.waiter.timer);
    this.waiter = undefined;
  }

  answerFrom(source: object): void {
    if (this.waiter?.request.source === source) this.answer();
  }

  end(reason: EndReason): void {
    if (this.state.name === "ended") {
      if (reason === "disconnect") this.leaving?.then((there) => there.end(reason)).catch(noop);
      return;
    }
    const connection = this.connection ?? this.next;
    this.next = undefined;
    this.state = { name: "ended" };
    clearTimeout(this.expiry);
    this.answer();
    this.home.ended(this, reason);
    const isOver = reason === "disconnect" || reason === "expiry" || reason === "overflow";
    connection?.close(isOver ? "normal" : "goingAway");
  }

  private attachNext(connection: PushConnection): void {
    if (this.next !== connection) return;
    this.next = undefined;
    this.attach(connection);
  }

  private handOver(connection: PushConnection, messages: readonly string[]): void {
    this.sent += messages.length;
    connection.handOver(batchesOf(messages, this.encoder.join), this);
  }

  private takeBack(connection: PushConnection): readonly string[] {
    const messages = connection.release(this);
    this.sent -= messages.length;
    return messages;
  }

  private settle(state: State & { name: "queueing" }): Outbox {
    const outbox = this.gather(state);
    if (outbox.exceeds(this.limits)) this.end("overflow");
    return outbox;
  }

  /** Takes back what a draining connection has not written, in front of what came after it. */
  private gather(state: State & { name: "queueing" }): Outbox {
    const { outbox, draining } = state;
    state.draining = undefined;
    if (draining !== undefined) outbox.prepend(this.takeBack(draining));
    return outbox;
  }

  private afterQueueing(outbox: Outbox): void {
    if (this.waiter !== undefined) this.answer();
    else if (outbox.exceeds(this.limits)) this.end("overflow");
  }

  /** Answers the held connect, if there is one, with all that is queued. */
  answer(): void {
    if (this.waiter === undefined) return;
    const { request, timer } = this.waiter;
    clearTimeout(timer);
    this.waiter = undefined;
    const events = this.state.name === "queueing" ? this.state.outbox.take(request.maxLength) : [];
    // Of what stands before this answer; the events stand behind it. CON-11
    const sent = this.isCounting ? this.sent : undefined;
    this.sent += events.length;
    request.answer(events, sent, (hasReached) => {
      if (!hasReached) this.putBack(events);
    });
  }

  /** An answer is on its way by another node: no other overtakes it. */
  confirmBefore(outcome: Promise<unknown>): void {
    const confirming = outcome.catch(noop).then(() => {
      if (this.confirming === confirming) this.confirming = undefined;
    });
    this.confirming = confirming;
  }

  /** Resolves when nothing that was begun is under way. */
  async settled(): Promise<void> {
    await Promise.allSettled([...(this.pending ?? []), this.confirming]);
  }

  get isLeaving(): boolean {
    return this.leaving !== undefined;
  }

  /**
   * It may go on at another node soon.
   * @param decided where it lives then: here, if it stays. Rejects when it is lost on its way
   */
  prepareToLeave(decided: Promise<ClientSession>): void {
    this.leaving = decided;
    decided.then((there) => {
      if (there === this) this.leaving = undefined;
    }, noop);
  }

  /** Resolves when its client's connection has taken all that it was given. */
  async flushed(): Promise<void> {
    await this.connection?.flushed();
  }

  /**
   * Ends here, to go on at another node.
   * @returns what waits for its client
   */
  moveOut(): string[] {
    if (this.state.name === "pushing") {
      const { connection } = this.state;
      const outbox = new Outbox();
      outbox.append(this.takeBack(connection));
      this.state = { name: "queueing", outbox };
      this.end("moved");
      connection.close("moved");
      return outbox.take();
    }
    // While a connect is held nothing waits.
    this.answer();
    const waiting = this.state.name === "queueing" ? this.gather(this.state).take() : [];
    this.end("moved");
    return waiting;
  }

  /** Begins with what another node gave out of hand. */
  moveIn(waiting: readonly string[], sent: number): void {
    this.sent += sent;
    if (this.state.name === "queueing") this.state.outbox.append(waiting);
  }

  private remember(work: Promise<unknown>): void {
    this.pending ??= new Set();
    const { pending } = this;
    pending.add(work);
    const done = (): void => {
      pending.delete(work);
    };
    work.then(done, done);
  }
}

/** 64 bits: no two sessions share them. */
const hashLength = 16;

/** What may be shown of a clientId. */
export function hashOf(clientId: string): string {
  return createHash("sha256").update(clientId).digest("hex").slice(0, hashLength);
}

// Sessions are many: what their timers call is one function for all.

function expire(session: Session): void {
  session.end("expiry");
}

function release(session: Session): void {
  session.answer();
}

function noop(): void {}
