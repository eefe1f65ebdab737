/** A connection that lasted this long ends a series of failures, in ms. */
const stableMs = 10_000;
const maxDelayMs = 20_000;

/**
 * How long to wait before the next attempt: exponential backoff with full jitter, so that clients
 * which lost their server together do not come back together.
 */
export class Reconnect {
  #failures = 0;
  #connectedAt = 0;

  /** @param baseMs the longest wait after the first failure */
  constructor(private readonly baseMs: number) {}

  connected(): void {
    this.#connectedAt = Date.now();
  }

  /** A failure has been noticed. @returns how long to wait, in ms */
  nextDelayMs(): number {
    if (this.#connectedAt > 0 && Date.now() - this.#connectedAt >= stableMs) this.#failures = 0;
    this.#connectedAt = 0;
    const longest = Math.min(maxDelayMs, this.baseMs * 2 ** this.#failures);
    this.#failures += 1;
    return Math.random() * longest;
  }
}
