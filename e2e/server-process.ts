import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync } from "node:fs";
import net from "node:net";
import { setTimeout as delay } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { reap } from "../server/test/reaper.js";

const cli = fileURLToPath(new URL("../server/dist/cli.js", import.meta.url));
const startMs = 30_000;
const maxOutput = 1_000_000;

export interface ServerOptions {
  /** What is added to this process's environment. */
  readonly environment: NodeJS.ProcessEnv;
  /** A directory of its own, so that no .env file of the checkout is read. */
  readonly directory: string;
  /** Where it answers as soon as it serves. */
  readonly healthUrl: string;
}

/** A server in a process of its own, which can be ended, killed or frozen, and started again. */
export class ServerProcess {
  /** What it wrote to standard output and error, all its lives together; the last million characters. */
  output = "";
  #child: ChildProcess | undefined;
  readonly #command: readonly string[];
  readonly #options: ServerOptions;

  /** Of this checkout, as it was built last. */
  static pandapush(options: ServerOptions): ServerProcess {
    if (!existsSync(cli)) throw new Error(`${cli} is missing: build first (npm run build)`);
    return new ServerProcess([process.execPath, cli, "start"], options);
  }

  /** @param command a program and its arguments */
  constructor(command: readonly string[], options: ServerOptions) {
    this.#command = command;
    this.#options = options;
  }

  get isRunning(): boolean {
    const child = this.#child;
    return child !== undefined && child.exitCode === null && child.signalCode === null;
  }

  /** Resolves when it answers. */
  async start(): Promise<void> {
    const { environment, directory, healthUrl } = this.#options;
    const [program = "", ...args] = this.#command;
    const child = spawn(program, args, {
      cwd: directory,
      env: { ...process.env, ...environment },
      stdio: ["ignore", "pipe", "pipe"],
    });
    this.#child = child;
    reap(child);
    const keep = (chunk: Buffer) => {
      this.output = (this.output + chunk.toString()).slice(-maxOutput);
    };
    child.stdout.on("data", keep);
    child.stderr.on("data", keep);
    const deadline = Date.now() + startMs;
    while (!(await answersWell(healthUrl))) {
      if (!this.isRunning) {
        throw new Error(`the server ended with ${child.exitCode}:\n${this.output.slice(-4_000)}`);
      }
      if (Date.now() > deadline) {
        child.kill("SIGKILL");
        throw new Error(
          `the server was not healthy within ${startMs} ms:\n${this.output.slice(-4_000)}`,
        );
      }
      await delay(20);
    }
  }

  /**
   * Ends it, also when it is frozen and the signal is SIGKILL. Nothing happens when it has ended.
   * @returns its exit code, null when the signal ended it
   */
  async end(signal: "SIGTERM" | "SIGKILL"): Promise<number | null> {
    const child = this.#child;
    if (child === undefined || !this.isRunning) return child?.exitCode ?? null;
    const ended = once(child, "exit", { signal: AbortSignal.timeout(startMs) });
    child.kill(signal);
    await ended;
    return child.exitCode;
  }

  /** It stands still where it is: connections stay, and nobody answers. */
  freeze(): void {
    if (this.isRunning) this.#child?.kill("SIGSTOP");
  }

  thaw(): void {
    if (this.isRunning) this.#child?.kill("SIGCONT");
  }
}

/** Whether it answers 200, which it must within a second. */
export async function answersWell(url: string): Promise<boolean> {
  return fetch(url, { signal: AbortSignal.timeout(1_000) }).then(
    (response) => response.status === 200,
    () => false,
  );
}

export async function freePort(): Promise<number> {
  const server = net.createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const address = server.address();
  server.close();
  await once(server, "close");
  if (address === null || typeof address === "string") throw new Error("no free port");
  return address.port;
}
