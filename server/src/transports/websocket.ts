/**
 * WebSocket. The library does handshake, parsing, control frames and close; data frames are
 * written here, complete, to the socket that the upgrade handed over: one buffer for all who
 * hear the same.
 */
import type { IncomingMessage } from "node:http";
import type { Duplex } from "node:stream";
import { MalformedBatch } from "@pandapush/protocol";
import { WebSocket, WebSocketServer, type Server as WebSocketServerOf } from "ws";
import type { Bayeux, Source } from "../bayeux.js";
import { closeCodes } from "../errors.js";
import type { Session } from "../session.js";
import { AddressCounter } from "./address.js";
import { textFrame, textFrames } from "./frame.js";
import type { Batch, CloseReason, PushConnection, Receiver } from "./transport.js";
import { Unconfirmed } from "./unconfirmed.js";

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
  readonly onSlowConsumer: (session: Session | undefined) => void;
  readonly logError: (error: unknown, what: string) => void;
}

/** How long a slow consumer has to read what is buffered and the close that follows it. */
const slowConsumerGraceMs = 5_000;
/** Pings are spread over this many moments of an interval. */
const pingSlots = 20;

export class WebSocketTransport {
  private readonly server: WebSocketServerOf<typeof OpenSocket>;
  private readonly slots = Array.from({ length: pingSlots }, () => new Set<Connection>());
  private readonly unbound: AddressCounter;
  private readonly pingTimer: NodeJS.Timeout;
  private opened = 0;
  private pinged = 0;

  constructor(
    readonly bayeux: Bayeux,
    readonly options: WebSocketOptions,
  ) {
    this.unbound = new AddressCounter(options.limits.unboundSocketsPerAddress);
    this.server = new WebSocketServer({
      noServer: true,
      WebSocket: OpenSocket,
      clientTracking: false,
      perMessageDeflate: false,
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
      slot.add(new Connection(ws, socket, address, slot, this));
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

  /** The socket of this address is unbound no longer. */
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

  /** The library closes too, when the client does: what is answered by then goes first. */
  override close(code?: number, reason?: string): void {
    this.connection?.writeReplies();
    super.close(code, reason);
  }
}

function onMessage(this: WebSocket, data: Buffer): void {
  connectionOf(this)?.receive(data);
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

/** One socket: a source of messages and, once a connect binds a session, a way to push to it. */
class Connection implements PushConnection, Source {
  readonly kind = "websocket";
  readonly push = this;
  private boundSession: Session | undefined;
  private readonly unconfirmed: Unconfirmed;
  /** Bytes handed over at once, which no client can have read yet. */
  private handedOver = 0;
  isGone = false;
  /** Replies to the frames of this turn. */
  private replies: string[] | undefined;
  /** Frames that came while the one before them waits for a lookup. */
  private waiting: string[] | undefined;
  private isCounted = true;
  private isClosing = false;
  private hasAnswered = true;
  private lastHeardAt = Date.now();

  constructor(
    private readonly ws: OpenSocket,
    private readonly socket: Duplex,
    readonly address: string | undefined,
    private readonly slot: Set<Connection>,
    private readonly transport: WebSocketTransport,
  ) {
    ws.connection = this;
    this.unconfirmed = new Unconfirmed(socket);
    ws.on("message", onMessage);
    ws.on("pong", onPong);
    ws.on("error", onError);
    ws.on("close", onClose);
  }

  get session(): Session | undefined {
    return this.boundSession;
  }

  set session(session: Session | undefined) {
    this.boundSession = session;
    this.uncount();
  }

  deliver(batch: Batch, receiver: Receiver): void {
    // What was answered before is also sent before.
    this.writeReplies();
    this.write(batch, receiver);
    this.watchBuffer();
  }

  handOver(batches: readonly Batch[], receiver: Receiver): void {
    this.writeReplies();
    for (const batch of batches) this.handedOver += this.write(batch, receiver);
    if (this.socket.writableLength === 0) this.handedOver = 0;
  }

  release(receiver: Receiver): readonly string[] {
    const messages = this.unconfirmed.take(receiver);
    if (messages.length > 0) this.cut();
    return messages;
  }

  close(reason: CloseReason): void {
    this.writeReplies();
    this.isClosing = true;
    this.ws.close(closeCodes[reason].code, closeCodes[reason].reason);
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
    if (this.boundSession === undefined && Date.now() - this.lastHeardAt > unboundMs) {
      this.close("idle");
      return;
    }
    if (this.isClosing) return;
    this.hasAnswered = false;
    this.ws.ping();
  }

  heard(): void {
    this.hasAnswered = true;
  }

  receive(data: Buffer): void {
    this.lastHeardAt = Date.now();
    this.hasAnswered = true;
    if (this.isClosing) return;
    const text = data.toString();
    if (this.waiting === undefined) this.run(text);
    else this.waiting.push(text);
  }

  /** Replies to the frames of one read travel in one write. */
  respond(text: string): void {
    if (this.isClosing) return;
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
    this.replies = undefined;
    this.socket.write(frames);
    this.watchBuffer();
  }

  closed(): void {
    this.slot.delete(this);
    this.uncount();
    this.transport.bayeux.closed(this);
    // After the session knows that this connection is gone, so that it keeps them.
    this.unconfirmed.putBackAll();
  }

  /** One frame after the other: what waits for a lookup is not overtaken. */
  private run(text: string): void {
    const { bayeux, options } = this.transport;
    try {
      const done = bayeux.receive(this, text);
      if (!(done instanceof Promise)) return;
      this.waiting = [];
      // Only frames that were read already can come before the pause has its effect.
      this.ws.pause();
      done
        .catch((error: unknown) => options.logError(error, "run a batch"))
        .finally(() => this.runWaiting());
    } catch (error) {
      if (!(error instanceof MalformedBatch)) options.logError(error, "run a batch");
      // Without a reply old clients would close the socket and resend for ever. MSG-6
      const detail = error instanceof MalformedBatch ? error.message : "Internal server error";
      this.respond(bayeux.refuse(detail));
    }
  }

  private runWaiting(): void {
    const waiting = this.waiting ?? [];
    this.waiting = undefined;
    while (this.waiting === undefined) {
      const next = waiting.shift();
      if (next === undefined) {
        this.ws.resume();
        return;
      }
      this.run(next);
    }
    // The last one waits again, and what is left behind it.
    this.waiting = waiting;
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

  /**
   * The client does not read what it is sent. Its session goes on in its own, bounded outbox; the
   * socket gets a last chance to read what is buffered. LIM-4
   */
  private tooSlow(): void {
    if (this.isClosing) return;
    this.transport.options.onSlowConsumer(this.boundSession);
    this.boundSession?.forget(this);
    this.boundSession?.detach(this, true);
    this.close("slowConsumer");
    setTimeout(() => this.cut(), slowConsumerGraceMs).unref();
  }

  private uncount(): void {
    if (!this.isCounted) return;
    this.isCounted = false;
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
