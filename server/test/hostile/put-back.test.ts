/**
 * What the server knows to be undelivered waits for the session's next connection. Every test
 * numbers its messages, and accounts for each.
 */
import { afterEach, describe, expect, test } from "vitest";
import {
  appId,
  keyAuth,
  type Message,
  Poller,
  Socket,
  startTestServer,
  type TestServer,
} from "../harness.js";
import { clientFrame, expectServes, RawSocket } from "./raw.js";

let server: TestServer;

async function start(environment: Record<string, string> = {}): Promise<void> {
  server = await startTestServer({
    MAX_SOCKET_BUFFER_BYTES: "100000000",
    MAX_OUTBOX_BYTES: "100000000",
    MAX_OUTBOX_MESSAGES: "1000000",
    ...environment,
  });
}

afterEach(async () => {
  await expectServes(server);
  await server.close();
});

const channel = `/${appId}/public/put-back`;
const padding = "x".repeat(20_000);
/** More than the kernel holds for a loopback connection: some of it stays in the server's buffers. */
const many = 1_000;

const numbers = (from: number, to: number): number[] =>
  Array.from({ length: to - from }, (_, index) => from + index);

const numbersIn = (messages: readonly Message[]): number[] =>
  messages.flatMap(({ channel: name, data }) =>
    name === channel ? [(data as { n: number }).n] : [],
  );

/** Publishes the numbers, ten in a frame, and waits until they are taken. */
async function publish(from: number, to: number, pad = padding): Promise<void> {
  const publisher = await Socket.open(server);
  for (let n = from; n < to; n += 10) {
    const batch = numbers(n, Math.min(n + 10, to)).map((each) => ({
      id: `${each}`,
      channel,
      data: { n: each, pad },
      ext: keyAuth,
    }));
    publisher.sendText(JSON.stringify(batch));
    const last = batch.at(-1)?.id;
    expect((await publisher.next(({ id }) => id === last)).successful).toBe(true);
  }
  publisher.close();
}

/** A connection of a session, whatever its kind, and the numbers that it received. */
interface Connected {
  readonly heard: number[];
  /** Resolves when `isTrue`, looked at whenever something arrives. */
  until(isTrue: () => boolean): Promise<void>;
  pause(): void;
  resume(): void;
  cut(): void;
  readonly raw: RawSocket | undefined;
}

function collect(raw: RawSocket, take: () => Message[]): Connected {
  const heard: number[] = [];
  return {
    heard,
    raw,
    until: (isTrue) =>
      raw.until(() => {
        heard.push(...numbersIn(take()));
        return isTrue();
      }, 10_000),
    pause: () => raw.tcp.pause(),
    resume: () => raw.tcp.resume(),
    cut: () => raw.cut(),
  };
}

const connectBy = {
  async websocket(clientId: string): Promise<Connected> {
    const raw = await RawSocket.upgrade(server);
    let isBound = false;
    const connected = collect(raw, () => {
      const messages = raw
        .takeFrames()
        .flatMap(({ opcode, payload }) =>
          opcode === 1 ? (JSON.parse(payload.toString()) as Message[]) : [],
        );
      isBound ||= messages.some(({ channel: name }) => name === "/meta/bound");
      return messages;
    });
    raw.send([{ channel: "/meta/connect", clientId, connectionType: "websocket" }]);
    // It is bound, and what waited is on its way, when the next frame is answered.
    raw.send([{ channel: "/meta/bound" }]);
    await connected.until(() => isBound);
    return connected;
  },

  async eventsource(clientId: string): Promise<Connected> {
    const raw = await RawSocket.open(server);
    raw.write(`GET /push/${clientId} HTTP/1.1\r\nHost: a\r\nAccept: text/event-stream\r\n\r\n`);
    await raw.until(() => raw.received.includes("retry: 5000\r\n\r\n"));
    raw.received = raw.received.subarray(raw.received.indexOf("retry: 5000\r\n\r\n") + 15);
    return collect(raw, () => {
      const messages: Message[] = [];
      // Events can be large: not looked for before one may have ended.
      if (!raw.endsWith("\r\n\r\n") && !raw.isClosed) return messages;
      let start = 0;
      let end = raw.received.indexOf("\r\n\r\n");
      while (end !== -1) {
        const line = raw.received.subarray(start, end).toString();
        if (line.startsWith("data: ")) messages.push(...(JSON.parse(line.slice(6)) as Message[]));
        start = end + 4;
        end = raw.received.indexOf("\r\n\r\n", start);
      }
      raw.received = raw.received.subarray(start);
      return messages;
    });
  },

  async polling(clientId: string): Promise<Connected> {
    const poller = new Poller(server);
    poller.clientId = clientId;
    const heard: number[] = [];
    return {
      heard,
      raw: undefined,
      async until(isTrue) {
        while (!isTrue()) heard.push(...numbersIn(await poller.poll()));
      },
      pause: () => undefined,
      resume: () => undefined,
      cut: () => undefined,
    };
  },
};

/** A session that hears the channel but has no connection yet. */
async function subscribed(): Promise<Poller> {
  const poller = await Poller.connect(server);
  expect((await poller.subscribe(channel)).successful).toBe(true);
  return poller;
}

/** Connected, and proven so by a first message. */
async function connected(
  kind: keyof typeof connectBy,
  first: number,
): Promise<[Connected, string]> {
  const { clientId } = await subscribed();
  const connection = await connectBy[kind](clientId);
  await publish(first, first + 1, "");
  await connection.until(() => connection.heard.includes(first));
  connection.heard.length = 0;
  return [connection, clientId];
}

describe("a poll", () => {
  test("[T8] that is aborted while it is held, at any moment, loses nothing and repeats nothing", async () => {
    await start();
    const poller = await subscribed();
    const heard: number[] = [];
    for (let n = 0; n < 150; n++) {
      const abort = new AbortController();
      const poll = poller.poll({}, { signal: abort.signal }).then(
        (messages) => heard.push(...numbersIn(messages)),
        () => undefined,
      );
      // Before the publish, beside it, or after it.
      if (n % 3 === 0) {
        abort.abort();
        await poll;
        await poller.publish(`${channel}/elsewhere`, "the server has seen the abort by now");
      }
      const published = poller.publish(channel, { n });
      if (n % 3 === 1) abort.abort();
      await Promise.all([poll, published]);
    }
    await poller.publish(channel, { n: 150 });
    while (heard.at(-1) !== 150) heard.push(...numbersIn(await poller.poll()));
    expect(heard).toEqual([...new Set(heard)].sort((a, b) => a - b));
    // Only an answer that was on its way while its client gave up can be lost.
    expect(numbers(0, 151).filter((n) => n % 3 !== 1 && !heard.includes(n))).toEqual([]);
  });

  /** A connect whose answer began to arrive, and of which the client reads no more. */
  async function stuckPoll(clientId: string): Promise<RawSocket> {
    const raw = await RawSocket.open(server);
    const body = JSON.stringify([
      { channel: "/meta/connect", clientId, connectionType: "long-polling" },
    ]);
    raw.write(
      `POST /push HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: ${body.length}\r\n\r\n${body}`,
    );
    await raw.until(() => raw.received.length > 0);
    raw.tcp.pause();
    return raw;
  }

  test("whose answer is stuck when its client goes away comes again, whole", async () => {
    await start();
    const poller = await subscribed();
    await publish(0, many);
    const raw = await stuckPoll(poller.clientId);
    raw.cut();
    await publish(many, many + 1, "");
    const heard: number[] = [];
    while (heard.at(-1) !== many) heard.push(...numbersIn(await poller.poll()));
    expect(heard).toEqual(numbers(0, many + 1));
  });

  test("whose answer its client leaves unread comes again with the next, in front of what came since", async () => {
    await start();
    const poller = await subscribed();
    await publish(0, many);
    const stuck: RawSocket[] = [];
    // However often: what nobody reads is there once.
    for (let round = 0; round < 3; round++) {
      stuck.push(await stuckPoll(poller.clientId));
      await publish(many + round, many + round + 1, "");
    }
    expect(numbersIn(await poller.poll())).toEqual(numbers(0, many + 3));
    for (const raw of stuck) raw.cut();
  });

  test("whose answer nobody reads is given up after some time, however many there are", async () => {
    await start({ PING_INTERVAL_MS: "500" });
    const pollers = [await subscribed(), await subscribed(), await subscribed()];
    await publish(0, many);
    const stuck = await Promise.all(pollers.map(({ clientId }) => stuckPoll(clientId)));
    const streams = await Promise.all(
      pollers.map(({ clientId }) => connectBy.eventsource(clientId)),
    );
    for (const stream of streams) {
      await stream.until(() => stream.heard.length === many);
      expect(stream.heard).toEqual(numbers(0, many));
      stream.cut();
    }
    for (const raw of stuck) raw.cut();
  });
});

describe("a connection that is cut while the server's buffers hold messages for it", () => {
  const pairs = (["websocket", "eventsource"] as const).flatMap((from) =>
    (["websocket", "eventsource", "polling"] as const).map((to) => ({ from, to })),
  );

  test.each(pairs)(
    "$from, continued by $to: all that the kernel had not taken arrives",
    async ({ from, to }) => {
      await start();
      const [stuck, clientId] = await connected(from, 0);
      stuck.pause();
      await publish(1, many);
      stuck.cut();
      const next = await connectBy[to](clientId);
      await publish(many, many + 1, "");
      await next.until(() => next.heard.at(-1) === many);
      const first = next.heard[0] ?? many;
      expect(next.heard).toEqual(numbers(first, many + 1));
      // Something was left in the server; what is missing fits into the kernel's buffers.
      expect(first).toBeLessThan(many);
      expect(first * padding.length).toBeLessThan(14_000_000);
      next.cut();
    },
  );
});

describe("a session that moves away from a stuck connection", () => {
  const pairs = (["websocket", "eventsource"] as const).flatMap((from) =>
    (["websocket", "eventsource"] as const).map((to) => ({ from, to })),
  );

  test.each(pairs)(
    "$from to $to: both together received everything, each message once",
    async ({ from, to }) => {
      await start();
      const [stuck, clientId] = await connected(from, 0);
      stuck.pause();
      await publish(1, many);
      const next = await connectBy[to](clientId);
      await publish(many, many + 1, "");
      await next.until(() => next.heard.at(-1) === many);
      // Now the old one reads what the kernel holds, until its end.
      stuck.resume();
      await stuck.until(() => stuck.raw?.isClosed === true);
      expect({ heard: [...stuck.heard, ...next.heard], by: next.heard[0] }).toEqual({
        heard: numbers(1, many + 1),
        by: stuck.heard.length + 1,
      });
      next.cut();
    },
  );

  test("also when it read on for a while and got stuck again", async () => {
    await start();
    const [stuck, clientId] = await connected("websocket", 0);
    stuck.pause();
    await publish(1, many);
    stuck.resume();
    await stuck.until(() => stuck.heard.length > 0);
    stuck.pause();
    expect(stuck.heard.length).toBeLessThan(many);
    await publish(many, 2 * many);
    const next = await connectBy.websocket(clientId);
    await publish(2 * many, 2 * many + 1, "");
    await next.until(() => next.heard.at(-1) === 2 * many);
    stuck.resume();
    await stuck.until(() => stuck.raw?.isClosed === true);
    expect([...stuck.heard, ...next.heard]).toEqual(numbers(1, 2 * many + 1));
    next.cut();
  });

  test("nothing more comes over a connection that was left, and its end concerns nobody", async () => {
    await start();
    const [old, clientId] = await connected("websocket", 0);
    const next = await connectBy.websocket(clientId);
    await publish(1, 2, "");
    await next.until(() => next.heard.includes(1));
    old.cut();
    await publish(2, 3, "");
    await next.until(() => next.heard.includes(2));
    expect([old.heard, next.heard]).toEqual([[], [1, 2]]);
    next.cut();
  });
});

test("a client that answers no pings is cut; what it still reads and what comes next is everything, once", async () => {
  await start({ PING_INTERVAL_MS: "200" });
  const [stuck, clientId] = await connected("websocket", 0);
  stuck.pause();
  await publish(1, many);
  // A held connect is answered when the connection that pushes is cut.
  const poller = new Poller(server);
  poller.clientId = clientId;
  const heard = numbersIn(await poller.poll());
  await publish(many, many + 1, "");
  while (heard.at(-1) !== many) heard.push(...numbersIn(await poller.poll()));
  stuck.resume();
  await stuck.until(() => stuck.raw?.isClosed === true);
  expect([...stuck.heard, ...heard]).toEqual(numbers(1, many + 1));
});

describe("a client that reads too slowly", () => {
  const limits = { MAX_SOCKET_BUFFER_BYTES: "1000000" };

  test("is closed with 4008; what it read and what its next connection brings is everything, once", async () => {
    await start(limits);
    const socket = await Socket.connect(server);
    await socket.subscribe(channel);
    socket.pause();
    await publish(0, many);
    socket.resume();
    expect(await socket.closing()).toEqual({ code: 4008, reason: "Slow consumer" });
    const read = numbersIn(socket.received);
    const next = await connectBy.websocket(socket.clientId);
    await publish(many, many + 1, "");
    await next.until(() => next.heard.at(-1) === many);
    expect([...read, ...next.heard]).toEqual(numbers(0, many + 1));
    expect(read.length).toBeLessThan(many);
    next.cut();
  });

  test("and comes back by another connection without ever reading gets what is left, each message once", async () => {
    await start(limits);
    const [stuck, clientId] = await connected("websocket", 0);
    stuck.pause();
    await publish(1, many);
    const next = await connectBy.websocket(clientId);
    await publish(many, many + 1, "");
    await next.until(() => next.heard.at(-1) === many);
    stuck.resume();
    await stuck.until(() => stuck.raw?.isClosed === true);
    expect([...stuck.heard, ...next.heard]).toEqual(numbers(1, many + 1));
    next.cut();
  });

  test("loses its event stream; the next one brings what is left", async () => {
    await start(limits);
    const [stuck, clientId] = await connected("eventsource", 0);
    stuck.pause();
    await publish(1, many);
    const next = await connectBy.polling(clientId);
    await publish(many, many + 1, "");
    await next.until(() => next.heard.at(-1) === many);
    stuck.resume();
    await stuck.until(() => stuck.raw?.isClosed === true);
    expect([...stuck.heard, ...next.heard]).toEqual(numbers(1, many + 1));
  });

  test("and for whom too much waits loses its session, and is told so", async () => {
    await start({ ...limits, MAX_OUTBOX_BYTES: "2000000" });
    const [stuck, clientId] = await connected("websocket", 0);
    stuck.pause();
    await publish(1, many);
    const poller = new Poller(server);
    poller.clientId = clientId;
    expect((await poller.poll())[0]).toMatchObject({
      successful: false,
      error: `401:${clientId}:Unknown client`,
      advice: { reconnect: "handshake" },
    });
    stuck.cut();
  });

  const isClosed = (): boolean => server.logged.join("").includes("slow consumer");

  /** Sends `batches` as frames in one write, and waits until the server has done them or closed. */
  async function send(raw: RawSocket, witness: Socket, batches: object[]): Promise<void> {
    const done = { channel: `${channel}/done`, data: Math.random(), ext: keyAuth };
    const frames = [...batches, done].map((batch) => clientFrame(JSON.stringify(batch)));
    raw.write(Buffer.concat(frames));
    await expect
      .poll(() => isClosed() || witness.received.at(-1)?.data === done.data, { interval: 1 })
      .toBe(true);
  }

  const connectOf = ({ clientId }: Poller): object => ({
    channel: "/meta/connect",
    clientId,
    connectionType: "websocket",
  });

  test("gets what waited for its session beyond the limit, but not again and again", async () => {
    await start(limits);
    const witness = await Socket.connect(server);
    await witness.subscribe(`${channel}/done`);
    const hearing = await subscribed();
    const deaf = await Poller.connect(server);
    const raw = await RawSocket.upgrade(server);
    raw.tcp.pause();
    let rounds = 0;
    // Each time ten times the limit; the kernel takes some of it.
    for (; rounds < 6 && !isClosed(); rounds++) {
      await publish(rounds * 500, (rounds + 1) * 500);
      await send(raw, witness, [connectOf(hearing), connectOf(deaf)]);
    }
    expect(isClosed()).toBe(true);
    expect(rounds).toBeGreaterThan(1);
    // Its session goes on: with what was not sent.
    const heard: number[] = [];
    while (heard.at(-1) !== rounds * 500 - 1) heard.push(...numbersIn(await hearing.poll()));
    expect(heard).toEqual(numbers(heard[0] ?? 0, rounds * 500));
    raw.cut();
    witness.close();
  });

  test("hears nothing behind the Close frame: what waited for the session waits on", async () => {
    await start({ MAX_SOCKET_BUFFER_BYTES: "1024" });
    const witness = await Socket.connect(server);
    await witness.subscribe(`${channel}/done`);
    const sessions = [await subscribed(), await subscribed()];
    const raw = await RawSocket.upgrade(server);
    raw.tcp.pause();
    const refused = Array.from({ length: 300 }, () => ({}));
    let n = 0;
    while (!isClosed()) {
      // Heard by one session, and waiting for the other, which is bound behind many replies.
      await publish(n, n + 1, "");
      await send(raw, witness, [refused, connectOf(sessions[n++ % 2] as Poller)]);
    }
    raw.tcp.resume();
    raw.write(clientFrame(Buffer.from([0x0f, 0xa8]), { opcode: 8 }));
    await raw.closing();
    const frames = raw.takeFrames();
    const close = frames.findIndex(({ opcode }) => opcode === 8);
    expect(frames[close]?.payload.readUInt16BE(0)).toBe(4008);
    const heard = frames
      .slice(0, close)
      .flatMap(({ opcode, payload }) =>
        opcode === 1 ? numbersIn(JSON.parse(payload.toString()) as Message[]) : [],
      );
    for (const session of sessions) {
      heard.push(...numbersIn(await session.poll({ advice: { timeout: 0 } })));
    }
    // Both sessions have heard every number.
    expect(heard.sort((a, b) => a - b)).toEqual(numbers(0, n).flatMap((each) => [each, each]));
    witness.close();
  });

  test("does not slow down those who read", async () => {
    await start(limits);
    const [stuck] = await connected("websocket", 0);
    const reader = await Socket.connect(server);
    await reader.subscribe(channel);
    stuck.pause();
    await publish(1, many);
    const heard: number[] = [];
    while (heard.at(-1) !== many - 1) heard.push(...numbersIn([await reader.event(channel)]));
    expect(heard).toEqual(numbers(1, many));
    stuck.cut();
    reader.close();
  });
});
