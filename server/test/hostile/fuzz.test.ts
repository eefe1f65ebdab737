/** Thousands of random mutations over every way in, against a server in a process of its own. */
import { afterAll, beforeAll, expect, test } from "vitest";
import { appId, type Message, Poller, Socket } from "../harness.js";
import { type ChildServer, startChildServer } from "./child.js";
import { Random } from "./random.js";
import { basicAuth, clientFrame, eachInParallel, expectServes, RawSocket } from "./raw.js";
import { hostileValues, templates } from "./values.js";

const timeoutMs = 100;

let server: ChildServer;
let random: Random;
beforeAll(async () => {
  random = Random.fromEnvironment("fuzz");
  server = await startChildServer({ BAYEUX_TIMEOUT_MS: `${timeoutMs}` });
});
afterAll(() => server.stop());

const values = Object.values(hostileValues).filter((value) => value.length < 3_000);
const punctuation = [
  '"',
  "{",
  "}",
  "[",
  "]",
  ":",
  ",",
  "\\",
  "/",
  "*",
  "\u0000",
  "\u2028",
  "é",
  "☃",
];

/** A valid batch of one to five messages. */
function batch(clientId: string): object[] {
  const kinds = templates(clientId);
  return Array.from({ length: 1 + random.below(5) }, (_, index) => ({
    ...random.pick(kinds).message,
    id: `${index}`,
  }));
}

/** One to four random changes: of values, of single characters, of whole parts. */
function mutate(text: string): string {
  let mutated = text;
  for (let changes = 1 + random.below(4); changes > 0; changes--) {
    const at = random.below(mutated.length + 1);
    const to = at + random.below(Math.max(1, mutated.length - at));
    const part = mutated.slice(at, to);
    const before = mutated.slice(0, at);
    switch (random.below(8)) {
      case 0:
        mutated = before + mutated.slice(at + 1);
        break;
      case 1:
        mutated = before + random.pick(punctuation) + mutated.slice(at);
        break;
      case 2:
        mutated = before + String.fromCharCode(random.below(0xd800)) + mutated.slice(at + 1);
        break;
      case 3:
        mutated = before + part + part + mutated.slice(to);
        break;
      case 4:
        mutated = before;
        break;
      case 5:
        mutated = before + mutated.slice(to);
        break;
      default:
        mutated = replaceValue(mutated);
    }
  }
  return mutated;
}

/** Puts something else in the place of one value, so that what remains is still JSON. */
function replaceValue(text: string): string {
  const places = [...text.matchAll(/(?<=[:[,])(?:"[^"\\]*"|\d+|\{[^{}]*\}|\[[^[\]]*\])/g)];
  if (places.length === 0) return text;
  const place = random.pick(places);
  const end = place.index + place[0].length;
  return text.slice(0, place.index) + random.pick(values) + text.slice(end);
}

function expectSound(replies: readonly Message[], sent: string): void {
  for (const { successful, error } of replies) {
    if (successful === undefined) continue;
    const isInternal = error !== undefined && /^50\d/.test(error);
    if (isInternal) throw new Error(`${error.slice(0, 200)} to one of:\n${sent.slice(0, 20_000)}`);
  }
}

async function overWebSocket(count: number): Promise<void> {
  for (let sent = 0; sent < count; ) {
    const socket = await Socket.open(server);
    await socket.handshake();
    const from = socket.frames.length;
    const texts = Array.from({ length: 50 }, () => mutate(JSON.stringify(batch(socket.clientId))));
    for (const text of texts) socket.sendText(random.isLucky(0.1) ? Buffer.from(text) : text);
    sent += texts.length;
    const isAnswer = (frame: string): boolean => {
      const messages = JSON.parse(frame) as Message[];
      return messages.length === 0 || messages.some(({ successful }) => successful !== undefined);
    };
    // Every frame has its answer, unless one of them ended the session and with it the socket.
    await expect
      .poll(
        () =>
          socket.closed !== undefined ||
          socket.frames.slice(from).filter(isAnswer).length >= texts.length,
        { timeout: 5_000, interval: 5 },
      )
      .toBe(true);
    expect([undefined, 1000]).toContain(socket.closed?.code);
    expectSound(socket.received, texts.join("\n"));
    if (random.isLucky(0.5)) socket.cut();
    else socket.close();
  }
}

/** Frames whose bytes are changed after they were made: the connection may be closed for it. */
async function overBrokenWebSockets(count: number): Promise<void> {
  await eachInParallel(Array.from({ length: count }), 8, async () => {
    const socket = await RawSocket.upgrade(server);
    const frame = clientFrame(JSON.stringify(batch("nobody")));
    for (let changes = 1 + random.below(3); changes > 0; changes--) {
      frame[random.below(random.isLucky(0.5) ? 8 : frame.length)] = random.below(256);
    }
    socket.write(frame);
    socket.write(clientFrame("[]"));
    socket.tcp.end();
    await socket.closing();
  });
}

async function overHttp(count: number): Promise<void> {
  const { clientId } = await Poller.connect(server);
  const requests = Array.from({ length: count }, (_, index) => {
    const text = mutate(JSON.stringify(batch(clientId)));
    const form = `message=${random.isLucky(0.5) ? encodeURIComponent(text) : text}`;
    const json = { "Content-Type": "application/json" };
    const rest = `http://127.0.0.1:${server.port}/channel/${appId}/public/fuzz`;
    switch (index % 5) {
      case 0:
        return { url: server.pushUrl, init: { method: "POST", headers: json, body: text } };
      case 1:
        return { url: server.pushUrl, init: { method: "POST", body: form } };
      case 2:
        return {
          url: `${server.pushUrl}?${encodeURI(form)}&jsonp=${encodeURIComponent(text.slice(0, 9))}`,
        };
      case 3:
        return {
          url: rest,
          init: { method: "POST", headers: { ...json, Authorization: basicAuth }, body: text },
        };
      default:
        return {
          url: rest,
          init: {
            method: "POST",
            headers: {
              Authorization: basicAuth,
              "Content-Type": "application/x-www-form-urlencoded",
            },
            body: mutate("a=1&b[c]=2&d[]=3&e[f][]=4&message=x&g=%C3%A9+x"),
          },
        };
    }
  });
  await eachInParallel(requests, 16, async ({ url, init }) => {
    const response = await fetch(url, init);
    const body = await response.text();
    const isSound = [200, 400, 403, 413, 415, 431].includes(response.status);
    expect({ url, init, isSound, body }).toMatchObject({ isSound: true });
    if (response.status === 200 && body.startsWith("[")) {
      expectSound(JSON.parse(body) as Message[], init?.body ?? url);
    }
  });
}

async function abandoned(count: number): Promise<void> {
  await eachInParallel(Array.from({ length: count }), 16, async () => {
    const poller = await Poller.connect(server);
    await poller.subscribe([`/${appId}/public/abandoned`, `/${appId}/public/abandoned/**`]);
    const abort = new AbortController();
    const poll = poller.poll({}, { signal: abort.signal }).catch(() => []);
    await poller.publish(`/${appId}/public/abandoned`, "x".repeat(1_000));
    abort.abort();
    await poll;
  });
}

async function everything(count: number): Promise<void> {
  await overWebSocket(count);
  await overBrokenWebSockets(count / 4);
  await overHttp(count);
  await abandoned(count / 10);
}

/** Until all sessions have expired and all connections are closed, except idle ones of `fetch`. */
async function settled(): Promise<ReturnType<ChildServer["measure"]>> {
  await expect.poll(async () => (await server.measure()).sessions, { timeout: 5_000 }).toBe(0);
  return server.measure();
}

test("everything is answered or closed, the server serves on, and its memory is back", async () => {
  // Compiled code and full caches are no leaks: they come with the first round.
  await everything(400);
  await expectServes(server);
  const before = await settled();
  await everything(2_000);
  await expectServes(server);
  const after = await settled();
  console.log(
    `fuzz: heap ${before.heapUsed} → ${after.heapUsed}, buffers ${before.external} → ${after.external}, sockets ${before.sockets} → ${after.sockets}`,
  );
  expect(after.heapUsed - before.heapUsed).toBeLessThan(4_000_000);
  expect(after.external - before.external).toBeLessThan(4_000_000);
  expect(after.sockets).toBeLessThanOrEqual(before.sockets + 32);
  expect(after.apps[appId]).toMatchObject({ connections: 0, subscriptions: 0, channels: 0 });
  expect(server.process.exitCode).toBe(null);
}, 60_000);

test("a client that stops reading does not grow the server's memory", async () => {
  const channel = `/${appId}/public/slow`;
  const slow = await startChildServer({
    MAX_SOCKET_BUFFER_BYTES: "1000000",
    MAX_OUTBOX_BYTES: "2000000",
  });
  try {
    const socket = await Socket.connect(slow);
    await socket.subscribe(channel);
    const before = await slow.measure();
    socket.pause();
    const publisher = await Socket.open(slow);
    let most = 0;
    for (let round = 0; round < 20; round++) {
      for (let n = 0; n < 20; n++) await publisher.publish(channel, "x".repeat(200_000));
      const { heapUsed, external } = await slow.measure();
      most = Math.max(most, heapUsed + external - before.heapUsed - before.external);
    }
    // 80 MB went through it.
    expect(most).toBeLessThan(20_000_000);
    expect((await slow.measure()).sessions).toBe(0);
    publisher.close();
    socket.cut();
    await expectServes(slow);
  } finally {
    await slow.stop();
  }
}, 30_000);

test("an event stream that nobody reads outlives its session without harm", async () => {
  const channel = `/${appId}/public/unread`;
  const stuck = await startChildServer({
    MAX_SOCKET_BUFFER_BYTES: "100000000",
    MAX_OUTBOX_BYTES: "100000000",
  });
  try {
    const poller = await Poller.connect(stuck);
    await poller.subscribe(channel);
    const raw = await RawSocket.open(stuck);
    raw.write(
      `GET /push/${poller.clientId} HTTP/1.1\r\nHost: a\r\nAccept: text/event-stream\r\n\r\n`,
    );
    await raw.until(() => raw.received.includes("retry: 5000\r\n\r\n"));
    raw.tcp.pause();
    const publisher = await Socket.open(stuck);
    for (let n = 0; n < 100; n++) await publisher.publish(channel, "x".repeat(200_000));
    await poller.ask({ channel: "/meta/disconnect" });
    publisher.close();
    // Comments come every ten seconds. When a younger stream has its first, the time of the one
    // that nobody reads is over: it must not have been written to after its end.
    const younger = await RawSocket.open(stuck);
    younger.write("GET /push/nobody HTTP/1.1\r\nHost: a\r\nAccept: text/event-stream\r\n\r\n");
    await younger.until(() => younger.endsWith("\r\n:\r\n\r\n"), 15_000);
    younger.cut();
    await expectServes(stuck);
    raw.cut();
  } finally {
    await stuck.stop();
  }
}, 30_000);
