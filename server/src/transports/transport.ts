/** The contract between a session and whatever carries its events to the client. */
import type { closeCodes } from "../errors.js";

export type TransportKind = "websocket" | "eventsource" | "long-polling" | "callback-polling";

/** By what a client comes, and as far as that tells, from where and as what. */
export interface Origin {
  readonly kind: TransportKind;
  /** Its network address. */
  readonly address: string | undefined;
  /** What its program calls itself; of bounded length, and shared by all of the kind. */
  readonly userAgent: string | undefined;
}

export type CloseReason = keyof typeof closeCodes;

/**
 * Encoded events that are delivered together, the same object to every session that hears them:
 * a transport's wire form is made once, however many receive it.
 */
export class Batch {
  private frameBytes: Buffer | undefined;

  /** @param messages each the JSON text of one message, in order; at least one */
  constructor(
    readonly messages: readonly string[],
    private readonly join: (messages: readonly string[]) => string,
  ) {}

  get text(): string {
    return this.join(this.messages);
  }

  /** The wire form, made by the first transport that asks: only WebSockets keep one. */
  frame(make: (text: string) => Buffer): Buffer {
    this.frameBytes ??= make(this.text);
    return this.frameBytes;
  }
}

/** A batch holds more than one message only up to this many characters. */
const batchLength = 65_536;

/** Messages in as few batches as their length allows, in order. */
export function batchesOf(
  messages: readonly string[],
  join: (messages: readonly string[]) => string,
): Batch[] {
  const batches: Batch[] = [];
  let part: string[] = [];
  let length = 0;
  for (const message of messages) {
    if (part.length > 0 && length + message.length > batchLength) {
      batches.push(new Batch(part, join));
      part = [];
      length = 0;
    }
    part.push(message);
    length += message.length;
  }
  if (part.length > 0) batches.push(new Batch(part, join));
  return batches;
}

/** Who wants messages back that a connection could not hand to the kernel. */
export interface Receiver {
  /** `messages` go in front of all that wait; nothing happens when the session has ended. */
  putBack(messages: readonly string[]): void;
}

/** One WebSocket or EventSource: events are pushed over it as they come. */
export interface PushConnection {
  readonly kind: TransportKind;
  /** Writes at once, or closes the connection when its peer reads too slowly. */
  deliver(batch: Batch, receiver: Receiver): void;
  /**
   * Writes what had to wait for this connection. The largest of these does not count as read too
   * slowly: a client that was away cannot have read it.
   */
  handOver(batches: readonly Batch[], receiver: Receiver): void;
  /** Resolves when the kernel has taken all that this connection was given, or never will. */
  flushed(): Promise<void>;
  /**
   * Gives back what `receiver` was sent here but the kernel has not taken. If that is anything,
   * the connection is cut, so that nothing of it can arrive twice or late.
   */
  release(receiver: Receiver): readonly string[];
  close(reason: CloseReason): void;
}
