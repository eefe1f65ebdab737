import { execFileSync, fork, spawn } from "node:child_process";
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import net from "node:net";
import os from "node:os";
import path from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { fileURLToPath } from "node:url";

const BENCH = path.dirname(fileURLToPath(import.meta.url));
const ROOT = path.dirname(BENCH);
const START_DEADLINE_MS = 20_000;
const STOP_DEADLINE_MS = 20_000;

export const APP = "benchapp";
export const KEY = { key: "benchkey", secret: "bench-secret-of-forty-characters-0123456" };

/** Of the server's admin, who is called `admin`. */
export const ADMIN_PASSWORD = "bench-password";

/** Ends what is still running when the benchmark itself ends early. */
const running = new Set();
process.on("exit", () => {
  for (const child of running) child.kill("SIGKILL");
});
for (const signal of ["SIGINT", "SIGTERM"]) process.on(signal, () => process.exit(1));

function watch(child) {
  running.add(child);
  child.on("exit", () => running.delete(child));
  return child;
}

async function freePort() {
  const server = net.createServer().listen(0, "127.0.0.1");
  await new Promise((resolve) => server.once("listening", resolve));
  const { port } = server.address();
  await new Promise((resolve) => server.close(resolve));
  return port;
}

/** `[dd-]hh:mm:ss.cc` as `ps` prints CPU time. */
function parsePsTime(text) {
  const [clock, days = "0"] = text.trim().split("-").reverse();
  return clock.split(":").reduce((sum, part) => sum * 60 + Number(part), 0) + Number(days) * 86_400;
}

const clockTicksPerSecond = existsSync("/proc/self/stat")
  ? Number(execFileSync("getconf", ["CLK_TCK"], { encoding: "utf8" }))
  : 0;

/** User and system time of all threads of a process so far. */
function cpuSecondsOf(pid) {
  if (clockTicksPerSecond === 0) {
    return parsePsTime(
      execFileSync("ps", ["-o", "time=", "-p", String(pid)], { encoding: "utf8" }),
    );
  }
  // The second field is the program's name in brackets and may hold anything, spaces too.
  const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  return (Number(fields[11]) + Number(fields[12])) / clockTicksPerSecond;
}

/** The flags that the `pandapush` command runs Node with, which `npm start` gives as well. */
const productFlags = readFileSync(path.join(ROOT, "server", "bin", "pandapush.js"), "utf8")
  .split("\n", 1)[0]
  .split(" ")
  .filter((word) => word.startsWith("--"));

/** A server under measurement, in a process of its own. */
export class Server {
  port = 0;
  #child;
  #output = "";
  #directory;

  /**
   * @param {'pandapush' | 'faye' | 'bare'} kind
   * @param {{ isProfiled?: boolean, env?: Record<string, string> }} options
   */
  static async start(kind, { isProfiled = false, env = {} } = {}) {
    const server = new Server();
    await server.#start(kind, isProfiled, env);
    return server;
  }

  async #start(kind, isProfiled, ownEnv) {
    this.port = await freePort();
    this.#directory = mkdtempSync(path.join(os.tmpdir(), "pandapush-bench-"));
    const command = {
      pandapush: [...productFlags, path.join("server", "dist", "cli.js"), "start"],
      faye: [path.join(BENCH, "faye-server.mjs")],
      bare: [path.join(BENCH, "bare-http.mjs")],
    }[kind];
    if (kind === "pandapush" && !existsSync(path.join(ROOT, "server", "dist", "cli.js"))) {
      throw new Error("The server is not built. Run `npm run build` first.");
    }
    const profiling = isProfiled ? ["--cpu-prof", "--cpu-prof-dir", this.#directory] : [];
    const env = {
      ...process.env,
      PORT: String(this.port),
      DATABASE_PATH: path.join(this.#directory, "db.sqlite"),
      DEV_APPLICATION_ID: APP,
      DEV_KEY_ID: KEY.key,
      DEV_KEY_SECRET: KEY.secret,
      ADMIN_PASSWORD,
      LOG_LEVEL: "warn",
      ...ownEnv,
    };
    const stdio = ["ignore", "pipe", "pipe"];
    this.#child = watch(
      spawn(process.execPath, [...profiling, ...command], { cwd: ROOT, env, stdio }),
    );
    for (const stream of [this.#child.stdout, this.#child.stderr]) {
      stream.setEncoding("utf8");
      stream.on("data", (text) => {
        this.#output = (this.#output + text).slice(-4000);
      });
    }
    await this.#healthy(kind === "pandapush" ? "/ready" : "/");
  }

  async #healthy(urlPath) {
    const deadline = Date.now() + START_DEADLINE_MS;
    let reason = "it did not listen";
    while (Date.now() < deadline && this.#child.exitCode === null) {
      try {
        const response = await fetch(`http://127.0.0.1:${this.port}${urlPath}`);
        await response.arrayBuffer();
        if (response.status === 200) return;
        reason = `${urlPath} answered ${response.status}`;
      } catch (error) {
        reason = String(error.cause ?? error);
      }
      await delay(50);
    }
    throw new Error(`A server did not start (${reason}).\n${this.#output}`);
  }

  /** User and system time of all threads so far. */
  cpuSeconds() {
    return cpuSecondsOf(this.#child.pid);
  }

  residentBytes() {
    const { pid } = this.#child;
    const status = clockTicksPerSecond === 0 ? "" : readFileSync(`/proc/${pid}/status`, "utf8");
    const kilobytes =
      /VmRSS:\s+(\d+)/.exec(status)?.[1] ??
      execFileSync("ps", ["-o", "rss=", "-p", String(pid)], { encoding: "utf8" });
    return Number(kilobytes) * 1024;
  }

  /** What the server said last: the reason when a turn fails. */
  get output() {
    return this.#output;
  }

  /** Ends at once, without a word to anybody. */
  kill() {
    this.#child.kill("SIGKILL");
  }

  /** @returns {Promise<string[]>} the functions with most time of their own, if it was profiled */
  async stop() {
    if (this.#child.exitCode === null && this.#child.signalCode === null) {
      const timer = setTimeout(() => this.#child.kill("SIGKILL"), STOP_DEADLINE_MS);
      this.#child.kill("SIGTERM");
      await new Promise((resolve) => this.#child.once("exit", resolve));
      clearTimeout(timer);
    }
    const profiles = readdirSync(this.#directory).filter((name) => name.endsWith(".cpuprofile"));
    const lines = profiles.flatMap((name) => summarise(path.join(this.#directory, name)));
    rmSync(this.#directory, { recursive: true, force: true });
    return lines;
  }
}

/** A Redis host that keeps nothing. */
export class Redis {
  #child;
  #port;

  static async start() {
    const redis = new Redis();
    redis.#port = await freePort();
    const program = process.env.REDIS_SERVER_PATH ?? "redis-server";
    const args = ["--port", String(redis.#port), "--bind", "127.0.0.1", "--save", ""];
    redis.#child = watch(spawn(program, args, { stdio: ["ignore", "pipe", "ignore"] }));
    await new Promise((resolve, reject) => {
      redis.#child.once("error", reject).once("exit", () => reject(new Error("no Redis")));
      redis.#child.stdout.on("data", (chunk) => {
        if (chunk.includes("Ready to accept connections")) resolve();
      });
    });
    return redis;
  }

  get address() {
    return `127.0.0.1:${this.#port}`;
  }

  cpuSeconds() {
    return cpuSecondsOf(this.#child.pid);
  }

  /**
   * @returns {Promise<{ scripts: number, bytesIn: number, bytesOut: number, memory: number }>} so
   * far, and bytes of memory now
   */
  async counts() {
    const socket = net.connect(this.#port, "127.0.0.1");
    socket.write("INFO everything\r\n");
    let text = "";
    for await (const chunk of socket) {
      text += chunk;
      const length = /^\$(\d+)\r\n/.exec(text);
      if (length !== null && text.length >= Number(length[1]) + length[0].length) break;
    }
    const read = (pattern) => Number(pattern.exec(text)?.[1] ?? 0);
    return {
      scripts: read(/cmdstat_evalsha:calls=(\d+)/),
      bytesIn: read(/total_net_input_bytes:(\d+)/),
      bytesOut: read(/total_net_output_bytes:(\d+)/),
      memory: read(/used_memory:(\d+)/),
    };
  }

  async stop() {
    const ended = new Promise((resolve) => this.#child.once("exit", resolve));
    this.#child.kill("SIGKILL");
    await ended;
  }
}

const PROFILE_LINES = 25;

/** @param {string} file a `.cpuprofile` */
function summarise(file) {
  const profile = JSON.parse(readFileSync(file, "utf8"));
  const nodes = new Map(profile.nodes.map((node) => [node.id, node.callFrame]));
  const timeUs = new Map();
  let busyUs = 0;
  profile.samples.forEach((id, index) => {
    const { functionName, url, lineNumber } = nodes.get(id);
    if (functionName === "(idle)" || functionName === "(program)") return;
    const place =
      url === "" ? "" : ` ${url.replace(/^.*\/(?=[^/]+\/[^/]+\/)/, "")}:${lineNumber + 1}`;
    const name = `${functionName || "(anonymous)"}${place}`;
    const spentUs = profile.timeDeltas[index];
    busyUs += spentUs;
    timeUs.set(name, (timeUs.get(name) ?? 0) + spentUs);
  });
  return [...timeUs]
    .sort((a, b) => b[1] - a[1])
    .slice(0, PROFILE_LINES)
    .map(([name, spentUs]) => `${((100 * spentUs) / busyUs).toFixed(1).padStart(6)} %  ${name}`);
}

/** A load generator process; every method of `load.mjs` can be called on it. */
export class Generator {
  #child = watch(fork(path.join(BENCH, "load.mjs")));
  #calls = new Map();
  #nextId = 0;

  constructor() {
    this.#child.on("message", ({ id, result, error }) => {
      const call = this.#calls.get(id);
      this.#calls.delete(id);
      if (error === undefined) call.resolve(result);
      else call.reject(new Error(error));
    });
    this.#child.on("exit", (code) => {
      for (const call of this.#calls.values()) call.reject(new Error(`generator exited: ${code}`));
    });
  }

  call(method, args) {
    const id = this.#nextId;
    this.#nextId += 1;
    return new Promise((resolve, reject) => {
      this.#calls.set(id, { resolve, reject });
      this.#child.send({ id, method, args });
    });
  }

  stop() {
    this.#child.disconnect();
  }
}
