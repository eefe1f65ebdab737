/** The contract of brokers, and what Redis hosts do to one: nodes, sharding, outages. */

import { type Channel, expand } from "@pandapush/protocol";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { brokerSuite, freshApp, Node } from "../src/broker/broker.suite.js";
import { createMemoryBroker } from "../src/broker/memory.js";
import { createRedisBroker } from "../src/broker/redis.js";
import type { RedisHostConfig } from "../src/config.js";
import { Refusal } from "../src/errors.js";
import { type HostState, RedisHosts } from "../src/redis/hosts.js";
import { Random } from "./hostile/random.js";
import { StallingProxy, TestRedis } from "./redis.js";

describe("a broker in memory", () => {
  brokerSuite(async () => ({ create: createMemoryBroker, close: async () => undefined }));
});

let redis: TestRedis;
let other: TestRedis;
beforeAll(async () => {
  [redis, other] = await Promise.all([TestRedis.start(), TestRedis.start()]);
});
afterAll(async () => {
  await Promise.all([redis.stop(), other.stop()]);
});

describe.each([1, 2])("a broker on Redis, %i host(s)", (count) => {
  brokerSuite(async () => {
    const configs = [redis.config, other.config].slice(0, count);
    const hosts = new RedisHosts({ hosts: configs, prefix: "suite:" }, () => undefined);
    await hosts.tried();
    return {
      create: (handler) => createRedisBroker(hosts, handler, () => undefined),
      close: () => hosts.close(),
    };
  });
});

interface Logged {
  readonly level: string;
  readonly message: string;
  readonly fields: object;
}

/** A node on Redis, and what it noticed. */
class RedisNode extends Node {
  readonly logged: Logged[];
  readonly states: [string, HostState][] = [];
  readonly hosts: RedisHosts;
  private readonly stateLooks = new Set<() => void>();

  private constructor(configs: readonly RedisHostConfig[], prefix: string) {
    const logged: Logged[] = [];
    const log = (level: string, message: string, fields: object): void => {
      logged.push({ level, message, fields });
    };
    const hosts = new RedisHosts({ hosts: configs, prefix }, log);
    super((handler) => createRedisBroker(hosts, handler, log));
    this.hosts = hosts;
    this.logged = logged;
    for (const host of hosts.all) {
      host.onState((state) => {
        this.states.push([host.name, state]);
        for (const look of [...this.stateLooks]) look();
      });
    }
  }

  static async start(prefix: string, ...configs: RedisHostConfig[]): Promise<RedisNode> {
    const node = new RedisNode(configs, prefix);
    nodes.push(node);
    await node.hosts.tried();
    return node;
  }

  /** Waits until the host is as it should be. */
  async untilHost({ address }: { readonly address: string }, isUp: boolean): Promise<void> {
    const host = this.hosts.all.find(({ name }) => name === address);
    await new Promise<void>((resolve, reject) => {
      const look = (): void => {
        if (host?.isUp !== isUp) return;
        clearTimeout(timer);
        this.stateLooks.delete(look);
        resolve();
      };
      const timer = setTimeout(() => {
        this.stateLooks.delete(look);
        reject(new Error(`${address} is not ${isUp ? "up" : "down"} within 10 s`));
      }, 10_000);
      this.stateLooks.add(look);
      look();
    });
  }

  /** Names of the application that are on this host, as many as asked for. */
  on({ address }: TestRedis, count: number, app: string): string[] {
    const names = Array.from({ length: 200 }, (_, index) => `/${app}/public/n${index}`);
    return names.filter((name) => this.hosts.hostOf(name).name === address).slice(0, count);
  }

  async end(): Promise<void> {
    await this.broker.close();
    await this.hosts.close();
  }
}

const nodes: RedisNode[] = [];
let prefixes = 0;
let prefix: string;
beforeEach(() => {
  prefix = `t${++prefixes}:`;
});
afterEach(async () => {
  await Promise.all(nodes.splice(0).map((node) => node.end()));
});

/** What a publish or subscribe is refused with, and after how long. */
async function refusal(work: Promise<unknown>): Promise<{ error: string; ms: number }> {
  const start = performance.now();
  const error = await work.then(
    () => "none",
    (reason: unknown) => (reason instanceof Refusal ? reason.toBayeux() : String(reason)),
  );
  return { error, ms: performance.now() - start };
}

describe("two nodes on one Redis", () => {
  test("[T9] what is published through one when the other's subscribe is acknowledged is heard there", async () => {
    const [one, two] = [
      await RedisNode.start(prefix, redis.config),
      await RedisNode.start(prefix, redis.config),
    ];
    const app = freshApp();
    for (let round = 0; round < 500; round++) {
      const name = `/${app}/public/t9/${round}`;
      await two.subscribe(round % 3 === 0 ? `/${app}/public/t9/${round}/*` : name);
      await one.publish(round % 3 === 0 ? `${name}/x` : name, `t9-${round}`);
    }
    await two.untilTrue(() => two.heard.length === 500, "all of them");
    expect(two.ids).toEqual(Array.from({ length: 500 }, (_, round) => `t9-${round}`));
  });

  test("both hear what both publish in the same order, at the same positions", async () => {
    const [one, two] = [
      await RedisNode.start(prefix, redis.config),
      await RedisNode.start(prefix, redis.config),
    ];
    const app = freshApp();
    const names = ["a", "a/b", "c"].map((rest) => `/${app}/public/${rest}`);
    await one.subscribe(...names);
    await two.subscribe(`/${app}/public/**`);
    const published: Promise<unknown>[] = [];
    for (let index = 0; index < 600; index++) {
      const node = index % 2 === 0 ? one : two;
      published.push(node.publish(names[index % 3] ?? "", `both-${index}`));
      if (index % 50 === 0) await published.at(-1);
    }
    const positions = await Promise.all(published);
    for (const node of [one, two]) {
      await node.untilTrue(() => node.heard.length === 600, "all of them");
    }
    expect(two.heard).toEqual(one.heard);
    const own = new Map(one.heard.map(({ publication, position }) => [publication.id, position]));
    for (const [index, position] of positions.entries()) {
      expect(own.get(`both-${index}`)).toEqual(position);
    }
    const seqs = one.heard.map(({ position: { seq } }) => seq);
    expect(seqs).toEqual([...seqs].sort((a, b) => a - b));
  });

  test("Redis sends a node only what it is subscribed to, and nothing after it unsubscribed", async () => {
    const node = await RedisNode.start(prefix, redis.config);
    const app = freshApp();
    const topics = async (): Promise<unknown> =>
      redis.command("PUBSUB", "CHANNELS", `${prefix}{${app}}*`);
    await node.subscribe(`/${app}/public/a`, `/${app}/private/**`);
    expect(await topics()).toEqual(
      expect.arrayContaining([`${prefix}{${app}}/public/a`, `${prefix}{${app}}/private/**`]),
    );
    node.unsubscribe(`/${app}/public/a`, `/${app}/private/**`);
    // Whatever comes later in the same queue is done later.
    await node.subscribe(`/${app}/public/last`);
    await node.subscribe(`/${app}/public/really-last`);
    expect(await topics()).toHaveLength(2);
    expect(await redis.command("PUBSUB", "NUMPAT")).toBe(0);
  });

  test("a publish is one command, however many hear it; those of one turn are few writes", async () => {
    const app = freshApp();
    const [publisher, ...listeners] = await Promise.all(
      Array.from({ length: 4 }, () => RedisNode.start(prefix, redis.config)),
    );
    if (publisher === undefined) throw new Error("no node");
    const name = `/${app}/public/a/b/c`;
    for (const node of listeners) await node.subscribe(name, `/${app}/public/**`);
    await publisher.publish(name, "first");
    const stats = async () => {
      const text = String(await redis.command("INFO", "stats"));
      return Number(/total_reads_processed:(\d+)/.exec(text)?.[1]);
    };
    const [before, readsBefore] = [await redis.commandCounts(), await stats()];
    await Promise.all(Array.from({ length: 100 }, (_, i) => publisher.publish(name, `many-${i}`)));
    const [after, readsAfter] = [await redis.commandCounts(), await stats()];
    const count = (command: string): number =>
      (after.get(command) ?? 0) - (before.get(command) ?? 0);
    expect(count("evalsha")).toBe(100);
    // Each of our own questions opens a connection, which costs a few.
    expect(readsAfter - readsBefore).toBeLessThan(40);
    for (const node of listeners) await node.untilTrue(() => node.heard.length === 101, "all");
  });

  test("scripts that Redis has forgotten are loaded again, and nothing changes its order", async () => {
    const [one, two] = [
      await RedisNode.start(prefix, redis.config),
      await RedisNode.start(prefix, redis.config),
    ];
    const app = freshApp();
    const name = `/${app}/public/a`;
    await two.subscribe(name);
    const published: Promise<unknown>[] = [];
    const ids = Array.from({ length: 3_000 }, (_, index) => `flush-${index}`);
    for (const [index, id] of ids.entries()) {
      published.push(one.publish(name, id));
      if (index % 300 === 150) published.push(redis.command("SCRIPT", "FLUSH"));
      if (index % 7 === 0) await new Promise((resolve) => setImmediate(resolve));
    }
    await Promise.all(published);
    await two.untilTrue(() => two.heard.length === ids.length, "all of them");
    expect(two.ids).toEqual(ids);
  });

  test("a message of a version to come is ignored, with one warning, and so is nonsense", async () => {
    const node = await RedisNode.start(prefix, redis.config);
    const app = freshApp();
    const name = `/${app}/public/a`;
    await node.subscribe(name);
    const topic = `${prefix}{${app}}/public/a`;
    const nonsense = ["2 e 1 x-1 whatever", "2 e 2 x-2 whatever\n1", "", "\n", "1\n", "1 e 1 x\n1"];
    for (const message of nonsense) await redis.command("PUBLISH", topic, message);
    // Words that it does not know, at the end of a line that it knows, do not matter.
    await redis.command("PUBLISH", topic, `1 e 7 x-7 ${name} 4 something new\n"ok"{"x":1}`);
    await node.publish(name, "mine");
    await node.until("mine");
    await node.publish(name, "end");
    await node.until("end");
    const warnings = node.logged.filter(({ level }) => level === "warn");
    expect(warnings.map(({ fields }) => fields)).toEqual([
      { host: redis.address, version: "2" },
      { host: redis.address, version: "" },
      { host: redis.address, version: "1" },
    ]);
  });

  test("databases of one Redis are apart, although its topics know none", async () => {
    const [one, two] = [
      await RedisNode.start(prefix, redis.config),
      await RedisNode.start(prefix, { ...redis.config, database: 1 }),
    ];
    const app = freshApp();
    for (const node of [one, two]) await node.subscribe(`/${app}/public/a`);
    await one.publish(`/${app}/public/a`, "one");
    await two.publish(`/${app}/public/a`, "two");
    expect(await one.flush(app)).toEqual(["one"]);
    expect(await two.flush(app)).toEqual(["two"]);
  });
});

test("hosts share out channels evenly, and one that comes takes its share of each", async () => {
  const config = (port: number): RedisHostConfig => ({ ...redis.config, host: "0.0.0.0", port });
  const of = (ports: number[]): RedisHosts =>
    new RedisHosts({ hosts: ports.map(config), prefix }, () => undefined);
  const [three, four] = [of([1, 2, 3]), of([4, 3, 2, 1])];
  const names = Array.from({ length: 10_000 }, (_, index) => `/app/public/users/${index}`);
  const shares = new Map<string, number>();
  for (const name of names) {
    const [before, after] = [three.hostOf(name).name, four.hostOf(name).name];
    if (after !== "0.0.0.0:4") expect(after).toBe(before);
    shares.set(after, (shares.get(after) ?? 0) + 1);
  }
  expect(shares.size).toBe(4);
  for (const share of shares.values()) expect(Math.abs(share - 2_500)).toBeLessThan(250);
  await Promise.all([three.close(), four.close()]);
});

describe("two hosts", () => {
  test("share out the channels; each is heard once, by its name and by patterns", async () => {
    const [one, two] = [
      await RedisNode.start(prefix, redis.config, other.config),
      // In another order: what matters is which hosts there are.
      await RedisNode.start(prefix, other.config, redis.config),
    ];
    const app = freshApp();
    const names = Array.from({ length: 64 }, (_, index) => `/${app}/public/deep/${index}`);
    await one.subscribe(`/${app}/public/deep/*`, ...names);
    await two.subscribe(`/${app}/public/**`);
    const before = [await redis.commandCounts(), await other.commandCounts()];
    await Promise.all(names.map((name) => two.publish(name, name)));
    const after = [await redis.commandCounts(), await other.commandCounts()];
    const shares = after.map(
      (counts, index) => (counts.get("evalsha") ?? 0) - (before[index]?.get("evalsha") ?? 0),
    );
    expect((shares[0] ?? 0) + (shares[1] ?? 0)).toBe(64);
    for (const share of shares) expect(share).toBeGreaterThan(15);
    for (const node of [one, two]) {
      expect((await node.flush(app)).sort()).toEqual([...names].sort());
    }
  });

  test.each([
    ["with its data", false],
    ["empty", true],
  ])(
    "one that is killed and comes back %s: the other's channels do not notice, the rest heals itself",
    async (_, isEmpty) => {
      const [one, two] = [
        await RedisNode.start(prefix, redis.config, other.config),
        await RedisNode.start(prefix, redis.config, other.config),
      ];
      const app = freshApp();
      const pattern = `/${app}/public/**`;
      const [dead = "", deadToo = "", unheard = "", fresh = ""] = one.on(other, 4, app);
      const [alive = "", aliveToo = ""] = one.on(redis, 2, app);
      await two.subscribe(pattern, dead, deadToo, alive, aliveToo);
      two.unsubscribe(deadToo);
      const { epoch } = await one.publish(dead, "before");
      await two.until("before");

      await other.kill();
      await Promise.all([one.untilHost(other, false), two.untilHost(other, false)]);
      const refused = await refusal(one.publish(dead, "lost"));
      expect(refused.error).toBe(`503:${dead}:Broker unavailable`);
      expect(refused.ms).toBeLessThan(500);
      // What needs the host waits for it; what does not is as ever.
      const waiting = two.subscribe(unheard);
      await one.publish(alive, "meanwhile");
      expect(await two.until("meanwhile")).toEqual(["meanwhile"]);
      expect(two.gaps).toEqual([]);

      await other.restart({ isEmpty });
      await waiting;
      await Promise.all([one.untilHost(other, true), two.untilHost(other, true)]);
      await two.subscribe(fresh);
      const back = await one.publish(dead, "after");
      await two.until("after");
      expect(back.epoch === epoch).toBe(!isEmpty);
      await one.publish(unheard, "unheard");
      await one.publish(fresh, "fresh");
      await one.publish(deadToo, "by-pattern");
      for (const id of ["unheard", "fresh", "by-pattern"])
        expect(await two.until(id)).toEqual([id]);
      // Exactly what was subscribed to, and on that host.
      expect([...two.gaps].sort()).toEqual([dead, pattern].sort());
      expect(one.gaps).toEqual([]);
      for (const node of [one, two]) {
        expect(node.states.filter(([name]) => name === redis.address)).toHaveLength(1);
        expect(node.states.filter(([name]) => name === other.address).slice(-2)).toEqual([
          [other.address, { isUp: false }],
          [other.address, { isUp: true, mayLackData: true }],
        ]);
      }
    },
  );

  test("a subscription that needs one that is down is refused after five seconds, publishes go on", async () => {
    const node = await RedisNode.start(prefix, redis.config, other.config);
    const app = freshApp();
    const [dead = ""] = node.on(other, 1, app);
    const [alive = ""] = node.on(redis, 1, app);
    await node.subscribe(alive);
    await other.kill();
    await node.untilHost(other, false);
    const pattern = `/${app}/public/**`;
    const refusals = [dead, pattern].map((name) => refusal(node.subscribe(name)));
    await node.publish(alive, "alive");
    expect(await node.until("alive")).toEqual(["alive"]);
    for (const [index, { error, ms }] of (await Promise.all(refusals)).entries()) {
      expect(error).toBe(`503:${[dead, pattern][index]}:Broker unavailable`);
      expect(ms).toBeGreaterThan(4_500);
      expect(ms).toBeLessThan(6_500);
    }
    // As long as they are not given up they become effective all the same.
    node.unsubscribe(pattern);
    await other.restart();
    await node.untilHost(other, true);
    await node.subscribe(dead);
    await node.publish(dead, "back");
    await node.until("back");
    expect(node.gaps).toEqual([]);
  });
});

describe("a host", () => {
  test("whose connections are cut is the same host with the same data", async () => {
    const node = await RedisNode.start(prefix, redis.config);
    const app = freshApp();
    const name = `/${app}/public/a`;
    await node.subscribe(name, `/${app}/public/gone`);
    node.unsubscribe(`/${app}/public/gone`);
    const { epoch } = await node.publish(name, "before");
    await node.until("before");
    for (const type of ["normal", "pubsub"]) {
      const down = node.untilHost(redis, false);
      await redis.command("CLIENT", "KILL", "TYPE", type, "SKIPME", "yes");
      await down;
      await node.untilHost(redis, true);
      expect(node.states.at(-1)).toEqual([redis.address, { isUp: true, mayLackData: false }]);
    }
    await node.subscribe(name);
    expect((await node.publish(name, "after")).epoch).toBe(epoch);
    await node.until("after");
    expect(node.gaps).toEqual([name]);
  });

  test("that stands still: publishes are refused within a second, then at once; it recovers by itself", async () => {
    const own = await TestRedis.start();
    const node = await RedisNode.start(prefix, own.config);
    const app = freshApp();
    const name = `/${app}/public/a`;
    await node.subscribe(name);
    own.pause();
    const first = await refusal(node.publish(name, "1"));
    expect(first.error).toBe(`503:${name}:Broker unavailable`);
    // 0.8 s, and what a busy machine adds.
    expect(first.ms).toBeLessThan(1_500);
    const second = await refusal(node.publish(name, "2"));
    expect(second.error).toBe(`503:${name}:Broker unavailable`);
    expect(second.ms).toBeLessThan(100);
    const waiting = node.subscribe(`/${app}/public/b`);
    own.resume();
    await node.untilHost(own, true);
    await waiting;
    for (const rest of ["a", "b"]) await node.publish(`/${app}/public/${rest}`, `after-${rest}`);
    await node.untilTrue(() => node.ids.includes("after-b"), "after-b");
    // What was refused because nobody knew may have been taken.
    expect(node.ids.filter((id) => id.startsWith("after"))).toEqual(["after-a", "after-b"]);
    expect(node.ids).not.toContain("2");
    // Its topics only stood still.
    expect(node.gaps).toEqual([]);
    await node.end();
    await own.stop();
  });

  test("from which nothing comes any more: a short silence loses nothing, what a long one may have lost is told", async () => {
    const proxy = await StallingProxy.start(redis.port);
    const [node, other] = [
      await RedisNode.start(prefix, { ...redis.config, port: proxy.port }),
      await RedisNode.start(prefix, redis.config),
    ];
    const app = freshApp();
    const name = `/${app}/public/a`;
    await node.subscribe(name);
    proxy.stall();
    await other.publish(name, "short");
    proxy.goOn();
    expect(await node.until("short")).toEqual(["short"]);
    expect(node.gaps).toEqual([]);

    proxy.stall();
    await other.publish(name, "long");
    // The topics are given up after the commands.
    await proxy.untilGivenUp();
    expect((await refusal(node.publish(name))).error).toContain("Broker unavailable");
    proxy.goOn();
    await node.untilHost(proxy, true);
    await other.publish(name, "after");
    expect(await node.until("after")).toEqual(["after"]);
    expect(node.gaps).toEqual([name]);
    await node.end();
    await proxy.close();
  });

  test("that was never there keeps nobody from starting, and is used when it comes", async () => {
    const own = await TestRedis.start();
    await own.kill();
    const node = await RedisNode.start(prefix, redis.config, own.config);
    const app = freshApp();
    const [absent = ""] = node.on(own, 1, app);
    expect(node.logged).toContainEqual({
      level: "warn",
      message: "Redis host is down",
      fields: { host: own.address, reason: `connect ECONNREFUSED ${own.address}` },
    });
    const waiting = node.subscribe(absent);
    expect((await refusal(node.publish(absent, "1"))).error).toContain("Broker unavailable");
    await own.restart();
    await waiting;
    await node.untilHost(own, true);
    await node.publish(absent, "2");
    await node.until("2");
    expect(node.gaps).toEqual([]);
    expect(node.states.at(-1)).toEqual([own.address, { isUp: true, mayLackData: false }]);
    await node.end();
    await own.stop();
  });

  test("that refuses us says why in the log, without the password, and is tried again", async () => {
    const own = await TestRedis.start("--requirepass", "right one");
    const wrong = await RedisNode.start(prefix, { ...own.config, password: "wrong one" });
    const none = await RedisNode.start(prefix, own.config);
    const right = await RedisNode.start(prefix, { ...own.config, password: "right one" });
    const app = freshApp();
    await right.subscribe(`/${app}/public/a`);
    await right.publish(`/${app}/public/a`, "1");
    await right.until("1");
    for (const [node, reason] of [
      [wrong, /WRONGPASS/],
      [none, /NOAUTH/],
    ] as const) {
      expect((await refusal(node.publish(`/${app}/public/a`))).error).toContain("unavailable");
      expect(JSON.stringify(node.logged)).toMatch(reason);
      expect(JSON.stringify(node.logged)).not.toContain("wrong one");
    }
    await Promise.all([wrong, none, right].map((node) => node.end()));
    await own.stop();
  });

  test("whose primary became a replica counts as down until it is one again", async () => {
    const own = await TestRedis.start();
    const node = await RedisNode.start(prefix, own.config);
    const name = `/${freshApp()}/public/a`;
    await node.publish(name);
    await own.command("REPLICAOF", "127.0.0.1", String(redis.port));
    expect((await refusal(node.publish(name))).error).toContain("Broker unavailable");
    await node.untilHost(own, false);
    await own.command("REPLICAOF", "NO", "ONE");
    await node.untilHost(own, true);
    await node.publish(name);
    await node.end();
    await own.stop();
  });

  test("that has no memory left refuses publishes, which is logged once, and stays up", async () => {
    const own = await TestRedis.start();
    const node = await RedisNode.start(prefix, own.config);
    const name = `/${freshApp()}/public/a`;
    await own.command("CONFIG", "SET", "maxmemory", "1");
    for (let round = 0; round < 3; round++) {
      expect((await refusal(node.publish(name))).error).toContain("Broker unavailable");
    }
    const errors = node.logged.filter(({ level }) => level === "error");
    expect(errors).toHaveLength(1);
    expect((errors[0]?.fields as { err?: Error } | undefined)?.err?.message).toContain("OOM");
    await own.command("CONFIG", "SET", "maxmemory", "0");
    await node.publish(name);
    expect(node.states).toHaveLength(1);
    await node.end();
    await own.stop();
  });
});

/** What one node asked for, and what it must therefore have heard. */
class Model {
  private readonly live = new Map<string, { isEffective: boolean }>();
  private readonly due: { id: string; names: string[]; gapsBefore: number }[] = [];
  private readonly working = new Set<Promise<unknown>>();

  constructor(private readonly node: RedisNode) {}

  subscribe(name: string): void {
    const state = this.live.get(name) ?? { isEffective: false };
    this.live.set(name, state);
    const work = this.node.subscribe(name).then(() => {
      state.isEffective = true;
    });
    this.working.add(work);
    work.finally(() => this.working.delete(work)).catch(() => undefined);
  }

  unsubscribe(name: string): void {
    this.live.delete(name);
    this.node.unsubscribe(name);
    for (const each of this.due) each.names = each.names.filter((other) => other !== name);
  }

  async settled(): Promise<void> {
    await Promise.all(this.working);
  }

  /** To be called before it is published: whoever was acknowledged must hear it. */
  expectToHear(id: string, channel: string): void {
    const names = expand(channel as Channel).filter((name) => this.live.get(name)?.isEffective);
    this.due.push({ id, names, gapsBefore: this.node.gaps.length });
  }

  /** @param refused what may have been taken or not */
  check(refused: ReadonlySet<string>): void {
    const { ids, gaps, heard } = this.node;
    expect(new Set(ids).size).toBe(ids.length);
    for (const { id, names, gapsBefore } of this.due) {
      if (refused.has(id) || ids.includes(id)) continue;
      const toldSince = gaps.slice(gapsBefore);
      const silent = names.filter((name) => !toldSince.includes(name));
      expect({ id, silent }).toEqual({ id, silent: [] });
    }
    const last = new Map<string, number>();
    for (const { position } of heard) {
      expect(position.seq).toBeGreaterThan(last.get(position.epoch) ?? 0);
      last.set(position.epoch, position.seq);
    }
  }

  hears(channel: string): boolean {
    return expand(channel as Channel).some((name) => this.live.has(name));
  }
}

describe("against a model", () => {
  test.each([[1], [2], [Date.now() % 1_000_000_007]])(
    "whatever nodes subscribe to, and however connections are cut, nothing is heard twice or missed in silence (seed %i)",
    async (seed) => {
      const random = new Random(seed);
      const pair = [
        await RedisNode.start(prefix, redis.config, other.config),
        await RedisNode.start(prefix, redis.config, other.config),
      ];
      const app = freshApp();
      const names = ["a", "b", "a/b", "a/b/c", "*", "**", "a/*", "a/**", "a/b/*"].map(
        (rest) => `/${app}/public/${rest}`,
      );
      const channels = names.filter((name) => !name.includes("*"));
      const models = pair.map((node) => new Model(node));
      const refused = new Set<string>();
      const published = new Set<Promise<unknown>>();
      let kills: Promise<unknown> = Promise.resolve();
      for (let step = 0; step < 700; step++) {
        const model = random.pick(models);
        const roll = random.next();
        if (roll < 0.25) {
          model.subscribe(random.pick(names));
        } else if (roll < 0.4) {
          model.unsubscribe(random.pick(names));
        } else if (roll < 0.9) {
          const channel = random.pick(channels);
          const id = `step-${step}`;
          for (const each of models) each.expectToHear(id, channel);
          const taken = random.pick(pair).publish(channel, id);
          published.add(taken.catch(() => refused.add(id)));
          if (random.isLucky(0.5)) await Promise.all(published);
        } else if (roll < 0.915) {
          const host = random.pick([redis, other]);
          const type = random.pick(["normal", "pubsub"]);
          // Nobody waits: what follows meets connections that are about to be cut, or were.
          const kill = () => host.command("CLIENT", "KILL", "TYPE", type, "SKIPME", "yes");
          // One after the other, for they would cut each other.
          kills = kills.then(kill);
        } else {
          await model.settled();
        }
        if (random.isLucky(0.3)) await new Promise((resolve) => setImmediate(resolve));
      }
      await Promise.all([...published, kills]);
      for (const model of models) await model.settled();
      const areUp = async (): Promise<void> => {
        for (const host of [redis, other]) {
          for (const node of pair) await node.untilHost(host, true);
        }
      };
      await areUp();
      for (const node of pair) await node.settle(app);
      const last = new Map<string, string>();
      for (const channel of channels) {
        // A node may not have noticed yet that its connection was cut.
        for (let attempt = 1; !last.has(channel); attempt++) {
          await areUp();
          const id = `last-${channel}-${attempt}`;
          await pair[0]?.publish(channel, id).then(
            () => last.set(channel, id),
            (error: unknown) => expect(error).toBeInstanceOf(Refusal),
          );
        }
      }
      await areUp();
      for (const [index, node] of pair.entries()) {
        await node.settle(app);
        models[index]?.check(refused);
        const due = channels.filter((channel) => models[index]?.hears(channel));
        const ids = [...last.values()];
        const heard = node.ids.filter((id) => ids.includes(id));
        expect(heard.sort()).toEqual(due.map((channel) => last.get(channel)).sort());
      }
      // Nothing is left behind at Redis, whatever happened on the way.
      for (const node of pair) node.unsubscribe(...names);
      for (const rest of ["end/*", "end/**"]) {
        for (const node of pair) await node.subscribe(`/${app}/public/${rest}`);
      }
      for (const host of [redis, other]) {
        const topics = (await host.command("PUBSUB", "CHANNELS", `${prefix}*`)) as string[];
        expect(topics.map((topic) => topic.slice(topic.indexOf("}") + 1)).sort()).toEqual([
          "/public/end/*",
          "/public/end/**",
        ]);
      }
    },
  );
});
