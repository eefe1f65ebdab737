/** Long work, done in pieces so that it delays nobody. */
import { setImmediate as nextTurn } from "node:timers/promises";

/** Long work stops after this long to let other work in; then it goes on. */
export const sliceMs = 5;

/**
 * Visits each item, and lets other work in between.
 * @param between how many are visited between two looks at the clock
 */
export async function inSlices<T>(
  items: Iterable<T>,
  visit: (item: T) => void,
  between = 1,
): Promise<void> {
  let sliceEnd = performance.now() + sliceMs;
  let visited = 0;
  for (const item of items) {
    visit(item);
    if (++visited % between !== 0 || performance.now() < sliceEnd) continue;
    await nextTurn();
    sliceEnd = performance.now() + sliceMs;
  }
}
