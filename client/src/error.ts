import type { Message } from "./message.js";

/**
 * What kind of failure it is; these stay the same when texts change.
 *
 * - `unauthenticated`: there was no token, or it does not hold, or its key does not: another may
 * - `forbidden`: the token holds, and does not allow this
 * - `refused`: any other no, of the server mostly: `code` and `message` say more
 * - `no-token`: the function that gives tokens failed
 * - `undelivered`: attempts or time were used up, or there was no answer to the last attempt
 * - `cancelled`: the subscription was cancelled before the server answered
 * - `disconnected`: the client was disconnected, or told by the server to stay away
 */
export type ErrorReason =
  | "unauthenticated"
  | "forbidden"
  | "refused"
  | "no-token"
  | "undelivered"
  | "cancelled"
  | "disconnected";

/** What Pandapush says of credentials that do not hold (AUTH-3 to AUTH-11). */
const unauthenticated =
  /^(?:No auth|Auth information|Invalid (?:token|secret)|Could not find key|(?:Expired|Revoked) key)/;

/**
 * Why a subscribe or publish failed: what the server answered, or what stopped the client.
 *
 * Bayeux servers answer `code:params:text`; Pandapush's own refusals are a text alone, and then
 * `code` is null. Programs go by `reason`.
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
    readonly reason: ErrorReason = reasonOf(code, message),
  ) {
    super(message);
  }

  /** @internal Of this client itself. */
  static own(reason: ErrorReason, message: string): PandapushError {
    return new PandapushError(null, [], message, undefined, reason);
  }

  /** From the reply that refused something. */
  static from(reply: Message): PandapushError {
    const { error = "The server gave no reason", ext } = reply;
    const detail = typeof ext?.detail === "string" ? ext.detail : undefined;
    return PandapushError.parse(error, detail);
  }

  /** Reads the `error` field of a reply. */
  static parse(text: string, detail?: string): PandapushError {
    const [, code, params, message = text] = /^(\d{3}):([^:]*):([\s\S]*)$/.exec(text) ?? [];
    return code === undefined
      ? new PandapushError(null, [], text, detail)
      : new PandapushError(Number(code), params?.split(",") ?? [], message, detail);
  }

  /** As the server wrote it. */
  override toString(): string {
    return this.code === null
      ? this.message
      : `${this.code}:${this.params.join(",")}:${this.message}`;
  }
}

function reasonOf(code: number | null, message: string): ErrorReason {
  if (code === 401 || unauthenticated.test(message)) return "unauthenticated";
  return code === 403 || message.startsWith("Token does not") ? "forbidden" : "refused";
}
