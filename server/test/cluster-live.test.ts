/** What nodes that share Redis tell of an application is true for all of them. */
import type { AppId, KeyId } from "@pandapush/protocol";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test, vi } from "vitest";
import {
  type Message,
  Socket,
  secret,
  startTestServer,
  type TestServer,
  token,
} from "./harness.js";
import { startChildServer } from "./hostile/child.js";
import { http } from "./protocol/peers.js";
import { StallingProxy, TestRedis } from "./redis.js";

let redis: TestRedis;
let nodes: readonly [TestServer, TestServer, TestServer];
/** An application and a key of its own for each test. */
let app: AppId;
let key: KeyId;
let count = 0;
const cleanUp: (() => unknown)[] = [];

const soon = { timeout: 10_000, interval: 20 };
const startNode = (variables: Record<string, string> = {}): Promise<TestServer> =>
  startTestServer({
    REDIS_HOSTS: redis.address,
    REDIS_PREFIX: "pandapush:",
    STATISTICS_INTERVAL_MS: "400",
    ...variables,
  });

beforeAll(async () => {
  redis = await TestRedis.start();
  nodes = [await startNode(), await startNode(), await startNode()];
  await addApplication(nodes);
}, 60_000);
beforeEach(() => addApplication(nodes));
afterEach(async () => {
  for (const each of cleanUp.splice(0).reverse()) await each();
});
afterAll(async () => {
  for (const node of nodes) await node.close();
  await redis.stop();
});

async function addApplication(to: readonly TestServer[]): Promise<void> {
  count++;
  app = `app${count}` as AppId;
  key = `PSIDapp${count}` as KeyId;
  for (const node of to) await copyApplication(node);
}

/** Nodes of these tests have a database each. */
async function copyApplication({ store, keys }: TestServer): Promise<void> {
  await store.addApplication({ id: app, name: null, createdBy: "test" });
  const fields = { appId: app, secret, createdBy: "test", purpose: null, expires: null };
  await store.addKey({ id: key, ...fields });
  await keys.changed();
}

interface Answer {
  readonly status: number;
  readonly total: number;
  readonly incomplete: string | undefined;
  readonly json: Json;
  readonly list: readonly Json[];
}
type Json = Readonly<Record<string, unknown>>;

async function ask(node: { url: string }, path: string, method = "GET"): Promise<Answer> {
  const authorization = `Basic ${Buffer.from(`${key}:${secret}`).toString("base64")}`;
  const { status, headers, body } = await http(node, `/api/${app}${path}`, {
    method,
    headers: { authorization },
  });
  const json = JSON.parse(body) as Json & Json[];
  const incomplete = headers["x-incomplete"] as string | undefined;
  return { status, total: Number(headers["x-total-count"]), incomplete, json, list: json };
}

async function connect(node: { wsUrl: string }): Promise<Socket> {
  const socket = await Socket.connect(node);
  cleanUp.push(() => socket.close());
  return socket;
}

const present = (channel: string, id: string) => ({
  auth: { token: token({ keyId: key, channel, sub: true, presence: { id } }) },
});
const listener = () => ({ auth: { key, secret } });

async function subscribe(socket: Socket, channel: string, ext: object = listener()): Promise<void> {
  expect(await socket.subscribe(channel, ext)).toMatchObject({ successful: true });
}

/** What a client is told of a subscription that the server ended. */
const ended = (socket: Socket) =>
  socket.next(({ id, error }) => id === undefined && error !== undefined);

describe("whichever node is asked", () => {
  test("it lists the channels of all, the busiest first, in pages", async () => {
    const [one, two, three] = await Promise.all(nodes.map(connect));
    for (const socket of [one, two, three]) await subscribe(socket as Socket, `/${app}/private/z`);
    for (const socket of [one, three]) await subscribe(socket as Socket, `/${app}/public/b`);
    for (const socket of [two]) await subscribe(socket as Socket, `/${app}/public/**`);
    for (let n = 0; n < 9; n++) {
      await subscribe([one, two, three][n % 3] as Socket, `/${app}/public/c/${n}`);
    }
    const all = [
      { channel: `/${app}/private/z`, subscribers: 3 },
      { channel: `/${app}/public/b`, subscribers: 2 },
      { channel: `/${app}/public/**`, subscribers: 1 },
      ...Array.from({ length: 9 }, (_, n) => ({
        channel: `/${app}/public/c/${n}`,
        subscribers: 1,
      })),
    ];
    for (const node of nodes) {
      const answer = await ask(node, "/channels");
      expect(answer).toMatchObject({ status: 200, total: 12, incomplete: undefined });
      expect(answer.list).toEqual(all);
      const pages: Json[] = [];
      for (let offset = 0; offset < 15; offset += 5) {
        pages.push(...(await ask(node, `/channels?limit=5&offset=${offset}`)).list);
      }
      expect(pages).toEqual(all);
      const some = await ask(node, "/channels?prefix=public/c&limit=2");
      expect([some.total, some.list]).toEqual([9, all.slice(3, 5)]);
    }
  });

  test("it counts who is subscribed to a channel, and who hears it", async () => {
    const [one, two, three] = await Promise.all(nodes.map(connect));
    const channel = `/${app}/public/a/b`;
    await subscribe(one as Socket, channel);
    await subscribe(two as Socket, channel);
    await subscribe(two as Socket, `/${app}/public/**`);
    await subscribe(three as Socket, `/${app}/public/a/*`);
    for (const node of nodes) {
      expect((await ask(node, "/channels/public/a/b")).json).toEqual({
        channel,
        subscribers: 2,
        listeners: 3,
      });
      expect((await ask(node, "/channels/public/**")).json).toMatchObject({ listeners: 1 });
    }
  });

  test("it lists who is present once", async () => {
    const room = `/${app}/presence/room`;
    for (const id of ["ann", "ben", "ann"]) {
      await subscribe(await connect(nodes[0]), room, present(room, id));
    }
    const members = { ann: { id: "ann" }, ben: { id: "ben" } };
    expect((await ask(nodes[0], "/presence/room")).json).toEqual({ channel: room, members });
    const info = { channel: room, subscribers: 3, members: 2 };
    expect((await ask(nodes[0], "/channels")).list).toEqual([info]);
    expect((await ask(nodes[0], "/channels/presence/room")).json).toEqual({
      ...info,
      listeners: 3,
    });
  });

  test("it lists the connections of all, the newest first, in pages", async () => {
    for (let n = 0; n < 12; n++) {
      await subscribe(await connect(nodes[(n * 7) % 3] as TestServer), `/${app}/public/c${n % 2}`);
    }
    const whole = await ask(nodes[0], "/connections");
    expect(whole).toMatchObject({ total: 12, incomplete: undefined });
    const times = whole.list.map(({ since }) => String(since));
    expect(times).toEqual([...times].sort().reverse());
    expect(new Set(whole.list.map(({ id }) => id)).size).toBe(12);
    for (const node of nodes) {
      const pages: Json[] = [];
      for (let offset = 0; offset < 15; offset += 5) {
        const page = await ask(node, `/connections?limit=5&offset=${offset}`);
        expect(page.total).toBe(12);
        pages.push(...page.list);
      }
      expect(pages).toEqual(whole.list);
      const found = await ask(node, "/connections?search=public/C1&limit=4&offset=4");
      const fitting = whole.list.filter(({ subscriptions }) =>
        String(subscriptions).endsWith("c1"),
      );
      expect([found.total, found.list]).toEqual([6, fitting.slice(4, 8)]);
    }
  });

  test("it shows connections with more subscriptions than fit into what one node tells another", async () => {
    const long = "x".repeat(200);
    for (let n = 0; n < 30; n++) {
      const names = Array.from({ length: 100 }, (_, each) => `/${app}/public/${long}/${each}`);
      await (await connect(nodes[1])).subscribe(names);
    }
    const { list, incomplete } = await ask(nodes[0], "/connections?limit=200");
    expect(incomplete).toBeUndefined();
    expect(new Set(list.map(({ id }) => id)).size).toBe(30);
    expect(list).toEqual((await ask(nodes[1], "/connections?limit=200")).list);
  });

  test("it says so when there are more channels than one node tells another", async () => {
    const long = "x".repeat(400);
    const socket = await connect(nodes[1]);
    for (let n = 0; n < 14; n++) {
      const names = Array.from({ length: 100 }, (_, each) => `/${app}/public/${n}/${long}${each}`);
      expect(await socket.subscribe(names)).toMatchObject({ successful: true });
    }
    const all = await ask(nodes[0], "/channels?limit=3");
    expect([all.total, all.list.length]).toEqual([1_400, 3]);
    expect(all.incomplete).toMatch(/more channels .* ask for those with a prefix$/);
    const some = await ask(nodes[0], "/channels?limit=3&prefix=public/13/");
    expect(some).toMatchObject({ total: 100, incomplete: undefined });
  });

  test("[SUB-8] it disconnects who is at another", async () => {
    const [one, two] = [await connect(nodes[0]), await connect(nodes[1])];
    const room = `/${app}/presence/room`;
    await subscribe(one, room, present(room, "ann"));
    await subscribe(two, room, present(room, "ann"));
    await subscribe(two, `/${app}/public/a`);
    const { list } = await ask(nodes[2], "/connections?search=public/a");
    const path = `/connections/${list[0]?.id}/disconnect`;
    expect((await ask(nodes[2], path, "POST")).json).toEqual({ disconnected: 1 });
    for (const subscription of [room, `/${app}/public/a`]) {
      expect(await ended(two)).toMatchObject({ subscription, error: "Disconnected" });
    }
    expect((await ask(nodes[2], path, "POST")).status).toBe(404);
    await subscribe(two, room, present(room, "ann"));
    const ann = "/users/ann/disconnect";
    expect((await ask(nodes[2], ann, "POST")).json).toEqual({ disconnected: 2 });
    for (const socket of [one, two]) {
      expect(await ended(socket)).toMatchObject({ subscription: room, error: "Disconnected" });
    }
    expect((await ask(nodes[1], ann, "POST")).json).toEqual({ disconnected: 0 });
    expect((await ask(nodes[0], "/connections")).list).toEqual([]);
  });

  test("[SUB-8] it disconnects once who is on the way from one to another", async () => {
    const room = `/${app}/presence/room`;
    const sockets = [await connect(nodes[0])];
    const isEnd = ({ id, error }: Message): boolean => id === undefined && error === "Disconnected";
    const ends = (): number => sockets.flatMap(({ received }) => received.filter(isEnd)).length;
    for (let round = 1; round <= 30; round++) {
      const now = sockets.at(-1) as Socket;
      await subscribe(now, room, present(room, "ann"));
      const next = await Socket.open(nodes[round % 2] as TestServer);
      cleanUp.push(() => next.close());
      next.clientId = now.clientId;
      sockets.push(next);
      next.sendConnect();
      const answer = await ask(nodes[2], "/users/ann/disconnect", "POST");
      expect(answer.json, `round ${round}`).toEqual({ disconnected: 1 });
      // It is told by whichever socket it has at that moment.
      await vi.waitFor(() => expect(ends()).toBe(round), soon);
      expect((await ask(nodes[2], "/presence/room")).json.members).toEqual({});
    }
  });

  test("it lists what any of them refused, equal ones together, the last first", async () => {
    const sockets = await Promise.all(nodes.map(connect));
    for (const name of ["a", "b", "a"]) {
      for (const socket of sockets) await socket.subscribe(`/${app}/private/${name}`);
      // What happens in one millisecond has no order over nodes.
      const { now } = Date;
      for (const end = now(); now() === end; );
    }
    await sockets[1]?.subscribe(`/${app}/private/c`);
    for (const node of nodes) {
      const { list, total } = await ask(node, "/refusals");
      const shown = list.map(({ channel, count: times }) => [channel, times]);
      expect([total, shown]).toEqual([
        3,
        [
          [`/${app}/private/c`, 1],
          [`/${app}/private/a`, 6],
          [`/${app}/private/b`, 3],
        ],
      ]);
      expect((await ask(node, "/refusals?limit=1&offset=1")).list).toEqual(list.slice(1, 2));
    }
  });
});

describe("a node that does not answer", () => {
  test("is said to be missing, until it is known to be dead", async () => {
    const proxy = await StallingProxy.start(redis.port);
    cleanUp.push(() => proxy.close());
    const cutOff = await startNode({ REDIS_HOSTS: proxy.address });
    cleanUp.push(() => cutOff.close());
    await copyApplication(cutOff);
    const channel = `/${app}/public/a`;
    for (const node of [nodes[0], nodes[1], cutOff]) await subscribe(await connect(node), channel);
    await subscribe(await connect(cutOff), `/${app}/public/theirs`);
    const { list } = await ask(nodes[0], "/connections");
    const [theirs] = (await ask(nodes[0], "/connections?search=theirs")).list;
    expect(list).toHaveLength(4);

    proxy.stall();
    cleanUp.push(() => proxy.goOn());
    const incomplete = "1 of 4 nodes did not answer";
    const answers = await Promise.all([
      ask(nodes[0], "/channels"),
      ask(nodes[0], "/channels/public/a"),
      ask(nodes[0], "/connections"),
      ask(nodes[0], "/refusals"),
      ask(nodes[0], "/users/ann/disconnect", "POST"),
      ask(nodes[0], `/connections/${theirs?.id}/disconnect`, "POST"),
    ]);
    const [channels, info, connections, refusals, user, one] = answers;
    for (const answer of [channels, info, connections, refusals, user]) {
      expect(answer).toMatchObject({ status: 200, incomplete });
    }
    expect(channels?.list).toEqual([{ channel, subscribers: 2 }]);
    expect(info?.json).toMatchObject({ subscribers: 2, listeners: 2 });
    expect(connections).toMatchObject({ total: 2, list: [{}, {}] });
    expect(one).toMatchObject({
      status: 503,
      json: { details: expect.stringContaining(incomplete) },
    });

    const isIncomplete = async () => (await ask(nodes[0], "/channels")).incomplete !== undefined;
    await expect.poll(isIncomplete, { timeout: 30_000 }).toBe(false);
    proxy.goOn();
    // It has learned that it was dead, and has nobody any more.
    const subscribers = async () => (await ask(cutOff, "/channels/public/a")).json;
    await expect.poll(subscribers, soon).toMatchObject({ subscribers: 2 });
    expect((await ask(cutOff, "/connections")).total).toBe(2);
  }, 60_000);
});

describe("[META-1] statistics", () => {
  const hear = async (node: { wsUrl: string }): Promise<Socket> => {
    const socket = await connect(node);
    await subscribe(socket, `/${app}/meta/statistics`);
    return socket;
  };
  interface Heard {
    readonly id: string;
    /** Which node published it. */
    readonly from: string;
    readonly numbers: Readonly<Record<string, number>>;
  }
  const nextOf = async (socket: Socket): Promise<Heard> => {
    const channel = `/${app}/meta/statistics`;
    const { id, data } = await socket.next((each) => each.channel === channel, 10_000);
    const text = String(id);
    return {
      id: text,
      from: text.slice(0, text.indexOf("-")),
      numbers: data as Heard["numbers"],
    };
  };
  const several = async (socket: Socket, many: number): Promise<Heard[]> => {
    const heard: Heard[] = [];
    while (heard.length < many) heard.push(await nextOf(socket));
    return heard;
  };
  /** Two at a time would take turns all the time; one is followed by another when it is late. */
  const isOneAtATime = (events: readonly Heard[]): boolean =>
    events.filter(({ from }, index) => from !== events[index - 1]?.from).length <=
    events.length / 2;
  const untilFits = async (socket: Socket, fits: (numbers: Heard["numbers"]) => boolean) => {
    for (let tries = 0; tries < 20; tries++) {
      const heard = await nextOf(socket);
      if (fits(heard.numbers)) return heard;
    }
    throw new Error("They never fitted");
  };

  test("are one event for all, with the totals of all nodes", async () => {
    const [one, two] = [await hear(nodes[0]), await hear(nodes[1])];
    const elsewhere = await connect(nodes[2]);
    const channel = `/${app}/public/a`;
    for (const socket of [one, two, elsewhere]) await subscribe(socket, channel);
    await subscribe(elsewhere, `/${app}/public/*`);
    for (const socket of [one, two, elsewhere, elsewhere]) {
      await socket.publish(channel, "news", listener());
    }
    for (const socket of [one, two, elsewhere]) {
      for (let n = 0; n < 4; n++) await socket.event(channel);
    }
    let rate = 0;
    const exact = { connections: 3, subscriptions: 6, channels: 3, published: 4 };
    await untilFits(one, (numbers) => {
      rate += numbers.publishedPerSecond ?? 0;
      const { delivered = 0 } = numbers;
      return delivered >= 12 && Object.entries(exact).every(([name, n]) => numbers[name] === n);
    });
    for (const { numbers } of await several(one, 4)) rate += numbers.publishedPerSecond ?? 0;
    expect(rate).toBeGreaterThan(0);

    // Both hear the same.
    const events = await several(one, 8);
    expect(isOneAtATime(events)).toBe(true);
    const [first] = events;
    while ((await nextOf(two)).id !== first?.id);
    for (const { id } of events.slice(1)) expect((await nextOf(two)).id).toBe(id);
  });

  test("come from another node when theirs leaves, one at a time", async () => {
    const leaving = await startNode();
    let isOpen = true;
    const close = async (): Promise<void> => {
      if (isOpen) await leaving.close();
      isOpen = false;
    };
    cleanUp.push(close);
    await copyApplication(leaving);
    // Whoever is there first publishes them.
    const first = await hear(leaving);
    const { from } = await nextOf(first);
    const [one, two] = [await hear(nodes[0]), await hear(nodes[1])];
    await untilFits(one, ({ connections }) => connections === 3);
    await close();
    const events = [await nextOf(one)];
    while (events.at(-1)?.from === from) events.push(await nextOf(one));
    const later = await several(one, 8);
    expect(later.filter((each) => each.from === from)).toEqual([]);
    expect(isOneAtATime(later)).toBe(true);
    // Its session has gone to another node; on the way it may be counted at both.
    for (const { numbers } of [...events, ...later]) {
      expect(numbers.connections).toBeLessThanOrEqual(4);
    }
    await untilFits(one, ({ connections, subscriptions, channels }) =>
      [3, 3, 1].every((each, index) => each === [connections, subscriptions, channels][index]),
    );
    const { id } = await nextOf(one);
    await two.next((message) => message.id === id);
  });

  test("come from another node when theirs is killed", async () => {
    const killed = await startChildServer({
      REDIS_HOSTS: redis.address,
      REDIS_PREFIX: "pandapush:",
      STATISTICS_INTERVAL_MS: "400",
      DEV_APPLICATION_ID: app,
      DEV_KEY_ID: key,
    });
    cleanUp.push(() => killed.stop());
    const first = await hear(killed);
    const { from } = await nextOf(first);
    const one = await hear(nodes[0]);
    await untilFits(one, ({ connections }) => connections === 2);
    killed.process.kill("SIGKILL");
    await first.closing();
    const answers = await Promise.all(nodes.map((node) => ask(node, "/connections")));
    for (const { total, incomplete } of answers) {
      expect([total, incomplete]).toEqual([1, "1 of 4 nodes did not answer"]);
    }
    while ((await nextOf(one)).from === from);
    expect(isOneAtATime(await several(one, 8))).toBe(true);
    await untilFits(one, ({ connections }) => connections === 1);
    await vi.waitFor(
      async () => expect((await ask(nodes[0], "/connections")).incomplete).toBeUndefined(),
      { timeout: 20_000, interval: 100 },
    );
  }, 60_000);

  test("come from another node when theirs is cut off, one at a time", async () => {
    const proxy = await StallingProxy.start(redis.port);
    cleanUp.push(() => proxy.close());
    const cutOff = await startNode({ REDIS_HOSTS: proxy.address });
    cleanUp.push(() => cutOff.close());
    await copyApplication(cutOff);
    const first = await hear(cutOff);
    const { from } = await nextOf(first);
    const one = await hear(nodes[0]);
    await untilFits(one, ({ connections }) => connections === 2);
    proxy.stall();
    cleanUp.push(() => proxy.goOn());
    while ((await nextOf(one)).from === from);
    await untilFits(one, ({ connections }) => connections === 1);
    proxy.goOn();
    expect(isOneAtATime(await several(one, 8))).toBe(true);
    await untilFits(one, ({ connections }) => connections === 2);
  });
});

// The last one: those that leave are asked until it is known that they did.
test("[CON-12] whoever has just started is known to all others", async () => {
  const sockets: Socket[] = [];
  for (let count = nodes.length; count < nodes.length + 3; count++) {
    const late = await startNode();
    cleanUp.push(() => late.close());
    await copyApplication(late);
    sockets.push(await connect(late));
    await subscribe(sockets.at(-1) as Socket, `/${app}/public/late`);
    for (const node of nodes) {
      const { json } = await ask(node, "/channels/public/late");
      expect(json.subscribers).toBe(sockets.length);
    }
  }
});
