import { setTimeout as delay } from "node:timers/promises";
import { costOf, withCluster } from "./cluster.mjs";
import {
  privateChannel,
  publicChannel,
  publishTurn,
  repeat,
  settledBytes,
  withToken,
} from "./works.mjs";

const channel = publicChannel("a/b/c");
const patterns = ["a/b/*", "a/b/**", "a/**", "**"].map(publicChannel);

/**
 * Rows of the table: one publisher, and what hears it. With two nodes the publisher is at one of
 * them, and all subscribers at the other.
 */
export const brokerRows = [
  { name: "memory, 1 subscriber", hosts: 0, subscribers: 1 },
  { name: "Redis, 1 subscriber", hosts: 1, subscribers: 1 },
  { name: "Redis, nobody", hosts: 1, subscribers: 0 },
  { name: "Redis, 100 subscribers", hosts: 1, subscribers: 100 },
  { name: "Redis, 1000 subscribers", hosts: 1, subscribers: 1000 },
  {
    name: "Redis, 100 subscribers, each of the channel and its 4 patterns",
    hosts: 1,
    subscribers: 100,
    names: [channel, ...patterns],
  },
  { name: "Redis, two nodes, 100 subscribers", hosts: 1, nodes: 2, subscribers: 100 },
  { name: "2 Redis hosts, two nodes, 100 subscribers", hosts: 2, nodes: 2, subscribers: 100 },
].flatMap(({ name, subscribers, names = [channel], ...row }) =>
  [64, 1].map((inFlight) => ({
    ...row,
    name: `${name}, ${inFlight} in flight`,
    inFlight,
    interests: repeat(subscribers, () => ({ subscription: names })),
    channels: [channel],
    heardBy: subscribers,
  })),
);

const ownChannels = repeat(999, (index) => privateChannel(`users/${index}`));
const heardByOne = { interests: ownChannels.map(withToken), channels: ownChannels, heardBy: 1 };
const heardByAll = { channels: [channel], heardBy: 999 };

/** The same load on one, two and three nodes: each has a publisher, and its part of the subscribers. */
export const clusterRows = [1, 2, 3].flatMap((nodes) =>
  [
    { name: "nobody hears it", interests: [], channels: [channel], heardBy: 0, inFlight: 60 },
    {
      name: "a subscriber at each",
      interests: repeat(nodes, () => ({ subscription: channel })),
      channels: [channel],
      heardBy: nodes,
      inFlight: 60,
    },
    { name: "999 channels with a subscriber each", ...heardByOne, inFlight: 60 },
    { name: "the same with 2 Redis hosts", ...heardByOne, hosts: 2, inFlight: 60 },
    {
      name: "999 subscribers of one channel",
      ...heardByAll,
      interests: repeat(999, () => ({ subscription: channel })),
      inFlight: 12,
    },
    {
      name: "999 subscribers of one channel and its 4 patterns",
      ...heardByAll,
      interests: repeat(999, () => ({ subscription: [channel, ...patterns] })),
      inFlight: 12,
    },
  ].map((row) => ({
    hosts: 1,
    ...row,
    name: `${nodes} node${nodes === 1 ? "" : "s"}, ${row.name}`,
    nodes,
    isSpread: true,
    inFlight: row.inFlight / nodes,
  })),
);

/**
 * Figures for each publish: CPU time of the nodes and of Redis, commands that Redis was sent, bytes
 * that it read and wrote.
 */
export function brokerTurn(load, row, quick) {
  const { interests, channels, heardBy, inFlight, isSpread = false } = row;
  return withCluster(row, (servers, redis) => {
    const ports = servers.map(({ port }) => port);
    const deployment = {
      ports: isSpread ? ports : ports.slice(-1),
      publisherPorts: isSpread ? ports : ports.slice(0, 1),
      cpuSeconds: () => servers.reduce((sum, server) => sum + server.cpuSeconds(), 0),
    };
    return publishTurn(load, deployment, {
      interests,
      channels,
      heardBy,
      inFlight,
      durationMs: quick ? 1000 : 3000,
      around: async (action) => {
        const { perSecond, ...cost } = await costOf(servers, redis, async () => {
          const turn = await action();
          return { ...turn, count: turn.published };
        });
        return { ...cost, publishesPerSecond: perSecond };
      },
    });
  });
}

const idleSessions = 10;
const idleChannels = 1000;
const idleMs = 5000;

/**
 * What 10,000 channels cost that are subscribed to and silent: memory of a node and of Redis, the
 * time until all are confirmed, and what share of a core both use while nothing happens.
 */
export function idleTurn(load) {
  return withCluster({ hosts: 1 }, async ([server], [redis]) => {
    const total = idleSessions * idleChannels;
    const interests = repeat(idleSessions, (session) => ({
      subscription: repeat(idleChannels, (index) => publicChannel(`idle/${session}/${index}`)),
    }));
    const memory = async () => [await settledBytes(server), (await redis.counts()).memory];
    const spentDuring = async (action) => {
      const before = [server.cpuSeconds(), redis.cpuSeconds()];
      await action();
      return [server.cpuSeconds() - before[0], redis.cpuSeconds() - before[1]];
    };
    await load.receivers.call("prepare", interests);
    const memoryBefore = await memory();
    const silent = await spentDuring(() => delay(idleMs));
    let seconds = 0;
    const spent = await spentDuring(async () => {
      const startMs = performance.now();
      await load.receivers.call("openSessions", { ports: [server.port] });
      seconds = (performance.now() - startMs) / 1000;
    });
    const memoryAfter = await memory();
    const idle = await spentDuring(() => delay(idleMs));
    await load.receivers.call("closeSessions");
    const [node, host] = [0, 1].map((of) => ({
      bytes: (memoryAfter[of] - memoryBefore[of]) / total,
      subscribeUs: (spent[of] * 1e6) / total,
      idleShare: (idle[of] * 1000) / idleMs,
      idleShareBefore: (silent[of] * 1000) / idleMs,
    }));
    return { name: `${total} silent channels`, seconds, node, host };
  });
}
