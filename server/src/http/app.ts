import { STATUS_CODES } from "node:http";
import type { Socket } from "node:net";
import Fastify, {
  type FastifyError,
  type FastifyInstance,
  type FastifyReply,
  type FastifyRequest,
  type FastifyServerFactory,
} from "fastify";
import { Refusal } from "../errors.js";
import { randomText } from "../random-text.js";
import { NoSuchApplication, StorageUnavailable } from "../storage/store.js";
import { type AdminParts, routeAdmin } from "./admin.js";
import { safetyHeaders } from "./admin-page.js";
import { type BackendParts, backendPrefix, backendRoutes, routeBackend } from "./backend.js";
import { routeClientScript } from "./client-script.js";
import { type BuildInfo, type ReadinessChecks, routeHealth } from "./health.js";
import { type MetricsParts, routeMetrics } from "./metrics.js";
import type { DescribedApi } from "./openapi.js";
import { isChannelUrl, isUnderPrefix, type PublishParts, routePublish } from "./publish.js";
import { routeWelcome } from "./welcome.js";

export interface AppParts extends PublishParts {
  /** Called for faults that are the server's own; never with credentials or a request's URL. */
  readonly log: (level: "error" | "warn", message: string, fields: object) => void;
  readonly build: BuildInfo;
  /** Default: nothing can be in the way. */
  readonly checks?: ReadinessChecks;
  /** For back ends, beside publishing. Absent: there is nothing else for them. */
  readonly backend?: Pick<BackendParts, "live" | "store" | "identifyKey" | "batchMessages">;
  /** Absent: there is no administration. */
  readonly admin?: AdminParts;
  /** Absent: there are none. */
  readonly metrics?: MetricsParts;
  /** Told of each answer, once it is written. */
  readonly onResponse?: (answered: Answered) => void;
  /** Makes the server that hands its requests on to the app; default: a plain HTTP server. */
  readonly serverFactory?: FastifyServerFactory;
}

/** How long a request may take to arrive, in ms: whoever sends slower gets a 408. */
const requestTimeoutMs = 60_000;

/** How long a client has to read that its request is unreadable, in ms. */
const unreadableGraceMs = 5_000;

/**
 * Everything this server answers over plain HTTP: REST publish, administration, health and the
 * welcome page.
 *
 * Every request gets an answer, and every fault one of few shapes: JSON `{code, params, message,
 * details}` for refusals, a short text where there is nothing to explain. Not listening yet.
 */
export function createApp(parts: AppParts): FastifyInstance {
  const app: FastifyInstance = Fastify({
    // A request costs no log line and no logger of its own.
    logger: false,
    requestTimeout: requestTimeoutMs,
    routerOptions: { maxParamLength: 16_384 },
    genReqId: ({ headers }) => givenId(headers["x-request-id"]) ?? nextId(),
    clientErrorHandler: answerUnreadable,
    frameworkErrors: (_error, request, reply: FastifyReply) => {
      if (request.raw.url?.startsWith("/admin") === true) reply.headers(safetyHeaders);
      // Percent signs that encode nothing. REST-2
      if (isUnderPrefix(request.raw.url ?? "")) answer(reply, new Refusal("noSuchChannel"));
      else answer(reply, new Refusal("badRequest", [], "The address is not well-formed."));
    },
    ...(parts.serverFactory === undefined ? {} : { serverFactory: parts.serverFactory }),
  });
  // Handlers read bodies themselves: the limit, the order of checks and the texts are ours.
  app.removeAllContentTypeParsers();
  app.addContentTypeParser("*", (_request, _body, done) => done(null));
  const { onResponse, onRefusal } = parts;
  const refused = new WeakMap<FastifyRequest, Refusal>();
  if (onResponse !== undefined) {
    app.addHook("onResponse", (request, reply, done) => {
      const { id, method } = request;
      const url = request.raw.url ?? "";
      onResponse({
        id,
        api: apiOf(url),
        method,
        route: request.routeOptions.url,
        appId: () => appIdPattern.exec(url)?.[1],
        status: reply.statusCode,
        ms: reply.elapsedTime,
        refusal: refused.get(request),
      });
      done();
    });
  }
  app.setErrorHandler((error: FastifyError | Refusal, request, reply) => {
    const refusal = refusalOf(error, request, parts.log);
    onRefusal?.(refusal);
    refused.set(request, refusal);
    reply.header("x-request-id", request.id);
    answer(reply, refusal);
  });
  app.setNotFoundHandler((request, reply) => {
    const isChannel = isChannelUrl(request.raw.url ?? "");
    if (isChannel) reply.header("allow", "POST");
    throw new Refusal(isChannel ? "methodNotAllowed" : "notFound");
  });
  routePublish(app, parts);
  routeHealth(app, parts.build, parts.checks ?? {});
  routeWelcome(app);
  routeClientScript(app);
  const others: DescribedApi[] = [];
  if (parts.backend !== undefined) {
    const backend = { ...parts, ...parts.backend };
    const routes = backendRoutes(backend);
    routeBackend(app, routes, backend);
    others.push({ prefix: backendPrefix, routes, by: "key" });
  }
  if (parts.admin !== undefined) routeAdmin(app, parts.admin, others);
  if (parts.metrics !== undefined) routeMetrics(app, parts.metrics);
  return app;
}

/** What answers on a port of the metrics' own. Not listening yet. */
export function createMetricsApp(parts: MetricsParts, log: AppParts["log"]): FastifyInstance {
  const app: FastifyInstance = Fastify({
    logger: false,
    requestTimeout: requestTimeoutMs,
    clientErrorHandler: answerUnreadable,
  });
  app.setErrorHandler((error: FastifyError | Refusal, request, reply) => {
    answer(reply, refusalOf(error, request, log));
  });
  app.setNotFoundHandler((_request, reply) =>
    answer(reply, new Refusal("notFound", [], "Here is /metrics only.")),
  );
  routeMetrics(app, parts);
  return app;
}

/** What can be told of a request: nothing of its URL but what is known here. */
export interface Answered {
  /** As its proxy or client called it, or as this process does; in refusals as `X-Request-Id`. */
  readonly id: string;
  readonly api: Api;
  readonly method: string;
  /** The pattern of its path, `/channel/*`; undefined where there is nothing. */
  readonly route: string | undefined;
  /** What stands in the path where an application's id belongs, if something does; asked for rarely. */
  readonly appId: () => string | undefined;
  readonly status: number;
  readonly ms: number;
  readonly refusal: Refusal | undefined;
}

/** What a request was for, as far as metrics tell it apart. */
export type Api = "publish" | "backend" | "admin" | "other";

function apiOf(url: string): Api {
  if (isUnderPrefix(url)) return "publish";
  if (url.startsWith("/api/")) return "backend";
  return /^\/admin(?![^/?])/.test(url) ? "admin" : "other";
}

/** `/channel/<id>/…`, `/api/<id>/…`, `/admin/api/application/<id>…` */
const appIdPattern = /^\/(?:channel|api|admin\/api\/application)\/([A-Za-z0-9]{1,64})(?=[/?]|$)/;

function givenId(header: string | string[] | undefined): string | undefined {
  return typeof header === "string" && /^[\w.:/+=-]{1,64}$/.test(header) ? header : undefined;
}

/** Tells requests of all processes apart. */
const instance = randomText(3);
let requests = 0;

function nextId(): string {
  requests++;
  return `${instance}-${requests.toString(36)}`;
}

const databaseHelp =
  "The database is not available; try again in a few seconds. If this was to change something, look first whether it did.";

function refusalOf(error: unknown, request: FastifyRequest, log: AppParts["log"]): Refusal {
  if (error instanceof Refusal) return error;
  if (error instanceof StorageUnavailable) {
    log("warn", "HTTP request refused", { reason: error.reason, method: request.method });
    return new Refusal("unavailable", [], databaseHelp);
  }
  if (error instanceof NoSuchApplication) return new Refusal("noSuchResource");
  const { code, statusCode } = error as Partial<FastifyError>;
  if (code === "FST_ERR_CTP_INVALID_MEDIA_TYPE") {
    // Only publishing to one channel takes forms.
    const help = isChannelUrl(request.url) ? undefined : "Send Content-Type: application/json.";
    return new Refusal("unsupportedType", [], help);
  }
  if (code === "FST_ERR_CTP_BODY_TOO_LARGE") return new Refusal("tooLarge");
  if (statusCode !== undefined && statusCode < 500) return new Refusal("badRequest");
  log("error", "HTTP request failed", { err: error, method: request.method });
  return new Refusal("internal");
}

/** Refusals that are a plain text: the first as Pandapush 2.2 wrote it, the second for people. */
const texts: ReadonlyMap<string, (refusal: Refusal) => string> = new Map([
  ["unauthorized", ({ message }) => message],
  ["notFound", ({ message, help }) => `${message}. ${help}\n`],
]);

function answer(reply: FastifyReply, refusal: Refusal): FastifyReply {
  reply.code(refusal.http);
  const { retryAfterSeconds } = refusal;
  if (retryAfterSeconds !== undefined) reply.header("retry-after", retryAfterSeconds);
  const text = texts.get(refusal.code);
  if (text !== undefined) return reply.type("text/plain; charset=utf-8").send(text(refusal));
  return reply.type("application/json; charset=utf-8").send(JSON.stringify(refusal.toRest()));
}

/** What Node could not read as a request at all: no request and no reply exist. */
function answerUnreadable(error: NodeJS.ErrnoException, socket: Socket): void {
  if (error.code === "ECONNRESET" || !socket.writable) {
    socket.destroy();
    return;
  }
  const status =
    error.code === "HPE_HEADER_OVERFLOW"
      ? 431
      : error.code === "ERR_HTTP_REQUEST_TIMEOUT"
        ? 408
        : 400;
  const text = STATUS_CODES[status] ?? "";
  // Whoever reads nothing, or never closes its side, must not keep the connection.
  setTimeout(() => socket.destroy(), unreadableGraceMs).unref();
  socket.end(
    `HTTP/1.1 ${status} ${text}\r\nContent-Type: text/plain; charset=utf-8\r\n` +
      `Content-Length: ${text.length}\r\nConnection: close\r\n\r\n${text}`,
  );
}
