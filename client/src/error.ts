import type { Message } from "./message.js";

/**
 * Why a subscribe or publish failed: what the server answered, or what stopped the client.
 *
 * Bayeux servers answer `code:params:text`; Pandapush's own refusals are a text alone, and then
 * `code` is null.
 */
export class PandapushError extends Error {
  override readonly name = "PandapushError";

  /**
   * @param code such as 405, or null
   * @param detail what would mend it, where the server says so
   */
  constructor(
    readonly code: number | null,
    readonly params: readonly string[],
    message: string,
    readonly detail?: string,
  ) {
    super(message);
  }

  /** From the reply that refused something. */
  static from(reply: Message): PandapushError {
    const { error = "The server gave no reason", ext } = reply;
    const detail = typeof ext?.detail === "string" ? ext.detail : undefined;
    return PandapushError.parse(error, detail);
  }

  /** Reads the `error` field of a reply. */
  static parse(text: string, detail?: string): PandapushError {
    const match = /^(\d{3}):([^:]*):([\s\S]*)$/.exec(text);
    return match === null
      ? new PandapushError(null, [], text, detail)
      : new PandapushError(Number(match[1]), (match[2] ?? "").split(","), match[3] ?? "", detail);
  }

  /** As the server wrote it. */
  override toString(): string {
    return this.code === null
      ? this.message
      : `${this.code}:${this.params.join(",")}:${this.message}`;
  }
}
