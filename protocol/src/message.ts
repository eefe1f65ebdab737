/**
 * Bayeux messages: a batch of text in, typed requests out; replies and events back to text.
 * After `parseBatch` nothing inspects raw JSON.
 */
import type { Advice } from "./advice.js";
import { isBayeuxName, isBayeuxPattern } from "./channel.js";
import type { Credentials } from "./claims.js";
import { elementSpans, stripAuth, visitMembers, withoutMember } from "./json.js";

export const connectionTypes = [
  "long-polling",
  "cross-origin-long-polling",
  "callback-polling",
  "websocket",
  "eventsource",
  "in-process",
] as const;

export const bayeuxVersion = "1.0";

/** Fields of a request that its reply repeats, in whatever JSON type they came. */
interface Envelope {
  readonly id: unknown;
  readonly clientId: unknown;
  readonly channel: unknown;
  /** A message that already carries an error is refused with it. */
  readonly error: string | undefined;
}

export interface HandshakeRequest extends Envelope {
  readonly kind: "handshake";
  readonly version: unknown;
  readonly supportedConnectionTypes: unknown;
  /** `ext.pandapush.count`: its connect replies are to say how many events it was sent. */
  readonly wantsCount: boolean;
}

export interface ConnectRequest extends Envelope {
  readonly kind: "connect";
  readonly connectionType: unknown;
  /** `advice.timeout` in ms, how long the client wants to be held; 0 or nonsense: not at all. */
  readonly timeoutMs: number | undefined;
}

export interface SubscribeRequest extends Envelope {
  readonly kind: "subscribe";
  /** One channel or an array of them; not yet checked. */
  readonly subscription: unknown;
  readonly auth: Credentials | undefined;
}

export interface UnsubscribeRequest extends Envelope {
  readonly kind: "unsubscribe";
  readonly subscription: unknown;
}

export interface DisconnectRequest extends Envelope {
  readonly kind: "disconnect";
}

export interface PublishRequest extends Envelope {
  readonly kind: "publish";
  /** JSON text as it arrived, without credentials; undefined when the message has no `data`. */
  readonly data: string | undefined;
  /** JSON text of `ext` without credentials; undefined when nothing is left. */
  readonly ext: string | undefined;
  readonly auth: Credentials | undefined;
}

/** A channel under `/meta` that is none of the five. */
export interface OtherMetaRequest extends Envelope {
  readonly kind: "other-meta";
}

export type Request =
  | HandshakeRequest
  | ConnectRequest
  | SubscribeRequest
  | UnsubscribeRequest
  | DisconnectRequest
  | PublishRequest
  | OtherMetaRequest;

/** Text that is no batch: not JSON, or JSON that is neither an object nor an array. */
export class MalformedBatch extends Error {
  override readonly name = "MalformedBatch";
}

type JsonObject = { readonly [member: string]: unknown };

/**
 * Reads a request: one message object or an array of messages; `null` is an empty batch.
 *
 * `null` elements are left out. Elements that are no objects become publishes without a channel,
 * and are refused as such.
 * @param maxMessages longer batches are refused before their messages are looked at
 * @throws MalformedBatch
 */
export function parseBatch(text: string, maxMessages: number): Request[] {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    throw new MalformedBatch(`The message is not JSON: ${describe(error)}`);
  }
  if (typeof value !== "object") {
    throw new MalformedBatch(`A message is a JSON object, not a ${typeof value}`);
  }
  if (value === null) return [];
  const elements: unknown[] = Array.isArray(value) ? value : [value];
  if (elements.length > maxMessages) {
    throw new MalformedBatch(`${elements.length} messages in one request; at most ${maxMessages}`);
  }
  // Spans cost a walk over the text and only publishes need them.
  let spans: readonly { start: number; end: number }[] | undefined;
  const requests: Request[] = [];
  for (const [index, element] of elements.entries()) {
    if (element === null) continue;
    const message = asObject(element) ?? {};
    const kind = kindOf(message.channel);
    if (kind !== "publish") {
      requests.push(readMeta(kind, message));
      continue;
    }
    spans ??= elementSpans(text);
    const start = spans[index]?.start ?? 0;
    requests.push(readPublish(message, text, start));
  }
  return requests;
}

/** V8 quotes the text around the fault; that may be a secret, so only the position is kept. */
function describe(error: unknown): string {
  const position = error instanceof Error ? /position \d+/.exec(error.message)?.[0] : undefined;
  return position === undefined ? "it ends too early or is malformed" : `malformed at ${position}`;
}

function asObject(value: unknown): JsonObject | undefined {
  return typeof value === "object" && value !== null && !Array.isArray(value)
    ? (value as JsonObject)
    : undefined;
}

/**
 * Only these five exact names reach their handlers. A prefix match let requests pass by
 * authentication once (Faye's 1.2.5 security release).
 */
function kindOf(channel: unknown): Request["kind"] {
  switch (channel) {
    case "/meta/handshake":
      return "handshake";
    case "/meta/connect":
      return "connect";
    case "/meta/subscribe":
      return "subscribe";
    case "/meta/unsubscribe":
      return "unsubscribe";
    case "/meta/disconnect":
      return "disconnect";
  }
  if (typeof channel !== "string" || !/^\/meta(?:\/|$)/.test(channel)) return "publish";
  return isBayeuxName(channel) || isBayeuxPattern(channel) ? "other-meta" : "publish";
}

function readMeta(kind: Exclude<Request["kind"], "publish">, message: JsonObject): Request {
  const envelope = readEnvelope(message);
  switch (kind) {
    case "handshake":
      return {
        kind,
        ...envelope,
        version: message.version,
        supportedConnectionTypes: message.supportedConnectionTypes,
        wantsCount: asObject(asObject(message.ext)?.pandapush)?.count === true,
      };
    case "connect":
      return {
        kind,
        ...envelope,
        connectionType: message.connectionType,
        timeoutMs: readTimeout(message.advice),
      };
    case "subscribe":
      return {
        kind,
        ...envelope,
        subscription: readSubscription(message),
        auth: asObject(asObject(message.ext)?.auth),
      };
    case "unsubscribe":
      return { kind, ...envelope, subscription: readSubscription(message) };
    case "disconnect":
    case "other-meta":
      return { kind, ...envelope };
  }
}

function readPublish(message: JsonObject, text: string, start: number): PublishRequest {
  let data: string | undefined;
  let ext: string | undefined;
  if (message.data !== undefined || message.ext !== undefined) {
    visitMembers(text, start, (name, _memberStart, valueStart, valueEnd) => {
      if (name === "data") data = text.slice(valueStart, valueEnd);
      else if (name === "ext") ext = text.slice(valueStart, valueEnd);
    });
  }
  const auth = asObject(asObject(message.ext)?.auth) ?? asObject(asObject(message.data)?.__auth);
  return {
    kind: "publish",
    ...readEnvelope(message),
    data: data === undefined ? undefined : stripAuth(data),
    ext: ext === undefined || asObject(message.ext) === undefined ? undefined : publicExt(ext),
    auth,
  };
}

/** What subscribers may see of a publisher's `ext`. */
function publicExt(text: string): string | undefined {
  const rest = withoutMember(withoutMember(text, "auth"), "internalToken");
  return /^\{\s*\}$/.test(rest) ? undefined : rest;
}

function readEnvelope(message: JsonObject): Envelope {
  const { id, clientId, channel, error } = message;
  requireEchoable(id);
  requireEchoable(clientId);
  requireEchoable(channel);
  return { id, clientId, channel, error: typeof error === "string" && error ? error : undefined };
}

/** How deep a value may be nested that a reply repeats. */
const maxEchoDepth = 64;

/** What a reply repeats must be writable: JSON.parse reads deeper nesting than stringify writes. */
function requireEchoable(value: unknown, depth = 0): void {
  if (typeof value !== "object" || value === null) return;
  if (depth >= maxEchoDepth) {
    throw new MalformedBatch(`A field of a message is nested more than ${maxEchoDepth} deep`);
  }
  for (const inner of Object.values(value)) requireEchoable(inner, depth + 1);
}

/**
 * A value from a client as an error's parameter, as JavaScript would write it. An object's own
 * idea of its text is not asked: it may be of any length, or throw.
 */
export function textOf(value: unknown): string {
  if (Array.isArray(value)) return value.map(textOfPart).join(",");
  return textOfPart(value);
}

function textOfPart(value: unknown): string {
  return typeof value === "object" && value !== null ? "[object Object]" : String(value);
}

function readSubscription({ subscription }: JsonObject): unknown {
  requireEchoable(subscription);
  return subscription;
}

function readTimeout(advice: unknown): number | undefined {
  const timeout = asObject(advice)?.timeout;
  if (timeout === undefined) return undefined;
  const ms = typeof timeout === "object" ? 0 : Number(timeout);
  return Number.isFinite(ms) ? Math.max(ms, 0) : 0;
}

/**
 * A reply, before it is text. `undefined` fields are left out.
 *
 * Every reply has every field: code that reads objects of many shapes costs V8 several times as
 * much, and a client that arrives is sent three of them.
 */
export interface Reply {
  id: unknown;
  clientId: unknown;
  channel: unknown;
  successful: boolean;
  error: string | undefined;
  version: string | undefined;
  supportedConnectionTypes: readonly string[] | undefined;
  subscription: unknown;
  advice: Advice | undefined;
  /** JSON text, so that ids such as `__proto__` are members like any other. */
  ext: string | undefined;
}

/**
 * Starts a reply: id, clientId and channel are repeated only when truthy (Faye: `0` and `""` are
 * not), so that replies are those that old clients know.
 */
export function replyTo(request: Partial<Envelope>): Reply {
  return {
    id: request.id || undefined,
    clientId: request.clientId || undefined,
    channel: request.channel || undefined,
    successful: true,
    error: undefined,
    version: undefined,
    supportedConnectionTypes: undefined,
    subscription: undefined,
    advice: undefined,
    ext: undefined,
  };
}

/** Fields in the order that old servers send them. */
export function encodeReply(reply: Reply): string {
  let text = "{";
  if (reply.id !== undefined) text += `"id":${JSON.stringify(reply.id)},`;
  if (reply.clientId !== undefined) text += `"clientId":${JSON.stringify(reply.clientId)},`;
  if (reply.channel !== undefined) text += `"channel":${JSON.stringify(reply.channel)},`;
  text += `"successful":${reply.successful}`;
  const { error, version, supportedConnectionTypes, subscription, advice, ext } = reply;
  if (error !== undefined) text += `,"error":${JSON.stringify(error)}`;
  if (version !== undefined) text += `,"version":${JSON.stringify(version)}`;
  if (supportedConnectionTypes !== undefined) {
    text += `,"supportedConnectionTypes":${JSON.stringify(supportedConnectionTypes)}`;
  }
  if (subscription !== undefined) text += `,"subscription":${JSON.stringify(subscription)}`;
  if (advice !== undefined) text += `,"advice":${JSON.stringify(advice)}`;
  return ext === undefined ? `${text}}` : `${text},"ext":${ext}}`;
}

/** An event, as subscribers receive it. `data` and `ext` are JSON text. */
export function encodeEvent(channel: string, data: string, id: string, ext?: string): string {
  const head = `{"channel":"${channel}","data":${data},"id":"${id}"`;
  return ext === undefined ? `${head}}` : `${head},"ext":${ext}}`;
}

/** One frame or body: a JSON array of the messages. */
export function encodeBatch(messages: readonly string[]): string {
  return `[${messages.join(",")}]`;
}
