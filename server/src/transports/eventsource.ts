/** Server-sent events: replies travel in the client's POSTs, events on this stream. */
import type { ServerResponse } from "node:http";
import type { Bayeux, Source } from "../bayeux.js";
import type { Session } from "../session.js";
import type { Batch, PushConnection, Receiver } from "./transport.js";
import { Unconfirmed } from "./unconfirmed.js";

/** What the browser waits before it opens a lost stream again. TR-ES-3 */
const retryMs = 5_000;
/** Comments keep proxies from closing a quiet stream. */
const pingIntervalMs = 10_000;

export interface EventSourceOptions {
  /** Bytes that wait in this process for a client to read; beyond, it is a slow consumer. */
  readonly socketBufferBytes: number;
  readonly onSlowConsumer: (session: Session | undefined) => void;
}

export class EventSourceConnection implements PushConnection, Source {
  readonly kind = "eventsource";
  readonly push = this;
  session: Session | undefined;
  private readonly unconfirmed = new Unconfirmed();
  private readonly pingTimer: NodeJS.Timeout;

  constructor(
    private readonly response: ServerResponse,
    readonly address: string | undefined,
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
    this.pingTimer = setInterval(() => response.write(":\r\n\r\n"), pingIntervalMs);
    this.pingTimer.unref();
    response.on("close", () => this.closed());
  }

  deliver(batch: Batch, receiver: Receiver): void {
    this.unconfirmed.add(batch, receiver);
    this.response.write(toEvent(batch.text), this.unconfirmed.confirm);
    if (this.response.writableLength <= this.options.socketBufferBytes) return;
    this.options.onSlowConsumer(this.session);
    this.response.destroy();
  }

  release(receiver: Receiver): readonly string[] {
    const messages = this.unconfirmed.take(receiver);
    if (messages.length > 0) this.response.destroy();
    return messages;
  }

  close(): void {
    this.response.end();
  }

  /** Replies travel in the client's posts. */
  respond(): void {}

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
