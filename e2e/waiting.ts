/** How long the suite waits for something that should come promptly, in milliseconds. */
export const promptMs = 20_000;

interface Waiter<T> {
  readonly take: (item: T) => void;
  readonly timer: NodeJS.Timeout;
}

/**
 * Items in order of arrival, kept until somebody takes them: what came before it was awaited is
 * not missed.
 */
export class Inbox<T> {
  readonly #items: T[] = [];
  readonly #waiters: Waiter<T>[] = [];
  readonly #what: string;

  /** @param what names the items in the error of a wait that was in vain. */
  constructor(what: string) {
    this.#what = what;
  }

  push(item: T): void {
    const waiter = this.#waiters.shift();
    if (waiter === undefined) {
      this.#items.push(item);
      return;
    }
    clearTimeout(waiter.timer);
    waiter.take(item);
  }

  /** The oldest item not yet taken; rejects when none came within `deadlineMs`. */
  next(deadlineMs = promptMs): Promise<T> {
    if (this.#items.length > 0) return Promise.resolve(this.#items.shift() as T);
    // Captured here, so that a failure points at the sentence that waited.
    const late = new Error(`no ${this.#what} within ${deadlineMs} ms`);
    return new Promise((resolve, reject) => {
      const waiter: Waiter<T> = {
        take: resolve,
        timer: setTimeout(() => {
          this.#waiters.splice(this.#waiters.indexOf(waiter), 1);
          reject(late);
        }, deadlineMs),
      };
      this.#waiters.push(waiter);
    });
  }

  /** The next items up to and with the first that fits; each has its own deadline. */
  async upTo(fits: (item: T) => boolean, deadlineMs = promptMs): Promise<T[]> {
    const items: T[] = [];
    for (;;) {
      const item = await this.next(deadlineMs);
      items.push(item);
      if (fits(item)) return items;
    }
  }
}
