import { Redis, Server } from "./processes.mjs";
import { repeat } from "./works.mjs";

/**
 * Starts Redis hosts and nodes that share them, and ends them.
 * @template T
 * @param {{ hosts: number, nodes?: number }} row
 * @param {(servers: Server[], redis: Redis[], addNode: () => Promise<Server>) => Promise<T>} action
 * @returns {Promise<T>}
 */
export async function withCluster({ hosts, nodes = 1 }, action) {
  const redis = await Promise.all(repeat(hosts, () => Redis.start()));
  const env = hosts === 0 ? {} : { REDIS_HOSTS: redis.map(({ address }) => address).join() };
  const servers = [];
  const addNode = async () => {
    const server = await Server.start("pandapush", { env });
    servers.push(server);
    return server;
  };
  try {
    for (let node = 0; node < nodes; node++) await addNode();
    return await action(servers, redis, addNode);
  } finally {
    for (const server of servers) await server.stop();
    for (const each of redis) await each.stop();
  }
}

const sumOf = (all, of) => all.reduce((sum, each) => sum + of(each), 0);

async function spentBy(servers, redis) {
  const counts = await Promise.all(redis.map((each) => each.counts()));
  const nodeSeconds = servers.map((server) => server.cpuSeconds());
  const redisSeconds = sumOf(redis, (each) => each.cpuSeconds());
  const sum = (key) => sumOf(counts, (each) => each[key]);
  const [scripts, bytesIn, bytesOut] = ["scripts", "bytesIn", "bytesOut"].map(sum);
  return { nodeSeconds, redisSeconds, scripts, bytesIn, bytesOut };
}

/**
 * What an action costs, for each of the things that it counts: CPU time of the nodes together, of
 * each node, and of Redis, commands that Redis was sent, bytes that it read and wrote.
 * @param {() => Promise<{ count: number }>} action what else it finds is part of the result
 */
export async function costOf(servers, redis, action) {
  const before = await spentBy(servers, redis);
  const startMs = performance.now();
  const { count, ...found } = await action();
  const seconds = (performance.now() - startMs) / 1000;
  const after = await spentBy(servers, redis);
  const each = (key) => (after[key] - before[key]) / count;
  const ownUs = after.nodeSeconds.map((s, node) => ((s - before.nodeSeconds[node]) * 1e6) / count);
  return {
    ...found,
    perSecond: count / seconds,
    nodesUs: sumOf(ownUs, (us) => us),
    ownUs,
    redisUs: each("redisSeconds") * 1e6,
    commands: each("scripts"),
    bytesIn: each("bytesIn"),
    bytesOut: each("bytesOut"),
  };
}
