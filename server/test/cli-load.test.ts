import { type ChildProcess, execFile, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { TcpProxy } from "../../e2e/tcp-proxy.js";
import { command, type Result, runCommand } from "./command.js";
import { appId, keyId, secret, startTestServer, type TestServer } from "./harness.js";
import { reap } from "./reaper.js";

let folder: string;
let server: TestServer;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "pandapush-load-"));
  server = await startTestServer({ STATISTICS_INTERVAL_MS: "200" });
});

afterAll(async () => {
  await server.close();
  await rm(folder, { recursive: true });
});

const environment = (): NodeJS.ProcessEnv => ({
  PATH: process.env.PATH,
  PANDAPUSH_URL: server.url,
  PANDAPUSH_APP_ID: appId,
  PANDAPUSH_KEY_ID: keyId,
  PANDAPUSH_KEY_SECRET: secret,
});

const load = (args: readonly string[], env: NodeJS.ProcessEnv = {}): Promise<Result> =>
  runCommand(folder, ["load", ...args], { ...environment(), ...env });

/** A load test while it runs, which is asked for JSON. */
class Running {
  err = "";
  private out = "";
  private readonly child: ChildProcess;
  private readonly closed: Promise<unknown[]>;

  constructor(args: readonly string[], env: NodeJS.ProcessEnv = {}) {
    const options = { cwd: folder, env: { ...environment(), ...env } };
    this.child = spawn(process.execPath, [command, "load", "--json", ...args], options);
    reap(this.child);
    this.closed = once(this.child, "close");
    this.child.stdout?.on("data", (chunk: Buffer) => {
      this.out += chunk.toString();
    });
    this.child.stderr?.on("data", (chunk: Buffer) => {
      this.err += chunk.toString();
    });
  }

  /** Resolves when messages are pushed. */
  publishing(): Promise<void> {
    return expect.poll(() => this.err, { timeout: 15_000 }).toContain("publishing [");
  }

  interrupt(): void {
    this.child.kill("SIGINT");
  }

  async end() {
    const [code] = await this.closed;
    return { code, result: JSON.parse(this.out) };
  }
}

interface Connection {
  readonly id: string;
  readonly user_agent: string | null;
  readonly subscriptions: readonly string[];
}

async function askServer<T>(method: string, path: string): Promise<T> {
  const authorization = `Basic ${Buffer.from(`${keyId}:${secret}`).toString("base64")}`;
  const response = await fetch(`${server.url}/api/${appId}${path}`, {
    method,
    headers: { authorization },
  });
  return (await response.json()) as T;
}

describe("pandapush load", () => {
  test("pushes to 50 users, and counts the same as the server", async () => {
    const args = ["--users", "50", "--rate", "100", "--shared-rate", "5", "--duration", "2"];
    const { code, out, err } = await load(args);
    expect(out).toMatch(/^CONNECTS {4}50 of 50 +0 failed, in \d/);
    expect(out).toMatch(/\nRECONNECTS {2}0 +0 with a new session\n/);
    expect(out).toMatch(/\nPUBLISHES {3}210 +0 failed, \d+(\.\d)?\/s\n/);
    expect(out).toMatch(/\nDELIVERIES {2}700 of 700 +0 lost, 0 duplicated\n/);
    const times = "( +\\d+(\\.\\d+)? ms){4}\\n";
    expect(out).toMatch(/\nLATENCY +p50 +p90 +p99 +max\n/);
    for (const row of ["connect and subscribe", "publish until OK"]) {
      expect(out).toMatch(new RegExp(`\\n${row}${times}`));
    }
    for (const whose of ["own", "shared"]) {
      expect(out).toMatch(new RegExp(`\\npublish until received, ${whose} channel${times}`));
    }
    expect(out).toMatch(/\nCOUNTED BY +this command +the server\n/);
    expect(out).toMatch(/\nconnections +50 +50\npublished +210 +210\ndelivered +700 +700\n/);
    expect(out).toMatch(
      /\nEvery user was connected, every push was taken, and every message came once\.\n$/,
    );
    expect(code).toBe(0);
    expect(err).toMatch(/^connecting \[-+\] +0% {2}0 users .*\npublishing \[/);
    expect(err).not.toContain("\r");
  });

  test("pushes as many to each user as --pushes, by long-polling, from several processes", async () => {
    const args = ["--users", "20", "--pushes", "3", "--rate", "60", "--transport", "long-polling"];
    const { code, out } = await load([...args, "--workers", "3", "--json"]);
    const summary = Object.fromEntries(
      ["p50", "p90", "p99", "max"].map((name) => [name, expect.any(Number)]),
    );
    expect({ code, result: JSON.parse(out) }).toEqual({
      code: 0,
      result: {
        users: 20,
        transport: "long-polling",
        workers: 3,
        connects: { opened: 20, failed: 0, seconds: expect.any(Number) },
        reconnects: 0,
        new_sessions: 0,
        publishes: {
          confirmed: 60,
          failed: 0,
          seconds: expect.any(Number),
          per_second: expect.any(Number),
        },
        deliveries: { expected: 60, received: 60, lost: 0, duplicated: 0 },
        latency_ms: {
          connect: summary,
          publish: summary,
          own_delivery: summary,
          shared_delivery: null,
        },
        errors: {},
        server: { connections: 20, published: 60, delivered: 60 },
        ok: true,
      },
    });
  });

  test("fails when something is lost, and says why", async () => {
    const running = new Running(["--users", "5", "--rate", "20", "--duration", "3"]);
    await running.publishing();
    const connections = await askServer<Connection[]>("GET", "/connections");
    const victim = connections.find(({ subscriptions }) =>
      subscriptions.some((each) => each.includes("/private/load-")),
    );
    await askServer("POST", `/connections/${victim?.id}/disconnect`);
    const { code, result } = await running.end();
    expect(code).toBe(1);
    expect(result).toMatchObject({
      ok: false,
      errors: { "subscribe: Disconnected": 1 },
      publishes: { confirmed: 60, failed: 0 },
      deliveries: { expected: 60, duplicated: 0 },
    });
    const { received, lost } = result.deliveries;
    expect(lost).toBeGreaterThan(0);
    expect(received + lost).toBe(60);
  });

  test("fails when pushes are refused", async () => {
    const narrow = await startTestServer({
      MAX_MESSAGE_BYTES: "1024",
      STATISTICS_INTERVAL_MS: "200",
    });
    const args = ["--users", "2", "--rate", "10", "--duration", "1", "--size", "2000", "--json"];
    const { code, out } = await load(args, { PANDAPUSH_URL: narrow.url });
    const result = JSON.parse(out);
    expect({ code, ok: result.ok }).toEqual({ code: 1, ok: false });
    expect(result.publishes).toMatchObject({ confirmed: 0, failed: 10 });
    expect(result.deliveries).toEqual({ expected: 0, received: 0, lost: 0, duplicated: 0 });
    expect(Object.entries(result.errors)).toEqual([[expect.stringMatching(/^publish: 413 /), 10]]);
    await narrow.close();
  });

  test("comes back when connections are lost, and counts that", async () => {
    const proxy = await TcpProxy.start(`http://127.0.0.1:${server.port}`);
    const env = { PANDAPUSH_URL: proxy.url };
    const args = ["--users", "10", "--rate", "10", "--duration", "4", "--workers", "1"];
    const running = new Running(args, env);
    await running.publishing();
    await proxy.cut();
    proxy.mend();
    const { result } = await running.end();
    expect(result).toMatchObject({ reconnects: 10, new_sessions: 0, connects: { failed: 0 } });
    expect(result.server.connections).toBe(10);
    await proxy.close();
  });

  test("reports what there was until Ctrl-C", async () => {
    const running = new Running(["--users", "10", "--rate", "10", "--duration", "600"]);
    await running.publishing();
    running.interrupt();
    const { code, result } = await running.end();
    expect(code).toBe(0);
    expect(result).toMatchObject({ ok: true, connects: { opened: 10 } });
    expect(result.publishes.confirmed).toBeLessThan(600);
  });

  test("says when a process may not open so many files", async () => {
    const line = `ulimit -n 1000; exec "${process.execPath}" "${command}" load --users 1000 --workers 1`;
    const ended = await new Promise<Result>((resolve) => {
      const options = { cwd: folder, env: environment() };
      execFile("sh", ["-c", line], options, (error, out, err) =>
        resolve({ code: Number(error?.code ?? 0), out, err }),
      );
    });
    expect(ended).toEqual({
      code: 1,
      out: "",
      err: "Each process would have 1000 connections, but may open 1000 files only. Raise that (ulimit -n 1200), or share the users out over more processes with --workers.\n",
    });
  });

  test("says before anything else that there is no server, or that the key is wrong", async () => {
    const nobody = await load([], { PANDAPUSH_URL: "http://127.0.0.1:9" });
    expect(nobody).toMatchObject({ code: 1, out: "" });
    expect(nobody.err).toMatch(/127\.0\.0\.1:9/);
    const wrong = await load([], { PANDAPUSH_KEY_SECRET: "wrong" });
    expect(wrong).toMatchObject({
      code: 1,
      out: "",
      err: expect.stringMatching(/^Invalid secret/),
    });
  });

  test.each([
    [["--users", "0"], /'--users <n>' argument '0' is invalid\. It must be a whole number from 1/],
    [["--rate", "fast"], /It must be a number from 0 to 100000\./],
    [["--rate", "0"], /nothing would be pushed: --rate or --shared-rate must be more than 0/],
    [["--size", "10"], /It must be a whole number from 64 to 262144\./],
    [["--pushes", "3", "--duration", "5"], /--pushes goes with a --rate, and without --duration/],
    [["--transport", "pigeon"], /Allowed choices are websocket, long-polling/],
  ])("%j is wrong usage", async (args, fault) => {
    const { code, out, err } = await load(args);
    expect({ code, out }).toEqual({ code: 2, out: "" });
    expect(err).toMatch(fault);
    expect(err).toMatch(/\nSee: node \S+cli\.js load --help\n$/);
  });
});
