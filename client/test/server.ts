import { type ChildProcess, execFile, spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { mkdtemp, rm } from "node:fs/promises";
import net from "node:net";
import { tmpdir } from "node:os";
import path from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import type { Deployment } from "../../e2e/deployment.js";

const command = fileURLToPath(new URL("../../server/dist/cli.js", import.meta.url));
const startMs = 30_000;

/** How long connects are held; sessions expire after twice that. */
export const holdMs = 1_000;

/** An application and a key of it, at a server. */
export type Account = Deployment;

/** A server of this checkout, whose limits and keys a test may change. */
export interface Server extends Account {
  /** Where Bayeux is. */
  readonly push: string;
  /** Ends the server: no connection is accepted until `start`. */
  kill(): Promise<void>;
  start(): Promise<void>;
  /** Runs the command on the server's database. @returns what it prints with `--json` */
  cli(...args: string[]): Promise<unknown>;
  /** A new application with a key. */
  account(): Promise<Account>;
}

/** @param settings environment variables of the server */
export async function startServer(settings: Readonly<Record<string, string>> = {}) {
  const port = settings.PORT ?? (await freePort());
  const folder = await mkdtemp(path.join(tmpdir(), "pandapush-client-"));
  const id = randomBytes(6).toString("hex");
  const [appId, keyId, secret] = [`app${id}`, `key${id}`, randomBytes(24).toString("base64url")];
  const url = `http://127.0.0.1:${port}`;
  const env = {
    ...process.env,
    NODE_ENV: "production",
    PORT: String(port),
    DATABASE_PATH: path.join(folder, "db.sqlite"),
    DEV_APPLICATION_ID: appId,
    DEV_KEY_ID: keyId,
    DEV_KEY_SECRET: secret,
    BAYEUX_TIMEOUT_MS: String(holdMs),
    ...settings,
  };

  let child: ChildProcess | undefined;
  const end = async (signal: NodeJS.Signals): Promise<void> => {
    const ending = child;
    child = undefined;
    if (ending === undefined || ending.exitCode !== null || ending.signalCode !== null) return;
    const ended = once(ending, "exit", { signal: AbortSignal.timeout(startMs) });
    ending.kill(signal);
    await ended;
  };
  const server: Server = {
    url,
    isFaye: false,
    push: `${url}/push`,
    appId,
    keyId,
    secret,
    async start() {
      // A folder of its own, so that no .env file of the checkout is read.
      child = spawn(process.execPath, [command, "start"], { cwd: folder, env, stdio: "ignore" });
      const deadline = Date.now() + startMs;
      while (!(await isHealthy(url))) {
        if (child.exitCode !== null) throw new Error(`the server ended with ${child.exitCode}`);
        if (Date.now() > deadline) throw new Error(`the server was not up within ${startMs} ms`);
        await delay(20);
      }
    },
    kill: () => end("SIGKILL"),
    async restart(signal) {
      await end(signal);
      await this.start();
    },
    async cli(...args) {
      const all = [command, ...args, "--json"];
      const { stdout } = await promisify(execFile)(process.execPath, all, { cwd: folder, env });
      return stdout === "" ? undefined : JSON.parse(stdout);
    },
    async account() {
      const app = (await this.cli("app", "add", "Test")) as { id: string };
      const key = (await this.cli("key", "add", app.id)) as { id: string; secret: string };
      return { ...server, appId: app.id, keyId: key.id, secret: key.secret };
    },
    async stop() {
      await end("SIGKILL");
      await rm(folder, { recursive: true, force: true });
    },
  };
  await server.start();
  return server;
}

async function isHealthy(url: string): Promise<boolean> {
  return fetch(`${url}/health_check.json`).then(
    ({ status }) => status === 200,
    () => false,
  );
}

/** A port on which nobody listens. */
export async function freePort(): Promise<number> {
  const server = net.createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as net.AddressInfo;
  server.close();
  await once(server, "close");
  return port;
}
