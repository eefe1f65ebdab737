/** What clients notice of Redis: nothing, or a clear answer in bounded time. */
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { repositoryPath } from "../src/docs.js";
import {
  appId,
  keyAuth,
  keyId,
  type Message,
  Poller,
  Socket,
  secret,
  startTestServer,
  type TestServer,
} from "./harness.js";
import { type ChildServer, startChildServer } from "./hostile/child.js";
import { freshChannel, http, member } from "./protocol/peers.js";
import { TestRedis } from "./redis.js";

let redis: TestRedis;
const cleanUp: (() => Promise<unknown>)[] = [];
beforeEach(async () => {
  redis = await startRedis();
});
afterEach(async () => {
  for (const each of cleanUp.splice(0).reverse()) await each();
});

async function startRedis(...args: string[]): Promise<TestRedis> {
  const started = await TestRedis.start(...args);
  cleanUp.push(() => started.stop());
  return started;
}

async function start(variables: Record<string, string> = {}): Promise<TestServer> {
  const server = await startTestServer({
    REDIS_HOSTS: redis.address,
    REDIS_PREFIX: "pandapush:",
    ...variables,
  });
  cleanUp.push(() => server.close());
  return server;
}

function publishByRest(server: { url: string }, channel: string, body = '"REST"') {
  const basic = Buffer.from(`${keyId}:${secret}`).toString("base64");
  const headers = { Authorization: `Basic ${basic}`, "Content-Type": "application/json" };
  return http(server, `/channel${channel}`, { method: "POST", headers, body });
}

/** Publishes until the broker takes it: after an outage nobody says when it is over. */
async function untilTaken(server: { url: string }, channel: string): Promise<void> {
  await expect
    .poll(async () => (await publishByRest(server, channel)).status, { timeout: 8_000 })
    .toBe(200);
}

test("what is published at one server is heard at another", async () => {
  const [one, two] = [await start(), await start()];
  const listener = await Socket.connect(two);
  const channel = freshChannel();
  await listener.subscribe([channel, `/${appId}/public/**`]);
  expect((await publishByRest(one, channel)).status).toBe(200);
  const publisher = await Socket.open(one);
  await publisher.publish(channel, "Bayeux");
  expect([(await listener.event()).data, (await listener.event()).data]).toEqual([
    "REST",
    "Bayeux",
  ]);
});

describe("an outage", () => {
  test("answers publishes with 503 at once, and ends by itself: sockets stay, what was missed is counted", async () => {
    const server = await start();
    const channel = freshChannel();
    const listener = await Socket.open(server);
    const handshake = await listener.ask({
      channel: "/meta/handshake",
      version: "1.0",
      supportedConnectionTypes: ["websocket"],
      ext: { pandapush: { count: true } },
    });
    listener.clientId = handshake.clientId ?? "";
    const connect = async (): Promise<number> => {
      const id = listener.sendConnect({ advice: { timeout: 0 } });
      const reply = await listener.next((message) => message.id === id);
      return (reply.ext as { pandapush: { sent: number } }).pandapush.sent;
    };
    await connect();
    await listener.subscribe(channel);
    await publishByRest(server, channel);
    await listener.event(channel);
    expect(await connect()).toBe(1);

    await redis.kill();
    const killedAt = performance.now();
    const refused = await publishByRest(server, channel);
    expect(performance.now() - killedAt).toBeLessThan(1_000);
    expect(refused.status).toBe(503);
    expect(Number(refused.headers["retry-after"])).toBeGreaterThan(0);
    expect(JSON.parse(refused.body)).toEqual({
      code: 503,
      params: [channel],
      message: "Broker unavailable",
      details: expect.any(String),
    });
    const publisher = await Socket.open(server);
    const reply = await publisher.publish(channel, 1);
    expect(reply.error).toBe(`503:${channel}:Broker unavailable`);
    expect(await connect()).toBe(1);

    await redis.restart({ isEmpty: true });
    await untilTaken(server, channel);
    await listener.event(channel);
    // One for the event, one for whatever was published while nobody listened.
    expect(await connect()).toBe(3);
    expect(listener.closed).toBeUndefined();
  });

  test("a server that starts in it serves, and joins in when it ends", async () => {
    await redis.kill();
    const server = await start();
    expect(server.logged.join("")).toContain("Redis host is down");
    const channel = freshChannel();
    expect((await publishByRest(server, channel)).status).toBe(503);
    const listener = await Socket.connect(server);
    const subscribed = listener.subscribe(channel);
    await redis.restart();
    expect((await subscribed).successful).toBe(true);
    await untilTaken(server, channel);
    expect((await listener.event(channel)).data).toBe("REST");
  });

  test("a subscribe waits five seconds for its end, however many are asked for; publishes wait behind it", async () => {
    const server = await start();
    await redis.kill();
    expect((await publishByRest(server, freshChannel())).status).toBe(503);
    const socket = await Socket.connect(server);
    const names = Array.from({ length: 50 }, () => freshChannel());
    const sentAt = performance.now();
    const batch = [
      ...names.map((subscription, index) => ({
        channel: "/meta/subscribe",
        subscription: index === 7 ? [subscription, freshChannel()] : subscription,
      })),
      { channel: names[0], data: 1, ext: keyAuth },
    ].map((message, id) => ({ ...message, id: `${id}`, clientId: socket.clientId }));
    socket.sendText(JSON.stringify(batch));
    await socket.next(({ id }) => id === "50", 8_000);
    expect(performance.now() - sentAt).toBeGreaterThan(4_500);
    expect(performance.now() - sentAt).toBeLessThan(7_000);
    const replies = JSON.parse(socket.frames.at(-1) ?? "[]") as Message[];
    expect(replies.map(({ id }) => id)).toEqual(batch.map(({ id }) => id));
    for (const [index, { error }] of replies.slice(0, -1).entries()) {
      expect(error).toBe(`503:${names[index]}:Broker unavailable`);
    }
    await redis.restart();
    await untilTaken(server, names[0] ?? "");
    // None of them was subscribed to behind its client's back.
    const marker = freshChannel();
    await socket.subscribe(marker);
    for (const name of names) await socket.publish(name, "unheard");
    await socket.publish(marker, "heard");
    expect((await socket.event()).data).toBe("heard");
  });

  test("of one host, in an array: the first refusal counts, those before it stay, those behind it go", async () => {
    const other = await startRedis();
    const server = await start({ REDIS_HOSTS: `${redis.address},${other.address}` });
    await other.kill();
    const socket = await Socket.connect(server);
    const channels = Array.from({ length: 30 }, () => freshChannel());
    const statuses = await Promise.all(channels.map((name) => publishByRest(server, name)));
    const [before = "", behind = "", known = ""] = channels.filter(
      (_, index) => statuses[index]?.status === 200,
    );
    const dead = channels.find((_, index) => statuses[index]?.status === 503) ?? "";
    await socket.subscribe(known);
    const names = [before, dead, behind, known];
    const id = socket.send({ channel: "/meta/subscribe", subscription: names });
    const reply = await socket.next((message) => message.id === id, 8_000);
    expect(reply.error).toBe(`503:${dead}:Broker unavailable`);
    for (const name of [behind, before, known]) await socket.publish(name, name);
    expect([(await socket.event()).data, (await socket.event()).data]).toEqual([before, known]);
  });

  test("does not keep a server from ending", async () => {
    const server = await start();
    const peer = await Socket.connect(server);
    const room = freshChannel("presence");
    await peer.subscribe(room, member(room, { id: "one" }));
    redis.pause();
    const pausedAt = performance.now();
    await server.close();
    cleanUp.pop();
    expect(performance.now() - pausedAt).toBeLessThan(3_000);
    redis.resume();
  });
});

describe("a connection's commands", () => {
  test("[MSG-10] keep their order while the broker confirms them, and are answered in it", async () => {
    const server = await start();
    const [socket, watcher] = [await Socket.connect(server), await Socket.connect(server)];
    const [one, two] = [freshChannel(), freshChannel()];
    await watcher.subscribe([one, two]);
    const send = (id: number, fields: object): object => ({
      ...fields,
      id: `${id}`,
      clientId: socket.clientId,
    });
    const publish = (id: number, channel: string): object =>
      send(id, { channel, data: id, ext: keyAuth });
    const command = (id: number, what: string, subscription: string): object =>
      send(id, { channel: `/meta/${what}`, subscription });
    for (let round = 0; round < 20; round++) {
      // Frames that are read together; nothing waits for an answer.
      redis.pause();
      socket.sendText(
        JSON.stringify([
          publish(0, one),
          publish(1, two),
          command(2, "subscribe", one),
          command(3, "subscribe", two),
          publish(4, one),
          publish(5, "/nonsense"),
          publish(6, two),
        ]),
      );
      socket.sendText(JSON.stringify([publish(7, one), command(8, "unsubscribe", one)]));
      socket.sendText(JSON.stringify([publish(9, one), publish(10, two)]));
      socket.sendText(JSON.stringify([command(11, "unsubscribe", two)]));
      redis.resume();
      await socket.next(({ id }) => id === "11");
      const answered = [...socket.received, { id: "11" }].filter(
        (message) => (message as Message).successful !== undefined || message.id === "11",
      );
      expect(answered.map(({ id }) => id)).toEqual(Array.from({ length: 12 }, (_, id) => `${id}`));
      const heard = socket.received.filter(({ successful }) => successful === undefined);
      // What it published before may come back after it subscribed, or after it unsubscribed.
      const data = heard.map((event) => event.data as number);
      expect(data).toEqual([...data].sort((a, b) => a - b));
      expect(data).not.toContain(9);
      socket.received.length = 0;
      const all: unknown[] = [];
      while (all.length < 7) all.push((await watcher.event()).data);
      expect(all).toEqual([0, 1, 4, 6, 7, 9, 10]);
    }
  });

  test("many publishes of one frame wait for the broker together", async () => {
    const server = await start();
    const socket = await Socket.connect(server);
    const channel = freshChannel();
    await socket.subscribe(channel);
    const messages = Array.from({ length: 1_000 }, (_, id) => ({
      channel,
      data: id,
      id: `${id}`,
      ext: keyAuth,
    }));
    const poller = await Poller.connect(server);
    await poller.publish(channel, "warm");
    await socket.event(channel);
    const reads = async (): Promise<number> => {
      const text = String(await redis.command("INFO", "stats"));
      return Number(/total_reads_processed:(\d+)/.exec(text)?.[1]);
    };
    const before = await reads();
    socket.sendText(JSON.stringify(messages));
    for (const { data } of messages) expect((await socket.event(channel)).data).toBe(data);
    // Redis reads 16 KiB at a time; one publish after the other would be a thousand reads.
    expect((await reads()) - before).toBeLessThan(150);
  });
});

describe("presence at two servers", () => {
  /** What is heard of a room at that server. */
  async function watch(server: { wsUrl: string }, room: string): Promise<Socket> {
    const watcher = await Socket.connect(server);
    await watcher.subscribe(room, member(room, { id: "watcher" }));
    return watcher;
  }

  async function join(server: { wsUrl: string }, room: string, id: string): Promise<Socket> {
    const socket = await Socket.connect(server);
    const reply = await socket.subscribe(room, member(room, { id }));
    expect(reply.successful).toBe(true);
    return socket;
  }

  /** Whom the reply to a subscribe shows. */
  function listed({ ext }: Message): string[] {
    const { subscribe } = (ext?.presence ?? {}) as { subscribe?: object };
    return Object.keys(subscribe ?? {}).sort();
  }

  async function startChild(): Promise<ChildServer> {
    const child = await startChildServer({
      REDIS_HOSTS: redis.address,
      REDIS_PREFIX: "pandapush:",
    });
    cleanUp.push(() => child.stop());
    return child;
  }

  test("[PRES-2] [PRES-5] [PRES-6] is that of both: one join and one leave for each user", async () => {
    const [one, two] = [await start(), await start()];
    const room = freshChannel("presence");
    const watcher = await watch(one, room);
    const tab = await join(two, room, "a");
    expect((await watcher.event(room)).data).toEqual({ subscribe: { a: { id: "a" } } });
    const otherTab = await Socket.connect(one);
    const reply = await otherTab.subscribe(room, member(room, { id: "a" }));
    expect(listed(reply)).toEqual(["a", "watcher"]);
    await tab.ask({ channel: "/meta/unsubscribe", subscription: room });
    await join(two, room, "b");
    expect((await watcher.event(room)).data).toEqual({ subscribe: { b: { id: "b" } } });
    await otherTab.ask({ channel: "/meta/disconnect" });
    expect((await watcher.event(room)).data).toEqual({ unsubscribe: { a: null } });
  });

  test("[PRES-6] of one that is killed ends within 15 seconds", async () => {
    const [one, dead] = [await start(), await startChild()];
    const room = freshChannel("presence");
    const watcher = await watch(one, room);
    const ids = ["a", "b", "c"];
    for (const id of ids) {
      await join(dead, room, id);
      await watcher.event(room);
    }
    await join(one, room, "b");
    const killedAt = performance.now();
    dead.process.kill("SIGKILL");
    const leaves: unknown[] = [];
    for (let count = 0; count < 2; count++) {
      const event = await watcher.next(({ channel }) => channel === room, 15_000);
      leaves.push(event.data);
    }
    expect(performance.now() - killedAt).toBeLessThan(15_000);
    expect(leaves.map((data) => JSON.stringify(data)).sort()).toEqual([
      '{"unsubscribe":{"a":null}}',
      '{"unsubscribe":{"c":null}}',
    ]);
    const last = await join(one, room, "d");
    expect((await watcher.event(room)).data).toEqual({ subscribe: { d: { id: "d" } } });
    last.close();
  });

  test("[PRES-6] of one that was frozen does not come back with it: its clients begin again", async () => {
    const [one, frozen] = [await start(), await startChild()];
    const room = freshChannel("presence");
    const watcher = await watch(one, room);
    const client = await join(frozen, room, "a");
    await watcher.event(room);
    frozen.process.kill("SIGSTOP");
    const left = await watcher.next(({ channel }) => channel === room, 15_000);
    expect(left.data).toEqual({ unsubscribe: { a: null } });
    frozen.process.kill("SIGCONT");
    await client.closing();
    const again = await Socket.open(frozen);
    again.clientId = client.clientId;
    const reply = await again.subscribe(room, member(room, { id: "a" }));
    expect(reply.error).toContain("Unknown client");
    await again.handshake();
    expect((await again.subscribe(room, member(room, { id: "a" }))).successful).toBe(true);
    expect((await watcher.event(room)).data).toEqual({ subscribe: { a: { id: "a" } } });
  });

  test("[CON-14] of one that is stopped in order goes on at another, and nobody hears of it", async () => {
    const [one, leaving] = [await start(), await start()];
    const room = freshChannel("presence");
    const watcher = await watch(one, room);
    const client = await join(leaving, room, "a");
    await watcher.event(room);
    cleanUp.splice(1, 1);
    await leaving.close();
    expect((await client.closing()).code).toBe(1001);
    const again = await Socket.open(one);
    again.clientId = client.clientId;
    again.sendConnect();
    await publishByRest(one, room, '"marker"');
    for (const each of [watcher, again]) expect((await each.event(room)).data).toBe("marker");
    await again.ask({ channel: "/meta/disconnect" });
    expect((await watcher.event(room)).data).toEqual({ unsubscribe: { a: null } });
  });

  test("[PRES-6] what could not be said in an outage is made good: there are no ghosts", async () => {
    const [one, two] = [await start(), await start()];
    const room = freshChannel("presence");
    const leaver = await join(one, room, "a");
    const stayer = await join(two, room, "b");
    await redis.kill();
    const refused = await Socket.connect(two);
    expect((await publishByRest(two, room)).status).toBe(503);
    const subscribing = refused.subscribe(room, member(room, { id: "c" }));
    await leaver.ask({ channel: "/meta/disconnect" });
    await redis.restart();
    expect((await subscribing).successful).toBe(true);
    await expect
      .poll(
        async () => {
          const again = await Socket.connect(one);
          const reply = await again.subscribe(room, member(room, { id: "d" }));
          await again.ask({ channel: "/meta/disconnect" });
          return listed(reply);
        },
        { timeout: 8_000 },
      )
      .toEqual(["b", "c", "d"]);
    expect(stayer.closed).toBeUndefined();
  });
});

test("a Redis URL with TLS, user, password and database is enough", async () => {
  const file = (name: string): string => repositoryPath(`server/test/fixtures/${name}`);
  const secured = await startRedis(
    ...["--tls-cert-file", file("redis-tls.crt"), "--tls-key-file", file("redis-tls.key")],
    ...["--tls-auth-clients", "no", "--port", "0", "--tls-port", "$PORT"],
    ...["--user", "push", "on", ">p@ss,w/rd", "~*", "&*", "+@all", "--user", "default", "off"],
  );
  const server = await startChildServer({
    REDIS_URL_ENV_VARS: "MY_REDIS",
    MY_REDIS: `rediss://push:${encodeURIComponent("p@ss,w/rd")}@localhost:${secured.port}/2`,
    NODE_EXTRA_CA_CERTS: file("redis-tls.crt"),
  });
  cleanUp.push(() => server.stop());
  const listener = await Socket.connect(server);
  const channel = freshChannel();
  expect((await listener.subscribe(channel)).successful).toBe(true);
  await publishByRest({ url: `http://127.0.0.1:${server.port}` }, channel);
  expect((await listener.event(channel)).data).toBe("REST");
});
