import type { Batch, Receiver } from "./transport.js";

/**
 * What a connection was given to write and the kernel has not taken yet, oldest first.
 *
 * Node calls a write's callback when all of its bytes have left the process, in the order of the
 * writes; so what remains here when a connection dies was not sent, or not completely.
 */
export class Unconfirmed {
  private oldest: Entry | undefined;
  private newest: Entry | undefined;
  private waiting: (() => void)[] = [];

  /** @param socket where the writes go */
  constructor(private readonly socket: { readonly destroyed: boolean } | null) {}

  /** The callback for the write of the oldest entry that has none yet. */
  readonly confirm = (error?: Error | null): void => {
    // Of the write that was under way when its socket was destroyed Node reports no error.
    if (error || this.socket?.destroyed === true || this.oldest === undefined) return;
    this.oldest = this.oldest.next;
    if (this.oldest !== undefined) return;
    this.newest = undefined;
    this.tell();
  };

  /** Resolves when nothing remains, for whatever reason. */
  settled(): Promise<void> {
    if (this.oldest === undefined) return Promise.resolve();
    return new Promise((resolve) => {
      this.waiting.push(resolve);
    });
  }

  add(batch: Batch, receiver: Receiver): void {
    const entry: Entry = { batch, receiver, next: undefined };
    if (this.newest === undefined) this.oldest = entry;
    else this.newest.next = entry;
    this.newest = entry;
  }

  /** Takes out what is meant for `receiver`. The connection must not write any more. */
  take(receiver: Receiver): string[] {
    const taken: string[] = [];
    const rest: Entry[] = [];
    for (let entry = this.oldest; entry !== undefined; entry = entry.next) {
      if (entry.receiver === receiver) taken.push(...entry.batch.messages);
      else rest.push(entry);
    }
    this.oldest = undefined;
    this.newest = undefined;
    for (const entry of rest) this.add(entry.batch, entry.receiver);
    if (this.oldest === undefined) this.tell();
    return taken;
  }

  private tell(): void {
    for (const resolve of this.waiting.splice(0)) resolve();
  }

  /** Everyone gets back what was not sent. */
  putBackAll(): void {
    while (this.oldest !== undefined) {
      const { receiver } = this.oldest;
      receiver.putBack(this.take(receiver));
    }
  }
}

interface Entry {
  readonly batch: Batch;
  readonly receiver: Receiver;
  next: Entry | undefined;
}
