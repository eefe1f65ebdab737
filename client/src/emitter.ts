/** Of whichever event: they stand in one list. */
type Listener = (...args: unknown[]) => void;

interface Entry {
  readonly listener: Listener;
  readonly context: unknown;
  readonly isOnce: boolean;
}

/** By the names of events: what their listeners are called with. */
export type EventMap<Events> = { [name in keyof Events]: unknown[] };

/** Calls listeners by the name of an event, in the order in which they were added. */
export class Emitter<Events extends EventMap<Events>> {
  readonly #entries = new Map<keyof Events, readonly Entry[]>();

  /** @param context `this` of the listener */
  on<K extends keyof Events>(
    event: K,
    listener: (...args: Events[K]) => void,
    context?: unknown,
  ): this {
    return this.#add(event, { listener: listener as Listener, context, isOnce: false });
  }

  /** As `on`, for the next time only. */
  once<K extends keyof Events>(
    event: K,
    listener: (...args: Events[K]) => void,
    context?: unknown,
  ): this {
    return this.#add(event, { listener: listener as Listener, context, isOnce: true });
  }

  /** Removes one listener, or all of the event. */
  off<K extends keyof Events>(event: K, listener?: (...args: Events[K]) => void): this {
    this.#keep(event, (entry) => listener !== undefined && entry.listener !== listener);
    return this;
  }

  /** Calls the listeners of an event. */
  emit<K extends keyof Events>(event: K, ...args: Events[K]): void {
    for (const entry of this.#entries.get(event) ?? []) {
      if (entry.isOnce) this.#keep(event, (other) => other !== entry);
      callSafely(() => entry.listener.apply(entry.context, args));
    }
  }

  #keep(event: keyof Events, isKept: (entry: Entry) => boolean): void {
    this.#entries.set(event, (this.#entries.get(event) ?? []).filter(isKept));
  }

  #add(event: keyof Events, entry: Entry): this {
    this.#entries.set(event, [...(this.#entries.get(event) ?? []), entry]);
    return this;
  }
}

/** What an application's function throws is its own: reported as uncaught, never stopping us. */
export function callSafely(call: () => void, failed?: (error: Error) => void): void {
  try {
    call();
  } catch (error) {
    queueMicrotask(() => {
      throw error;
    });
    failed?.(error as Error);
  }
}
