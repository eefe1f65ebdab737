/**
 * A value, or a promise of it where something must be waited for. Work that needs no waiting is
 * done in the same turn: a promise per message would cost more than the message.
 */
export type MaybePromise<T> = T | Promise<T>;

/** Continues at once when there is nothing to wait for. */
export function after<T, R>(
  value: MaybePromise<T>,
  next: (value: T) => MaybePromise<R>,
): MaybePromise<R> {
  return value instanceof Promise ? value.then(next) : next(value);
}

/** Calls `undo` when `work` fails, now or later, and lets it fail. */
export function orUndo<T>(work: () => MaybePromise<T>, undo: () => void): MaybePromise<T> {
  const undone = (error: unknown): never => {
    undo();
    throw error;
  };
  try {
    const done = work();
    return done instanceof Promise ? done.catch(undone) : done;
  } catch (error) {
    return undone(error);
  }
}

/** Runs `step` for each item, one after the other; waits only for steps that wait. */
export function inTurn<T>(
  items: readonly T[],
  step: (item: T) => MaybePromise<void>,
  from = 0,
): MaybePromise<void> {
  for (let index = from; index < items.length; index++) {
    const done = step(items[index] as T);
    if (done instanceof Promise) return done.then(() => inTurn(items, step, index + 1));
  }
}
