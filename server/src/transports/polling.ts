/** Bayeux over plain HTTP: long-polling, form posts, JSONP; and the way to EventSource. */
import { isUtf8 } from "node:buffer";
import type { IncomingMessage, OutgoingHttpHeaders, ServerResponse } from "node:http";
import { MalformedBatch } from "@pandapush/protocol";
import type { Bayeux, Source } from "../bayeux.js";
import { catalogue } from "../errors.js";
import type { ClientSession, Outcome } from "../session.js";
import { EventSourceConnection, type EventSourceOptions } from "./eventsource.js";
import { isScriptPath, serveScript } from "./faye-script.js";
import type { TransportKind } from "./transport.js";
import { Turns } from "./turns.js";
import { userAgentOf } from "./user-agent.js";

export interface PollingOptions extends EventSourceOptions {
  readonly messageBytes: number;
  /** An answer of which its client reads nothing for this long is given up. */
  readonly unreadMs: number;
  readonly addressOf: (request: IncomingMessage) => string | undefined;
  readonly logError: (error: unknown, what: string) => void;
}

export const mount = "/push";

/** `/push`, everything below it, and `/push.js`; not `/pushfoo`. TR-1 */
const mountPath = /^\/push(?:[/.]|$)/;

/** Names that cannot do anything but call a function. TR-JSONP-1 */
const callbackName = /^[a-z_$][a-z0-9_$]*(?:\.[a-z_$][a-z0-9_$]*)*$/i;
const defaultCallback = "jsonpcallback";

/** A request that cannot be read. Its client gets a status, for there is no message to answer. */
class BadRequest extends Error {
  constructor(
    message: string,
    readonly status: 400 | 413 = 400,
  ) {
    super(message);
  }
}

export class PollingTransport {
  private readonly turns = new Turns();
  /** Answers of which the kernel has not taken all yet, by the client that they are for. */
  readonly unread = new Map<string, Poll>();

  constructor(
    readonly bayeux: Bayeux,
    readonly options: PollingOptions,
  ) {}

  /** Whether the request is Bayeux's; otherwise it is the REST server's. */
  static accepts(request: IncomingMessage): boolean {
    return mountPath.test(pathOf(request));
  }

  handle(request: IncomingMessage, response: ServerResponse): void {
    this.route(request, response).catch((error: unknown) => this.fail(request, response, error));
  }

  /** The order of these decisions is Faye's; old clients meet it. TR-2 */
  private async route(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const path = pathOf(request);
    if (isScriptPath(path)) return serveScript(path, request, response);
    if (
      request.method === "OPTIONS" ||
      request.headers["access-control-request-method"] === "POST"
    ) {
      return answerPreflight(request, response);
    }
    if (wantsEventStream(request)) return this.openStream(path, request, response);
    if (request.method === "GET") {
      const query = new URLSearchParams(queryOf(request));
      const callback = query.get("jsonp") || defaultCallback;
      if (!callbackName.test(callback)) {
        throw new BadRequest('The parameter "jsonp" must name a function, such as jsonp1 or a.b.');
      }
      return this.receive(query.get("message"), request, response, callback);
    }
    if (request.method === "POST") {
      const body = await readBody(request, this.options.messageBytes);
      // Cross-origin clients send forms without saying so: anything but JSON is one. TR-4
      const message = isJson(request) ? body : new URLSearchParams(body).get("message");
      return this.receive(message, request, response, undefined);
    }
    throw new BadRequest(`The method ${request.method} is not understood; use POST or GET.`);
  }

  private async receive(
    message: string | null,
    request: IncomingMessage,
    response: ServerResponse,
    callback: string | undefined,
  ): Promise<void> {
    if (message === null) throw new BadRequest('The parameter "message" is missing.');
    if (Buffer.byteLength(message) > this.options.messageBytes) throw this.tooLarge();
    const poll = new Poll(request, response, callback, this);
    await this.turns.do(request.socket, () => this.bayeux.receive(poll, message));
  }

  private openStream(path: string, request: IncomingMessage, response: ServerResponse): void {
    // Another request of its connection is to be answered first: until then it must write nothing.
    if (response.socket === null) {
      response.once("socket", () => this.openStream(path, request, response));
      return;
    }
    const { addressOf } = this.options;
    const stream = new EventSourceConnection(
      response,
      request.socket,
      addressOf(request),
      userAgentOf(request),
      this.bayeux,
      this.options,
    );
    void this.bayeux.attach(stream, path.slice(path.lastIndexOf("/") + 1));
  }

  private tooLarge(): BadRequest {
    return new BadRequest(`A request may have ${this.options.messageBytes} bytes.`, 413);
  }

  private fail(request: IncomingMessage, response: ServerResponse, error: unknown): void {
    // A client that left in the middle of its request hears no answer.
    if (response.destroyed) return;
    const isExpected = error instanceof BadRequest || error instanceof MalformedBatch;
    if (!isExpected) this.options.logError(error, "answer a Bayeux request");
    if (response.headersSent) {
      response.destroy();
      return;
    }
    const status = error instanceof BadRequest ? error.status : isExpected ? 400 : 500;
    const headline = { 400: "Bad request", 413: "Message too large", 500: catalogue.internal.text };
    const body = isExpected ? `${headline[status]}\n${error.message}\n` : `${headline[status]}\n`;
    // What is left of an oversized body is not read: the connection cannot be used again.
    const headers: OutgoingHttpHeaders = { "Content-Type": "text/plain; charset=utf-8" };
    if (!request.complete) headers.Connection = "close";
    response.writeHead(status, headers).end(body);
  }
}

/** One request: a source of messages, and their answer. */
class Poll implements Source {
  readonly push = undefined;
  readonly address: string | undefined;
  isGone = false;
  private boundSession: ClientSession | undefined;
  /** To be told whether the kernel took the answer. */
  private outcome: Outcome | undefined;

  constructor(
    private readonly request: IncomingMessage,
    private readonly response: ServerResponse,
    private readonly callback: string | undefined,
    private readonly transport: PollingTransport,
  ) {
    this.address = transport.options.addressOf(request);
    response.once("finish", () => {
      // Node also says so of a socket that was destroyed with bytes still in it.
      if (!request.socket.destroyed) this.settle(true);
    });
    response.once("close", () => {
      transport.bayeux.closed(this);
      this.settle(false);
    });
  }

  get kind(): TransportKind {
    return this.callback === undefined ? "long-polling" : "callback-polling";
  }

  get userAgent(): string | undefined {
    return userAgentOf(this.request);
  }

  get session(): ClientSession | undefined {
    return this.boundSession;
  }

  set session(session: ClientSession | undefined) {
    this.boundSession = session;
    // A client that connects again waits for its last answer no longer.
    if (session !== undefined) this.transport.unread.get(session.clientId)?.giveUp();
  }

  respond(text: string, outcome: Outcome | undefined): void {
    // To a response that stands behind another one nobody tells that their connection is gone.
    if (this.response.destroyed || this.request.socket.destroyed) {
      outcome?.(false);
      return;
    }
    this.outcome = outcome;
    const name = this.callback;
    const body = name === undefined ? text : `/**/${name}(${escapeForScript(text)});`;
    const headers = replyHeaders(this.request, name);
    headers["Content-Length"] = Buffer.byteLength(body);
    this.response.writeHead(200, headers);
    this.response.end(body);
    // Nearly always the kernel has taken it all by now.
    if (this.response.writableLength > 0) this.watch();
  }

  /** An answer that its client does not read must not stay here for ever. LIM-4 */
  private watch(): void {
    const { unread, options } = this.transport;
    const clientId = this.boundSession?.clientId;
    const read = (): void => {
      if (clientId !== undefined && unread.get(clientId) === this) unread.delete(clientId);
    };
    if (clientId !== undefined) unread.set(clientId, this);
    this.response.setTimeout(options.unreadMs, () => this.giveUp());
    this.response.once("close", read);
    // In front of Node's own listener, which then sets how long the connection may be idle.
    this.response.prependOnceListener("finish", () => {
      this.request.socket.setTimeout(0);
      read();
    });
  }

  /** What it carried waits for the session's next connect, or comes with it. CON-8 */
  private giveUp(): void {
    this.response.destroy();
    this.settle(false);
  }

  private settle(hasReached: boolean): void {
    const outcome = this.outcome;
    this.outcome = undefined;
    outcome?.(hasReached);
  }
}

function pathOf({ url = "/" }: IncomingMessage): string {
  const end = url.indexOf("?");
  return end === -1 ? url : url.slice(0, end);
}

function queryOf({ url = "/" }: IncomingMessage): string {
  const start = url.indexOf("?");
  return start === -1 ? "" : url.slice(start + 1);
}

/** Parameters after the type are allowed; the comparison is exact, as Faye's. TR-3 */
function isJson({ headers }: IncomingMessage): boolean {
  return headers["content-type"]?.split(";")[0]?.trim() === "application/json";
}

/** The type must be an item of its own, without parameters. TR-ES-1 */
function wantsEventStream({ method, headers }: IncomingMessage): boolean {
  if (method !== "GET") return false;
  return (headers.accept ?? "").split(",").some((item) => item.trim() === "text/event-stream");
}

/**
 * The exact origin, never `*`: browsers refuse `*` together with credentials. `Pragma` is there
 * because Faye's cross-origin transport sends it. TR-5
 */
function answerPreflight({ headers }: IncomingMessage, response: ServerResponse): void {
  response.writeHead(200, {
    "Access-Control-Allow-Credentials": "true",
    "Access-Control-Allow-Headers": "Accept, Authorization, Content-Type, Pragma, X-Requested-With",
    "Access-Control-Allow-Methods": "POST, GET",
    "Access-Control-Allow-Origin": headers.origin ?? headers.referer ?? "*",
    "Access-Control-Max-Age": "86400",
    "Content-Length": 0,
  });
  response.end();
}

function replyHeaders(
  { headers: { origin } }: IncomingMessage,
  callback: string | undefined,
): OutgoingHttpHeaders {
  const headers: OutgoingHttpHeaders = {
    "Content-Type": `${callback === undefined ? "application/json" : "text/javascript"}; charset=utf-8`,
    "Cache-Control": "no-cache, no-store",
    "X-Content-Type-Options": "nosniff",
  };
  if (origin !== undefined) {
    headers["Access-Control-Allow-Credentials"] = "true";
    headers["Access-Control-Allow-Origin"] = origin;
  }
  // With the comment in front of the name: a browser must not take the reply for another file.
  if (callback !== undefined) headers["Content-Disposition"] = "attachment; filename=f.txt";
  return headers;
}

/** JSON allows two line separators in strings that older scripts do not. */
function escapeForScript(json: string): string {
  return json.replace(/\u2028/g, "\\u2028").replace(/\u2029/g, "\\u2029");
}

/** How many times its limit a body is read (and dropped) so that its sender reads the refusal. */
const drainFactor = 16;

function readBody(request: IncomingMessage, maxBytes: number): Promise<string> {
  // Percent encoding can triple a form; what it decodes to is measured again.
  const limit = isJson(request) ? maxBytes : maxBytes * 3;
  const chunks: Buffer[] = [];
  let length = 0;
  return new Promise((resolve, reject) => {
    const refuse = (): void => reject(new BadRequest(`A request may have ${maxBytes} bytes.`, 413));
    request.on("data", (chunk: Buffer) => {
      length += chunk.length;
      if (length <= limit) chunks.push(chunk);
      else if (length > limit * drainFactor) refuse();
    });
    request.on("end", () => {
      const body = Buffer.concat(chunks);
      if (length > limit) refuse();
      else if (isUtf8(body)) resolve(body.toString());
      else reject(new BadRequest("The body is not UTF-8."));
    });
    request.on("error", reject);
  });
}
