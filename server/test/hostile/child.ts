/** Servers in processes of their own. */
import { type ChildProcess, fork } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { appId, keyId, secret } from "../harness.js";
import type { Target } from "./raw.js";

export interface Measured {
  /** Bytes, right after a garbage collection. */
  readonly heapUsed: number;
  /** Bytes of buffers. */
  readonly external: number;
  readonly sessions: number;
  /** Open TCP connections. */
  readonly sockets: number;
  readonly apps: Record<
    string,
    { readonly connections: number; readonly subscriptions: number; readonly channels: number }
  >;
}

export interface ChildServer extends Target {
  readonly process: ChildProcess;
  measure(): Promise<Measured>;
  stop(): Promise<void>;
}

interface FromChild {
  readonly port?: number;
  readonly logged?: string;
  readonly measured?: Measured;
}

/** Starts the built server with an empty database and the application of the harness. */
export async function startChildServer(
  environment: Record<string, string> = {},
): Promise<ChildServer> {
  const directory = mkdtempSync(join(tmpdir(), "pandapush-test-"));
  const child = fork(fileURLToPath(new URL("./hostile-server.mjs", import.meta.url)), [], {
    execArgv: ["--expose-gc"],
    env: {
      PATH: process.env.PATH,
      PORT: "0",
      HOST: "127.0.0.1",
      DATABASE_PATH: join(directory, "db.sqlite"),
      DEV_APPLICATION_ID: appId,
      DEV_KEY_ID: keyId,
      DEV_KEY_SECRET: secret,
      DRAIN_MS: "500",
      ...environment,
    },
  });
  const logged: string[] = [];
  child.on("message", (message: FromChild) => {
    if (message.logged !== undefined) logged.push(message.logged);
  });
  const next = <K extends keyof FromChild>(field: K): Promise<NonNullable<FromChild[K]>> =>
    new Promise((resolve, reject) => {
      const onMessage = (message: FromChild): void => {
        const value = message[field];
        if (value === undefined) return;
        child.off("exit", onExit).off("message", onMessage);
        resolve(value as NonNullable<FromChild[K]>);
      };
      const onExit = (code: number | null): void => {
        reject(new Error(`The server ended with ${code}: ${logged.join("")}`));
      };
      child.on("message", onMessage).once("exit", onExit);
    });
  const port = await next("port");
  return {
    port,
    logged,
    process: child,
    wsUrl: `ws://127.0.0.1:${port}/push`,
    pushUrl: `http://127.0.0.1:${port}/push`,
    measure() {
      const measured = next("measured");
      child.send("measure");
      return measured;
    },
    async stop() {
      if (child.exitCode === null && child.connected) {
        const ended = once(child, "exit");
        child.send("stop");
        await ended;
      }
      rmSync(directory, { recursive: true, force: true });
    },
  };
}
