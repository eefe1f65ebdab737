/** Any request of any client may reach any node. */
import { afterAll, afterEach, beforeAll, describe, expect, test, vi } from "vitest";
import { Peers, PeerUnavailable } from "../src/cluster/peers.js";
import { RedisHost } from "../src/redis/hosts.js";
import {
  appId,
  keyId,
  Poller,
  Socket,
  secret,
  startTestServer,
  type TestServer,
  token,
} from "./harness.js";
import { freshChannel, http } from "./protocol/peers.js";
import { TestRedis } from "./redis.js";

let redis: TestRedis;
let nodes: readonly [TestServer, TestServer, TestServer];
const cleanUp: (() => unknown)[] = [];

async function startNode(variables: Record<string, string> = {}): Promise<TestServer> {
  return startTestServer({
    REDIS_HOSTS: redis.address,
    REDIS_PREFIX: "pandapush:",
    ...variables,
  });
}

beforeAll(async () => {
  redis = await TestRedis.start();
  nodes = [await startNode(), await startNode(), await startNode()];
});
afterEach(async () => {
  for (const each of cleanUp.splice(0).reverse()) await each();
});
afterAll(async () => {
  for (const node of nodes) await node.close();
  await redis.stop();
});

/** Whoever asks it for an address gets the next node's. */
function roundRobin(...servers: readonly TestServer[]) {
  let asked = 0;
  const next = (): TestServer => servers[asked++ % servers.length] as TestServer;
  return {
    get url() {
      return next().url;
    },
    get pushUrl() {
      return next().pushUrl;
    },
    get wsUrl() {
      return next().wsUrl;
    },
  };
}

async function publish(server: { url: string }, channel: string, data: unknown): Promise<void> {
  const basic = Buffer.from(`${keyId}:${secret}`).toString("base64");
  const headers = { Authorization: `Basic ${basic}`, "Content-Type": "application/json" };
  const body = JSON.stringify(data);
  const { status } = await http(server, `/channel${channel}`, { method: "POST", headers, body });
  expect(status).toBe(200);
}

const dataOf = (messages: readonly { readonly data?: unknown }[]): unknown[] =>
  messages.flatMap(({ data }) => (data === undefined ? [] : [data]));

test("a client handshakes at one node, opens its socket at another, and posts its subscribe to a third", async () => {
  const [first, second, third] = nodes;
  const poster = await Poller.connect(first);
  const socket = await Socket.open(second);
  cleanUp.push(() => socket.close());
  socket.clientId = poster.clientId;
  socket.sendConnect();
  const channel = freshChannel();
  const elsewhere = new Poller(third);
  elsewhere.clientId = poster.clientId;
  expect(await elsewhere.subscribe(channel)).toMatchObject({ successful: true });
  for (const node of nodes) await publish(node, channel, node.port);
  for (const { port } of nodes) expect((await socket.event()).data).toBe(port);
});

describe("a poller whose every request reaches another node", () => {
  test("hears everything once and in order", async () => {
    const poller = await Poller.connect(roundRobin(...nodes));
    const channel = freshChannel();
    expect(await poller.subscribe([channel, `/${appId}/public/**`])).toMatchObject({
      successful: true,
    });
    const heard: unknown[] = [];
    const all = Array.from({ length: 40 }, (_, index) => index);
    const publishing = (async () => {
      const publishers = roundRobin(...nodes);
      for (const index of all) await publish(publishers, channel, index);
    })();
    while (heard.length < all.length) heard.push(...dataOf(await poller.poll()));
    await publishing;
    expect(heard).toEqual(all);
  });

  test("is answered at once, unsubscribes, disconnects, and is then unknown", async () => {
    const poller = await Poller.connect(roundRobin(...nodes));
    const channel = freshChannel();
    await poller.subscribe(channel);
    expect(await poller.poll({ advice: { timeout: 0 } })).toMatchObject([{ successful: true }]);
    expect(await poller.ask({ channel: "/meta/unsubscribe", subscription: channel })).toMatchObject(
      { successful: true },
    );
    await publish(nodes[0], channel, "unheard");
    expect(dataOf(await poller.poll({ advice: { timeout: 0 } }))).toEqual([]);
    expect(await poller.ask({ channel: "/meta/disconnect" })).toMatchObject({ successful: true });
    const [reply] = await poller.poll();
    expect(reply).toMatchObject({
      successful: false,
      error: `401:${poller.clientId}:Unknown client`,
      advice: { reconnect: "handshake" },
    });
  });

  test("whose held poll is superseded has it answered, at whichever node it is", async () => {
    const poller = await Poller.connect(roundRobin(...nodes));
    const channel = freshChannel();
    await poller.subscribe(channel);
    const later = new Poller(nodes[2]);
    later.clientId = poller.clientId;
    // Nobody knows which of them comes first.
    const polls = [poller.poll(), later.poll()].map(async (poll) => dataOf(await poll));
    expect(await Promise.race(polls)).toEqual([]);
    await publish(nodes[1], channel, "news");
    expect((await Promise.all(polls)).flat()).toEqual(["news"]);
  });

  test("who cuts its poll off gets what it missed with the next", async () => {
    const poller = await Poller.connect(nodes[0]);
    const elsewhere = new Poller(nodes[1]);
    elsewhere.clientId = poller.clientId;
    const channel = freshChannel();
    await poller.subscribe(channel);
    for (let round = 0; round < 20; round++) {
      const cut = new AbortController();
      const poll = elsewhere.poll({}, { signal: cut.signal }).then(dataOf, () => "cut");
      // Answered behind the poll, and then behind its end.
      await elsewhere.ask({ channel: "/meta/unsubscribe", subscription: `${channel}-none` });
      cut.abort();
      expect(await poll).toBe("cut");
      await elsewhere.ask({ channel: "/meta/unsubscribe", subscription: `${channel}-none` });
      await publish(nodes[2], channel, round);
      expect(dataOf(await poller.poll())).toEqual([round]);
    }
  });

  test("a bogus client is unknown everywhere", async () => {
    for (const clientId of [
      "x",
      "a".repeat(39),
      nodes[0].url,
      `${"z".repeat(8)}${"1".repeat(31)}`,
    ]) {
      const poller = new Poller(nodes[1]);
      poller.clientId = clientId;
      for (const message of [
        { channel: "/meta/connect", connectionType: "long-polling" },
        { channel: "/meta/subscribe", subscription: freshChannel() },
        { channel: "/meta/disconnect" },
      ]) {
        // On a Redis that is new to them, nodes wait for who may still live.
        await expect
          .poll(async () => (await poller.ask(message)).error, { timeout: 10_000 })
          .toBe(`401:${clientId}:Unknown client`);
      }
    }
  });
});

describe("a socket", () => {
  test("that comes back at another node goes on where the last one ended, again and again", async () => {
    const channel = freshChannel();
    let socket = await Socket.connect(nodes[0]);
    const { clientId } = socket;
    await socket.subscribe([channel, `/${appId}/public/*`]);
    const heard: unknown[] = [];
    const all = Array.from({ length: 300 }, (_, index) => index);
    let isPublishing = true;
    const publishing = (async () => {
      const publishers = roundRobin(...nodes);
      for (const index of all) await publish(publishers, channel, index);
      isPublishing = false;
    })();
    for (let round = 1; isPublishing; round++) {
      const next = await Socket.open(nodes[round % 3] as TestServer);
      next.clientId = clientId;
      next.sendConnect();
      // Its events come here from now on; what the last one was sent has come there.
      await socket.closing();
      heard.push(...dataOf(socket.received));
      socket = next;
      const before = heard.length;
      for (let count = 0; count < 5 && heard.length - before + count < all.length; count++) {
        if (!isPublishing) break;
        heard.push((await socket.event(channel)).data);
      }
    }
    await publishing;
    while (heard.length < all.length) heard.push((await socket.event(channel)).data);
    socket.close();
    expect(heard).toEqual(all);
  });

  test("keeps its place on a presence channel when it comes back at another node", async () => {
    const room = `/${appId}/presence/${freshChannel().split("/").pop()}`;
    const auth = (id: string) => ({
      auth: { token: token({ channel: room, sub: true, presence: { id } }) },
    });
    const watcher = await Socket.connect(nodes[2]);
    cleanUp.push(() => watcher.close());
    await watcher.subscribe(room, auth("watcher"));
    const socket = await Socket.connect(nodes[0]);
    await socket.subscribe(room, auth("traveller"));
    expect((await watcher.event()).data).toEqual({ subscribe: { traveller: { id: "traveller" } } });
    const next = await Socket.open(nodes[1]);
    next.clientId = socket.clientId;
    next.sendConnect();
    await socket.closing();
    await publish(nodes[0], room, "hello");
    expect((await next.event()).data).toBe("hello");
    expect((await watcher.event()).data).toBe("hello");
    await next.ask({ channel: "/meta/disconnect" });
    expect((await watcher.event()).data).toEqual({ unsubscribe: { traveller: null } });
  });
});

describe("a session on its way to another node is not unknown", () => {
  const asked = { channel: "/meta/unsubscribe", subscription: freshChannel() };

  function posterAt(node: TestServer, clientId: string): Poller {
    const poller = new Poller(node);
    poller.clientId = clientId;
    return poller;
  }

  /** It lives at that node when this resolves. */
  async function attach(node: TestServer, clientId: string): Promise<Socket> {
    const socket = await Socket.open(node);
    cleanUp.push(() => socket.close());
    socket.clientId = clientId;
    const connect = {
      channel: "/meta/connect",
      connectionType: "websocket",
      advice: { timeout: 0 },
    };
    expect(await socket.ask(connect)).toMatchObject({ successful: true });
    return socket;
  }

  test.each([1, 2])(
    "to who asks where it comes to, and looks for it meanwhile, at look %i",
    async (look) => {
      const [there, , here] = nodes;
      const birthplace = await startNode();
      const { clientId } = await Poller.connect(birthplace);
      await attach(there, clientId);
      await birthplace.close();
      // Whoever asked its first node would be told where it is.
      const stranger = posterAt(here, clientId.slice(0, 8).padEnd(39, "x"));
      await expect
        .poll(async () => (await stranger.ask(asked)).error, { timeout: 10_000 })
        .toMatch(/^401:/);

      const { command } = RedisHost.prototype;
      const gates: (() => void)[] = [];
      const spy = vi.spyOn(RedisHost.prototype, "command");
      cleanUp.push(() => spy.mockRestore());
      let looks = 0;
      const isLooking = new Promise<void>((resolve) => {
        spy.mockImplementation(async function (this: RedisHost, ...args: string[]) {
          if (args[0] === "GET" && args[1]?.includes("moved") && ++looks === look) {
            const opened = new Promise<void>((open) => gates.push(open));
            resolve();
            await opened;
          }
          return command.apply(this, args);
        });
      });
      const asking = posterAt(here, clientId).ask(asked);
      await isLooking;
      await attach(here, clientId);
      for (const open of gates) open();
      expect(await asking).toMatchObject({ successful: true });
    },
  );

  test("when its owner has given up waiting for that", async () => {
    const { clientId } = await Poller.connect(nodes[0]);
    const { ask } = Peers.prototype;
    const spy = vi.spyOn(Peers.prototype, "ask");
    cleanUp.push(() => spy.mockRestore());
    let hasGivenUp = false;
    spy.mockImplementation(async function (this: Peers, nodeId, kind, body, timeoutMs) {
      if (kind === "take" && !hasGivenUp) {
        hasGivenUp = true;
        await ask.call(this, nodeId, "leave it", body);
      }
      return ask.call(this, nodeId, kind, body, timeoutMs);
    });
    await attach(nodes[1], clientId);
    expect(hasGivenUp).toBe(true);
  });

  test("to whom its former node held a poll, and dies", async () => {
    const birthplace = await startNode();
    const { clientId } = await Poller.connect(birthplace);
    const poller = posterAt(nodes[0], clientId);
    const held = poller.poll({ advice: { timeout: 20_000 } });
    // The owner has it when it answers what came behind it.
    expect(await poller.ask(asked)).toMatchObject({ successful: true });
    const { ask } = Peers.prototype;
    const spy = vi.spyOn(Peers.prototype, "ask");
    cleanUp.push(() => spy.mockRestore());
    spy.mockImplementation(async function (this: Peers, nodeId, kind, body, timeoutMs) {
      if (kind === "answer") throw new PeerUnavailable("it is lost");
      return ask.call(this, nodeId, kind, body, timeoutMs);
    });
    await attach(nodes[1], clientId);
    await birthplace.close();
    expect((await held)[0]).toMatchObject({
      successful: false,
      error: `503:${clientId}:Service unavailable`,
      advice: { reconnect: "retry" },
    });
  });
});
