/** One request and its answer, with time limits and repetitions. */
import { setTimeout as delay } from "node:timers/promises";
import { ConnectionError, type PandapushError, refusal, TimeoutError } from "./errors.js";

/** What every call takes. */
export interface CallOptions {
  /** Gives the call up; it is rejected with the signal's reason. */
  readonly signal?: AbortSignal;
  /** How long one attempt may take, in ms. */
  readonly timeoutMs?: number;
  /** How often it is tried again at most. */
  readonly retries?: number;
}

export interface Request {
  readonly method: "GET" | "POST";
  /** Behind the server's address, with its query. */
  readonly path: string;
  readonly body?: string;
  readonly idempotencyKey?: string;
  /**
   * Whether it does no harm when it is done twice. Else it is sent again only after answers that
   * say it was not done.
   */
  readonly isRepeatable: boolean;
}

export interface Answer {
  readonly text: string;
  readonly headers: Headers;
}

/** The first wait before another attempt, in ms; each further one is twice as long. */
const firstWaitMs = 200;
const longestWaitMs = 5_000;
/** Who is told to come back later than this is not kept waiting. */
const longestRetryAfterMs = 30_000;

export class Requests {
  readonly #base: string;
  readonly #authorization: string;
  readonly #defaults: Required<Omit<CallOptions, "signal">>;

  constructor(
    base: string,
    authorization: string,
    defaults: Required<Omit<CallOptions, "signal">>,
  ) {
    this.#base = base;
    this.#authorization = authorization;
    this.#defaults = defaults;
  }

  /** @throws PandapushError, or the reason of `options.signal` */
  async send(request: Request, options: CallOptions = {}): Promise<Answer> {
    const { retries = this.#defaults.retries, signal } = options;
    for (let attempt = 1; ; attempt++) {
      signal?.throwIfAborted();
      try {
        return await this.#attempt(request, options, attempt);
      } catch (error) {
        const waitMs = attempt <= retries ? waitBefore(attempt, request, error) : undefined;
        if (waitMs === undefined) throw error;
        await delay(waitMs, undefined, signal === undefined ? {} : { signal }).catch((reason) => {
          throw signal?.reason ?? reason;
        });
      }
    }
  }

  async #attempt(request: Request, options: CallOptions, attempts: number): Promise<Answer> {
    const { method, path, body, idempotencyKey } = request;
    const { timeoutMs = this.#defaults.timeoutMs, signal } = options;
    const timeout = AbortSignal.timeout(timeoutMs);
    let response: Response;
    let text: string;
    try {
      response = await fetch(this.#base + path, {
        method,
        headers: {
          authorization: this.#authorization,
          ...(body === undefined ? {} : { "content-type": "application/json" }),
          ...(idempotencyKey === undefined ? {} : { "idempotency-key": idempotencyKey }),
        },
        // A publish that is redirected would become a GET.
        redirect: "manual",
        signal: signal === undefined ? timeout : AbortSignal.any([signal, timeout]),
        ...(body === undefined ? {} : { body }),
      });
      text = await response.text();
    } catch (error) {
      signal?.throwIfAborted();
      if (timeout.aborted) {
        throw new TimeoutError(`No answer within ${timeoutMs} ms`, { attempts });
      }
      const { cause = error } = error as Error;
      const reason = cause instanceof Error ? cause.message || codeOf(cause) : String(cause);
      const message = `No answer from ${new URL(this.#base).host}: ${reason}`;
      throw new ConnectionError(message, { cause, attempts });
    }
    if (response.ok) return { text, headers: response.headers };
    const location = response.headers.get("location");
    const said =
      response.status >= 300 && response.status < 400 && location !== null
        ? `The server redirects to ${location}; give its own address as url`
        : text;
    throw refusal(response.status, said, retryAfterOf(response.headers), attempts);
  }
}

/** In ms; undefined when it is not to be tried again. */
function waitBefore(attempt: number, request: Request, error: unknown): number | undefined {
  const { status, retryAfter = 0 } = error as PandapushError;
  const wasNotDone = status === 429 || status === 503;
  const mayPass = status === undefined || wasNotDone || status === 502 || status === 504;
  if (!(request.isRepeatable ? mayPass : wasNotDone)) return undefined;
  if (retryAfter * 1000 > longestRetryAfterMs) return undefined;
  const mostMs = Math.min(firstWaitMs * 2 ** (attempt - 1), longestWaitMs);
  // Many who failed together do not come back together.
  return retryAfter * 1000 + mostMs * (0.5 + Math.random() / 2);
}

/** In seconds. RFC 9110, section 10.2.3 */
function retryAfterOf(headers: Headers): number | undefined {
  const value = headers.get("retry-after");
  if (value === null) return undefined;
  const seconds = /^\d+$/.test(value) ? Number(value) : (Date.parse(value) - Date.now()) / 1000;
  return Number.isNaN(seconds) ? undefined : Math.max(0, Math.ceil(seconds));
}

/** Node names some faults by nothing else. */
function codeOf(error: NodeJS.ErrnoException): string {
  return error.code ?? "the connection failed";
}
