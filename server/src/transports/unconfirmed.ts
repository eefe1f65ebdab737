import type { Batch, Receiver } from "./transport.js";

/**
 * What a connection was given to write and the kernel has not taken yet, oldest first.
 *
 * Node calls a write's callback when all of its bytes have left the process, in the order of the
 * writes; so what remains here when a connection dies was not sent, or not completely.
 */
export class Unconfirmed {
  private entries: { readonly batch: Batch; readonly receiver: Receiver }[] = [];

  /** The callback for the write of the oldest entry that has none yet. */
  readonly confirm = (error?: Error | null): void => {
    if (!error) this.entries.shift();
  };

  add(batch: Batch, receiver: Receiver): void {
    this.entries.push({ batch, receiver });
  }

  /** Takes out what is meant for `receiver`. The connection must not write any more. */
  take(receiver: Receiver): string[] {
    const taken: string[] = [];
    const rest: typeof this.entries = [];
    for (const entry of this.entries) {
      if (entry.receiver === receiver) taken.push(...entry.batch.messages);
      else rest.push(entry);
    }
    this.entries = rest;
    return taken;
  }

  /** Everyone gets back what was not sent. */
  putBackAll(): void {
    const byReceiver = new Map<Receiver, string[]>();
    for (const { batch, receiver } of this.entries.splice(0)) {
      const messages = byReceiver.get(receiver);
      if (messages === undefined) byReceiver.set(receiver, [...batch.messages]);
      else messages.push(...batch.messages);
    }
    for (const [receiver, messages] of byReceiver) receiver.putBack(messages);
  }
}
