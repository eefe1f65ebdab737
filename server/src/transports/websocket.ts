/**
 * WebSocket. The library does handshake, parsing, control frames and close; data frames are
 * written here, complete, to the socket that the upgrade handed over: one buffer for all who
 * hear the same.
 */
import type { IncomingMessage } from "node:http";
import type { Duplex } from "node:stream";
import { MalformedBatch } from "@pandapush/protocol";
import { type WebSocket, WebSocketServer } from "ws";
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
  private readonly server: WebSocketServer;
  private readonly slots = Array.from({ length: pingSlots }, () => new Set<Connection>());
  private readonly unbound: AddressCounter;
  private readonly pingTimer: NodeJS.Timeout;
  private opened = 0;
  private pinged = 0;

  constructor(
    private readonly bayeux: Bayeux,
    private readonly options: WebSocketOptions,
  ) {
    this.unbound = new AddressCounter(options.limits.unboundSocketsPerAddress);
    this.server = new WebSocketServer({
      noServer: true,
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
    let isOpen = false;
    // Before it is open the socket is the upgrade's; a client may leave meanwhile.
    socket.once("close", () => {
      if (!isOpen) this.unbound.remove(address);
    });
    this.server.handleUpgrade(request, socket, head, (ws) => {
      isOpen = true;
      const slot = this.slots[this.opened++ % pingSlots];
      const connection = new Connection(ws, socket, address, this.bayeux, this.options, {
        bound: () => this.unbound.remove(address),
        closed: () => slot?.delete(connection),
      });
      slot?.add(connection);
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

  private pingNext(): void {
    const slot = this.slots[this.pinged++ % pingSlots] ?? [];
    for (const connection of slot) connection.ping();
  }
}

interface Registration {
  /** No longer unbound: a session was bound to it, or it closed. Called once. */
  readonly bound: () => void;
  readonly closed: () => void;
}

/** One socket: a source of messages and, once a connect binds a session, a way to push to it. */
class Connection implements PushConnection, Source {
  readonly kind = "websocket";
  readonly push = this;
  private boundSession: Session | undefined;
  private readonly unconfirmed = new Unconfirmed();
  private readonly waiting: string[] = [];
  private isRunning = false;
  private isCounted = true;
  private replies: string[] = [];
  private isClosing = false;
  private hasAnswered = true;
  private lastHeardAt = Date.now();

  constructor(
    private readonly ws: WebSocket,
    private readonly socket: Duplex,
    readonly address: string | undefined,
    private readonly bayeux: Bayeux,
    private readonly options: WebSocketOptions,
    private readonly registration: Registration,
  ) {
    ws.on("message", (data: Buffer) => this.receive(data));
    ws.on("pong", () => {
      this.hasAnswered = true;
    });
    ws.on("error", () => {
      // A protocol error of the client: the library answers it with a close frame; then "close".
    });
    ws.on("close", () => this.closed());
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
    this.unconfirmed.add(batch, receiver);
    this.socket.write(batch.frame(textFrame), this.unconfirmed.confirm);
    if (this.socket.writableLength > this.options.limits.socketBufferBytes) this.tooSlow();
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

  ping(): void {
    if (!this.hasAnswered) {
      this.cut();
      return;
    }
    const { unboundSocketMs } = this.options.limits;
    if (this.boundSession === undefined && Date.now() - this.lastHeardAt > unboundSocketMs) {
      this.close("idle");
      return;
    }
    if (this.isClosing) return;
    this.hasAnswered = false;
    this.ws.ping();
  }

  private receive(data: Buffer): void {
    this.lastHeardAt = Date.now();
    this.hasAnswered = true;
    if (this.isClosing) return;
    const text = data.toString();
    if (this.isRunning) this.waiting.push(text);
    else this.run(text);
  }

  /** One frame after the other: what waits for a lookup is not overtaken. */
  private run(text: string): void {
    try {
      const done = this.bayeux.receive(this, text, this.respond);
      if (!(done instanceof Promise)) return;
      this.isRunning = true;
      // Only frames that were read already can come before the pause has its effect.
      this.ws.pause();
      done
        .catch((error: unknown) => this.options.logError(error, "run a batch"))
        .finally(() => this.runWaiting());
    } catch (error) {
      if (!(error instanceof MalformedBatch)) this.options.logError(error, "run a batch");
      // Without a reply old clients would close the socket and resend for ever. MSG-6
      const detail = error instanceof MalformedBatch ? error.message : "Internal server error";
      this.respond(this.bayeux.refuse(detail));
    }
  }

  private runWaiting(): void {
    this.isRunning = false;
    while (!this.isRunning) {
      const next = this.waiting.shift();
      if (next === undefined) {
        this.ws.resume();
        return;
      }
      this.run(next);
    }
  }

  /** Replies to the frames of one read travel in one write. */
  private readonly respond = (text: string): void => {
    if (this.isClosing) return;
    if (this.replies.push(text) === 1) process.nextTick(this.writeReplies);
  };

  private readonly writeReplies = (): void => {
    if (this.replies.length === 0) return;
    const frames = textFrames(this.replies);
    this.replies = [];
    this.socket.write(frames);
    if (this.socket.writableLength > this.options.limits.socketBufferBytes) this.tooSlow();
  };

  /**
   * The client does not read what it is sent. Its session goes on in its own, bounded outbox; the
   * socket gets a last chance to read what is buffered. LIM-4
   */
  private tooSlow(): void {
    if (this.isClosing) return;
    this.options.onSlowConsumer(this.boundSession);
    this.boundSession?.forget(this);
    this.boundSession?.detach(this, true);
    this.close("slowConsumer");
    setTimeout(() => this.cut(), slowConsumerGraceMs).unref();
  }

  private closed(): void {
    this.registration.closed();
    this.uncount();
    this.bayeux.closed(this);
    // After the session knows that this connection is gone, so that it keeps them.
    this.unconfirmed.putBackAll();
  }

  private uncount(): void {
    if (!this.isCounted) return;
    this.isCounted = false;
    this.registration.bound();
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
