/** Who lives, as several nodes see it through real Redis hosts. */
import { type ChildProcess, fork } from "node:child_process";
import { once } from "node:events";
import type { AppId } from "@pandapush/protocol";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "vitest";
import {
  createMembership,
  type MembershipHandler,
  type OwnMembership,
} from "../src/cluster/membership.js";
import { Refusal } from "../src/errors.js";
import { type RedisHost, RedisHosts } from "../src/redis/hosts.js";
import { StallingProxy, TestRedis } from "./redis.js";

const leaseMs = 2_500;
const renewMs = 250;

let redis: TestRedis;
let other: TestRedis;
beforeAll(async () => {
  [redis, other] = await Promise.all([TestRedis.start(), TestRedis.start()]);
});
afterAll(async () => {
  await Promise.all([redis.stop(), other.stop()]);
});

interface Cleaned {
  readonly host: string;
  readonly nodeId: string;
  readonly appId: AppId;
}

/** A node as far as membership goes, and what it was told. */
class Member implements MembershipHandler {
  readonly deaths: string[] = [];
  /** The ids that it had. */
  readonly ids: string[] = [];
  readonly cleaned: Cleaned[] = [];
  readonly hosts: RedisHosts;
  readonly membership: OwnMembership;
  private readonly looks = new Set<() => void>();

  private constructor(ports: readonly number[], prefix: string) {
    const hosts = ports.map((port) => ({ ...redis.config, port }));
    this.hosts = new RedisHosts({ hosts, prefix }, () => undefined);
    this.membership = createMembership(this.hosts, this, { leaseMs, renewMs }, () => undefined);
    this.ids.push(this.membership.id);
  }

  static async start(...ports: number[]): Promise<Member> {
    const member = new Member(ports.length === 0 ? [redis.port] : ports, prefix);
    members.push(member);
    await member.hosts.tried();
    await member.membership.start();
    return member;
  }

  get id(): string {
    return this.membership.id;
  }

  died(nodeId: string): void {
    this.deaths.push(nodeId);
    this.look();
  }

  lost(): void {
    this.ids.push(this.membership.id);
    this.look();
  }

  async clean(host: RedisHost, nodeId: string, appId: AppId): Promise<void> {
    this.cleaned.push({ host: host.name, nodeId, appId });
    this.look();
  }

  /** Waits until this is true; it is looked at whenever the node is told something. */
  async until(isTrue: () => boolean, what: string): Promise<void> {
    await new Promise<void>((resolve, reject) => {
      const look = (): void => {
        if (!isTrue()) return;
        clearTimeout(timer);
        clearInterval(ticks);
        this.looks.delete(look);
        resolve();
      };
      const ticks = setInterval(look, renewMs / 4);
      const timer = setTimeout(() => {
        clearInterval(ticks);
        this.looks.delete(look);
        reject(new Error(`not within 15 s: ${what}`));
      }, 15_000);
      this.looks.add(look);
      look();
    });
  }

  /** As a process that is killed: nothing is said to anybody. */
  async abandon(): Promise<void> {
    members.splice(members.indexOf(this), 1);
    await this.hosts.close();
    await this.membership.close();
  }

  async end(): Promise<void> {
    await this.membership.close();
    await this.hosts.close();
  }

  private look(): void {
    for (const look of [...this.looks]) look();
  }
}

const members: Member[] = [];
const cleanUp: (() => Promise<unknown>)[] = [];
let prefixes = 0;
let prefix: string;
beforeEach(() => {
  prefix = `m${++prefixes}:`;
});
afterEach(async () => {
  await Promise.all(members.splice(0).map((member) => member.end()));
  for (const each of cleanUp.splice(0)) await each();
});

/** All of them know each other. */
async function acquainted(...all: Member[]): Promise<void> {
  const ids = all.map(({ id }) => id).sort();
  for (const member of all) {
    await member.until(
      () => String(member.membership.nodes) === String(ids),
      "they know each other",
    );
  }
}

async function startAll(count: number, ...ports: number[]): Promise<Member[]> {
  const all = await Promise.all(Array.from({ length: count }, () => Member.start(...ports)));
  await acquainted(...all);
  return all;
}

/** Nothing happens but that time passes: what is waited for is that leases run out. */
function passed(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

describe.each([1, 2])("nodes on %i host(s)", (count) => {
  const ports = (): number[] => [redis.port, other.port].slice(0, count);

  test("know each other, and one that started a moment ago", async () => {
    const [one] = (await startAll(3, ...ports())) as [Member];
    const fresh = await Member.start(...ports());
    expect(await one.membership.isAlive(fresh.id)).toBe(true);
    expect(await fresh.membership.isAlive(one.id)).toBe(true);
    expect(fresh.membership.isAlive(fresh.id)).toBe(true);
  });

  test("notice one that is killed, each once, and whatever it kept is cleaned up", async () => {
    const [dead, ...rest] = (await startAll(3, ...ports())) as [Member, Member, Member];
    const apps = Array.from({ length: 120 }, (_, index) => `app${index}` as AppId);
    for (const host of dead.hosts.all) {
      await Promise.all(apps.map((app) => dead.membership.register(host, app)));
      expect(dead.membership.register(host, "app0" as AppId)).toBeUndefined();
    }
    const { id } = dead;
    await dead.abandon();
    for (const member of rest) {
      await member.until(() => member.deaths.includes(id), "it died");
      expect(await member.membership.isAlive(id)).toBe(false);
    }
    await acquainted(...rest);
    const [one] = rest;
    await one.until(
      () =>
        new Set(rest.flatMap(({ cleaned }) => cleaned.map((c) => JSON.stringify(c)))).size ===
        120 * count,
      "all is clean",
    );
    await expect.poll(() => redis.command("KEYS", `${prefix}*apps*`)).toEqual([]);
    await expect.poll(() => redis.command("KEYS", `${prefix}*unclean*`)).toEqual([]);
    for (const member of rest) expect(member.deaths).toEqual([id]);
    // Who comes later learns that it is dead, too.
    const late = await Member.start(...ports());
    expect(await late.membership.isAlive(id)).toBe(false);
    expect(late.deaths).toEqual([id]);
  });

  test("are told at once of one that leaves, and that it is about to", async () => {
    const [leaving, one] = (await startAll(2, ...ports())) as [Member, Member];
    await leaving.membership.leave();
    await one.until(() => String(one.membership.nodes) === one.id, "it is leaving");
    expect(leaving.membership.nodes).not.toContain(leaving.id);
    expect(await one.membership.isAlive(leaving.id)).toBe(true);
    expect(one.deaths).toEqual([]);
    const leftAt = performance.now();
    await leaving.membership.close();
    await one.until(() => one.deaths.includes(leaving.id), "it has left");
    expect(performance.now() - leftAt).toBeLessThan(leaseMs);
    expect(await one.membership.isAlive(leaving.id)).toBe(false);
  });

  test("that are not dead do not die when all hosts come back empty, or with old leases", async () => {
    const all = await startAll(3, ...ports());
    const hosts = [redis, other].slice(0, count);
    for (const isEmpty of [true, false]) {
      await Promise.all(hosts.map((host) => host.kill()));
      for (const member of all) {
        await member.until(() => member.hosts.all.every(({ isUp }) => !isUp), "its hosts are down");
        expect(member.membership.verified()).toBeUndefined();
      }
      await passed(leaseMs + renewMs);
      await Promise.all(hosts.map((host) => host.restart({ isEmpty })));
      const [one] = all as [Member];
      const isBack = (): boolean => one.hosts.all.every(({ isUp }) => isUp);
      await one.until(isBack, "its hosts are back");
      const late = await Member.start(...ports());
      const lateId = late.id;
      await late.abandon();
      // Whoever is dead is found out about after a lease period; by then nobody else was taken for dead.
      for (const member of all) {
        await member.until(() => member.deaths.includes(lateId), "the late one died");
        expect(member.ids).toHaveLength(1);
        expect(member.deaths.filter((id) => all.some((each) => each.id === id))).toEqual([]);
      }
      await acquainted(...all);
    }
  });

  test("that were declared dead by mistake have another id, and nothing is taken from the old one", async () => {
    const [one, two] = (await startAll(2, ...ports())) as [Member, Member];
    const { id } = one;
    const [host] = one.hosts.all as [RedisHost];
    await redis.command("ZADD", `${prefix}{nodes}:dead`, String(Date.now()), id);
    await redis.command("ZREM", `${prefix}{nodes}:leases`, id);
    if (host.name === redis.address) {
      // Unless it has noticed meanwhile.
      const expected = one.ids.length === 1 ? "brokerUnavailable" : "registered";
      const refused = await Promise.resolve(one.membership.register(host, "app" as AppId)).then(
        () => "registered",
        (error: unknown) => (error instanceof Refusal ? error.code : String(error)),
      );
      expect(refused).toBe(expected);
    }
    await one.until(() => one.ids.length === 2, "it noticed");
    await two.until(() => two.deaths.includes(id), "the other noticed");
    await acquainted(one, two);
    expect(one.deaths).toEqual([]);
    expect(await two.membership.isAlive(id)).toBe(false);
    // Also where nobody had declared it dead.
    if (count === 2) {
      await expect.poll(() => other.command("ZSCORE", `${prefix}{nodes}:dead`, id)).not.toBeNull();
      expect(await other.command("ZSCORE", `${prefix}{nodes}:leases`, id)).toBeNull();
    }
  });
});

test("a lease that runs out on one of two hosts only kills nobody", async () => {
  const proxy = await StallingProxy.start(other.port);
  cleanUp.push(() => proxy.close());
  const one = await Member.start(redis.port, proxy.port);
  const two = await Member.start(redis.port, other.port);
  await acquainted(one, two);
  proxy.stall();
  await one.until(() => one.hosts.all.some(({ isUp }) => !isUp), "it is cut off from one host");
  const [third, { id }] = await Promise.all([
    Member.start(redis.port, other.port),
    startAndAbandon(),
  ]);
  await third.until(() => third.deaths.includes(id), "who lost both leases died");
  expect(third.deaths).toEqual([id]);
  expect(third.membership.nodes).toContain(one.id);
  proxy.goOn();
  await one.until(() => one.hosts.all.every(({ isUp }) => isUp), "it is back");
  await one.membership.verified();
  expect(one.ids).toHaveLength(1);

  async function startAndAbandon(): Promise<{ id: string }> {
    const member = await Member.start(redis.port, other.port);
    const { id } = member;
    await member.abandon();
    return { id };
  }
});

test("a clock that is set forward kills nobody", async () => {
  const all = await startAll(3);
  const [one] = all as [Member];
  const dead = await Member.start();
  await acquainted(...all, dead);
  // As if all leases had run out long ago, as often as they are renewed.
  const ids = all.map(({ id }) => id);
  const { id } = dead;
  await dead.abandon();
  let past = 0;
  while (!one.deaths.includes(id)) {
    for (const each of ids) {
      await redis.command("ZADD", `${prefix}{nodes}:leases`, "XX", String(++past), each);
    }
    await new Promise((resolve) => setImmediate(resolve));
  }
  expect(one.deaths).toEqual([id]);
  for (const member of all) expect(member.ids).toHaveLength(1);
});

test("an id that nobody knows is that of no node, unless Redis has forgotten the nodes just now", async () => {
  const [one] = (await startAll(1)) as [Member];
  const ask = () =>
    Promise.resolve(one.membership.isAlive("nobody")).catch((error: Error) =>
      error instanceof Refusal ? error.code : error,
    );
  await expect.poll(ask, { timeout: 8_000 }).toBe(false);
  await redis.command("DEL", `${prefix}{nodes}:since`, `${prefix}{nodes}:leases`);
  expect(await ask()).toBe("brokerUnavailable");
  await redis.kill();
  await one.until(() => one.hosts.all.every(({ isUp }) => !isUp), "its host is down");
  expect(await ask()).toBe("brokerUnavailable");
  await redis.restart();
});

describe("a node that stands still for longer than its lease", () => {
  /** A process that says `{ id }` for each id that it has, and answers `"verify"` with `{ verified }`. */
  async function startFrozen(): Promise<{ child: ChildProcess; id: string }> {
    const child = fork(new URL("./hostile/member.mjs", import.meta.url), [
      String(redis.port),
      prefix,
      String(leaseMs),
      String(renewMs),
    ]);
    cleanUp.push(async () => {
      if (child.exitCode !== null || child.signalCode !== null) return;
      const ended = once(child, "exit");
      child.kill("SIGKILL");
      await ended;
    });
    const [{ id }] = (await once(child, "message")) as [{ id: string }];
    return { child, id };
  }

  async function verify(child: ChildProcess): Promise<string> {
    for (;;) {
      const [{ verified }] = (await once(child, "message")) as [{ verified?: string }];
      if (verified !== undefined) return verified;
    }
  }

  test("finds out before it does anything that it was declared dead", async () => {
    const one = await Member.start();
    const { child, id } = await startFrozen();
    await one.until(() => one.membership.nodes.includes(id), "it lives");
    child.kill("SIGSTOP");
    await one.until(() => one.deaths.includes(id), "it was declared dead");
    const verified = verify(child);
    child.send("verify");
    child.kill("SIGCONT");
    const next = await verified;
    expect(next).not.toBe(id);
    await one.until(() => one.membership.nodes.includes(next), "it lives again");
  });

  test("goes on as it was when nobody has declared it dead", async () => {
    const { child, id } = await startFrozen();
    child.kill("SIGSTOP");
    await passed(leaseMs + renewMs);
    const verified = verify(child);
    child.send("verify");
    child.kill("SIGCONT");
    expect(await verified).toBe(id);
  });
});
