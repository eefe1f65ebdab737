import { Redis, Server } from "./processes.mjs";
import { publicChannel, publishTurn, repeat } from "./works.mjs";

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
].flatMap((row) => [64, 1].map((inFlight) => ({ ...row, inFlight })));

/**
 * Figures for each publish: CPU time of the nodes and of Redis, commands that Redis was sent, bytes
 * that it read and wrote.
 */
export async function brokerTurn(load, row, quick) {
  const { hosts, nodes = 1, subscribers, names = [channel], inFlight } = row;
  const redis = await Promise.all(repeat(hosts, () => Redis.start()));
  const env = hosts === 0 ? {} : { REDIS_HOSTS: redis.map(({ address }) => address).join() };
  const servers = [];
  try {
    for (let node = 0; node < nodes; node++) servers.push(await Server.start("pandapush", { env }));
    const cpuSeconds = (of) => of.reduce((sum, each) => sum + each.cpuSeconds(), 0);
    const counts = async () => {
      const all = await Promise.all(redis.map((each) => each.counts()));
      const sum = (key) => all.reduce((total, each) => total + each[key], 0);
      return { scripts: sum("scripts"), bytesIn: sum("bytesIn"), bytesOut: sum("bytesOut") };
    };
    const [publishing, hearing = publishing] = servers;
    const deployment = {
      port: hearing.port,
      publisherPort: publishing.port,
      cpuSeconds: () => cpuSeconds(servers),
    };
    const interests = repeat(subscribers, () => ({ subscription: names }));
    return await publishTurn(load, deployment, {
      interests,
      channels: [channel],
      heardBy: subscribers,
      inFlight,
      durationMs: quick ? 1000 : 3000,
      around: async (action) => {
        const [before, beforeSeconds] = [await counts(), [servers, redis].map(cpuSeconds)];
        const startMs = performance.now();
        const turn = await action();
        const seconds = (performance.now() - startMs) / 1000;
        const [after, afterSeconds] = [await counts(), [servers, redis].map(cpuSeconds)];
        const each = (key) => (after[key] - before[key]) / turn.published;
        const costUs = (of) => ((afterSeconds[of] - beforeSeconds[of]) * 1e6) / turn.published;
        return {
          ...turn,
          publishesPerSecond: turn.published / seconds,
          nodesUs: costUs(0),
          redisUs: costUs(1),
          commands: each("scripts"),
          bytesIn: each("bytesIn"),
          bytesOut: each("bytesOut"),
        };
      },
    });
  } finally {
    for (const server of servers) await server.stop();
    for (const each of redis) await each.stop();
  }
}
