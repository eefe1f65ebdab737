/** Server-sent events: replies travel in the client's POSTs, events on this stream. */
import type { ServerResponse } from "node:http";
import type { Socket } from "node:net";
import type { Bayeux, Source } from "../bayeux.js";
import type { ClientSession } from "../session.js";
import type { Batch, PushConnection, Receiver } from "./transport.js";
import { Unconfirmed } from "./unconfirmed.js";

/** What the browser waits before it opens a lost stream again. TR-ES-3 */
const retryMs = 5_000;
/** Comments keep proxies from closing a quiet stream. */
const pingIntervalMs = 10_000;

/** How long a client has to read the rest of a stream that was ended. */
const closeGraceMs = 5_000;

export interface EventSourceOptions {
  /** Bytes that wait in this process for a client to read; beyond, it is a slow consumer. */
  readonly socketBufferBytes: number;
  readonly onSlowConsumer: (session: ClientSession | undefined) => void;
}

export class EventSourceConnection implements PushConnection, Source {
  readonly kind = "eventsource";
  readonly push = this;
  session: ClientSession | undefined;
  isGone = false;
  private readonly unconfirmed: Unconfirmed;
  /** Most bytes that were handed over at once: no client can have read them yet. */
  private handedOver = 0;
  private readonly pingTimer: NodeJS.Timeout;

  constructor(
    private readonly response: ServerResponse,
    private readonly socket: Socket,
    readonly address: string | undefined,
    readonly userAgent: string | undefined,
    private readonly bayeux: Bayeux,
    private readonly options: EventSourceOptions,
  ) {
    response.shouldKeepAlive = false;
    // Not chunked: the stream ends when the connection does.
    response.removeHeader("Transfer-Encoding");
    response.writeHead(200, {
      "Content-Type": "text/event-stream",
      "Cache-Control": "no-cache, no-store",
      Connection: "close",
    });
    response.write(`retry: ${retryMs}\r\n\r\n`);
    // From here on the stream is its socket's: a response gathers writes into one, of which
    // nobody could say how much the kernel took.
    socket.uncork();
    this.pingTimer = setInterval(() => socket.write(":\r\n\r\n"), pingIntervalMs);
    this.pingTimer.unref();
    response.on("close", () => this.closed());
    // A write that fails is followed by "close", which puts back what was not sent.
    response.on("error", () => response.destroy());
    this.unconfirmed = new Unconfirmed(socket);
  }

  deliver(batch: Batch, receiver: Receiver): void {
    this.write(batch, receiver);
    this.watchBuffer();
  }

  handOver(batches: readonly Batch[], receiver: Receiver): void {
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
    if (messages.length > 0) this.response.destroy();
    return messages;
  }

  close(): void {
    clearInterval(this.pingTimer);
    this.response.end();
    // A client that does not read would keep the end of the stream waiting for ever.
    setTimeout(() => this.response.destroy(), closeGraceMs).unref();
  }

  /** Replies travel in the client's posts. */
  respond(): void {}

  private write(batch: Batch, receiver: Receiver): number {
    const event = Buffer.from(toEvent(batch.text));
    this.unconfirmed.add(batch, receiver);
    this.socket.write(event, this.unconfirmed.confirm);
    return event.length;
  }

  /** A slow consumer's stream ends; its session goes on. LIM-4 */
  private watchBuffer(): void {
    const { writableLength } = this.socket;
    if (writableLength === 0) this.handedOver = 0;
    if (writableLength <= this.options.socketBufferBytes + this.handedOver) return;
    this.options.onSlowConsumer(this.session);
    this.response.destroy();
  }

  private closed(): void {
    clearInterval(this.pingTimer);
    this.bayeux.closed(this);
    this.unconfirmed.putBackAll();
  }
}

/** Each line of the text is a `data:` line; the browser joins them again with newlines. */
function toEvent(text: string): string {
  return `data: ${text.replace(/\r\n|\r|\n/g, "\r\ndata: ")}\r\n\r\n`;
}
