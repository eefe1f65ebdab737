/** Chooses the implementations, puts the parts together, listens, and drains. */
import { once } from "node:events";
import { createServer, type Server as HttpServer, type IncomingMessage } from "node:http";
import type { AddressInfo } from "node:net";
import type { Duplex } from "node:stream";
import { setTimeout as delay } from "node:timers/promises";
import { AdminAuth, sharedSessionKey } from "./auth/admin.js";
import { createAuthorize, createIdentifyKey } from "./auth/authorize.js";
import { KeyTable } from "./auth/keys.js";
import { OidcLogin } from "./auth/oidc.js";
import { basicLogin } from "./auth/password.js";
import { Bayeux, bayeuxEncoder } from "./bayeux.js";
import { createMemoryBroker } from "./broker/memory.js";
import { createRedisBroker } from "./broker/redis.js";
import { Cluster } from "./cluster/cluster.js";
import type { Config } from "./config.js";
import type { AdminParts } from "./http/admin.js";
import { createApp, createMetricsApp } from "./http/app.js";
import type { BuildInfo, ReadinessChecks } from "./http/health.js";
import type { MetricsParts } from "./http/metrics.js";
import { createMemoryIdempotency } from "./idempotency/memory.js";
import { createRedisIdempotency } from "./idempotency/redis.js";
import { LocalLive } from "./live.js";
import { Metrics } from "./metrics/metrics.js";
import { countedAddress } from "./network.js";
import { Node } from "./node.js";
import type { Log } from "./observe.js";
import { createMemoryPresence } from "./presence/memory.js";
import { createRedisPresence, type RedisPresence } from "./presence/redis.js";
import { type Log as LogWith, RedisHosts } from "./redis/hosts.js";
import { RefusalLog } from "./refusals.js";
import { logAnswer, logRefusal } from "./request-log.js";
import type { ClientSession } from "./session.js";
import { openStore } from "./storage/sql.js";
import type { Store } from "./storage/store.js";
import { addressReader } from "./transports/address.js";
import { PollingTransport } from "./transports/polling.js";
import { refuse, WebSocketTransport } from "./transports/websocket.js";

/**
 * How long an idle HTTP connection stays open, in ms. Longer than the usual minute of load
 * balancers: whoever closes first must be the one that knows no request is on its way.
 */
const keepAliveMs = 75_000;
const requestTimeoutMs = 60_000;
/** How often a draining server looks for connections that have become idle. */
const drainPollMs = 50;
/** What the last counts of the keys' use may take to be written, however long the draining took. */
const lastWriteMs = 500;

export interface RunningServer {
  /** `http://localhost:<port>` */
  readonly url: string;
  readonly port: number;
  /** Where the metrics are, if they have a port of their own. */
  readonly metricsPort: number | undefined;
  readonly store: Store;
  readonly keys: KeyTable;
  /**
   * Stops accepting, answers held polls, closes sockets with the advice to come back at different
   * moments, and waits at most `DRAIN_MS` for them.
   */
  close(): Promise<void>;
}

export async function startServer(
  config: Config,
  log: Log,
  build: BuildInfo,
): Promise<RunningServer> {
  const { limits } = config;
  const logError = (error: unknown, what: string): void => log.error({ err: error }, what);
  const store = await openStore(config.database, { mayBeDown: true });
  const keys = new KeyTable(store, {
    reloadMs: config.cacheTtlMs,
    usageMs: config.keyStatsIntervalMs,
    report: (problem, error) => log.error({ err: error }, problem),
    recovered: () => log.info("the database answers again"),
    prepare: () => addDevApplication(store, config.devApplication),
  });
  await keys.load();
  const logWith: LogWith = (level, message, fields) => log[level](fields, message);
  const redis = config.redis && new RedisHosts(config.redis, logWith);
  const cluster = redis && new Cluster(redis, logWith);
  const metrics = new Metrics({
    version: build.version,
    rev: build.rev,
    applications: config.metrics.applications,
    statsd: config.statsd,
    logError,
    warn: (message, fields) => log.warn(fields, message),
  });
  let shared: RedisPresence | undefined;
  // Twice what a connect is held: a client that is one whole connect late still finds it.
  const sessionExpiryMs = 2 * config.bayeux.timeoutMs + config.bayeux.intervalMs;

  const node = new Node({
    ...(cluster === undefined ? {} : { identity: cluster.membership }),
    createBroker: (handler) =>
      redis === undefined
        ? createMemoryBroker(handler)
        : createRedisBroker(redis, handler, logWith, (host, ms) => metrics.brokerTook(host, ms)),
    createPresence(announce, nextId) {
      if (redis === undefined || cluster === undefined) {
        return createMemoryPresence(limits, announce);
      }
      const { membership } = cluster;
      shared = createRedisPresence({ hosts: redis, membership, nextId, limits, log: logWith });
      return shared;
    },
    limits,
    limitsOf: (appId) => keys.limitsOf(appId),
    sessionExpiryMs,
    statisticsIntervalMs: config.statisticsIntervalMs,
    ...(cluster === undefined ? {} : { onStatisticsDue: (heard) => cluster.statisticsDue(heard) }),
    onSessionEnd: (session, reason) => {
      const level = reason === "overflow" ? "warn" : "debug";
      log[level]({ client: session.hash, reason }, "session ended");
      metrics.sessionEnded(reason);
      cluster?.ended(session.clientId, reason === "moved");
    },
    onBatch: (publications) => metrics.delivering(publications),
    onLoss: (app) => {
      log.warn({ app }, "publications were lost: more was published than could be delivered");
      metrics.losing();
    },
    logError,
    trace: log.isLevelEnabled("debug") ? (what, fields) => log.debug(fields, what) : undefined,
  });
  const refusals = new RefusalLog({
    hasApp: (appId) => keys.knowsApp(appId),
    hasKey: (appId, keyId) => keys.knowsKey(appId, keyId),
  });
  keys.onRevoked((revoked) => {
    node.revoke(revoked);
    for (const appId of revoked.appIds) refusals.forget(appId);
  });
  const localLive = new LocalLive(node, refusals);

  const authorize = createAuthorize(keys);
  const joined = cluster?.join({
    node,
    encoder: bayeuxEncoder,
    isAllowed: (appId, keyId) => keys.isInForce(appId, keyId),
    presence: {
      lost: () => shared?.lost(),
      clean: async (host, nodeId, appId) => shared?.clean(host, nodeId, appId),
    },
    sessionExpiryMs,
    statisticsIntervalMs: config.statisticsIntervalMs,
    live: localLive,
  });
  const live = joined?.live ?? localLive;
  const bayeux = new Bayeux(node, joined?.sessions ?? node, authorize, {
    ...config.bayeux,
    batchMessages: limits.batchMessages,
    onRefusal: (refusal, request, channel) => {
      const { kind } = request;
      logRefusal(log, refusal, request, channel);
      metrics.refused(kind, refusal.code);
      if (kind === "subscribe" || kind === "publish") {
        refusals.addForChannel(kind, channel, refusal);
      }
    },
    onMalformed: () => metrics.refused("batch", "badRequest"),
    logError,
  });
  const onSlowConsumer =
    (transport: "websocket" | "eventsource") =>
    (session: ClientSession | undefined): void => {
      log.warn({ client: session?.hash }, "slow consumer disconnected");
      metrics.slowConsumer(transport);
    };
  const addressOf = addressReader(config.trustProxy);
  const { pingIntervalMs } = config.bayeux;
  const websocket = new WebSocketTransport(bayeux, {
    limits,
    pingIntervalMs,
    addressOf,
    onSlowConsumer: onSlowConsumer("websocket"),
    logError,
  });
  const polling = new PollingTransport(bayeux, {
    ...limits,
    // As for a WebSocket that answers no pings.
    unreadMs: pingIntervalMs,
    addressOf,
    onSlowConsumer: onSlowConsumer("eventsource"),
    logError,
  });

  let isDraining = false;
  const checks: ReadinessChecks = {
    database: () =>
      keys.isFailing
        ? "not available; known keys go on working, unknown keys and the administration do not"
        : undefined,
    keys: () => (keys.isLoaded ? undefined : "not loaded yet"),
    redis: () => describeOutage(redis),
    drain: () => (isDraining ? "this node is shutting down" : undefined),
  };
  metrics.watch({
    node,
    websockets: () => websocket.connectionCount,
    brokers: () => redis?.all ?? [{ name: "memory", isUp: true }],
    nodes: () => cluster?.membership.nodes.length ?? 1,
    checks,
  });
  const metricsParts: MetricsParts = {
    exposition: () => metrics.exposition(),
    token: config.metrics.token,
  };
  const metricsApp =
    config.metrics.port === undefined ? undefined : createMetricsApp(metricsParts, logWith);
  const app = createApp({
    authorize,
    publish: (grant, channel, data) => node.publish(grant, channel, data),
    idempotency:
      redis === undefined ? createMemoryIdempotency() : createRedisIdempotency(redis, logWith),
    maxBodyBytes: limits.messageBytes,
    log: logWith,
    build,
    checks,
    refusals,
    onResponse: (answered) => {
      metrics.responded(answered.api, answered.status, answered.ms);
      logAnswer(log, answered, (appId) => keys.knowsApp(appId));
    },
    onRefusal: ({ code }) => metrics.refused("http", code),
    metrics: { ...metricsParts, elsewhere: whereMetricsAre(config) },
    backend: {
      live,
      store,
      identifyKey: createIdentifyKey(keys),
      batchMessages: limits.batchMessages,
    },
    admin: {
      ...createAdminAuth(config, store, log),
      store,
      live,
      changed: () => keys.changed(),
      addressOf: (request) => countedAddress(addressOf(request)),
      version: build.version,
      deployment: deploymentOf(config, build),
    },
    serverFactory: (handle) => {
      const server = createServer(
        { keepAliveTimeout: keepAliveMs, requestTimeout: requestTimeoutMs },
        (request, response) => {
          toOriginForm(request);
          if (PollingTransport.accepts(request)) polling.handle(request, response);
          else handle(request, response);
        },
      );
      server.on("upgrade", (request, socket, head) => {
        toOriginForm(request);
        if (!isWebSocket(request)) server.emit("connection", withoutUpgrade(request, socket, head));
        else if (PollingTransport.accepts(request)) websocket.upgrade(request, socket, head);
        else refuse(socket, 404, "WebSockets are at /push");
      });
      return server;
    },
  });
  await app.ready();
  await metricsApp?.ready();
  const closeCluster = async (): Promise<void> => {
    shared?.close();
    await cluster?.close();
    await redis?.close();
  };
  const release = async (): Promise<void> => {
    // It may have to wait for a host that stands still.
    const closed = closeCluster();
    await app.close();
    metricsApp?.server.close();
    metricsApp?.server.closeAllConnections();
    await metricsApp?.close();
    await metrics.close();
    await keys.close();
    await store.close();
    await closed;
  };
  // Who is sent here finds the brokers connected; one that is down keeps nobody from starting.
  await redis?.tried();
  await cluster?.start();
  let port: number;
  let metricsPort: number | undefined;
  try {
    port = await listen(app.server, config);
    if (metricsApp !== undefined) metricsPort = await listen(metricsApp.server, config.metrics);
  } catch (error) {
    // Timers and the open database would keep a process alive that serves nobody.
    app.server.close();
    await node.close();
    websocket.close();
    await release();
    throw error;
  }

  return {
    url: `http://localhost:${port}`,
    port,
    metricsPort,
    store,
    keys,
    async close() {
      const deadline = performance.now() + config.drainMs;
      isDraining = true;
      if (cluster !== undefined) {
        bayeux.leave();
        // The other half of the time is for whoever is still here then.
        const sessions = await cluster.drain(deadline - config.drainMs / 2);
        log.info({ sessions }, "sessions were given to other nodes");
      }
      const closed = once(app.server, "close");
      app.server.close();
      bayeux.drain();
      await node.close();
      websocket.close();
      await drained(app.server, closed, deadline);
      websocket.terminate();
      app.server.closeAllConnections();
      // Another process may keep the database locked.
      const leftMs = Math.max(deadline - performance.now(), lastWriteMs);
      await Promise.race([release(), delay(leftMs, undefined, { ref: false })]);
    },
  };
}

/** Proxies are asked with the whole address, and some pass it on as it is. RFC 9112, section 3.2.2 */
function toOriginForm(request: IncomingMessage): void {
  const { url = "/" } = request;
  if (url.startsWith("/")) return;
  request.url = url.replace(/^https?:\/\/[^/?#]*\/?/i, "/");
}

function isWebSocket({ headers }: IncomingMessage): boolean {
  return headers.upgrade?.toLowerCase() === "websocket";
}

/**
 * Many clients of HTTP offer HTTP/2 with their first request; who does not want it answers as if
 * they had not (RFC 9110, section 7.8). But Node stops reading HTTP at an upgrade: so the
 * request is put back to where it was read from.
 *
 * @returns the connection, as if it were new
 */
function withoutUpgrade(request: IncomingMessage, socket: Duplex, head: Buffer): Duplex {
  const { method, url, httpVersion, rawHeaders } = request;
  const lines = [`${method} ${url} HTTP/${httpVersion}`];
  for (let i = 0; i < rawHeaders.length; i += 2) {
    const [name = "", value = ""] = rawHeaders.slice(i, i + 2);
    if (name.toLowerCase() !== "upgrade") lines.push(`${name}: ${value}`);
  }
  socket.unshift(Buffer.concat([Buffer.from(`${lines.join("\r\n")}\r\n\r\n`, "latin1"), head]));
  return socket;
}

async function listen(
  server: HttpServer,
  { port, host }: Config | Config["metrics"],
): Promise<number> {
  server.listen({ port, host });
  await once(server, "listening");
  return (server.address() as AddressInfo).port;
}

/** Until all connections are closed, or it is too late. */
async function drained(
  server: HttpServer,
  closed: Promise<unknown>,
  deadline: number,
): Promise<void> {
  let isClosed = false;
  const noticed = closed.then(() => {
    isClosed = true;
  });
  while (!isClosed && performance.now() < deadline) {
    // Connections that had a request when the server closed stay open behind it.
    server.closeIdleConnections();
    await Promise.race([noticed, delay(drainPollMs)]);
  }
}

function createAdminAuth(
  { admin }: Config,
  store: Store,
  log: Log,
): Pick<AdminParts, "auth" | "oidc"> {
  if (admin.method === "none") return { auth: undefined };
  const sessionKey = admin.sessionKey ?? sharedSessionKey(store);
  const oidc =
    admin.provider &&
    new OidcLogin(admin.provider, {
      key: sessionKey,
      report: (problem, fields) => log.warn(fields, problem),
    });
  // The server starts without its answer.
  void oidc?.prepare();
  const auth = new AdminAuth({
    method: oidc ?? basicLogin(store, admin),
    rootAdmins: admin.rootAdmins,
    sessionKey,
    sessionMs: admin.sessionMs,
    store,
    onFailure: (failure) => log.warn(failure, "admin login failed"),
  });
  return { auth, ...(oidc === undefined ? {} : { oidc }) };
}

/** Without their names: everybody can read it. */
function describeOutage(redis: RedisHosts | undefined): string | undefined {
  const down = redis?.all.filter(({ isUp }) => !isUp).length ?? 0;
  if (down === 0) return undefined;
  return `${down} of ${redis?.all.length} hosts not available; their channels are not, and other nodes may not be found`;
}

/** Why they are not on the public port, for people. */
function whereMetricsAre({ metrics: { port, token } }: Config): string | undefined {
  if (port !== undefined) return "The metrics have a port of their own (METRICS_PORT).";
  if (token !== undefined) return undefined;
  return "There are metrics here when METRICS_TOKEN is set, or on the port METRICS_PORT.";
}

function deploymentOf({ deployment }: Config, build: BuildInfo): AdminParts["deployment"] {
  const { environments, environment, commit } = deployment;
  return { environments, environment, version: commit === "" ? build.version : commit };
}

/** Other nodes may be doing the same at this moment. */
async function addDevApplication(store: Store, dev: Config["devApplication"]): Promise<void> {
  if (dev === undefined) return;
  const { appId, keyId, secret } = dev;
  const hasApp = async () => (await store.findApplication(appId)) !== undefined;
  await unless(hasApp, () => store.addApplication({ id: appId, name: "dev", createdBy: "admin" }));
  const expires = new Date();
  expires.setFullYear(expires.getFullYear() + 100);
  const key = { id: keyId, secret, appId, createdBy: "admin", expires, purpose: "dev" };
  const hasKey = async () => (await store.findKey(appId, keyId)) !== undefined;
  await unless(hasKey, () => store.addKey(key));
}

/** Does what is not done; that it fails is no matter when somebody else has done it. */
async function unless(isDone: () => Promise<boolean>, work: () => Promise<unknown>): Promise<void> {
  if (await isDone()) return;
  try {
    await work();
  } catch (error) {
    if (!(await isDone())) throw error;
  }
}
