import type { AppId, Channel, ParsedChannel } from "@pandapush/protocol";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { createMemoryBroker } from "./broker/memory.js";
import { LocalLive } from "./live.js";
import { Node } from "./node.js";
import { createMemoryPresence } from "./presence/memory.js";
import { RefusalLog } from "./refusals.js";
import type { Encoder, Session } from "./session.js";

const app = "app" as AppId;
const encoder: Encoder = {
  event: ({ data }) => data,
  subscriptionEnded: (_clientId, name, error) => `${name}: ${error}`,
  join: (messages) => messages.join(),
};
const many = 1_000_000;

let node: Node;
let live: LocalLive;
beforeEach(() => {
  node = new Node({
    createBroker: createMemoryBroker,
    createPresence: (announce) =>
      createMemoryPresence({ presenceBytes: 4_096, presenceMembers: many }, announce),
    limits: {
      backlogMessages: many,
      backlogBytes: many,
      outboxMessages: many,
      outboxBytes: many,
      subscriptionsPerSession: many,
      sessionsPerAddress: many,
    },
    sessionExpiryMs: 60_000,
    statisticsIntervalMs: 60_000,
    logError: (error) => {
      throw error;
    },
  });
  live = new LocalLive(node, new RefusalLog({ hasApp: () => true, hasKey: () => true }));
});
afterEach(async () => {
  vi.restoreAllMocks();
  await node.close();
});

function subscribe(rest: string, session = node.createSession(encoder, undefined)): Session {
  const name = `/${app}/public/${rest}` as Channel;
  const channel: ParsedChannel = { appId: app, kind: "public", isPattern: false, name };
  void node.subscribe(session, channel, { appId: app }, { left: 0 });
  return session;
}

/** How many turns of the event loop others had until it was done. */
async function turnsOf(work: Promise<unknown>): Promise<number> {
  let isDone = false;
  const done = work.finally(() => {
    isDone = true;
  });
  let turns = 0;
  for (; !isDone; turns++) await new Promise((resolve) => setImmediate(resolve));
  await done;
  return turns;
}

describe("what is live", () => {
  test("pages of channels are those of the whole sorted list", async () => {
    const sessions = Array.from({ length: 7 }, () => node.createSession(encoder, undefined));
    const counts = new Map<string, number>();
    for (let n = 0; n < 2_000; n++) {
      const rest = `${(n * 7919) % 2_003}`;
      const count = 1 + ((n * 31) % 7);
      for (const session of sessions.slice(0, count)) subscribe(rest, session);
      counts.set(`/${app}/public/${rest}`, count);
    }
    const sorted = [...counts].sort(
      ([one, ones], [other, others]) => others - ones || (one < other ? -1 : 1),
    );
    for (const [offset, limit] of [
      [0, 1],
      [0, 100],
      [3, 7],
      [100, 100],
      [1_990, 100],
      [2_000, 10],
      [10_000, 1_000],
    ] as const) {
      const { items, total } = await live.channels(app, { prefix: "", offset, limit });
      expect(items.map(({ channel, subscribers }) => [channel, subscribers])).toEqual(
        sorted.slice(offset, offset + limit),
      );
      expect(total).toBe(2_000);
    }
  });

  test("a connection that leaves and returns while the list is made is in it once", async () => {
    const sessions = Array.from({ length: 5_000 }, (_, n) => subscribe(`${n}`));
    const listing = live.connections(app, { search: "/public/", offset: 0, limit: 10_000 });
    const turns = turnsOf(listing);
    for (let n = 0; n < 20; n++) {
      await new Promise((resolve) => setImmediate(resolve));
      for (const [index, session] of sessions.slice(0, 50).entries()) {
        node.unsubscribe(session, `/${app}/public/${index}`);
        subscribe(`${index}`, session);
      }
    }
    await turns;
    const ids = (await listing).items.map(({ id }) => id);
    expect(new Set(ids).size).toBe(ids.length);
    expect(ids.length).toBeGreaterThanOrEqual(4_950);
  });

  test("a long look keeps nobody waiting, and neither do several", async () => {
    for (let n = 0; n < 8_000; n++) subscribe(`${n}`);
    const look = () => live.connections(app, { search: "0123456789abcdef", offset: 0, limit: 10 });
    // A clock that goes on when it is looked at: how much a turn has time for is the same always.
    let now = performance.now();
    vi.spyOn(performance, "now").mockImplementation(() => now++);
    // Others get their turns meanwhile.
    const turns = await turnsOf(look());
    expect(turns).toBeGreaterThan(100);
    // Together in the same turns they would make these longer.
    const looks = Promise.all([look(), look(), look(), look()]);
    expect(await turnsOf(looks)).toBeGreaterThan(3 * turns);
  });

  test("[LIM-9] an application has so many looks at once, and others have theirs", async () => {
    subscribe("a");
    const look = (appId: AppId) => live.connections(appId, { search: "", offset: 0, limit: 10 });
    const looks = Array.from({ length: 16 }, () => look(app));
    await expect(look(app)).rejects.toMatchObject({ code: "unavailable" });
    expect((await look("other" as AppId)).total).toBe(0);
    for (const each of looks) expect((await each).total).toBe(1);
    expect((await look(app)).total).toBe(1);
  });

  test("a user's sessions are disconnected, however many come meanwhile", async () => {
    const room = `/${app}/presence/room` as Channel;
    const channel: ParsedChannel = { appId: app, kind: "presence", isPattern: false, name: room };
    const join = (id: string): Session => {
      const session = node.createSession(encoder, undefined);
      const presence = { id, json: JSON.stringify({ id }) };
      void node.subscribe(session, channel, { appId: app, presence }, { left: many });
      return session;
    };
    const sessions = Array.from({ length: 300 }, (_, n) => join(n % 3 === 0 ? "ann" : `${n}`));
    const disconnecting = live.disconnectUser(app, "ann");
    sessions[3]?.end("disconnect");
    join("ben");
    expect(await disconnecting).toEqual({ count: 99 });
    expect(await live.members(app, room)).not.toContain('"ann"');
    expect((await live.channel(channel)).members).toBe(201);
    expect(node.sessionCount).toBe(300);
  });
});
