/**
 * WebSocket. The library does handshake, parsing, control frames and close; data frames are
 * written here, complete, to the socket that the upgrade handed over: one buffer for all who
 * hear the same.
 */
import { isUtf8 } from "node:buffer";
import type { IncomingMessage } from "node:http";
import type { Duplex } from "node:stream";
import { MalformedBatch } from "@pandapush/protocol";
import { WebSocket, WebSocketServer, type Server as WebSocketServerOf } from "ws";
import type { Bayeux, Source } from "../bayeux.js";
import { closeCodes } from "../errors.js";
import { NetworkCounter } from "../network.js";
import type { ClientSession, Outcome } from "../session.js";
import { Session } from "../session.js";
import { textFrame, textFrames } from "./frame.js";
import type { Batch, CloseReason, PushConnection, Receiver } from "./transport.js";
import { Turns } from "./turns.js";
import { Unconfirmed } from "./unconfirmed.js";
import { userAgentOf } from "./user-agent.js";

export interface WebSocketLimits {
  readonly messageBytes: number;
  /** Bytes that wait in this process for a client to read; beyond, it is a slow consumer. */
  readonly socketBufferBytes: number;
  /** Sockets of one address that no connect has bound to a session. */
  readonly unboundSocketsPerAddress: number;
  /** How long such a socket may stay silent. Clients keep some open that they never use. */
  readonly unboundSocketMs: number;
}

export interface WebSocketOptions {
  readonly limits: WebSocketLimits;
  /** Every socket is pinged this often; one that did not answer the last ping is cut. */
  readonly pingIntervalMs: number;
  readonly addressOf: (request: IncomingMessage) => string | undefined;
  readonly onSlowConsumer: (session: ClientSession | undefined) => void;
  readonly logError: (error: unknown, what: string) => void;
}

/** How long a slow consumer has to read what is buffered and the close that follows it. */
const slowConsumerGraceMs = 5_000;
/** Pings are spread over this many moments of an interval. */
const pingSlots = 20;

export class WebSocketTransport {
  private readonly server: WebSocketServerOf<typeof OpenSocket>;
  private readonly slots = Array.from({ length: pingSlots }, () => new Set<Connection>());
  private readonly unbound: NetworkCounter;
  readonly turns = new Turns();
  private readonly pingTimer: NodeJS.Timeout;
  private opened = 0;
  private pinged = 0;

  constructor(
    readonly bayeux: Bayeux,
    readonly options: WebSocketOptions,
  ) {
    this.unbound = new NetworkCounter(options.limits.unboundSocketsPerAddress);
    this.server = new WebSocketServer({
      noServer: true,
      WebSocket: OpenSocket,
      clientTracking: false,
      perMessageDeflate: false,
      // The library would cut a client that sends more than 60 pings in one go.
      autoPong: false,
      maxPayload: options.limits.messageBytes,
      // A client fails a connection whose server selects a subprotocol it did not ask for. TR-WS-2
      handleProtocols: () => false,
    });
    this.server.on("wsClientError", (error, socket) => refuse(socket, 400, error.message));
    this.pingTimer = setInterval(() => this.pingNext(), options.pingIntervalMs / pingSlots);
    this.pingTimer.unref();
  }

  get connectionCount(): number {
    return this.slots.reduce((sum, slot) => sum + slot.size, 0);
  }

  upgrade(request: IncomingMessage, socket: Duplex, head: Buffer): void {
    const address = this.options.addressOf(request);
    if (!this.unbound.add(address)) {
      refuse(socket, 429, "Too many sockets of this address wait for a connect");
      return;
    }
    // Until it is open, a client that leaves is noticed by its socket only.
    const leave = (): void => this.unbound.remove(address);
    socket.once("close", leave);
    this.server.handleUpgrade(request, socket, head, (ws) => {
      socket.off("close", leave);
      const slot = this.slots[this.opened++ % pingSlots] ?? new Set();
      slot.add(new Connection(ws, socket, address, userAgentOf(request), slot, this));
    });
  }

  /** Cuts what is still open. */
  close(): void {
    clearInterval(this.pingTimer);
    for (const slot of this.slots) for (const connection of slot) connection.close("goingAway");
  }

  terminate(): void {
    for (const slot of this.slots) for (const connection of slot) connection.cut();
  }

  /**
   * A socket of this address is bound to no session.
   * @returns false when there are too many of them
   */
  count(address: string | undefined): boolean {
    return this.unbound.add(address);
  }

  /** It is bound, or gone. */
  uncount(address: string | undefined): void {
    this.unbound.remove(address);
  }

  private pingNext(): void {
    const slot = this.slots[this.pinged++ % pingSlots] ?? [];
    const { unboundSocketMs } = this.options.limits;
    for (const connection of slot) connection.ping(unboundSocketMs);
  }
}

/** The library's socket, which knows ours: listeners are shared by all, for there are many. */
class OpenSocket extends WebSocket {
  connection: Connection | undefined;

  /** The library closes too, when the client does or breaks the protocol. */
  override close(code?: number, reason?: string): void {
    this.connection?.leave();
    super.close(code, reason);
  }
}

function onMessage(this: WebSocket, data: Buffer, isBinary: boolean): void {
  connectionOf(this)?.receive(data, isBinary);
}

function onPing(this: WebSocket, payload: Buffer): void {
  connectionOf(this)?.pong(payload);
}

function onPong(this: WebSocket): void {
  connectionOf(this)?.heard();
}

function onClose(this: WebSocket): void {
  connectionOf(this)?.closed();
}

/** A protocol error of the client: the library answers it with a close frame; then "close". */
function onError(): void {}

function connectionOf(ws: WebSocket): Connection | undefined {
  return ws instanceof OpenSocket ? ws.connection : undefined;
}

function writeReplies(connection: Connection): void {
  connection.writeReplies();
}

function writePong(connection: Connection): void {
  connection.writePong();
}

/** One socket: a source of messages and, once a connect binds a session, a way to push to it. */
class Connection implements PushConnection, Source {
  readonly kind = "websocket";
  readonly push = this;
  private boundSession: ClientSession | undefined;
  private readonly unconfirmed: Unconfirmed;
  /** Most bytes that were handed over at once: no client can have read them yet. */
  private handedOver = 0;
  /** A Close frame was written, or the socket is closed: nothing may be written any more. */
  isGone = false;
  /** Replies to the frames of this turn. */
  private replies: string[] | undefined;
  /** Who is told whether they were taken. */
  private outcomes: Outcome[] | undefined;
  /** Frames that came while the one before them waits for a lookup, or that were put off. */
  private waiting: string[] | undefined;
  /** What the last ping of this turn brought. */
  private pinged: Buffer | undefined;
  /** It counts as a socket that carries no session. */
  private isUnbound = true;
  private hasAnswered = true;
  private lastHeardAt = Date.now();

  constructor(
    private readonly ws: OpenSocket,
    private readonly socket: Duplex,
    readonly address: string | undefined,
    readonly userAgent: string | undefined,
    private readonly slot: Set<Connection>,
    private readonly transport: WebSocketTransport,
  ) {
    ws.connection = this;
    this.unconfirmed = new Unconfirmed(socket);
    ws.on("message", onMessage);
    ws.on("ping", onPing);
    ws.on("pong", onPong);
    ws.on("error", onError);
    ws.on("close", onClose);
  }

  get session(): ClientSession | undefined {
    return this.boundSession;
  }

  set session(session: ClientSession | undefined) {
    this.boundSession = session;
    this.uncount();
  }

  deliver(batch: Batch, receiver: Receiver): void {
    // What was answered before is also sent before.
    this.writeReplies();
    if (this.isGone) {
      receiver.putBack(batch.messages);
      return;
    }
    this.write(batch, receiver);
    this.watchBuffer();
  }

  handOver(batches: readonly Batch[], receiver: Receiver): void {
    this.writeReplies();
    if (this.isGone) {
      receiver.putBack(batches.flatMap(({ messages }) => messages));
      return;
    }
    let length = 0;
    for (const batch of batches) length += this.write(batch, receiver);
    this.handedOver = Math.max(this.handedOver, length);
    this.watchBuffer();
  }

  flushed(): Promise<void> {
    return this.unconfirmed.settled();
  }

  release(receiver: Receiver): readonly string[] {
    const messages = this.unconfirmed.take(receiver);
    if (messages.length > 0) this.cut();
    else this.unbind();
    return messages;
  }

  close(reason: CloseReason): void {
    this.ws.close(closeCodes[reason].code, closeCodes[reason].reason);
  }

  /**
   * Before the Close frame: what was answered goes first, and what comes for the session from now
   * on waits in its own, bounded outbox for its next connection. TR-WS-6
   */
  leave(): void {
    this.writeReplies();
    this.isGone = true;
    this.boundSession?.forget(this);
    if (this.boundSession instanceof Session) this.boundSession.detach(this, true);
  }

  cut(): void {
    this.ws.terminate();
  }

  /** @param unboundMs how long a socket that no session is bound to may stay silent */
  ping(unboundMs: number): void {
    if (!this.hasAnswered) {
      this.cut();
      return;
    }
    if (this.isGone) return;
    if (this.isUnbound && Date.now() - this.lastHeardAt > unboundMs) {
      this.close("idle");
      return;
    }
    this.hasAnswered = false;
    this.ws.ping();
  }

  heard(): void {
    this.hasAnswered = true;
    this.pace();
  }

  /** Of the pings of one read the last is answered. RFC 6455, section 5.5.3 */
  pong(payload: Buffer): void {
    if (this.pinged === undefined) process.nextTick(writePong, this);
    this.pinged = payload;
    this.pace();
  }

  writePong(): void {
    if (!this.isGone) this.ws.pong(this.pinged);
    this.pinged = undefined;
    this.watchBuffer();
  }

  receive(data: Buffer, isBinary: boolean): void {
    this.lastHeardAt = Date.now();
    this.hasAnswered = true;
    if (this.isGone) return;
    // In text frames the library looks for it.
    if (isBinary && !isUtf8(data)) {
      this.close("notUtf8");
      return;
    }
    const text = data.toString();
    this.pace();
    if (this.waiting === undefined) this.run(text);
    else this.waiting.push(text);
  }

  /** Replies to the frames of one read travel in one write. */
  respond(text: string, outcome?: Outcome): void {
    if (this.isGone) {
      outcome?.(false);
      return;
    }
    if (outcome !== undefined) {
      this.outcomes ??= [];
      this.outcomes.push(outcome);
    }
    if (this.replies === undefined) {
      this.replies = [text];
      process.nextTick(writeReplies, this);
    } else {
      this.replies.push(text);
    }
  }

  writeReplies(): void {
    if (this.replies === undefined) return;
    const frames = textFrames(this.replies);
    const { outcomes } = this;
    this.replies = undefined;
    this.outcomes = undefined;
    if (outcomes === undefined) this.socket.write(frames);
    else this.socket.write(frames, (error) => this.settle(outcomes, error));
    this.watchBuffer();
  }

  /** Of the write that was under way when its socket was destroyed Node reports no error. */
  private settle(outcomes: readonly Outcome[], error: Error | null | undefined): void {
    for (const outcome of outcomes) outcome(!error && !this.socket.destroyed);
  }

  closed(): void {
    this.slot.delete(this);
    this.uncount();
    this.transport.bayeux.closed(this);
    // After the session knows that this connection is gone, so that it keeps them.
    this.unconfirmed.putBackAll();
  }

  /** Runs the frames that wait, as long as the turn has time and none waits for a lookup. */
  goOn(): void {
    const { turns } = this.transport;
    const waiting = this.waiting ?? [];
    this.waiting = undefined;
    while (this.waiting === undefined && turns.hasTime()) {
      const next = waiting.shift();
      if (next === undefined) {
        this.ws.resume();
        return;
      }
      this.run(next);
    }
    if (this.waiting === undefined) turns.putOff(this);
    this.waiting = waiting;
  }

  /** One frame after the other: what waits for a lookup is not overtaken. */
  private run(text: string): void {
    const { bayeux, options } = this.transport;
    try {
      const done = bayeux.receive(this, text);
      if (!(done instanceof Promise)) return;
      this.wait();
      done
        .catch((error: unknown) => options.logError(error, "run a batch"))
        .finally(() => this.goOn());
    } catch (error) {
      if (!(error instanceof MalformedBatch)) options.logError(error, "run a batch");
      // Without a reply old clients would close the socket and resend for ever. MSG-6
      const detail = error instanceof MalformedBatch ? error.message : "Internal server error";
      this.respond(bayeux.refuse(detail));
    }
  }

  /** Frames of every kind cost time: when the turn has none left, the rest goes on in a later one. */
  private pace(): void {
    if (this.waiting !== undefined || this.transport.turns.hasTime()) return;
    this.wait();
    this.transport.turns.putOff(this);
  }

  private wait(): void {
    this.waiting = [];
    // Only frames that were read already can come before the pause has its effect.
    this.ws.pause();
  }

  private write(batch: Batch, receiver: Receiver): number {
    const frame = batch.frame(textFrame);
    this.unconfirmed.add(batch, receiver);
    this.socket.write(frame, this.unconfirmed.confirm);
    return frame.length;
  }

  private watchBuffer(): void {
    const { writableLength } = this.socket;
    if (writableLength === 0) this.handedOver = 0;
    const { socketBufferBytes } = this.transport.options.limits;
    if (writableLength > socketBufferBytes + this.handedOver) this.tooSlow();
  }

  /** The client does not read what it is sent. It gets a last chance to read what is buffered. LIM-4 */
  private tooSlow(): void {
    if (this.isGone) return;
    this.transport.options.onSlowConsumer(this.boundSession);
    this.close("slowConsumer");
    setTimeout(() => this.cut(), slowConsumerGraceMs).unref();
  }

  /** Its session has moved to another connection: it is as one that never had any. LIM-6 */
  private unbind(): void {
    if (this.isGone || this.isUnbound) return;
    this.isUnbound = this.transport.count(this.address);
    if (!this.isUnbound) this.close("idle");
  }

  private uncount(): void {
    if (!this.isUnbound) return;
    this.isUnbound = false;
    this.transport.uncount(this.address);
  }
}

/** Answers an upgrade that does not become a WebSocket. */
export function refuse(socket: Duplex, status: 400 | 404 | 429 | 503, reason: string): void {
  const texts = {
    400: "Bad Request",
    404: "Not Found",
    429: "Too Many Requests",
    503: "Service Unavailable",
  };
  socket.once("finish", () => socket.destroy());
  socket.on("error", () => socket.destroy());
  socket.end(
    `HTTP/1.1 ${status} ${texts[status]}\r\nConnection: close\r\nContent-Type: text/plain; charset=utf-8\r\n` +
      `Content-Length: ${Buffer.byteLength(reason)}\r\n\r\n${reason}`,
  );
}
