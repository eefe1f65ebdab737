import { Emitter } from "./emitter.js";
import type { PandapushError } from "./error.js";
import type { Subscription } from "./subscription.js";

/** The least that is known of a member: more is what the token's `presence` claim holds. */
export interface PresenceMember {
  readonly id: string;
}

export interface PresenceEvents<T> {
  /** Somebody came, or came while this client was away. */
  join: [id: string, member: T];
  /** Somebody left, or left while this client was away. */
  leave: [id: string, member: T];
  /** The server has said who is here: at first, and after each new session. */
  sync: [members: ReadonlyMap<string, T>];
  /** The server said no, at first or with a new session: the list stays as it is. */
  refused: [error: PandapushError];
}

/** What a presence channel carries, and what the reply to its subscribe says of all. */
interface PresenceMessage<T> {
  subscribe?: Record<string, T>;
  unsubscribe?: Record<string, unknown>;
}

/**
 * Who is present on a channel, this client included. Awaiting it waits for the server's first
 * answer, as with a subscription.
 */
export class PresenceRoom<T = PresenceMember>
  extends Emitter<PresenceEvents<T>>
  implements PromiseLike<undefined>
{
  /** By presence id. */
  readonly members: ReadonlyMap<string, T>;
  readonly subscription: Subscription<unknown>;
  readonly #members = new Map<string, T>();
  #isSynced = false;

  /** @internal */
  constructor(
    subscribe: (
      listener: (data: unknown) => void,
      onSnapshot: (presence: unknown) => void,
    ) => Subscription<unknown>,
  ) {
    super();
    this.members = this.#members;
    this.subscription = subscribe(
      (data) => this.#change(data as PresenceMessage<T>),
      (snapshot) => this.#sync(snapshot as PresenceMessage<T>),
    );
    this.subscription.on("refused", (error) => this.emit("refused", error));
  }

  /** Leaves. */
  cancel(): void {
    this.subscription.cancel();
  }

  // biome-ignore lint/suspicious/noThenProperty: it is a promise to its users
  then<A = undefined, B = never>(
    fulfilled?: ((value: undefined) => A | PromiseLike<A>) | null,
    rejected?: ((error: Error) => B | PromiseLike<B>) | null,
  ): Promise<A | B> {
    return this.subscription.then(fulfilled, rejected);
  }

  catch<B = never>(
    rejected?: ((error: PandapushError | Error) => B | PromiseLike<B>) | null,
  ): Promise<undefined | B> {
    return this.subscription.catch(rejected);
  }

  finally(done?: (() => void) | null): Promise<undefined> {
    return this.subscription.finally(done);
  }

  #change(data: PresenceMessage<T> | null): void {
    for (const [id, member] of Object.entries(data?.subscribe ?? {})) this.#join(id, member);
    for (const id of Object.keys(data?.unsubscribe ?? {})) this.#leave(id);
  }

  #sync({ subscribe }: PresenceMessage<T>): void {
    const isFirst = !this.#isSynced;
    this.#isSynced = true;
    const present = new Map(Object.entries(subscribe ?? {}));
    for (const id of [...this.#members.keys()]) if (!present.has(id)) this.#leave(id);
    for (const [id, member] of present) {
      if (isFirst) this.#members.set(id, member);
      else this.#join(id, member);
    }
    this.emit("sync", this.members);
  }

  #join(id: string, member: T): void {
    const isNew = !this.#members.has(id);
    this.#members.set(id, member);
    if (isNew) this.emit("join", id, member);
  }

  #leave(id: string): void {
    const member = this.#members.get(id);
    if (this.#members.delete(id)) this.emit("leave", id, member as T);
  }
}
