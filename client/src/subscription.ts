import { callSafely } from "./emitter.js";
import { PandapushError } from "./error.js";
import { Deferred } from "./promise.js";

/**
 * - `pending`: asked for, or asked for again after the session was lost
 * - `subscribed`: the server has acknowledged it
 * - `refused`: the server said no, or ended it; it is asked for again with the next session
 * - `cancelled`: for good
 */
export type SubscriptionState = "pending" | "subscribed" | "refused" | "cancelled";

export interface SubscriptionEvents {
  subscribed: [];
  /** Acknowledged once more, after the session was lost or the server had ended it. */
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

/**
 * One listener's interest in a channel or pattern. As a promise it settles with the server's
 * first answer; what happens later is told by its events.
 */
export class Subscription<T = unknown> extends Deferred<SubscriptionEvents> {
  #state: SubscriptionState = "pending";
  #wasSubscribed = false;
  #withChannel: ((channel: string, data: T) => void) | undefined;

  /** @internal */
  constructor(
    /** The channel or pattern. */
    readonly channel: string,
    private readonly listener: MessageListener<T> | undefined,
    private readonly context: unknown,
    /** @internal */
    readonly token: TokenSource,
    private readonly onCancel: (subscription: Subscription<T>) => void,
    private readonly onSnapshot?: (presence: unknown) => void,
  ) {
    super();
  }

  get state(): SubscriptionState {
    return this.#state;
  }

  /** `listener` gets every message with the channel it came by, beside the first listener. */
  withChannel(listener: (channel: string, data: T) => void, context?: unknown): this {
    this.#withChannel = (channel, data) => listener.call(context, channel, data);
    return this;
  }

  /** Ends it; harmless twice. */
  cancel(): void {
    if (this.#state === "cancelled") return;
    this.#state = "cancelled";
    this.fail(PandapushError.own("cancelled", "The subscription was cancelled"));
    this.onCancel(this);
    this.emit("cancelled");
  }

  /** As in Faye: `cancel`. */
  unsubscribe(): void {
    this.cancel();
  }

  /** @internal */
  get wasSubscribed(): boolean {
    return this.#wasSubscribed;
  }

  /** @internal */
  deliver(data: T, channel: string): void {
    callSafely(() => this.listener?.call(this.context, data, channel));
    callSafely(() => this.#withChannel?.(channel, data));
  }

  /** @internal Who is present, from the reply to the subscribe. */
  deliverSnapshot(presence: unknown): void {
    if (this.onSnapshot !== undefined) this.onSnapshot(presence);
    else if (this.token !== undefined) {
      callSafely(() => this.listener?.call(this.context, presence as T, this.channel));
    }
  }

  /** @internal A new session does not know it yet. */
  renew(): void {
    if (this.#state !== "cancelled") this.#state = "pending";
  }

  /** @internal */
  confirm(hasGap: boolean): void {
    if (this.#state === "cancelled" || this.#state === "subscribed") return;
    this.#state = "subscribed";
    const isFirst = !this.#wasSubscribed;
    this.#wasSubscribed = true;
    if (isFirst) this.succeed();
    this.emit(isFirst ? "subscribed" : "resubscribed");
    if (hasGap && !isFirst) this.emit("gap");
  }

  /** @internal */
  refuse(error: PandapushError): void {
    if (this.#state === "cancelled") return;
    this.#state = "refused";
    this.fail(error);
    this.emit("refused", error);
  }

  /** @internal */
  miss(): void {
    if (this.#state === "subscribed") this.emit("gap");
  }
}
