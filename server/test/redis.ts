/** Real Redis servers, each in a process and a folder of its own, which end with the test. */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdirSync, mkdtempSync, rmSync } from "node:fs";
import {
  connect,
  createServer,
  type Server as NetServer,
  type Socket as NetSocket,
} from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createClient } from "@redis/client";
import type { RedisHostConfig } from "../src/config.js";
import { reap } from "./reaper.js";

const program = process.env.REDIS_SERVER_PATH ?? "redis-server";

export class TestRedis {
  private readonly directory = mkdtempSync(join(tmpdir(), "pandapush-redis-"));
  private child: ChildProcess | undefined;

  private constructor(
    readonly port: number,
    private readonly args: readonly string[],
  ) {}

  /**
   * Its data survives `kill`.
   * @param args further ones of redis-server; `$PORT` stands for its port
   */
  static async start(...args: string[]): Promise<TestRedis> {
    for (let attempt = 1; ; attempt++) {
      const redis = new TestRedis(await freePort(), args);
      try {
        await redis.launch();
        return redis;
      } catch (error) {
        await redis.stop();
        // Somebody else may have taken the port meanwhile.
        if (attempt === 5) throw error;
      }
    }
  }

  get address(): string {
    return `127.0.0.1:${this.port}`;
  }

  get config(): RedisHostConfig {
    return { host: "127.0.0.1", port: this.port, isTls: false, database: 0 };
  }

  async kill(): Promise<void> {
    const { child } = this;
    this.child = undefined;
    if (child === undefined || child.exitCode !== null || child.signalCode !== null) return;
    const ended = once(child, "exit");
    child.kill("SIGKILL");
    await ended;
  }

  /** Ready when it resolves. */
  async restart({ isEmpty = false } = {}): Promise<void> {
    await this.kill();
    if (isEmpty) rmSync(this.directory, { recursive: true, force: true });
    await this.launch();
  }

  pause(): void {
    this.child?.kill("SIGSTOP");
  }

  resume(): void {
    this.child?.kill("SIGCONT");
  }

  /** Runs one command. */
  async command(...args: string[]): Promise<unknown> {
    const client = createClient({ socket: { host: "127.0.0.1", port: this.port } });
    client.on("error", () => undefined);
    await client.connect();
    try {
      return await client.sendCommand(args);
    } finally {
      client.destroy();
    }
  }

  /** How often each command was run, of the first time on. */
  async commandCounts(): Promise<Map<string, number>> {
    const text = String(await this.command("INFO", "commandstats"));
    const lines = [...text.matchAll(/^cmdstat_([^:]+):calls=(\d+)/gm)];
    return new Map(lines.map(([, name = "", calls]) => [name, Number(calls)]));
  }

  async stop(): Promise<void> {
    await this.kill();
    rmSync(this.directory, { recursive: true, force: true });
  }

  private async launch(): Promise<void> {
    mkdirSync(this.directory, { recursive: true });
    const args = ["--port", String(this.port), "--bind", "127.0.0.1", "--dir", this.directory];
    args.push("--save", "", "--appendonly", "yes", "--appendfsync", "no");
    args.push(...this.args.map((arg) => (arg === "$PORT" ? String(this.port) : arg)));
    const child = spawn(program, args, { stdio: ["ignore", "pipe", "pipe"] });
    this.child = child;
    reap(child);
    let output = "";
    await new Promise<void>((resolve, reject) => {
      const ended = (): void => reject(new Error(`${program} did not start:\n${output}`));
      child.once("error", reject).once("exit", ended);
      for (const stream of [child.stdout, child.stderr]) {
        stream?.on("data", (chunk: Buffer) => {
          if (output === "ready") return;
          output += chunk.toString();
          if (!output.includes("Ready to accept connections")) return;
          output = "ready";
          child.off("exit", ended);
          resolve();
        });
      }
    });
  }
}

/** Stands between a node and Redis, and can stop passing anything on, ends of connections included. */
export class StallingProxy {
  private readonly pairs = new Set<readonly [NetSocket, NetSocket]>();
  /** What happens when it goes on; undefined while it does. */
  private waiting: (() => void)[] | undefined;
  /** Which connections stand still; undefined: all. */
  private stalled: ReadonlySet<object> | undefined;

  private constructor(
    private readonly server: NetServer,
    readonly port: number,
  ) {}

  static async start(target: number): Promise<StallingProxy> {
    const server = createServer((incoming) => proxy.pass(incoming, connect(target, "127.0.0.1")));
    const proxy = new StallingProxy(server, await freePort());
    server.listen(proxy.port, "127.0.0.1");
    await once(server, "listening");
    return proxy;
  }

  get address(): string {
    return `127.0.0.1:${this.port}`;
  }

  /** @param onlyPresent connections to come are passed on */
  stall({ onlyPresent = false } = {}): void {
    this.waiting = [];
    this.stalled = onlyPresent ? new Set(this.pairs) : undefined;
  }

  goOn(): void {
    const waiting = this.waiting ?? [];
    this.waiting = undefined;
    for (const each of waiting) each();
  }

  /** Waits until the node has given up all connections that there are. */
  async untilGivenUp(): Promise<void> {
    const open = [...this.pairs].map(([incoming]) => incoming);
    await Promise.all(open.map((incoming) => once(incoming, "close")));
  }

  async close(): Promise<void> {
    this.server.close();
    for (const pair of this.pairs) for (const socket of pair) socket.destroy();
    await once(this.server, "close");
  }

  private pass(...pair: readonly [NetSocket, NetSocket]): void {
    const [incoming, outgoing] = pair;
    this.pairs.add(pair);
    incoming.on("close", () => this.pairs.delete(pair));
    for (const [from, to] of [
      [incoming, outgoing],
      [outgoing, incoming],
    ] as const) {
      from.on("data", (chunk) => this.do(pair, () => to.write(chunk)));
      from.on("error", () => undefined);
      from.on("close", () => this.do(pair, () => to.destroy()));
    }
  }

  private do(pair: object, work: () => void): void {
    if (this.waiting === undefined || this.stalled?.has(pair) === false) work();
    else this.waiting.push(work);
  }
}

async function freePort(): Promise<number> {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const address = server.address();
  server.close();
  await once(server, "close");
  return typeof address === "object" && address !== null ? address.port : 0;
}
