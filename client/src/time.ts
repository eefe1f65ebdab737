/** Longer timers go off at once, in ms. */
const longestMs = 2 ** 31 - 1;

export function msOf(seconds: number): number {
  return Math.min(seconds * 1000, longestMs);
}
