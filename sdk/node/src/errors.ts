/** What the server says of a request that it refuses. */
export interface Refused {
  /** Such as 503; null for most refusals, which go by their message. */
  readonly code: number | null;
  readonly params: readonly string[];
  /** Stays the same from version to version: `Invalid secret`. */
  readonly message: string;
  /** What was wrong in this case, and what is allowed. */
  readonly details: string;
}

interface ErrorFields extends Partial<Refused> {
  readonly status?: number;
  readonly retryAfter?: number;
  readonly attempts?: number;
  readonly cause?: unknown;
}

/**
 * Why a call failed. Its classes say what can be done: other credentials (`AuthenticationError`),
 * another request (`RequestError`), later (`ServerError`, `ConnectionError`, `TimeoutError`).
 */
export class PandapushError extends Error {
  override readonly name: string = "PandapushError";
  /** Of HTTP; undefined when no answer came. */
  readonly status: number | undefined;
  /** The server's own code, such as 503; null where it gives none. */
  readonly code: number | null;
  readonly params: readonly string[];
  /** What was wrong and what is allowed, where the server says so. */
  readonly details: string | undefined;
  /** In seconds: when the server wants to be asked again. */
  readonly retryAfter: number | undefined;
  /** How often it was tried. */
  readonly attempts: number;

  constructor(message: string, fields: ErrorFields = {}) {
    const { cause, details } = fields;
    const text = details === undefined ? message : `${message}: ${details}`;
    super(text, cause === undefined ? {} : { cause });
    this.status = fields.status;
    this.code = fields.code ?? null;
    this.params = fields.params ?? [];
    this.details = details;
    this.retryAfter = fields.retryAfter;
    this.attempts = fields.attempts ?? 1;
  }
}

/** The key or its secret does not hold, or not for this application. */
export class AuthenticationError extends PandapushError {
  override readonly name = "AuthenticationError";
}

/** The server does not take this request, however often it is sent. */
export class RequestError extends PandapushError {
  override readonly name = "RequestError";
}

/** The server cannot do it at the moment. What was published may have been delivered. */
export class ServerError extends PandapushError {
  override readonly name = "ServerError";
}

/** No answer came: `cause` has the reason. What was published may have been delivered. */
export class ConnectionError extends PandapushError {
  override readonly name = "ConnectionError";
}

/** No answer came in time. What was published may have been delivered. */
export class TimeoutError extends PandapushError {
  override readonly name = "TimeoutError";
}

/** What the server says of credentials that do not hold, whatever the status (AUTH-3 to AUTH-11). */
const unauthenticated =
  /^(?:Unauthorized|No auth|Auth information|Invalid (?:token|secret)|Could not find key|(?:Expired|Revoked) key)/;

/** From an answer that is no success. */
export function refusal(
  status: number,
  text: string,
  retryAfter: number | undefined,
  attempts: number,
): PandapushError {
  const said = readRefused(text);
  const { message = `The server answered ${status}`, ...rest } = said;
  const fields = {
    ...rest,
    status,
    attempts,
    ...(retryAfter === undefined ? {} : { retryAfter }),
  };
  if (status === 429 || status >= 500) return new ServerError(message, fields);
  if (unauthenticated.test(message)) return new AuthenticationError(message, fields);
  return new RequestError(message, fields);
}

const maxQuoted = 200;

function readRefused(text: string): Partial<Refused> {
  try {
    const { code, params, message, details } = JSON.parse(text) as Partial<Refused>;
    if (typeof message === "string" && typeof details === "string") {
      return { code: code ?? null, params: params ?? [], message, details };
    }
  } catch {
    // A text, of the server or of a proxy in front of it.
  }
  const line = text.trim().split("\n", 1)[0] ?? "";
  if (line === "" || line.startsWith("<")) return {};
  return { message: line.slice(0, maxQuoted) };
}
