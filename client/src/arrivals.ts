import type { Message } from "./message.js";

/** How many publications are remembered, to recognise those that come again. */
const maxSeen = 2_048;

/** What the server sent by itself: what came again, and whether something is missing. */
export class Arrivals {
  /** In this session. */
  #count = 0;
  /** The server counts what it sends, which only Pandapush does. */
  #isCounted = false;
  readonly #seen = new Set<unknown>();

  newSession(): void {
    this.#count = 0;
    this.#isCounted = false;
  }

  /**
   * Counts a message, and says whether it came for the first time. A server that cannot know
   * whether something arrived sends it again; Pandapush's publications have ids of their own,
   * other servers' ids are their publishers' and repeat.
   */
  isNews({ id, successful }: Message): boolean {
    // A reply that nobody waits for any more.
    if (id !== undefined && successful !== undefined) return true;
    if (this.#isCounted && id !== undefined && this.#seen.has(id)) return false;
    this.#seen.add(id);
    if (this.#seen.size > maxSeen) this.#seen.delete(this.#seen.values().next().value);
    this.#count += 1;
    return true;
  }

  /** @param sent how many messages the server has sent in this session, as it says */
  isBehind(sent: number): boolean {
    this.#isCounted = true;
    if (sent <= this.#count) return false;
    this.#count = sent;
    return true;
  }
}
