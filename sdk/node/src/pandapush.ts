import { randomUUID } from "node:crypto";
import { setTimeout as delay } from "node:timers/promises";
import { type ChannelKind, type ParsedChannel, parseChannel } from "@pandapush/protocol";
import { type Refused, RequestError } from "./errors.js";
import { type Answer, type CallOptions, type Request, Requests } from "./requests.js";
import { signToken, type TokenOptions } from "./token.js";

export interface PandapushOptions {
  /** The server's address, such as `https://push.example.com`, with the path that it is below, if any. */
  readonly url: string | URL;
  readonly appId: string;
  readonly keyId: string;
  readonly keySecret: string;
  /** How long one attempt may take, in ms; default 10,000. */
  readonly timeoutMs?: number;
  /** How often a call is tried again at most; default 2. */
  readonly retries?: number;
}

export interface PublishOptions extends CallOptions {
  /**
   * Names what is published: of several calls with the same one, channel and data, within five
   * minutes, one publishes. 1 to 255 visible ASCII characters. Default: one for each call, so that
   * its own attempts are one.
   */
  readonly idempotencyKey?: string;
}

export interface BatchMessage {
  /** One, or several that all get the same. */
  readonly channel: string | readonly string[];
  /** Any JSON value. */
  readonly data: unknown;
}

export type BatchResult =
  | { readonly channel: string; readonly successful: true }
  | { readonly channel: string; readonly successful: false; readonly error: Refused };

export interface Page<T> {
  readonly items: T[];
  /** How many there are on all pages. */
  readonly total: number;
}

export interface ActiveChannel {
  readonly channel: string;
  /** Sessions that are subscribed to exactly this name. */
  readonly subscribers: number;
  /** Ids that are present; of presence channels. */
  readonly members?: number;
}

export interface ChannelState extends ActiveChannel {
  /** Sessions that would hear a message, by patterns too. */
  readonly listeners: number;
}

/** What the tokens of those who are present say of them, by their ids. */
export type Members = Readonly<Record<string, { readonly [field: string]: unknown }>>;

export interface Connection {
  readonly id: string;
  /** `none` while its socket or stream is lost and its session waits for it. */
  readonly transport: "websocket" | "eventsource" | "long-polling" | "callback-polling" | "none";
  readonly since: Date;
  readonly userAgent: string | null;
  readonly address: string | null;
  /** The first 100. */
  readonly subscriptions: readonly string[];
  readonly subscriptionCount: number;
  /** The first 10 ids. */
  readonly presence: readonly string[];
}

export interface Refusal {
  readonly firstAt: Date;
  readonly lastAt: Date;
  readonly count: number;
  readonly action: "subscribe" | "publish" | "rest_publish" | "rest";
  readonly channel: string | null;
  readonly message: string;
  readonly details: string;
  readonly keyId: string | null;
}

interface ConnectionText extends Omit<Connection, "since" | "userAgent" | "subscriptionCount"> {
  readonly since: string;
  readonly user_agent: string | null;
  readonly subscription_count: number;
}

interface RefusalText
  extends Pick<Refusal, "count" | "action" | "channel" | "message" | "details"> {
  readonly first_at: string;
  readonly last_at: string;
  readonly key_id: string | null;
}

const kinds: readonly ChannelKind[] = ["public", "private", "presence"];
/** The wait before what a batch failed in is tried again, in ms; each further one is twice as long. */
const batchWaitMs = 500;

/**
 * An application at a Pandapush server, for its back end.
 *
 * Channels are named `private/orders` or `/<application id>/private/orders`. What is wrong with an
 * argument is a `TypeError`, and nothing is sent; all else is a `PandapushError`. It keeps no process
 * alive.
 */
export class Pandapush {
  readonly appId: string;
  readonly #key: { readonly keyId: string; readonly keySecret: string };
  readonly #requests: Requests;
  readonly #retries: number;

  constructor(options: PandapushOptions) {
    const { url, timeoutMs = 10_000, retries = 2 } = options;
    for (const name of ["appId", "keyId", "keySecret"] as const) {
      if (typeof options[name] !== "string" || options[name] === "") {
        throw new TypeError(`${name} must be a text`);
      }
    }
    const { appId, keyId, keySecret } = options;
    if (!/^[\w~-]+$/.test(appId)) throw new TypeError("appId has letters, digits, - _ ~ only");
    if (keyId.includes(":")) throw new TypeError("keyId has no colon");
    this.appId = appId;
    this.#key = { keyId, keySecret };
    this.#retries = retries;
    const basic = Buffer.from(`${keyId}:${keySecret}`).toString("base64");
    this.#requests = new Requests(baseOf(url), `Basic ${basic}`, { timeoutMs, retries });
  }

  /**
   * Resolves when the server has taken it for delivery.
   * @param channel `public/news`; no pattern
   * @param data any JSON value
   */
  async publish(channel: string, data: unknown, options: PublishOptions = {}): Promise<void> {
    const { name } = this.#channel(channel);
    const { text } = await this.#requests.send(
      {
        method: "POST",
        path: `/channel${name}`,
        body: toJson(data),
        idempotencyKey: options.idempotencyKey ?? randomUUID(),
        isRepeatable: true,
      },
      options,
    );
    if (text !== "OK") throw notPandapush();
  }

  /**
   * Publishes to several channels in one request, in their order; each is answered by itself. What
   * fails for the time being is tried again, and what was taken is not.
   *
   * @returns a result for each channel, in order; look at `successful`
   */
  async publishBatch(
    messages: readonly BatchMessage[],
    options: PublishOptions = {},
  ): Promise<BatchResult[]> {
    const request: Request = {
      method: "POST",
      path: `/api/${this.appId}/publish`,
      body: JSON.stringify({
        messages: messages.map(({ channel, data }) => {
          // What JSON leaves out of an object would be missing here.
          toJson(data);
          return typeof channel === "string"
            ? { channel: this.#channel(channel).name, data }
            : { channels: channel.map((each) => this.#channel(each).name), data };
        }),
      }),
      idempotencyKey: options.idempotencyKey ?? randomUUID(),
      isRepeatable: true,
    };
    const { signal, retries = this.#retries } = options;
    for (let attempt = 1; ; attempt++) {
      const { results } = read<{ results: BatchResult[] }>(
        await this.#requests.send(request, options),
      );
      if (!Array.isArray(results)) throw notPandapush();
      if (attempt > retries || !results.some(isPassing)) return results;
      const waitMs = batchWaitMs * 2 ** (attempt - 1) * (0.5 + Math.random() / 2);
      try {
        await delay(waitMs, undefined, signal === undefined ? {} : { signal });
      } catch (error) {
        throw signal?.reason ?? error;
      }
    }
  }

  /**
   * What somebody is subscribed to at this moment, the busiest first; patterns too.
   * @param options.prefix how names begin: `private/ord`
   * @param options.limit default 100, at most 1000
   */
  async channels(
    options: CallOptions & {
      readonly prefix?: string;
      readonly limit?: number;
      readonly offset?: number;
    } = {},
  ): Promise<Page<ActiveChannel>> {
    const { prefix, limit, offset } = options;
    return page(await this.#get(`/channels${query({ prefix, limit, offset })}`, options));
  }

  /** One channel or pattern; where nobody is, all counts are 0. */
  async channel(channel: string, options: CallOptions = {}): Promise<ChannelState> {
    const { name } = this.#parse(channel);
    return read(await this.#get(`/channels/${this.#rest(name)}`, options));
  }

  /** Who is present on `presence/lobby`. */
  async presence(channel: string, options: CallOptions = {}): Promise<Members> {
    const { name, kind } = this.#channel(channel);
    if (kind !== "presence") {
      throw new TypeError(`Nobody is present on ${name}; a presence channel is presence/…`);
    }
    return read<{ members: Members }>(await this.#get(`/${this.#rest(name)}`, options)).members;
  }

  /**
   * Sessions that are subscribed to something in the application, the newest first.
   * @param options.search a part of anything that is shown
   * @param options.limit default 50, at most 200
   */
  async connections(
    options: CallOptions & {
      readonly search?: string;
      readonly limit?: number;
      readonly offset?: number;
    } = {},
  ): Promise<Page<Connection>> {
    const { search, limit, offset } = options;
    const { items, total } = page<ConnectionText>(
      await this.#get(`/connections${query({ search, limit, offset })}`, options),
    );
    return {
      items: items.map(({ since, user_agent, subscription_count, ...rest }) => ({
        ...rest,
        since: new Date(since),
        userAgent: user_agent,
        subscriptionCount: subscription_count,
      })),
      total,
    };
  }

  /**
   * Ends all that a connection is subscribed to in the application. It may subscribe again.
   * @param id as in `connections()`
   * @returns whether there was one
   */
  async disconnect(id: string, options: CallOptions = {}): Promise<boolean> {
    try {
      return (await this.#disconnect(`/connections/${encodeURIComponent(id)}`, options)) > 0;
    } catch (error) {
      if (error instanceof RequestError && error.status === 404) return false;
      throw error;
    }
  }

  /**
   * The same for every connection that is present as this user.
   * @returns how many there were
   */
  disconnectUser(presenceId: string | number, options: CallOptions = {}): Promise<number> {
    return this.#disconnect(`/users/${encodeURIComponent(presenceId)}`, options);
  }

  /**
   * What was refused in the application lately, the last first; equal ones are counted.
   * @param options.limit at most 100
   */
  async refusals(
    options: CallOptions & { readonly limit?: number; readonly offset?: number } = {},
  ): Promise<Page<Refusal>> {
    const { limit, offset } = options;
    const { items, total } = page<RefusalText>(
      await this.#get(`/refusals${query({ limit, offset })}`, options),
    );
    return {
      items: items.map(({ first_at, last_at, key_id, ...rest }) => ({
        ...rest,
        firstAt: new Date(first_at),
        lastAt: new Date(last_at),
        keyId: key_id,
      })),
      total,
    };
  }

  /**
   * A token for a browser, which must not have the secret. Asks no server.
   *
   * `generateToken({ channel: "private/users/7/**", sub: true })`
   */
  generateToken(options: TokenOptions): string {
    return signToken(this.#key, this.#parse(options.channel).name, options);
  }

  #get(path: string, options: CallOptions): Promise<Answer> {
    const request = {
      method: "GET",
      path: `/api/${this.appId}${path}`,
      isRepeatable: true,
    } as const;
    return this.#requests.send(request, options);
  }

  async #disconnect(path: string, options: CallOptions): Promise<number> {
    const answer = await this.#requests.send(
      {
        method: "POST",
        path: `/api/${this.appId}${path}/disconnect`,
        // The second time it would say that there was nobody.
        isRepeatable: false,
      },
      options,
    );
    return read<{ disconnected: number }>(answer).disconnected;
  }

  /** @throws TypeError */
  #parse(text: string): ParsedChannel {
    const name = text.startsWith("/") ? text : `/${this.appId}/${text}`;
    const parsed = parseChannel(name);
    if (parsed === undefined) {
      throw new TypeError(
        `${JSON.stringify(text)} is no channel; one is <${kinds.join("|")}>/…, in segments of letters, digits, - _ ~`,
      );
    }
    if (parsed.appId !== this.appId) {
      throw new TypeError(`${name} is not in the application ${this.appId}`);
    }
    return parsed;
  }

  /** @throws TypeError for patterns, too */
  #channel(text: string): ParsedChannel {
    const parsed = this.#parse(text);
    if (parsed.isPattern) throw new TypeError(`${text} is a pattern; name one of its channels`);
    return parsed;
  }

  /** What is behind the application's id. */
  #rest(name: string): string {
    return name.slice(this.appId.length + 2);
  }
}

function isPassing(result: BatchResult): boolean {
  if (result.successful) return false;
  const { code } = result.error;
  return code !== null && (code === 429 || code >= 500);
}

/** @throws TypeError */
function baseOf(url: string | URL): string {
  const parsed = URL.canParse(String(url)) ? new URL(url) : undefined;
  if (parsed === undefined || !/^https?:$/.test(parsed.protocol)) {
    throw new TypeError("url must be the server's address, such as https://push.example.com");
  }
  if (parsed.username !== "" || parsed.password !== "") {
    throw new TypeError("url has no user name and no password; they are keyId and keySecret");
  }
  return parsed.origin + parsed.pathname.replace(/\/+$/, "");
}

const noJson = "What is published must be a JSON value; nothing at all is null";

/** @throws TypeError */
function toJson(data: unknown): string {
  const text = JSON.stringify(data) as string | undefined;
  if (text === undefined) throw new TypeError(noJson);
  return text;
}

function query(values: Readonly<Record<string, string | number | undefined>>): string {
  const given = new URLSearchParams();
  for (const [name, value] of Object.entries(values)) {
    if (value !== undefined) given.set(name, String(value));
  }
  return given.size === 0 ? "" : `?${given}`;
}

function read<T>({ text }: Answer): T {
  try {
    return JSON.parse(text) as T;
  } catch {
    throw notPandapush();
  }
}

function page<T>(answer: Answer): Page<T> {
  const items = read<T[]>(answer);
  return { items, total: Number(answer.headers.get("x-total-count") ?? items.length) };
}

function notPandapush(): RequestError {
  return new RequestError("What answers at this url is not Pandapush");
}
