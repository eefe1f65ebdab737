import type { Message } from "./message.js";

/** How many publications are remembered, to recognise those that come again. */
const maxSeen = 2_048;

/** What the server sent by itself: what came again, and whether something is missing. */
export class Arrivals {
  /** In this session. */
  #count = 0;
  readonly #seen = new Set<string>();

  newSession(): void {
    this.#count = 0;
  }

  /**
   * Counts a message, and says whether it came for the first time. A server that cannot know
   * whether something arrived sends it again; Pandapush's publications have ids with a `-`, other
   * servers' ids are their publishers' own and repeat.
   */
  isNews({ id, successful }: Message): boolean {
    // A reply that nobody waits for any more.
    if (id !== undefined && successful !== undefined) return true;
    if (typeof id === "string" && id.includes("-")) {
      if (this.#seen.has(id)) return false;
      this.#seen.add(id);
      if (this.#seen.size > maxSeen) {
        for (const oldest of this.#seen) {
          this.#seen.delete(oldest);
          break;
        }
      }
    }
    this.#count += 1;
    return true;
  }

  /** @param sent how many messages the server has sent in this session, as it says */
  isBehind(sent: number): boolean {
    if (sent <= this.#count) return false;
    this.#count = sent;
    return true;
  }
}
