import type { IncomingMessage } from "node:http";
import {
  type Channel,
  type Credentials,
  type Grant,
  type KeyId,
  parseChannel,
} from "@pandapush/protocol";
import type { FastifyInstance, FastifyRequest, onErrorHookHandler } from "fastify";
import type { Authorize } from "../auth/authorize.js";
import { Refusal } from "../errors.js";
import { fingerprint, type Idempotency, once, readName } from "../idempotency/idempotency.js";
import type { MaybePromise } from "../maybe-promise.js";
import type { RefusalLog } from "../refusals.js";
import { bodyType, dataOf } from "./payload.js";

export interface PublishParts {
  readonly authorize: Authorize;
  /**
   * Hands JSON text to the broker; done when the broker has taken it.
   * @throws Refusal (or a promise rejected with it)
   */
  readonly publish: (grant: Grant, channel: Channel, dataJson: string) => MaybePromise<unknown>;
  /** For requests with an `Idempotency-Key`. */
  readonly idempotency: Idempotency;
  readonly maxBodyBytes: number;
  /** After how long a broker that does not answer becomes a 503; default 10,000 ms. */
  readonly publishTimeoutMs?: number;
  /** For what is refused. */
  readonly refusals?: RefusalLog;
  /** Told of each refusal that is an answer, or a part of one. */
  readonly onRefusal?: (refusal: Refusal) => void;
}

const prefix = "/channel";

/**
 * `POST /channel/<applicationId>/<kind>/…`: publishes the body (REST-1 to REST-9).
 *
 * The checks go from what costs nothing to what costs most: path (404), credentials present at
 * all (403), content type (415), size (413), permission (400), and only then the content (400).
 * Permission comes after the body has been read because many HTTP clients lose an answer that
 * arrives while they still send; it comes before parsing so that strangers cause no work. That a
 * request was answered before is found out last: who may not publish does not learn of it.
 */
export function routePublish(app: FastifyInstance, parts: PublishParts): void {
  const onError: onErrorHookHandler = (request, _reply, error, done) => {
    if (error instanceof Refusal) {
      parts.refusals?.addForChannel("rest_publish", nameIn(request.raw.url ?? ""), error);
    }
    done();
  };
  app.post(`${prefix}/*`, { onError }, async (request, reply) => {
    const channel = channelOf(request.raw.url ?? "");
    if (channel === undefined) throw new Refusal("noSuchChannel");
    const credentials = credentialsOf(request);
    if (credentials === undefined) throw new Refusal("unauthorized");
    const type = bodyType(request.headers["content-type"]);
    if (type === undefined && hasBody(request.raw)) throw new Refusal("unsupportedType");
    const name = readName(request.headers[idempotencyHeader]);
    const body = await readBody(request.raw, parts.maxBodyBytes);
    const grant = await parts.authorize("publish", channel, credentials);
    const data = dataOf(type ?? "json", body);
    if (name === undefined) {
      const published = parts.publish(grant, channel, data);
      if (published instanceof Promise) await inTime(published, parts.publishTimeoutMs);
    } else {
      const published = publishOnce(parts, grant, channel, data, name);
      const isRepeated = await inTime(published, parts.publishTimeoutMs);
      if (isRepeated) reply.header(replayedHeader, "true");
    }
    await endOfTurn();
    return reply.type("text/plain; charset=utf-8").send("OK");
  });
}

export const idempotencyHeader = "idempotency-key";
/** In answers that were given before. */
export const replayedHeader = "idempotent-replayed";

/**
 * Who waits for it in vain gives up; the claim stands until the broker has answered, and a
 * repetition then waits for that rather than publish again.
 *
 * @returns whether it was published before
 */
async function publishOnce(
  { idempotency, publish }: PublishParts,
  grant: Grant,
  channel: Channel,
  data: string,
  name: string,
): Promise<boolean> {
  const { appId, keyId = "" as KeyId } = grant;
  const request = { appId, keyId, name, channel, fingerprint: fingerprint(channel, data) };
  const { isRepeated } = await once(idempotency, request, async () => {
    await publish(grant, channel, data);
    return { text: "", isFinal: true };
  });
  return isRepeated;
}

let turn: Promise<void> | undefined;

/**
 * Answers to requests that arrived together are written together. Otherwise a back end that has
 * many under way is woken for each of them, and the waking costs the server more than the answer.
 */
function endOfTurn(): Promise<void> {
  turn ??= new Promise((resolve) => {
    setImmediate(() => {
      turn = undefined;
      resolve();
    });
  });
  return turn;
}

/** Whether publishing is what `url` was meant for. */
export function isUnderPrefix(url: string): boolean {
  return url.startsWith(`${prefix}/`);
}

/** Whether `url` names a channel that could be published to with another method. */
export function isChannelUrl(url: string): boolean {
  return isUnderPrefix(url) && channelOf(url) !== undefined;
}

/** RFC 3986, section 2.3: these mean the same with and without percent-encoding. */
const encodedUnreserved = /%(?:2D|5F|7E|3\d|[46][1-9A-F]|[57][0-9A])/gi;

function channelOf(url: string): Channel | undefined {
  const parsed = parseChannel(nameIn(url));
  return parsed === undefined || parsed.isPattern ? undefined : parsed.name;
}

function nameIn(url: string): string {
  const query = url.indexOf("?");
  const path = url.slice(prefix.length, query === -1 ? undefined : query);
  return path.includes("%") ? path.replace(encodedUnreserved, decodeURIComponent) : path;
}

/** The first found of `?token=`, `Basic`, and `Token` or `Bearer`; undefined without any. */
function credentialsOf(request: FastifyRequest): Credentials | undefined {
  const { token } = request.query as { token?: string | string[] };
  const queryToken = Array.isArray(token) ? token[0] : token;
  if (queryToken !== undefined && queryToken !== "") return { token: queryToken };
  const header = request.headers.authorization;
  if (header === undefined) return undefined;
  const space = header.indexOf(" ");
  const value = header.slice(space + 1).trim();
  if (space === -1 || value === "") return undefined;
  switch (header.slice(0, space).toLowerCase()) {
    case "basic":
      return basicCredentials(value);
    case "token":
    case "bearer":
      return { token: value };
    default:
      return undefined;
  }
}

export interface BasicCredentials {
  readonly key: string;
  readonly secret: string;
}

const base64 = /^[A-Za-z0-9+/]+={0,2}$/;

/**
 * RFC 7617, section 2: the key id holds no colon, the secret may.
 *
 * What cannot be read is refused by name rather than as "no credentials": the sender did mean
 * to authenticate, and would otherwise look for the fault in the wrong place.
 */
export function basicCredentials(value: string): BasicCredentials {
  const text = base64.test(value) ? Buffer.from(value, "base64").toString("utf8") : "";
  const colon = text.indexOf(":");
  if (colon === -1) {
    throw new Refusal(
      "noTokenOrKey",
      [],
      "Authorization: Basic takes the base64 of <key id>:<key secret>, as curl -u sends it.",
    );
  }
  return { key: text.slice(0, colon), secret: text.slice(colon + 1) };
}

/** RFC 9112, section 6: a body is announced by either header. */
function hasBody(request: IncomingMessage): boolean {
  const length = request.headers["content-length"];
  return (
    request.headers["transfer-encoding"] !== undefined || (length !== undefined && length !== "0")
  );
}

/**
 * Rejects at the first byte over the limit. The connection stays open and Node discards the
 * rest, so that a client which writes everything before it reads still sees the answer; the
 * server's request timeout bounds that.
 */
function readBody(request: IncomingMessage, maxBytes: number): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    const chunks: Buffer[] = [];
    let length = 0;
    const onData = (chunk: Buffer) => {
      length += chunk.length;
      if (length > maxBytes) stop(tooLarge(maxBytes));
      else chunks.push(chunk);
    };
    const onEnd = () => {
      detach();
      const [first] = chunks;
      resolve(chunks.length === 1 && first !== undefined ? first : Buffer.concat(chunks, length));
    };
    // Nobody is left to read the answer, but the request must come to an end here too.
    const onClose = () => stop(new Refusal("badRequest", [], "The request ended too early."));
    const stop = (refusal: Refusal) => {
      detach();
      request.resume();
      reject(refusal);
    };
    const detach = () => {
      request.off("data", onData).off("end", onEnd).off("close", onClose);
    };
    if (Number(request.headers["content-length"]) > maxBytes) return stop(tooLarge(maxBytes));
    request.on("data", onData).on("end", onEnd).on("close", onClose);
  });
}

function tooLarge(maxBytes: number): Refusal {
  return new Refusal(
    "tooLarge",
    [String(maxBytes)],
    `A message may have at most ${maxBytes} bytes (MAX_MESSAGE_BYTES).`,
  );
}

/** A broker that never answers must not hold the request for ever. */
export async function inTime<T>(published: Promise<T>, timeoutMs = 10_000): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const deadline = new Promise<never>((_resolve, reject) => {
    const late = new Refusal(
      "unavailable",
      [],
      `The broker has not confirmed the message within ${timeoutMs} ms; it may still be delivered.`,
    );
    timer = setTimeout(reject, timeoutMs, late);
  });
  try {
    return await Promise.race([published, deadline]);
  } finally {
    clearTimeout(timer);
  }
}
