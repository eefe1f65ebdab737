/** One of two Redis hosts goes down under load and comes back. */
import { setTimeout as delay } from "node:timers/promises";
import { afterAll, beforeAll, expect, onTestFinished, test } from "vitest";
import { type Message, Socket } from "../../server/test/harness.js";
import { Cluster, type ClusterNode } from "./cluster.js";
import { freshChannel, publish } from "./requests.js";

/** Far fewer than the channels of a host: each is among them on either. */
const channelCount = 12;
const pauseMs = 50;

let cluster: Cluster;
beforeAll(async () => {
  cluster = await Cluster.start({ redisHosts: 2 });
});
afterAll(() => cluster?.stop());

interface Publication {
  readonly n: number;
  readonly status: number;
  readonly ms: number;
  readonly sentAt: number;
}

/** Publishes numbers to each of its channels, at one node after the other, until it is told to stop. */
class Load {
  readonly publications = new Map<string, Publication[]>();
  #isStopped = false;
  readonly #lanes: Promise<void>[];

  constructor(channels: readonly string[]) {
    this.#lanes = channels.map((channel) => this.#publish(channel));
  }

  of(channel: string): readonly Publication[] {
    return this.publications.get(channel) ?? [];
  }

  async stop(): Promise<void> {
    this.#isStopped = true;
    await Promise.all(this.#lanes);
  }

  async #publish(channel: string): Promise<void> {
    const publications: Publication[] = [];
    this.publications.set(channel, publications);
    for (let n = 0; !this.#isStopped; n++) {
      const sentAt = performance.now();
      const { status, ms } = await publish(nodeAt(n), channel, n);
      publications.push({ n, status, ms, sentAt });
      await delay(pauseMs);
    }
  }
}

function nodeAt(n: number): ClusterNode {
  const node = cluster.nodes[n % cluster.nodes.length];
  if (node === undefined) throw new Error("there is no node");
  return node;
}

/** What one socket hears, by channel. */
class Listener {
  /** Messages that are no publications. */
  readonly others: Message[] = [];
  readonly #numbers = new Map<string, number[]>();

  constructor(readonly socket: Socket) {}

  heard(channel: string): readonly number[] {
    for (const message of this.socket.received.splice(0)) {
      if (typeof message.data !== "number" || message.channel === undefined) {
        this.others.push(message);
        continue;
      }
      const numbers = this.#numbers.get(message.channel) ?? [];
      numbers.push(message.data);
      this.#numbers.set(message.channel, numbers);
    }
    return this.#numbers.get(channel) ?? [];
  }
}

/** The last number of a channel. */
const last = -1;
const poll = { timeout: 20_000, interval: 20 };
/** How long after its return a host may need until all is as before. */
const backWithin = { ...poll, timeout: 5_000 };

test.each([
  [0, false],
  [1, true],
])(
  "host %i is killed under load: the other's channels notice nothing, its own are refused at once and are all back soon (its data is lost: %s)",
  async (index, isEmpty) => {
    const parent = freshChannel();
    const channels = Array.from({ length: channelCount }, (_, n) => `${parent}/${n}`);
    const listeners: Listener[] = [];
    for (const node of cluster.nodes) {
      const socket = await Socket.connect(node);
      for (const channel of channels) await socket.subscribe(channel);
      listeners.push(new Listener(socket));
    }
    const load = new Load(channels);
    onTestFinished(() => load.stop());
    /** Until everybody has heard what was sent since then through each of the nodes, of each channel. */
    const allHear = (of: readonly string[], since: number, within = poll): Promise<void> => {
      const hears = (channel: string, listener: Listener): boolean => {
        const first = load.of(channel).find(({ sentAt }) => sentAt > since)?.n ?? Infinity;
        const [one = -1, two = -1] = listener.heard(channel).slice(-2);
        return one >= first && two === one + 1;
      };
      const unheard = (): string[] =>
        of.flatMap((channel) =>
          listeners.flatMap((listener, at) => {
            if (hears(channel, listener)) return [];
            const sent = load
              .of(channel)
              .slice(-3)
              .map(({ n, status }) => `${n}: ${status}`);
            const heard = listener.heard(channel).slice(-3);
            return [`${channel} at node ${at}: sent ${sent.join(", ")}; heard ${heard}`];
          }),
        );
      return expect.poll(unheard, within).toEqual([]);
    };
    await allHear(channels, performance.now());

    const host = cluster.redis[index];
    if (host === undefined) throw new Error("there is no such host");
    const killedAt = performance.now();
    await host.kill();
    const downAt = performance.now();
    const since = (channel: string) => load.of(channel).filter(({ sentAt }) => sentAt > downAt);
    await expect
      .poll(() => channels.filter((channel) => since(channel).length < 10), poll)
      .toEqual([]);
    const dead = channels.filter((channel) => since(channel).some(({ status }) => status === 503));
    const living = channels.filter((channel) => !dead.includes(channel));
    expect(Math.min(dead.length, living.length)).toBeGreaterThan(2);
    for (const channel of dead)
      expect(new Set(since(channel).map((each) => each.status))).toEqual(new Set([503]));

    await host.restart({ isEmpty });
    await allHear(dead, performance.now(), backWithin);
    const wellAt = performance.now();
    await allHear(channels, wellAt);
    await load.stop();
    for (const channel of channels) {
      // Whatever was published before comes before this.
      expect((await publish(nodeAt(0), channel, last)).status).toBe(200);
      for (const listener of listeners) {
        await expect.poll(() => listener.heard(channel).at(-1), poll).toBe(last);
      }
    }

    for (const channel of channels) {
      const isDead = dead.includes(channel);
      const publications = load.of(channel);
      for (const { status, ms, sentAt } of publications) {
        const isMeanwhile = sentAt + ms > killedAt && sentAt < wellAt;
        if (isMeanwhile) expect(ms).toBeLessThan(1_000);
        if (!isDead || !isMeanwhile) expect(status).toBe(200);
      }
      const taken = publications.filter(({ status }) => status === 200);
      const promised = isDead ? taken.filter(({ sentAt }) => sentAt > wellAt) : taken;
      for (const listener of listeners) {
        const numbers = listener.heard(channel).slice(0, -1);
        expect(numbers).toEqual([...new Set(numbers)].sort((a, b) => a - b));
        expect(numbers).toEqual(expect.arrayContaining(promised.map(({ n }) => n)));
      }
    }
    for (const { socket, others } of listeners) {
      expect(socket.closed).toBeUndefined();
      expect(others.filter(({ advice }) => advice?.reconnect === "handshake")).toEqual([]);
      socket.close();
    }
    for (const node of cluster.nodes) {
      expect(node.isRunning).toBe(true);
      await expect.poll(() => node.isReady(), poll).toBe(true);
    }
  },
);
