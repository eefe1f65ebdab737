import { createHash } from "node:crypto";
import type { Channel, KeyId, Pattern } from "@pandapush/protocol";
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
  presenceId: string | undefined;
  /** Sequence number of the last publication that this subscription does not hear. */
  readonly since: number;
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

/** A request that waits for events: a held `/meta/connect`. */
export interface Waiter {
  /** The HTTP request or WebSocket that it came by. */
  readonly source: object;
  /**
   * Answers it, once.
   * @param lost called when the answer did not reach the kernel
   */
  answer(events: readonly string[], lost: () => void): void;
}

/** `lost`: the node that it was on had to give it up. */
export type EndReason = "disconnect" | "expiry" | "overflow" | "shutdown" | "lost";

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

  take(): string[] {
    const messages = this.messages;
    this.messages = [];
    this.size = 0;
    return messages;
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
export class Session implements Receiver {
  readonly subscriptions = new Map<Channel | Pattern, Subscription>();
  /** Whether the client is told `sentCount`, to compare it with what it received. */
  isCounting = false;
  /** When it began, in ms since 1970. */
  readonly since = Date.now();
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

  constructor(
    readonly clientId: string,
    readonly encoder: Encoder,
    /** The client's network address at its handshake, which limits count. */
    readonly address: string | undefined,
    private readonly limits: SessionLimits,
    private readonly onEnd: (session: Session, reason: EndReason) => void,
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

  /** Names it to people: all that may be shown of a clientId. */
  get hash(): string {
    return createHash("sha256").update(this.clientId).digest("hex").slice(0, hashLength);
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

  /** Its client came by this. Posts beside a stream or socket tell nothing of it. */
  notice({ kind, address, userAgent }: Origin): void {
    if (this.connection !== undefined && this.connection.kind !== kind) return;
    this.cameBy = kind;
    this.cameAs = userAgent;
    // Most come from where they began: the same text is kept once.
    if (this.cameFrom !== address)
      this.cameFrom = address === this.address ? this.address : address;
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
    if (this.connection !== connection) return;
    this.state = {
      name: "queueing",
      outbox: new Outbox(),
      draining: isDraining ? connection : undefined,
    };
    this.answer();
  }

  /**
   * Holds a connect until an event waits, `holdMs` has passed or the session ends. A connect
   * that is held already is superseded: answered now, without events. CON-5
   */
  hold(request: Waiter, holdMs: number): void {
    this.expiry.refresh();
    this.answer();
    if (this.state.name === "queueing") this.settle(this.state);
    const hasEvents = this.state.name === "queueing" && !this.state.outbox.isEmpty;
    const isOver = holdMs === 0 || hasEvents || this.hasEnded;
    this.waiter = { request, timer: isOver ? undefined : setTimeout(release, holdMs, this) };
    if (isOver) this.answer();
  }

  /** The request or socket that a connect came by is gone: it can no longer be answered. */
  forget(source: object): void {
    if (this.waiter?.request.source !== source) return;
    clearTimeout(this.waiter.timer);
    this.waiter = undefined;
  }

  /** Answers the held connect that came by `source`, if there is one. */
  answerFrom(source: object): void {
    if (this.waiter?.request.source === source) this.answer();
  }

  /** Ends the session for good; held connect answered, connection closed. Harmless twice. */
  end(reason: EndReason): void {
    if (this.state.name === "ended") return;
    const { connection } = this;
    this.state = { name: "ended" };
    clearTimeout(this.expiry);
    this.answer();
    this.onEnd(this, reason);
    connection?.close(reason === "shutdown" ? "goingAway" : "normal");
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

  /** Takes back what a draining connection has not written, in front of what came after it. */
  private settle(state: State & { name: "queueing" }): Outbox {
    const { outbox, draining } = state;
    state.draining = undefined;
    if (draining !== undefined) outbox.prepend(this.takeBack(draining));
    if (outbox.exceeds(this.limits)) this.end("overflow");
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
    const events = this.state.name === "queueing" ? this.state.outbox.take() : [];
    this.sent += events.length;
    request.answer(events, () => this.putBack(events));
  }
}

/** 64 bits: no two sessions share them. */
const hashLength = 16;

// Sessions are many: what their timers call is one function for all.

function expire(session: Session): void {
  session.end("expiry");
}

function release(session: Session): void {
  session.answer();
}
