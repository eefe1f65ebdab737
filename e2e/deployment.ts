import { createHmac, randomBytes } from "node:crypto";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { freePort, ServerProcess } from "./server-process.js";

/** How long a held connect is held by a server of ours; sessions expire after twice that. */
export const holdMs = 5_000;

/** The server under test, with an application and a key that may do anything in it. */
export interface Deployment {
  /** Base URL without a trailing slash; Bayeux is at `<url>/push`. */
  readonly url: string;
  /** npm `faye`'s own server knows neither keys nor presence. */
  readonly isFaye: boolean;
  readonly appId: string;
  readonly keyId: string;
  readonly secret: string;
  /** Ends all its processes with the signal and starts them again on the same ports and database. */
  restart(signal: "SIGTERM" | "SIGKILL"): Promise<void>;
  stop(): Promise<void>;
}

/** Whether the suite tests a server that somebody else runs and that it may not restart. */
export const isForeign = process.env.PANDAPUSH_URL !== undefined;

/**
 * What `PANDAPUSH_TEST_DEPLOYMENT` can name: one node, directly or behind the balancer that sends
 * every request to the next node; and two of them, with one or two Redis hosts.
 */
const shapes = {
  node: undefined,
  "balanced-node": { nodes: 1, redisHosts: 0 },
  cluster: { nodes: 2, redisHosts: 1 },
  "cluster-2-redis": { nodes: 2, redisHosts: 2 },
} as const;
export type Shape = keyof typeof shapes;

function givenShape(): Shape {
  const name = process.env.PANDAPUSH_TEST_DEPLOYMENT ?? "node";
  if (name in shapes) return name as Shape;
  const allowed = Object.keys(shapes).join(", ");
  throw new Error(`PANDAPUSH_TEST_DEPLOYMENT is ${name}; allowed: ${allowed}`);
}

export interface StartOptions {
  readonly port?: number;
  readonly environment?: NodeJS.ProcessEnv;
  /** What to start instead of what `PANDAPUSH_TEST_DEPLOYMENT` says. */
  readonly shape?: Shape;
}

/**
 * Starts a server of this checkout on a free port with a database of its own, in the shape that
 * `PANDAPUSH_TEST_DEPLOYMENT` says. With `PANDAPUSH_URL`, `PANDAPUSH_APP_ID`, `PANDAPUSH_KEY_ID` and
 * `PANDAPUSH_KEY_SECRET` in the environment it starts nothing and gives that server instead.
 */
export async function startServer(options: StartOptions = {}): Promise<Deployment> {
  if (isForeign) return foreignDeployment();
  const shape = options.shape ?? givenShape();
  if (shape !== "node") return startBalanced(shape, options);

  const port = options.port ?? (await freePort());
  const directory = await mkdtemp(path.join(tmpdir(), "pandapush-e2e-"));
  const id = randomBytes(6).toString("hex");
  const [appId, keyId, secret] = [`app${id}`, `PSID${id}`, randomBytes(24).toString("base64url")];
  const url = `http://127.0.0.1:${port}`;
  const server = ServerProcess.pandapush({
    directory,
    healthUrl: `${url}/health_check.json`,
    environment: {
      NODE_ENV: "production",
      PORT: String(port),
      DATABASE_PATH: path.join(directory, "db.sqlite"),
      DEV_APPLICATION_ID: appId,
      DEV_KEY_ID: keyId,
      DEV_KEY_SECRET: secret,
      BAYEUX_TIMEOUT_MS: String(holdMs),
      ...options.environment,
    },
  });
  await server.start();
  return {
    url,
    isFaye: false,
    appId,
    keyId,
    secret,
    restart: (signal) => restart([server], signal),
    async stop() {
      await server.end("SIGKILL");
      await rm(directory, { recursive: true, force: true });
    },
  };
}

async function startBalanced(
  shape: Exclude<Shape, "node">,
  { port, environment }: StartOptions,
): Promise<Deployment> {
  // It takes parts of the server's own tests with it, which one node does not need.
  const { Cluster } = await import("./cluster/cluster.js");
  const { appId, keyId, secret } = await import("../server/test/harness.js");
  const cluster = await Cluster.start({
    ...shapes[shape],
    ...(port === undefined ? {} : { port }),
    environment: { BAYEUX_TIMEOUT_MS: String(holdMs), ...environment },
  });
  return {
    url: cluster.balancer.url,
    isFaye: false,
    appId,
    keyId,
    secret,
    restart: (signal) => restart(cluster.nodes, signal),
    stop: () => cluster.stop(),
  };
}

/** All of them end before the first one starts again. */
async function restart(
  servers: readonly Pick<ServerProcess, "start" | "end">[],
  signal: "SIGTERM" | "SIGKILL",
): Promise<void> {
  await Promise.all(servers.map((server) => server.end(signal)));
  await Promise.all(servers.map((server) => server.start()));
}

/** npm `faye`'s own server on a free port, which clients of ours must get on with as well. */
export async function startFayeServer(): Promise<Deployment> {
  const port = await freePort();
  const script = fileURLToPath(new URL("faye-server.mjs", import.meta.url));
  const environment = { PORT: String(port), TIMEOUT_SECONDS: String(holdMs / 1000) };
  const url = `http://127.0.0.1:${port}`;
  const healthUrl = `${url}/health_check.json`;
  const server = new ServerProcess([process.execPath, script], {
    directory: tmpdir(),
    environment,
    healthUrl,
  });
  await server.start();
  return {
    url,
    isFaye: true,
    appId: "app",
    keyId: "nobody",
    secret: "none",
    restart: (signal) => restart([server], signal),
    async stop() {
      await server.end("SIGKILL");
    },
  };
}

function foreignDeployment(): Deployment {
  return {
    url: required("PANDAPUSH_URL").replace(/\/$/, ""),
    isFaye: false,
    appId: required("PANDAPUSH_APP_ID"),
    keyId: required("PANDAPUSH_KEY_ID"),
    secret: required("PANDAPUSH_KEY_SECRET"),
    restart: () => Promise.reject(new Error("a deployment named by PANDAPUSH_URL stays up")),
    stop: () => Promise.resolve(),
  };
}

function required(name: string): string {
  const value = process.env[name];
  if (value === undefined) throw new Error(`PANDAPUSH_URL needs ${name} beside it`);
  return value;
}

/** A name of its own below `/<app>/<kind>/`, so that sentences do not hear each other. */
export function freshChannel(
  { appId }: Deployment,
  kind: "public" | "private" | "presence",
): string {
  return `/${appId}/${kind}/${randomBytes(8).toString("hex")}`;
}

/** The claims of a channel token; `keyId` and an expiry in an hour are added where absent. */
export interface Claims {
  readonly channel: string;
  readonly keyId?: string;
  readonly pub?: boolean;
  readonly sub?: boolean;
  readonly presence?: { readonly id: string; readonly [field: string]: unknown };
  /** Seconds since 1970. */
  readonly exp?: number;
}

/** A JWT (RFC 7519) signed with HS256 and the deployment's key, or another secret. */
export function signToken(deployment: Deployment, claims: Claims, secret = deployment.secret) {
  const part = (value: object) => Buffer.from(JSON.stringify(value)).toString("base64url");
  const exp = Math.floor(Date.now() / 1000) + 3_600;
  const text = `${part({ alg: "HS256", typ: "JWT" })}.${part({ keyId: deployment.keyId, exp, ...claims })}`;
  return `${text}.${createHmac("sha256", secret).update(text).digest("base64url")}`;
}

/**
 * Publishes over REST with key and secret, or to Faye's server as a Bayeux message; resolves when
 * the server has acknowledged it.
 */
export async function publish(
  deployment: Deployment,
  channel: string,
  data: unknown,
): Promise<void> {
  const { url } = deployment;
  if (deployment.isFaye) {
    const body = JSON.stringify({ channel, data });
    const headers = { "Content-Type": "application/json" };
    const answer = await fetch(`${url}/push`, { method: "POST", headers, body });
    const [reply] = (await answer.json()) as { successful: boolean }[];
    if (!reply?.successful) throw new Error(`publishing to ${channel} was refused`);
    return;
  }
  const response = await fetch(`${url}/channel${channel}`, {
    method: "POST",
    headers: { Authorization: basicAuth(deployment), "Content-Type": "application/json" },
    body: JSON.stringify(data),
  });
  const text = await response.text();
  if (response.status !== 200 || text !== "OK") {
    throw new Error(`publishing to ${channel} was answered ${response.status}: ${text}`);
  }
}

/**
 * Ends everything that the sessions of a presence user are subscribed to.
 * @returns how many sessions that were
 */
export async function disconnectUser(deployment: Deployment, presenceId: string): Promise<number> {
  const path = `/api/${deployment.appId}/users/${encodeURIComponent(presenceId)}/disconnect`;
  const response = await fetch(`${deployment.url}${path}`, {
    method: "POST",
    headers: { Authorization: basicAuth(deployment) },
  });
  const { disconnected } = (await response.json()) as { disconnected: number };
  return disconnected;
}

function basicAuth({ keyId, secret }: Deployment): string {
  return `Basic ${Buffer.from(`${keyId}:${secret}`).toString("base64")}`;
}
