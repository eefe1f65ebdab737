/** Dead sockets, SIGTERM and unexpected errors: how connections and the process end. */
import { type ChildProcess, fork } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { connect as connectTcp } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import Database from "libsql";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import { repositoryPath } from "../../src/docs.js";
import { appId, keyId, type Message, Poller, Socket, secret, startTestServer } from "../harness.js";
import { clientFrame, expectServes, RawSocket } from "./raw.js";

const channel = `/${appId}/public/end`;

let directory: string;
beforeAll(() => {
  directory = mkdtempSync(join(tmpdir(), "pandapush-shutdown-"));
});
afterAll(() => rmSync(directory, { recursive: true, force: true }));

interface Command {
  readonly process: ChildProcess;
  readonly port: number;
  readonly wsUrl: string;
  readonly pushUrl: string;
  output(): string;
  /** Resolves with exit code and signal, and how long it took from the call. */
  ended(): Promise<{ code: number | null; signal: string | null; ms: number }>;
}

const running = new Set<ChildProcess>();
afterEach(() => {
  for (const child of running) child.kill("SIGKILL");
  running.clear();
});

let databases = 0;

/** Runs the real command; ready when it listens. */
async function startCommand(environment: Record<string, string> = {}): Promise<Command> {
  const child = fork(repositoryPath("server/dist/cli.js"), ["start"], {
    cwd: directory,
    stdio: ["ignore", "pipe", "pipe", "ipc"],
    execArgv: ["--import", fileURLToPath(new URL("./crash-on-message.mjs", import.meta.url))],
    env: {
      PATH: process.env.PATH,
      PORT: "0",
      HOST: "127.0.0.1",
      DATABASE_PATH: join(directory, `${++databases}.sqlite`),
      DEV_APPLICATION_ID: appId,
      DEV_KEY_ID: keyId,
      DEV_KEY_SECRET: secret,
      DRAIN_MS: "3000",
      ...environment,
    },
  });
  running.add(child);
  let output = "";
  const ended = once(child, "exit") as Promise<[number | null, string | null]>;
  const port = await new Promise<number>((resolve, reject) => {
    const read = (chunk: Buffer): void => {
      output += chunk.toString();
      const found = /"url":"http:\/\/localhost:(\d+)"/.exec(output);
      if (found !== null) resolve(Number(found[1]));
    };
    child.stdout?.on("data", read);
    child.stderr?.on("data", read);
    void ended.then(() => reject(new Error(`It ended before it listened: ${output}`)));
  });
  return {
    process: child,
    port,
    wsUrl: `ws://127.0.0.1:${port}/push`,
    pushUrl: `http://127.0.0.1:${port}/push`,
    output: () => output,
    async ended() {
      const start = performance.now();
      const [code, signal] = await ended;
      return { code, signal, ms: performance.now() - start };
    },
  };
}

async function canConnect(port: number): Promise<boolean> {
  const tcp = connectTcp({ port, host: "127.0.0.1" });
  try {
    await once(tcp, "connect");
    return true;
  } catch {
    return false;
  } finally {
    tcp.destroy();
  }
}

describe("pings", () => {
  test("a socket that answers none is cut within two intervals; its session waits and misses nothing", async () => {
    const server = await startTestServer({ PING_INTERVAL_MS: "300" });
    const alive = await Socket.connect(server);
    const socket = await RawSocket.upgrade(server);
    socket.send([
      {
        channel: "/meta/handshake",
        version: "1.0",
        supportedConnectionTypes: ["websocket"],
        id: "1",
      },
    ]);
    const { clientId = "" } = await socket.message(({ id }) => id === "1");
    socket.send([
      { channel: "/meta/subscribe", subscription: channel, clientId, id: "2" },
      { channel: "/meta/connect", connectionType: "websocket", clientId },
    ]);
    const start = performance.now();
    let pings = 0;
    await socket.until(() => {
      pings += socket.takeFrames().filter(({ opcode }) => opcode === 9).length;
      return socket.isClosed;
    });
    expect(pings).toBe(1);
    // Twice the interval, and what a busy machine adds.
    expect(performance.now() - start).toBeLessThan(600 + 400);
    await alive.publish(channel, "while you were away");
    const poller = new Poller(server);
    poller.clientId = clientId;
    expect((await poller.poll())[1]?.data).toBe("while you were away");
    expect(alive.closed).toBe(undefined);
    await expectServes(server);
    await server.close();
  });

  test("a socket that answers them stays, though it never says anything else", async () => {
    const server = await startTestServer({ PING_INTERVAL_MS: "50" });
    const socket = await RawSocket.upgrade(server);
    for (let answered = 0; answered < 10; ) {
      const { opcode, payload } = await socket.frame();
      if (opcode !== 9) continue;
      socket.write(clientFrame(payload, { opcode: 10 }));
      answered++;
    }
    expect(socket.isClosed).toBe(false);
    socket.cut();
    await server.close();
  });
});

describe("SIGTERM", () => {
  test("answers held polls and closes sockets, each with another time to come back, and ends with 0", async () => {
    const command = await startCommand();
    const pollers = await Promise.all(Array.from({ length: 8 }, () => Poller.connect(command)));
    const sockets = await Promise.all(Array.from({ length: 8 }, () => Socket.connect(command)));
    for (const client of [...pollers, ...sockets]) await client.subscribe(channel);
    const polls = pollers.map((poller) => poller.poll());
    // A publish is behind all connects: they are held by now.
    for (const poller of pollers) await poller.publish(`${channel}/nobody`, 1);
    command.process.kill("SIGTERM");
    const connects = [
      ...(await Promise.all(polls)).map(([reply]) => reply as Message),
      ...(await Promise.all(
        sockets.map((socket) => socket.next(({ channel: name }) => name === "/meta/connect")),
      )),
    ];
    for (const { successful, advice } of connects) {
      expect([successful, advice?.reconnect]).toEqual([true, "retry"]);
      expect(advice?.interval).toBeGreaterThan(0);
    }
    expect(new Set(connects.map(({ advice }) => advice?.interval)).size).toBeGreaterThan(8);
    for (const socket of sockets) expect((await socket.closing()).code).toBe(1001);
    expect(await command.ended()).toMatchObject({ code: 0, signal: null });
    expect(await canConnect(command.port)).toBe(false);
  });

  test("accepts nothing more, and what is on its way is answered", async () => {
    const command = await startCommand();
    const raw = await RawSocket.open(command);
    const body =
      '[{"channel":"/meta/handshake","version":"1.0","supportedConnectionTypes":["long-polling"],"id":"1"}]';
    raw.write(
      `POST /push HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: ${body.length}\r\n\r\n${body.slice(0, 10)}`,
    );
    const socket = await Socket.connect(command);
    command.process.kill("SIGTERM");
    expect((await socket.closing()).code).toBe(1001);
    expect(await canConnect(command.port)).toBe(false);
    raw.write(body.slice(10));
    const [reply] = JSON.parse((await raw.response()).body) as Message[];
    expect(reply).toMatchObject({
      id: "1",
      successful: false,
      error: "Server is shutting down",
    });
    expect(reply?.advice?.interval).toBeGreaterThan(0);
    expect(await command.ended()).toMatchObject({ code: 0 });
  });

  test("does not wait longer than DRAIN_MS for clients that never close or never read", async () => {
    const command = await startCommand({ DRAIN_MS: "700", MAX_SOCKET_BUFFER_BYTES: "100000000" });
    const silent = await RawSocket.upgrade(command);
    const halfSent = await RawSocket.open(command);
    halfSent.write("POST /push HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nmessage=");
    const stuck = await Socket.connect(command);
    await stuck.subscribe(channel);
    stuck.pause();
    const stream = await RawSocket.open(command);
    const poller = await Poller.connect(command);
    await poller.subscribe(channel);
    stream.write(
      `GET /push/${poller.clientId} HTTP/1.1\r\nHost: a\r\nAccept: text/event-stream\r\n\r\n`,
    );
    await stream.until(() => stream.received.includes("retry: 5000"));
    stream.tcp.pause();
    const publisher = await Socket.open(command);
    for (let n = 0; n < 60; n++) await publisher.publish(channel, "x".repeat(200_000));
    command.process.kill("SIGTERM");
    const { code, ms } = await command.ended();
    expect(code).toBe(0);
    expect(ms).toBeLessThan(700 + 1_500);
    for (const each of [silent, halfSent, stream]) each.cut();
    stuck.cut();
  });

  test("leaves the port to the next server at once", async () => {
    const first = await startCommand();
    const sockets = await Promise.all(Array.from({ length: 5 }, () => Socket.connect(first)));
    first.process.kill("SIGTERM");
    for (const socket of sockets) await socket.closing();
    await first.ended();
    const second = await startCommand({ PORT: `${first.port}` });
    const socket = await Socket.connect(second);
    expect((await socket.subscribe(channel)).successful).toBe(true);
    socket.close();
    second.process.kill("SIGTERM");
    expect(await second.ended()).toMatchObject({ code: 0 });
  });

  test("a port that is in use is named, and the exit code is 1", async () => {
    const first = await startCommand();
    const second = startCommand({ PORT: `${first.port}` });
    await expect(second).rejects.toThrow(
      `port ${first.port} is in use. Choose another one with PORT`,
    );
    const third = startCommand({ METRICS_PORT: `${first.port}` });
    await expect(third).rejects.toThrow(
      `port ${first.port} is in use. Choose another one with METRICS_PORT`,
    );
    first.process.kill("SIGTERM");
    await first.ended();
  });
});

test("a database that another process keeps locked does not prolong a shutdown by much", async () => {
  const path = join(directory, "locked.sqlite");
  const server = await startTestServer({ DATABASE_PATH: path, DRAIN_MS: "500" });
  const socket = await Socket.open(server);
  // A use of the key, to be written at the end.
  expect((await socket.publish(channel, 1)).successful).toBe(true);
  socket.close();
  await socket.closing();
  const other = new Database(path);
  other.exec("BEGIN IMMEDIATE");
  const start = performance.now();
  await server.close();
  expect(performance.now() - start).toBeLessThan(6_000);
  other.exec("ROLLBACK");
  other.close();
});

describe("what nobody caught", () => {
  const logged = (command: Command, text: string): Promise<void> =>
    expect.poll(() => command.output(), { timeout: 5_000, interval: 10 }).toContain(text);

  test("a rejection is logged, and the server goes on", async () => {
    const command = await startCommand();
    command.process.send("rejection");
    await logged(command, "planted rejection");
    const socket = await Socket.connect(command);
    expect((await socket.subscribe(channel)).successful).toBe(true);
    socket.close();
    command.process.kill("SIGTERM");
    expect(await command.ended()).toMatchObject({ code: 0 });
  });

  test("an exception is logged, clients are told to come back, and the exit code is not 0", async () => {
    const command = await startCommand();
    const poller = await Poller.connect(command);
    const poll = poller.poll();
    await poller.publish(channel, 1);
    command.process.send("exception");
    const [reply] = await poll;
    expect(reply?.advice?.interval).toBeGreaterThan(0);
    expect(await command.ended()).toMatchObject({ code: 1 });
    expect(command.output()).toContain("planted exception");
  });
});
