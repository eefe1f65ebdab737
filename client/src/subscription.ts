import { callSafely } from "./emitter.js";
import { PandapushError } from "./error.js";
import { Deferred } from "./promise.js";

/**
 * - `pending`: asked for, or asked for again after the session was lost
 * - `subscribed`: the server has acknowledged it
 * - `refused`: the server said no to it, which is for good; or no more, after it was subscribed:
 *   then it is asked for again with the next session
 * - `cancelled`: for good
 */
export type SubscriptionState = "pending" | "subscribed" | "refused" | "cancelled";

export interface SubscriptionEvents {
  subscribed: [];
  /** Acknowledged once more, such as after the session was lost or the server had ended it. */
  resubscribed: [];
  refused: [error: PandapushError];
  /** Something published to the channel may have been missed: fetch what matters again. */
  gap: [];
  cancelled: [];
}

/** A token, or what makes a fresh one each time the server has to be asked. */
export type TokenSource =
  | string
  | null
  | undefined
  | (() => string | null | undefined | PromiseLike<string | null | undefined>);

export type MessageListener<T> = (data: T, channel: string) => void;

/** @internal */
export interface NewSubscription<T> {
  readonly channel: string;
  readonly token: TokenSource;
  readonly listener: MessageListener<T> | undefined;
  readonly context: unknown;
  /** Hears who is present when the server has said it, in place of the listener. */
  readonly onSnapshot?: (presence: unknown) => void;
}

/** Where the server's answer says who is present. */
const presenceChannel = /^\/[^/]+\/presence(?:\/[^*]+)?$/;

/**
 * One listener's interest in a channel or pattern. As a promise it settles with the server's
 * first answer; what happens later is told by its events.
 */
export class Subscription<T = unknown> extends Deferred<SubscriptionEvents> {
  /** The channel or pattern. */
  readonly channel: string;
  /** @internal */
  readonly token: TokenSource;
  /** @internal */
  readonly isOfPresence: boolean;
  /** @internal Number of the last session that it was asked for in. */
  session = 0;
  /** @internal */
  wasSubscribed = false;
  readonly #wish: NewSubscription<T>;
  readonly #onCancel: () => void;
  #state: SubscriptionState = "pending";
  /**
   * While the server is asked who is present: what came since. The answer tells of the time before
   * that, and may come by another way and later.
   */
  #early: [data: T, channel: string][] | undefined;
  #withChannel: ((channel: string, data: T) => void) | undefined;

  /** @internal */
  constructor(wish: NewSubscription<T>, onCancel: () => void) {
    super();
    this.channel = wish.channel;
    this.token = wish.token;
    this.isOfPresence = presenceChannel.test(wish.channel);
    this.#wish = wish;
    this.#onCancel = onCancel;
  }

  get state(): SubscriptionState {
    return this.#state;
  }

  /** `listener` gets every message with the channel it came by, beside the first listener. */
  withChannel(listener: (channel: string, data: T) => void, context?: unknown): this {
    this.#withChannel = listener.bind(context);
    return this;
  }

  /** Ends it; harmless twice. */
  cancel(): void {
    this.end(PandapushError.own("cancelled", "The subscription was cancelled"));
  }

  /** As in Faye: `cancel`. */
  unsubscribe(): void {
    this.cancel();
  }

  /** @internal */
  end(reason: Error): void {
    if (this.#state === "cancelled") return;
    this.#state = "cancelled";
    this.fail(reason);
    this.#onCancel();
    this.emit("cancelled");
  }

  /** @internal The server is to be asked, for the first time or again. */
  renew(): void {
    if (this.#state === "cancelled") return;
    this.#state = "pending";
    this.#early = undefined;
  }

  /** @internal The question is on its way. */
  asked(): void {
    if (this.isOfPresence) this.#early ??= [];
  }

  /** @internal */
  deliver(data: T, channel: string): void {
    if (this.#early !== undefined) {
      this.#early.push([data, channel]);
      return;
    }
    this.#call(this.#wish.listener, data, channel);
    this.#call(this.#withChannel, channel, data);
  }

  /** @internal The server has said yes, and on a presence channel who is there. */
  confirm(presence: unknown): void {
    if (this.#state === "cancelled" || this.#state === "subscribed") return;
    const { token, listener, onSnapshot } = this.#wish;
    const early = this.#early ?? [];
    this.#early = undefined;
    this.#state = "subscribed";
    if (presence && onSnapshot !== undefined) onSnapshot(presence);
    else if (presence && token !== undefined) this.#call(listener, presence as T, this.channel);
    if (this.wasSubscribed) {
      this.emit("resubscribed");
      this.emit("gap");
    } else {
      this.wasSubscribed = true;
      this.succeed();
      this.emit("subscribed");
    }
    for (const [data, channel] of early) this.deliver(data, channel);
  }

  /** @internal */
  refuse(error: Error): void {
    if (this.#state === "cancelled" || this.#state === "refused") return;
    this.#state = "refused";
    this.#early = undefined;
    this.fail(error);
    const refusal =
      error instanceof PandapushError ? error : PandapushError.own("refused", error.message);
    this.emit("refused", refusal);
  }

  /** @internal What was published may not have come: who is present has to be asked again. */
  miss(): void {
    if (this.#state !== "subscribed") return;
    if (this.isOfPresence) this.session = 0;
    else this.emit("gap");
  }

  #call<A extends unknown[]>(listener: ((...args: A) => void) | undefined, ...args: A): void {
    // The one in front may have ended it.
    if (this.#state !== "pending" && this.#state !== "subscribed") return;
    callSafely(() => listener?.apply(this.#wish.context, args));
  }
}
