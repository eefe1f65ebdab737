import { type ChildProcess, spawn } from "node:child_process";
import { createHmac, randomBytes } from "node:crypto";
import { once } from "node:events";
import { existsSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import net from "node:net";
import { tmpdir } from "node:os";
import path from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { fileURLToPath } from "node:url";

const cli = fileURLToPath(new URL("../server/dist/cli.js", import.meta.url));

/** How long a held connect is held by a server of ours; sessions expire after twice that. */
export const holdMs = 5_000;
const startMs = 30_000;

/** The server under test, with an application and a key that may do anything in it. */
export interface Deployment {
  /** Base URL without a trailing slash; Bayeux is at `<url>/push`. */
  readonly url: string;
  /** npm `faye`'s own server knows neither keys nor presence. */
  readonly isFaye: boolean;
  readonly appId: string;
  readonly keyId: string;
  readonly secret: string;
  /** Ends the server with the signal and starts it again on the same port and database. */
  restart(signal: "SIGTERM" | "SIGKILL"): Promise<void>;
  stop(): Promise<void>;
}

/** Whether the suite tests a server that somebody else runs and that it may not restart. */
export const isForeign = process.env.PANDAPUSH_URL !== undefined;

/**
 * Starts a server of this checkout on a free port with a database of its own. With
 * `PANDAPUSH_URL`, `PANDAPUSH_APP_ID`, `PANDAPUSH_KEY_ID` and `PANDAPUSH_KEY_SECRET` in the
 * environment it starts nothing and gives that server instead.
 */
export async function startServer(
  options: { readonly port?: number; readonly environment?: NodeJS.ProcessEnv } = {},
): Promise<Deployment> {
  if (isForeign) return foreignDeployment();
  if (!existsSync(cli)) throw new Error(`${cli} is missing: build first (npm run build)`);

  const port = options.port ?? (await freePort());
  const directory = await mkdtemp(path.join(tmpdir(), "pandapush-e2e-"));
  const id = randomBytes(6).toString("hex");
  const [appId, keyId, secret] = [`app${id}`, `PSID${id}`, randomBytes(24).toString("base64url")];
  const url = `http://127.0.0.1:${port}`;

  const environment = {
    NODE_ENV: "production",
    PORT: String(port),
    DATABASE_PATH: path.join(directory, "db.sqlite"),
    DEV_APPLICATION_ID: appId,
    DEV_KEY_ID: keyId,
    DEV_KEY_SECRET: secret,
    BAYEUX_TIMEOUT_MS: String(holdMs),
    ...options.environment,
  };
  // A directory of its own, so that no .env file of the checkout is read.
  const run = await keepRunning([cli, "start"], directory, environment, `${url}/health_check.json`);
  return {
    url,
    isFaye: false,
    appId,
    keyId,
    secret,
    restart: run.restart,
    async stop() {
      await run.stop();
      await rm(directory, { recursive: true, force: true });
    },
  };
}

/** npm `faye`'s own server on a free port, which clients of ours must get on with as well. */
export async function startFayeServer(): Promise<Deployment> {
  const port = await freePort();
  const script = fileURLToPath(new URL("faye-server.mjs", import.meta.url));
  const environment = { PORT: String(port), TIMEOUT_SECONDS: String(holdMs / 1000) };
  const url = `http://127.0.0.1:${port}`;
  const run = await keepRunning([script], tmpdir(), environment, `${url}/health_check.json`);
  const nobody = { appId: "app", keyId: "nobody", secret: "none" };
  return { url, isFaye: true, ...nobody, restart: run.restart, stop: run.stop };
}

/** Starts a server and waits until it answers. */
async function keepRunning(
  command: readonly string[],
  cwd: string,
  environment: NodeJS.ProcessEnv,
  healthUrl: string,
): Promise<Pick<Deployment, "restart" | "stop">> {
  const start = async (): Promise<ChildProcess> => {
    const child = spawn(process.execPath, command, {
      cwd,
      env: { ...process.env, ...environment },
      stdio: ["ignore", "pipe", "pipe"],
    });
    let output = "";
    const keep = (chunk: Buffer) => {
      output = (output + chunk.toString()).slice(-4_000);
    };
    child.stdout.on("data", keep);
    child.stderr.on("data", keep);
    const deadline = Date.now() + startMs;
    while (!(await isHealthy(healthUrl))) {
      if (child.exitCode !== null) {
        throw new Error(`the server ended with ${child.exitCode}:\n${output}`);
      }
      if (Date.now() > deadline) {
        child.kill("SIGKILL");
        throw new Error(`the server was not healthy within ${startMs} ms:\n${output}`);
      }
      await delay(20);
    }
    return child;
  };
  const end = async (child: ChildProcess, signal: NodeJS.Signals): Promise<void> => {
    if (child.exitCode !== null || child.signalCode !== null) return;
    const ended = once(child, "exit", { signal: AbortSignal.timeout(startMs) });
    child.kill(signal);
    await ended;
  };

  let child = await start();
  return {
    async restart(signal) {
      await end(child, signal);
      child = await start();
    },
    stop: () => end(child, "SIGKILL"),
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

async function isHealthy(url: string): Promise<boolean> {
  return fetch(url).then(
    (response) => response.status === 200,
    () => false,
  );
}

async function freePort(): Promise<number> {
  const server = net.createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const address = server.address();
  server.close();
  await once(server, "close");
  if (address === null || typeof address === "string") throw new Error("no free port");
  return address.port;
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
