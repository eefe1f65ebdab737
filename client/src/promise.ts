import { Emitter, type EventMap } from "./emitter.js";
import { msOf } from "./time.js";

/**
 * A promise that can be watched in the ways of Faye as well, and whose failure stays silent when
 * nobody listens to it. What those who listen throw does not.
 */
export class Deferred<Events extends EventMap<Events> = object>
  extends Emitter<Events>
  implements PromiseLike<undefined>
{
  readonly #promise: Promise<undefined>;
  #resolve: () => void = () => {};
  #reject: (error: Error) => void = () => {};

  constructor() {
    super();
    this.#promise = new Promise((resolve, reject) => {
      this.#resolve = () => resolve(undefined);
      this.#reject = reject;
    });
    this.#silence(this.#promise);
  }

  // biome-ignore lint/suspicious/noThenProperty: it is a promise to its users
  then<A = undefined, B = never>(
    fulfilled?: ((value: undefined) => A | PromiseLike<A>) | null,
    rejected?: ((error: Error) => B | PromiseLike<B>) | null,
  ): Promise<A | B> {
    const next = this.#promise.then(fulfilled, rejected);
    if (!rejected) this.#silence(next);
    return next;
  }

  catch<B = never>(
    rejected?: ((error: Error) => B | PromiseLike<B>) | null,
  ): Promise<undefined | B> {
    return this.then(undefined, rejected);
  }

  finally(done?: (() => void) | null): Promise<undefined> {
    const next = this.#promise.finally(() => {
      const result = done?.();
      this.#silence(next);
      return result;
    });
    return next;
  }

  /** As in Faye: `then` with one function. */
  callback(fulfilled: () => void, context?: unknown): Promise<void> {
    return this.then(() => fulfilled.call(context));
  }

  /** As in Faye: `catch`. */
  errback(rejected: (error: Error) => void, context?: unknown): Promise<unknown> {
    return this.then(undefined, (error) => rejected.call(context, error));
  }

  /** As in Faye: fails with `reason` when nothing has come after so many seconds. */
  timeout(seconds: number, reason: Error): void {
    const timer = setTimeout(() => this.#reject(reason), msOf(seconds));
    const stop = (): void => clearTimeout(timer);
    this.then(stop, stop);
  }

  /** @internal */
  succeed(): void {
    this.#resolve();
  }

  /** @internal */
  fail(error: Error): void {
    this.#reject(error);
  }

  /** `next` fails as this does, when it does: nobody has to hear of that. */
  #silence(next: Promise<unknown>): void {
    this.#promise.catch(() => next.catch(() => {}));
  }
}
