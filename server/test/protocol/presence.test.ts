/** PRES and META: who is on a channel, and what an application does. */
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import {
  appId,
  keyAuth,
  type Message,
  Poller,
  Socket,
  startTestServer,
  type TestServer,
  token,
} from "../harness.js";
import { eventsBefore, freshChannel, member, type Peer, transports } from "./peers.js";

let server: TestServer;
const quickMs = 600;
let quick: TestServer;
beforeAll(async () => {
  server = await startTestServer({
    MAX_PRESENCE_BYTES: "200",
    MAX_PRESENCE_MEMBERS: "20",
    STATISTICS_INTERVAL_MS: "100",
  });
  quick = await startTestServer({ BAYEUX_TIMEOUT_MS: String(quickMs) });
});
afterAll(async () => {
  await server.close();
  await quick.close();
});

function members(reply: Message): object | undefined {
  return (reply.ext?.presence as { subscribe?: object } | undefined)?.subscribe;
}

describe.each(transports)("over %s", (_name, connect) => {
  test("[PRES-1] a token must say who subscribes; a key alone or a plain token does not", async () => {
    const peer = await connect(server);
    const channel = freshChannel("presence");
    const error = "No presence id specified in presence subscription";
    expect((await peer.subscribe(channel, keyAuth)).error).toBe(error);
    for (const presence of [
      undefined,
      null,
      {},
      { id: "" },
      { id: null },
      { id: {} },
      "x",
      ["id"],
    ]) {
      expect((await peer.subscribe(channel, member(channel, presence))).error).toBe(error);
    }
    expect((await peer.subscribe(channel)).error).toBe("No auth supplied");
  });

  test("[PRES-2] the reply lists all members with what they said, the new one too", async () => {
    const channel = freshChannel("presence");
    const presences = [{ id: "b", name: "Zoë", nested: { a: [1] } }, { id: 7 }, { id: "a" }];
    const expected: Record<string, unknown> = {};
    for (const presence of presences) {
      expected[String(presence.id)] = presence;
      const peer = await connect(server);
      const reply = await peer.subscribe(channel, member(channel, presence));
      expect(members(reply)).toEqual(expected);
    }
  });

  test("[PRES-2] ids such as __proto__ are ids as any other", async () => {
    const channel = freshChannel("presence");
    const watcher = await connect(server);
    await watcher.subscribe(channel, member(channel, { id: "watcher" }));
    const ids = ["__proto__", "constructor", "toString", "hasOwnProperty", 'a"b', "é\u2028", " "];
    for (const id of ids) {
      const peer = await connect(server);
      const reply = await peer.subscribe(channel, member(channel, { id }));
      expect(Object.keys(members(reply) ?? {})).toContain(id);
      const joined = (await watcher.event()).data as { subscribe: object };
      expect(Object.entries(joined.subscribe)).toEqual([[id, { id }]]);
      await peer.disconnect();
      const left = (await watcher.event()).data as { unsubscribe: object };
      expect(Object.entries(left.unsubscribe)).toEqual([[id, null]]);
    }
  });

  test("[PRES-3] [PRES-4] others hear of a join, the joiner does not", async () => {
    const channel = freshChannel("presence");
    const [first, second] = [await connect(server), await connect(server)];
    await first.subscribe(channel, member(channel, { id: "one" }));
    await second.subscribe(channel, member(channel, { id: "two", x: 1 }));
    await first.publish(channel, "marker");
    expect(await first.event()).toEqual({
      channel,
      data: { subscribe: { two: { id: "two", x: 1 } } },
      id: expect.any(String),
    });
    expect((await first.event()).data).toBe("marker");
    expect((await second.event()).data).toBe("marker");
  });

  test("[PRES-5] the same user again is not announced, and the newest object counts", async () => {
    const channel = freshChannel("presence");
    const [watcher, first, second, third] = [
      await connect(server),
      await connect(server),
      await connect(server),
      await connect(server),
    ];
    await watcher.subscribe(channel, member(channel, { id: "watcher" }));
    await first.subscribe(channel, member(channel, { id: "user", mood: "old" }));
    await watcher.event();
    const again = await second.subscribe(channel, member(channel, { id: "user", mood: "new" }));
    const both = { watcher: { id: "watcher" }, user: { id: "user", mood: "new" } };
    expect(members(again)).toEqual(both);
    await first.subscribe(channel, member(channel, { id: "user", mood: "newest" }));
    const reply = await third.subscribe(channel, member(channel, { id: "third" }));
    expect(members(reply)).toMatchObject({ user: { mood: "newest" } });
    expect((await watcher.event()).data).toEqual({ subscribe: { third: { id: "third" } } });
  });

  test("[PRES-6] a user leaves with the last session, at once when that ends in order", async () => {
    const channel = freshChannel("presence");
    const [watcher, tab, otherTab] = [
      await connect(server),
      await connect(server),
      await connect(server),
    ];
    await watcher.subscribe(channel, member(channel, { id: "watcher" }));
    await tab.subscribe(channel, member(channel, { id: "user" }));
    await otherTab.subscribe(channel, member(channel, { id: "user" }));
    await watcher.event();
    await tab.ask({ channel: "/meta/unsubscribe", subscription: channel });
    await watcher.publish(channel, "marker");
    expect((await watcher.event()).data).toBe("marker");
    const start = performance.now();
    await otherTab.disconnect();
    expect(await watcher.event()).toEqual({
      channel,
      data: { unsubscribe: { user: null } },
      id: expect.any(String),
    });
    expect(performance.now() - start).toBeLessThan(1_000);
    const reply = await tab.subscribe(channel, member(channel, { id: "tab" }));
    expect(members(reply)).toEqual({ watcher: { id: "watcher" }, tab: { id: "tab" } });
  });

  test("[PRES-6] a user whose connection is lost leaves when the session expires", async () => {
    const channel = freshChannel("presence");
    const watcher = await Socket.connect(quick);
    await watcher.subscribe(channel, member(channel, { id: "watcher" }));
    const lost = await connect(quick);
    await lost.subscribe(channel, member(channel, { id: "lost" }));
    await watcher.event();
    const left = watcher.event(channel);
    let hasLeft = false;
    const noted = left.then(({ data }) => {
      hasLeft = true;
      expect(data).toEqual({ unsubscribe: { lost: null } });
    });
    // The watcher lives on by its connects, the other one sends none.
    while (!hasLeft) {
      const reply = watcher.next((message) => message.channel === "/meta/connect");
      await Promise.race([reply, noted]);
      if (!hasLeft) watcher.sendConnect();
    }
    await noted;
  });

  test("[PRES-7] a client that changes its id leaves under the old one, and hears neither", async () => {
    const channel = freshChannel("presence");
    const [watcher, peer] = [await connect(server), await connect(server)];
    await watcher.subscribe(channel, member(channel, { id: "watcher" }));
    await peer.subscribe(channel, member(channel, { id: "old" }));
    const reply = await peer.subscribe(channel, member(channel, { id: "new" }));
    expect(members(reply)).toEqual({ watcher: { id: "watcher" }, new: { id: "new" } });
    await watcher.publish(channel, "marker");
    expect((await peer.event()).data).toBe("marker");
    const heard = [await watcher.event(), await watcher.event(), await watcher.event()];
    expect(heard.map(({ data }) => data)).toEqual([
      { subscribe: { old: { id: "old" } } },
      { unsubscribe: { old: null } },
      { subscribe: { new: { id: "new" } } },
    ]);
  });

  test("[PRES-8] a pattern hears the rooms it covers and is a member of none", async () => {
    const base = freshChannel("presence");
    const watcher = await connect(server);
    const ext = { auth: { token: token({ channel: `${base}/**`, sub: true }) } };
    const reply = await watcher.subscribe(`${base}/*`, ext);
    expect(reply).toMatchObject({ successful: true });
    expect(reply).not.toHaveProperty("ext");
    const peer = await connect(server);
    const joined = await peer.subscribe(`${base}/room`, member(`${base}/room`, { id: "one" }));
    expect(members(joined)).toEqual({ one: { id: "one" } });
    await peer.publish(`${base}/room`, "hello");
    await peer.disconnect();
    const heard = [await watcher.event(), await watcher.event(), await watcher.event()];
    expect(heard.map(({ channel, data }) => [channel, data])).toEqual([
      [`${base}/room`, { subscribe: { one: { id: "one" } } }],
      [`${base}/room`, "hello"],
      [`${base}/room`, { unsubscribe: { one: null } }],
    ]);
  });

  test("[PRES-9] nobody but the server says who came and went", async () => {
    const channel = freshChannel("presence");
    const peer = await connect(server);
    await peer.subscribe(channel, member(channel, { id: "one" }));
    for (const data of [
      { subscribe: { two: { id: "two" } } },
      { unsubscribe: { one: null }, text: "x" },
      { subscribe: null },
    ]) {
      const reply = await peer.publish(channel, data);
      expect(reply.error).toBe("Cannot publish presence membership");
    }
    for (const data of [{ text: { subscribe: 1 } }, "subscribe", ["subscribe"]]) {
      expect((await peer.publish(channel, data)).successful).toBe(true);
      expect((await peer.event()).data).toEqual(data);
    }
    const escaped = `{"channel":"${channel}","id":"e","data":{"\\u0073ubscribe":{}},"ext":${JSON.stringify(keyAuth)}}`;
    const socket = await Socket.open(server);
    socket.sendText(escaped);
    expect((await socket.next(({ id }) => id === "e")).error).toBe(
      "Cannot publish presence membership",
    );
    const elsewhere = freshChannel();
    expect((await peer.publish(elsewhere, { subscribe: 1 })).successful).toBe(true);
  });

  test("[LIM-7] presence objects and rooms have limits", async () => {
    const channel = freshChannel("presence");
    const large = await connect(server);
    const { error } = await large.subscribe(channel, member(channel, { id: "x".repeat(200) }));
    expect(error).toBe("Presence object too large");
    for (let count = 0; count < 20; count++) {
      const peer = await connect(server);
      await peer.subscribe(channel, member(channel, { id: `m${count}` }));
    }
    const full = await large.subscribe(channel, member(channel, { id: "one more" }));
    expect(full.error).toBe("Presence channel is full");
    const known = await large.subscribe(channel, member(channel, { id: "m3" }));
    expect(Object.keys(members(known) ?? {}).length).toBe(20);
  });

  test("[SUB-4] joining several rooms at once gives one list", async () => {
    const base = freshChannel("presence");
    const peer = await connect(server);
    const ext = member(`${base}/*`, { id: "one" });
    const reply = await peer.subscribe([`${base}/a`, `${base}/b`], ext);
    expect(reply.successful).toBe(true);
    expect(members(reply)).toEqual({ one: { id: "one" } });
  });

  test("[META-1] a listener gets the application's numbers at every interval", async () => {
    const statistics = `/${appId}/meta/statistics`;
    const peer = await connect(server);
    const ext = { auth: { token: token({ channel: statistics, sub: true }) } };
    expect((await peer.subscribe(statistics)).error).toBe("No auth supplied");
    expect((await peer.subscribe(statistics, ext)).successful).toBe(true);
    const first = (await peer.event(statistics)).data as Record<string, number>;
    expect(Object.keys(first).sort()).toEqual([
      "channels",
      "connections",
      "delivered",
      "deliveredPerSecond",
      "published",
      "publishedPerSecond",
      "subscriptions",
    ]);
    const channel = freshChannel();
    const other = await Socket.connect(server);
    await other.subscribe([channel, `${channel}/*`]);
    for (let count = 0; count < 5; count++) {
      await other.publish(channel, count);
      await other.event(channel);
    }
    // The numbers of an interval that began after all this come with the second event at the latest.
    await peer.event(statistics);
    const second = (await peer.event(statistics)).data as Record<string, number>;
    const difference = (field: string) => (second[field] ?? 0) - (first[field] ?? 0);
    expect(difference("connections")).toBe(1);
    expect(difference("subscriptions")).toBe(2);
    expect(difference("channels")).toBe(2);
    expect(difference("published")).toBe(5);
    expect(difference("delivered")).toBeGreaterThanOrEqual(5);
    expect(Object.values(second).every((number) => number >= 0)).toBe(true);
    await other.ask({ channel: "/meta/disconnect" });
  });

  test("[META-2] nobody publishes to meta channels", async () => {
    const peer = await connect(server);
    const channel = `/${appId}/meta/statistics`;
    const ext = { auth: { token: token({ channel, pub: true }) } };
    expect((await peer.publish(channel, 1)).error).toBe("Cannot publish to a meta channel");
    expect((await peer.publish(channel, 1, ext)).error).toBe("Cannot publish to a meta channel");
  });
});

/** mulberry32: small, and the same numbers for the same seed. */
function random(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** Who ought to be present, by session. */
class Model {
  readonly idOf = new Map<string, string>();

  get present(): string[] {
    return [...new Set(this.idOf.values())].sort();
  }
}

/** What a member may conclude from its snapshot and the events after it. */
class View {
  constructor(private readonly ids: Set<string>) {}

  get present(): string[] {
    return [...this.ids].sort();
  }

  /** Each change must be one: no join of somebody present, no leave of somebody absent. */
  apply({ data }: Message): void {
    const { subscribe, unsubscribe } = data as { subscribe?: object; unsubscribe?: object };
    for (const id of Object.keys(subscribe ?? {})) {
      expect(this.ids).not.toContain(id);
      this.ids.add(id);
    }
    for (const id of Object.keys(unsubscribe ?? {})) {
      expect(this.ids).toContain(id);
      this.ids.delete(id);
    }
  }
}

test.each([[1], [2], [Date.now() % 1_000_000_007]])(
  "[PRES-6] presence agrees with a model, whatever clients do (seed %i)",
  async (seed) => {
    const next = random(seed);
    const pick = <T>(items: readonly T[]): T => items[Math.floor(next() * items.length)] as T;
    const channel = freshChannel("presence");
    const marker = freshChannel();
    const ids = ["a", "b", "c", "__proto__"];
    const model = new Model();
    const watcher = await Socket.connect(server);
    await watcher.subscribe(marker);
    const snapshot = await watcher.subscribe(channel, member(channel, { id: "watcher" }));
    const view = new View(new Set(Object.keys(members(snapshot) ?? {})));
    model.idOf.set(watcher.clientId, "watcher");
    const check = async (): Promise<void> => {
      await watcher.publish(marker, 0);
      for (const event of await eventsBefore(watcher, marker)) view.apply(event);
      expect(view.present).toEqual(model.present);
    };
    let clients: { peer: Peer; leave: () => Promise<unknown> }[] = [];
    for (let step = 0; step < 150; step++) {
      const action = next();
      if (clients.length < 6 && action < 0.3) {
        const [, connect] = pick(transports);
        const peer = await connect(server);
        clients.push({ peer, leave: () => peer.disconnect() });
        continue;
      }
      if (clients.length === 0) continue;
      const client = pick(clients);
      const { clientId } = client.peer;
      if (action < 0.7) {
        const id = pick(ids);
        const reply = await client.peer.subscribe(channel, member(channel, { id }));
        model.idOf.set(clientId, id);
        expect(Object.keys(members(reply) ?? {}).sort()).toEqual(model.present);
      } else if (action < 0.85) {
        await client.peer.ask({ channel: "/meta/unsubscribe", subscription: channel });
        model.idOf.delete(clientId);
      } else {
        await client.leave();
        model.idOf.delete(clientId);
        clients = clients.filter((other) => other !== client);
      }
      if (next() < 0.3) await check();
    }
    await Promise.all(clients.map(({ leave }) => leave()));
    for (const { peer } of clients) model.idOf.delete(peer.clientId);
    await check();
    expect(view.present).toEqual(["watcher"]);
  },
);

test("[PRES-4] members who come and go all at once agree in the end", async () => {
  const channel = freshChannel("presence");
  const peers = await Promise.all(Array.from({ length: 15 }, () => Socket.connect(server)));
  const replies = await Promise.all(
    peers.map((peer, index) => peer.subscribe(channel, member(channel, { id: `m${index}` }))),
  );
  const leaving = peers.slice(10);
  await Promise.all(leaving.map((peer) => peer.ask({ channel: "/meta/disconnect" })));
  await new Poller(server).publish(channel, "marker");
  const expected = Array.from({ length: 10 }, (_, index) => `m${index}`).sort();
  for (const [index, peer] of peers.slice(0, 10).entries()) {
    const view = new View(new Set(Object.keys(members(replies[index] as Message) ?? {})));
    for (let event = await peer.event(); event.data !== "marker"; event = await peer.event()) {
      view.apply(event);
    }
    expect(view.present).toEqual(expected);
  }
});
