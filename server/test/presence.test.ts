/** The contract of presence, and what happens to it when nodes and Redis hosts come and go. */
import type { AppId, Channel } from "@pandapush/protocol";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "vitest";
import type { BrokerHandler } from "../src/broker/broker.js";
import { createRedisBroker } from "../src/broker/redis.js";
import { createMembership, type OwnMembership } from "../src/cluster/membership.js";
import { Refusal } from "../src/errors.js";
import { createMemoryPresence } from "../src/presence/memory.js";
import { maxListLength, type PresenceLimits } from "../src/presence/presence.js";
import {
  type Announced,
  joined,
  jsonOf,
  left,
  presenceSuite,
} from "../src/presence/presence.suite.js";
import { createRedisPresence, type RedisPresence } from "../src/presence/redis.js";
import { type RedisHost, RedisHosts } from "../src/redis/hosts.js";
import type { Position, Publication } from "../src/session.js";
import { Random } from "./hostile/random.js";
import { StallingProxy, TestRedis } from "./redis.js";

const leaseMs = 2_500;
const renewMs = 250;
const handoverMs = 1_000;
const generous: PresenceLimits = { presenceBytes: 4_096, presenceMembers: 10_000 };

let redis: TestRedis;
let other: TestRedis;
beforeAll(async () => {
  [redis, other] = await Promise.all([TestRedis.start(), TestRedis.start()]);
});
afterAll(async () => {
  await Promise.all([redis.stop(), other.stop()]);
});
let prefixes = 0;
let prefix: string;
beforeEach(() => {
  prefix = `p${++prefixes}:`;
});
const nodes: PresenceNode[] = [];
const cleanUp: (() => Promise<unknown>)[] = [];
afterEach(async () => {
  await Promise.all(nodes.splice(0).map((node) => node.end()));
  for (const each of cleanUp.splice(0)) await each();
});

/** A node as far as presence goes. It hears what is announced. */
class PresenceNode implements BrokerHandler {
  readonly hosts: RedisHosts;
  readonly membership: OwnMembership;
  readonly presence: RedisPresence;
  readonly died: string[] = [];
  readonly logged: object[] = [];
  lostCount = 0;
  onLost: () => void = () => undefined;
  private readonly broker;
  private readonly heard = new Map<string, Announced[]>();
  private readonly looks = new Set<() => void>();
  private ids = 0;

  private constructor(ports: readonly number[], limits: PresenceLimits) {
    const configs = ports.map((port) => ({ ...redis.config, port }));
    this.hosts = new RedisHosts({ hosts: configs, prefix }, () => undefined);
    const log = (level: string, message: string, fields: object): void => {
      if (level === "error") this.logged.push({ message, ...fields });
    };
    this.membership = createMembership(
      this.hosts,
      {
        died: (nodeId) => {
          this.died.push(nodeId);
          this.look();
        },
        lost: () => {
          this.lostCount++;
          this.presence.lost();
          this.onLost();
          this.look();
        },
        clean: (host, nodeId, appId) => this.presence.clean(host, nodeId, appId),
      },
      { leaseMs, renewMs },
      log,
    );
    this.broker = createRedisBroker(this.hosts, this, log);
    const { membership } = this;
    this.presence = createRedisPresence({
      hosts: this.hosts,
      membership,
      nextId: () => this.nextId(),
      limits,
      log,
      handoverMs,
    });
    for (const host of this.hosts.all) host.onState(() => this.look());
  }

  static async start({
    ports = [redis.port],
    limits = generous,
  }: {
    ports?: readonly number[];
    limits?: PresenceLimits;
  } = {}): Promise<PresenceNode> {
    const node = new PresenceNode(ports, limits);
    nodes.push(node);
    await node.hosts.tried();
    await node.membership.start();
    return node;
  }

  get areAllUp(): boolean {
    return this.hosts.all.every(({ isUp }) => isUp);
  }

  join(channel: Channel, clientId: string, id: string, json = jsonOf(id)) {
    return this.presence.join(appOf(channel), channel, clientId, { id, json }, maxListLength);
  }

  /** What it came to: a list of ids, or the code of the refusal. */
  async tryJoin(channel: Channel, clientId: string, id: string): Promise<string[] | string> {
    try {
      const { list } = await this.join(channel, clientId, id);
      return Object.keys(JSON.parse(list) as object).sort();
    } catch (error) {
      if (error instanceof Refusal) return error.code;
      throw error;
    }
  }

  async members(channel: Channel): Promise<string[]> {
    const list = await this.presence.members(appOf(channel), channel);
    return Object.keys(JSON.parse(list) as object).sort();
  }

  /** Waits until the members are these. */
  async untilMembers(channel: Channel, ...ids: string[]): Promise<void> {
    await expect
      .poll(() => this.members(channel).catch(String), { timeout: 40_000 })
      .toEqual(ids.sort());
  }

  async listen(channel: Channel): Promise<void> {
    if (!this.heard.has(channel)) this.heard.set(channel, []);
    await this.broker.subscribe(appOf(channel), channel);
  }

  /** What it heard of a channel, up to now. */
  async announced(channel: Channel): Promise<Announced[]> {
    await this.listen(channel);
    const heard = this.heard.get(channel) ?? [];
    const end = `end-${++this.ids}`;
    await this.broker.publish(appOf(channel), { id: end, channel, data: `"${end}"` });
    await this.until(() => heard.some(({ data }) => data === `"${end}"`), "the last of it");
    return heard.filter(({ data }) => !data.startsWith('"'));
  }

  async said(channel: Channel): Promise<string[]> {
    return (await this.announced(channel)).map(({ data }) => data);
  }

  received(_appId: AppId, { channel, data, isMembership }: Publication, position: Position): void {
    const heard = this.heard.get(channel);
    if (data.startsWith("{") && isMembership !== true) throw new Error("not said to be membership");
    heard?.push({ data, position });
    this.look();
  }

  missed(): void {
    this.look();
  }

  async until(isTrue: () => boolean, what: string): Promise<void> {
    await new Promise<void>((resolve, reject) => {
      const look = (): void => {
        if (!isTrue()) return;
        clearTimeout(timer);
        this.looks.delete(look);
        resolve();
      };
      const timer = setTimeout(() => {
        this.looks.delete(look);
        reject(new Error(`not within 30 s: ${what}`));
      }, 30_000);
      this.looks.add(look);
      look();
    });
  }

  /** As a process that is killed. */
  async abandon(): Promise<void> {
    nodes.splice(nodes.indexOf(this), 1);
    await this.hosts.close();
    await this.end();
  }

  async end(): Promise<void> {
    this.presence.close();
    await this.membership.close();
    await this.hosts.close();
    expect(this.logged).toEqual([]);
  }

  private nextId(): string {
    return `${this.membership.id}-${++this.ids}`;
  }

  private look(): void {
    for (const look of [...this.looks]) look();
  }
}

function appOf(channel: Channel): AppId {
  return channel.slice(1, channel.indexOf("/", 1)) as AppId;
}

const room = "/app/presence/room" as Channel;

describe("presence in memory", () => {
  presenceSuite(async (limits) => {
    const announced: (Announced & { readonly channel: Channel })[] = [];
    const presence = createMemoryPresence(limits, (_appId, channel, data) => {
      const position = { epoch: "memory", seq: announced.length + 1 };
      announced.push({ channel, data, position });
      return position;
    });
    return {
      one: presence,
      two: presence,
      announced: async (_appId, of) => announced.filter(({ channel }) => channel === of),
      close: async () => undefined,
    };
  });
});

describe.each([1, 2])("presence on Redis, %i host(s)", (count) => {
  presenceSuite(async (limits) => {
    const ports = [redis.port, other.port].slice(0, count);
    const [one, two] = [
      await PresenceNode.start({ ports, limits }),
      await PresenceNode.start({ ports, limits }),
    ];
    return {
      one: one.presence,
      two: two.presence,
      announced: (_appId, channel) => two.announced(channel),
      // Nodes are ended after each test.
      close: async () => undefined,
    };
  });
});

/** As `bury.lua` does it. */
async function declareDead(host: TestRedis, id: string): Promise<void> {
  const [leases, dead, unclean] = ["leases", "dead", "unclean"].map(
    (name) => `${prefix}{nodes}:${name}`,
  ) as [string, string, string];
  await host.command("SADD", unclean, id);
  await host.command("ZADD", dead, String(Date.now()), id);
  await host.command("ZREM", leases, id);
}

async function startTwo(): Promise<[PresenceNode, PresenceNode]> {
  return [await PresenceNode.start(), await PresenceNode.start()];
}

test("a change is one command, and is heard by its channel and the patterns over it", async () => {
  const [one] = await startTwo();
  await one.join(room, "warm", "warm");
  const before = await redis.commandCounts();
  for (let index = 0; index < 50; index++) await one.join(room, `s${index}`, `m${index}`);
  const after = await redis.commandCounts();
  const count = (name: string): number => (after.get(name) ?? 0) - (before.get(name) ?? 0);
  expect(count("publish")).toBe(50 * 3);
  // Renewals of two leases are among them.
  expect(count("evalsha")).toBeGreaterThanOrEqual(50);
  expect(count("evalsha")).toBeLessThan(75);
});

test("Redis does not get to see clientIds", async () => {
  const [one] = await startTwo();
  await one.join(room, "secretclientid", "a");
  const keys = (await redis.command("KEYS", `${prefix}*`)) as string[];
  const dumps = await Promise.all(keys.map((key) => redis.command("DUMP", key)));
  expect(`${keys.join()}${dumps.join()}`).not.toContain("secretclientid");
});

test("nothing is left of whoever has left", async () => {
  const [one, two] = await startTwo();
  for (let round = 0; round < 3; round++) {
    await one.join(room, "s1", "a");
    await two.join(room, "s2", "a");
    await two.join(room, "s2", "b");
    await one.presence.adopt(appOf(room), room, "s2", { id: "b", json: jsonOf("b") });
    two.presence.forget(appOf(room), room, "s2");
    await one.presence.leave(appOf(room), room, "s1");
    await one.presence.leave(appOf(room), room, "s2");
  }
  await expect
    .poll(async () => ((await redis.command("KEYS", `${prefix}{app}*`)) as string[]).sort(), {
      timeout: 5_000,
    })
    .toEqual([`${prefix}{app}:presence:nodes`, `${prefix}{app}:sequence`]);
});

describe("when a node dies", () => {
  test("the others remove its members and announce each once; whoever is also elsewhere stays", async () => {
    const all = await Promise.all(Array.from({ length: 4 }, () => PresenceNode.start()));
    const [dead, one, two, three] = all as [PresenceNode, PresenceNode, PresenceNode, PresenceNode];
    const rooms = ["/app/presence/room", "/app/presence/x/y", "/b/presence/room"] as Channel[];
    const ids = Array.from({ length: 70 }, (_, index) => `m${index}`);
    for (const each of rooms) {
      await three.listen(each);
      await Promise.all(ids.map((id) => dead.join(each, `${each}${id}`, id)));
      await dead.join(each, `${each}tab`, "m1");
      await one.join(each, `${each}one`, "m7");
    }
    await dead.abandon();
    for (const each of rooms) {
      await two.untilMembers(each, "m7");
      const said = await three.said(each);
      const leaves = said.filter((data) => data.startsWith('{"unsub'));
      expect(leaves.sort()).toEqual(
        ids
          .filter((id) => id !== "m7")
          .map(left)
          .sort(),
      );
    }
    await expect
      .poll(() => redis.command("KEYS", `${prefix}*:presence:of:${dead.membership.id}`))
      .toEqual([]);
  });

  test("what it has not yet written is refused", async () => {
    const [one, two] = await startTwo();
    await two.listen(room);
    await one.join(room, "s1", "a");
    const { id } = one.membership;
    // As if it had stood still until the others had cleaned up.
    await declareDead(redis, id);
    const [host] = two.hosts.all as [RedisHost];
    await two.presence.clean(host, id, appOf(room));
    expect(await one.tryJoin(room, "s2", "b")).toBe("brokerUnavailable");
    await one.until(() => one.lostCount === 1, "it noticed");
    // What it held is gone; as another it goes on.
    await one.presence.leave(appOf(room), room, "s1");
    await expect.poll(() => one.tryJoin(room, "s3", "c")).toEqual(["c"]);
    expect(await two.said(room)).toEqual([joined("a"), left("a"), joined("c")]);
  });

  test("a session that it was to take over, and did not, leaves", async () => {
    const [one, two] = await startTwo();
    await two.listen(room);
    for (const id of ["a", "b"]) await one.join(room, id, id);
    one.presence.forget(appOf(room), room, "a");
    one.presence.forget(appOf(room), room, "b");
    await two.presence.adopt(appOf(room), room, "b", { id: "b", json: jsonOf("b") });
    await one.untilMembers(room, "b");
    await two.presence.leave(appOf(room), room, "b");
    expect((await two.said(room)).slice(2)).toEqual([left("a"), left("b")]);
  });

  test("a session that it took over goes with it, one that was taken from it stays", async () => {
    const [one, two] = await startTwo();
    const third = await PresenceNode.start();
    await third.listen(room);
    for (const id of ["a", "b"]) await one.join(room, id, id);
    await two.join(room, "c", "c");
    await two.presence.adopt(appOf(room), room, "a", { id: "a", json: jsonOf("a") });
    one.presence.forget(appOf(room), room, "a");
    await one.presence.adopt(appOf(room), room, "c", { id: "c", json: jsonOf("c") });
    two.presence.forget(appOf(room), room, "c");
    await one.abandon();
    await third.untilMembers(room, "a");
    expect((await third.said(room)).slice(3).sort()).toEqual([left("b"), left("c")]);
    await two.abandon();
    await third.untilMembers(room);
  });
});

describe("a host that is down", () => {
  test("joins are refused in time and leave nothing behind; leaves are made good when it is back", async () => {
    const [one, two] = await startTwo();
    await two.listen(room);
    await one.join(room, "s1", "a");
    await one.join(room, "s2", "b");
    await two.join(room, "s3", "c");
    redis.pause();
    const sentAt = performance.now();
    const uncertain = one.tryJoin(room, "s4", "d");
    const changing = one.tryJoin(room, "s2", "e");
    const leaving = one.presence.leave(appOf(room), room, "s1");
    expect(await uncertain).toBe("brokerUnavailable");
    expect(await changing).toBe("brokerUnavailable");
    await leaving;
    expect(performance.now() - sentAt).toBeLessThan(1_500);
    await one.until(() => !one.areAllUp, "it is down");
    expect(await one.tryJoin(room, "s5", "f")).toBe("brokerUnavailable");
    await two.presence.leave(appOf(room), room, "s3");
    await expect(one.members(room)).rejects.toThrow(Refusal);
    redis.resume();
    await one.untilMembers(room, "b");
    expect(one.lostCount + two.lostCount).toBe(0);
  });

  test("that is emptied while it is up is given again what it lacks", async () => {
    const [one, two] = await startTwo();
    await two.listen(room);
    await one.join(room, "s1", "a");
    await two.join(room, "s2", "b");
    await redis.command("FLUSHALL");
    for (const node of [one, two]) await node.until(() => !node.areAllUp, "it noticed");
    for (const node of [one, two]) await node.untilMembers(room, "a", "b");
    await one.presence.leave(appOf(room), room, "s1");
    await one.untilMembers(room, "b");
    expect(one.lostCount + two.lostCount).toBe(0);
  });

  test("while a session is taken over: it is taken over when the host is back, whatever was refused meanwhile", async () => {
    const [one, two] = await startTwo();
    await two.listen(room);
    await one.join(room, "s1", "a");
    expect(await two.said(room)).toEqual([joined("a")]);
    await redis.kill();
    await two.until(() => !two.areAllUp, "it is down");
    await two.presence.adopt(appOf(room), room, "s1", { id: "a", json: jsonOf("a") });
    one.presence.forget(appOf(room), room, "s1");
    expect(await two.tryJoin(room, "s1", "b")).toBe("brokerUnavailable");
    await redis.restart({ isEmpty: true });
    await two.untilMembers(room, "a");
    await two.presence.leave(appOf(room), room, "s1");
    expect(await two.said(room)).toEqual([joined("a"), left("a")]);
  });

  test.each([
    ["with its data", false],
    ["empty", true],
  ])("comes back %s: those who are there are there, silently", async (_, isEmpty) => {
    const [one, two] = await startTwo();
    await two.listen(room);
    const ids = Array.from({ length: 120 }, (_each, index) => `m${index}`);
    await Promise.all(ids.map((id) => one.join(room, id, id)));
    await two.join(room, "tab", "m3");
    await two.join(room, "late", "late", '{"id":"late","mood":"old"}');
    await two.join(room, "late", "late", '{"id":"late","mood":"new"}');
    const before = (await two.said(room)).length;
    await redis.kill();
    await one.until(() => !one.areAllUp, "it is down");
    await one.presence.leave(appOf(room), room, "m4");
    await redis.restart({ isEmpty });
    const expected = [...ids.filter((id) => id !== "m4"), "late"];
    await one.untilMembers(room, ...expected);
    expect(await two.presence.members(appOf(room), room)).toContain('"mood":"new"');
    await two.untilMembers(room, ...expected);
    // The leave that it could not be told of was made good.
    expect((await two.said(room)).slice(before)).toEqual([left("m4")]);
    await one.presence.leave(appOf(room), room, "m3");
    await two.presence.leave(appOf(room), room, "tab");
    expect((await two.said(room)).slice(before + 1)).toEqual([left("m3")]);
    const { list } = await one.join(room, "new", "new");
    expect(Object.keys(JSON.parse(list) as object)).toHaveLength(120);
  });

  test("comes back empty: who leaves before another node could say that it has them too, is announced again", async () => {
    const proxy = await StallingProxy.start(redis.port);
    cleanUp.push(() => proxy.close());
    const [one, watcher] = await startTwo();
    const slow = await PresenceNode.start({ ports: [proxy.port] });
    await watcher.listen(room);
    await one.join(room, "s1", "a");
    await slow.join(room, "s2", "a");
    await one.join(room, "s3", "b");
    await slow.join(room, "s4", "c");
    const before = (await watcher.said(room)).length;
    await redis.kill();
    await slow.until(() => !slow.areAllUp, "it is down");
    proxy.stall();
    await redis.restart({ isEmpty: true });
    for (const node of [one, watcher]) await node.until(() => node.areAllUp, "it is back");
    await one.untilMembers(room, "a", "b");
    await one.presence.leave(appOf(room), room, "s1");
    await one.untilMembers(room, "b");
    proxy.goOn();
    await one.untilMembers(room, "a", "b", "c");
    expect((await watcher.said(room)).slice(before)).toEqual([left("a"), joined("a")]);
  });

  test("whose last words arrive when it has been given up does not bring anybody back", async () => {
    const proxy = await StallingProxy.start(redis.port);
    cleanUp.push(() => proxy.close());
    const one = await PresenceNode.start({ ports: [proxy.port] });
    await one.join(room, "s1", "a");
    proxy.stall({ onlyPresent: true });
    const givenUp = proxy.untilGivenUp();
    const join = one.tryJoin(room, "s2", "b");
    await givenUp;
    expect(await join).toBe("brokerUnavailable");
    await one.until(() => one.areAllUp, "it is back");
    await one.join(room, "s3", "c");
    const before = (await redis.commandCounts()).get("evalsha") ?? 0;
    proxy.goOn();
    // Renewals come as well; those that come by the new connection are of no matter.
    await expect
      .poll(async () => ((await redis.commandCounts()).get("evalsha") ?? 0) - before, {
        timeout: 5_000,
      })
      .toBeGreaterThan(3);
    await one.untilMembers(room, "a", "c");
  });
});

describe("whatever happens", () => {
  const seeds = (process.env.PRESENCE_SEED ?? "1,2").split(",").map(Number);

  test.each(seeds)(
    "there are no ghosts (seed %i)",
    async (seed) => {
      await runRandomly(seed);
    },
    120_000,
  );
});

/** Many nodes, sessions and rooms, and faults; at the end of each round all must be as it should. */
async function runRandomly(seed: number): Promise<void> {
  const random = new Random(seed);
  const ports = [redis.port, other.port];
  const hosts = [redis, other];
  const rooms = ["/app/presence/a", "/app/presence/b", "/app/presence/c/d", "/b/presence/a"].map(
    (name) => name as Channel,
  );
  const ids = ["u1", "u2", "u3", "u4", "u5"];
  const watcher = await PresenceNode.start({ ports });
  for (const each of rooms) await watcher.listen(each);
  let living = await Promise.all(Array.from({ length: 3 }, () => PresenceNode.start({ ports })));
  /** Who should be where: room and session → node and id. */
  const model = new Map<
    string,
    { room: Channel; clientId: string; node: PresenceNode; id: string }
  >();
  let clients = 0;

  const act = async (): Promise<void> => {
    const node = random.pick(living);
    const own = [...model].filter(([, entry]) => entry.node === node);
    const kind = random.below(10);
    if (kind < 5 || own.length === 0) {
      const where = random.pick(rooms);
      const rejoining = kind < 1 && own.length > 0 ? random.pick(own)[1] : undefined;
      const clientId = rejoining?.clientId ?? `client${++clients}`;
      const target = rejoining?.room ?? where;
      const id = random.pick(ids);
      const result = await node.tryJoin(target, clientId, id);
      if (typeof result === "string") {
        // As a node does it: what was there before stays, what is new is given up.
        if (rejoining === undefined) await node.presence.leave(appOf(target), target, clientId);
      } else {
        expect(result).toContain(id);
        model.set(`${target} ${clientId}`, { room: target, clientId, node, id });
      }
      return;
    }
    const [key, entry] = random.pick(own);
    if (kind < 8) {
      model.delete(key);
      await node.presence.leave(appOf(entry.room), entry.room, entry.clientId);
      return;
    }
    const next = random.pick(living);
    if (next === node) return;
    const member = { id: entry.id, json: jsonOf(entry.id) };
    model.set(key, { ...entry, node: next });
    await next.presence.adopt(appOf(entry.room), entry.room, entry.clientId, member);
    node.presence.forget(appOf(entry.room), entry.room, entry.clientId);
  };

  const expectModel = async (isEventful: boolean): Promise<void> => {
    for (const each of rooms) {
      const presentIn = (): string[] => {
        const present = [...model.values()].filter((entry) => entry.room === each);
        return [...new Set(present.map(({ id }) => id))].sort();
      };
      // A slow machine may have stood still for longer than a lease: then the model changes, too.
      await expect
        .poll(
          async () => {
            const members = await watcher.members(each).catch(String);
            return String(members) === String(presentIn())
              ? "as it should be"
              : { members, model: presentIn() };
          },
          { timeout: 40_000 },
        )
        .toBe("as it should be");
      if (isEventful) continue;
      // What was said says the same: each came once and left once.
      const seen = new Set<string>();
      for (const data of await watcher.said(each)) {
        const { subscribe, unsubscribe } = JSON.parse(data) as {
          subscribe?: object;
          unsubscribe?: object;
        };
        for (const id of Object.keys(subscribe ?? {})) {
          expect(seen.has(id), `${id} came twice to ${each}`).toBe(false);
          seen.add(id);
        }
        for (const id of Object.keys(unsubscribe ?? {})) {
          expect(seen.has(id), `${id} left ${each} without being there`).toBe(true);
          seen.delete(id);
        }
      }
      expect([...seen].sort()).toEqual(await watcher.members(each));
    }
  };

  const watchOver = (node: PresenceNode): void => {
    node.onLost = () => {
      for (const [key, entry] of model) if (entry.node === node) model.delete(key);
    };
  };
  for (const node of living) watchOver(node);
  let wasCut = false;
  for (let round = 0; round < 6; round++) {
    for (let step = 0; step < 40; step++) await act();
    const fault = round < 3 ? random.below(2) : random.below(4);
    if (fault === 1) {
      // Taken for dead, as if it had stood still.
      const [victim] = living as [PresenceNode];
      const { id } = victim.membership;
      const host = random.pick(hosts);
      await declareDead(host, id);
      for (let step = 0; step < 5; step++) await act();
      await victim.until(() => victim.membership.id !== id, "it noticed");
    } else if (fault === 0) {
      const [victim, ...rest] = living as [PresenceNode, ...PresenceNode[]];
      for (const [key, entry] of model) if (entry.node === victim) model.delete(key);
      await victim.abandon();
      const next = await PresenceNode.start({ ports });
      watchOver(next);
      living = [...rest, next];
    } else {
      wasCut = true;
      const host = random.pick(hosts);
      await host.kill();
      for (let step = 0; step < 15; step++) await act();
      await host.restart({ isEmpty: fault === 3 });
      for (let step = 0; step < 15; step++) await act();
    }
    for (const node of living) await node.until(() => node.areAllUp, "all hosts are back");
    await expectModel(wasCut);
  }
  for (const entry of model.values()) {
    await entry.node.presence.leave(appOf(entry.room), entry.room, entry.clientId);
  }
  model.clear();
  await expectModel(wasCut);
}
