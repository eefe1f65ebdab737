/** What the tests of a cluster do to its nodes does happen to them, and to nobody else. */
import { afterEach, expect, test } from "vitest";
import { Socket } from "../../server/test/harness.js";
import { Cluster, type ClusterNode } from "./cluster.js";
import { freshChannel, publish } from "./requests.js";

const soon = { timeout: 15_000, interval: 50 };

let cluster: Cluster | undefined;
afterEach(() => cluster?.stop());

async function start(options: Parameters<typeof Cluster.start>[0]) {
  cluster = await Cluster.start(options);
  const [one, two] = cluster.nodes;
  if (one === undefined || two === undefined) throw new Error("there are two nodes");
  return { cluster, one, two };
}

const statusAt = async (node: ClusterNode, channel: string): Promise<number> =>
  (await publish(node, channel, "asked")).status;

test("nodes end, are killed, freeze and come back one by one; stop ends whatever is left", async () => {
  const { cluster, one, two } = await start({ environment: { DRAIN_MS: "1000" } });
  const channel = freshChannel();
  expect(await one.end("SIGTERM")).toBe(0);
  expect(one.log).toContain("shutting down");
  expect(await two.end("SIGKILL")).toBe(null);
  expect(await two.isReady()).toBe(false);
  for (const node of [one, two]) await node.start();

  const listener = await Socket.connect(two);
  await listener.subscribe(channel);
  one.freeze();
  const late = statusAt(one, channel);
  expect(await statusAt(two, channel)).toBe(200);
  expect((await listener.event()).data).toBe("asked");
  expect(await one.isReady()).toBe(false);
  one.thaw();
  expect(await late).toBe(200);
  await expect.poll(() => one.isReady(), soon).toBe(true);

  two.freeze();
  await cluster.stop();
  expect(cluster.nodes.map(({ isRunning }) => isRunning)).toEqual([false, false]);
  await expect(publish(one, channel, "nobody")).rejects.toThrow();
});

test("a node that is cut off from one of two Redis hosts refuses that host's channels and goes on with the others", async () => {
  const { one, two } = await start({ redisHosts: 2, hasWires: true });
  const channels = Array.from({ length: 12 }, () => freshChannel());
  const listener = await Socket.connect(one);
  for (const channel of channels) await listener.subscribe(channel);
  const statuses = (node: ClusterNode): Promise<number[]> =>
    Promise.all(channels.map((channel) => statusAt(node, channel)));
  expect(new Set(await statuses(one))).toEqual(new Set([200]));

  one.stall(0);
  const cutOff = await statuses(one);
  expect(new Set(cutOff)).toEqual(new Set([200, 503]));
  expect(new Set(await statuses(two))).toEqual(new Set([200]));
  one.stall();
  expect(new Set(await statuses(one))).toEqual(new Set([503]));
  expect(new Set(await statuses(two))).toEqual(new Set([200]));

  one.flow();
  await expect.poll(async () => new Set(await statuses(one)), soon).toEqual(new Set([200]));
  listener.received.length = 0;
  expect(new Set(await statuses(two))).toEqual(new Set([200]));
  for (const channel of channels) await listener.event(channel);
  expect(listener.closed).toBeUndefined();
});

test("the balancer shares out requests and upgrades to the nodes that run", async () => {
  const { cluster, one, two } = await start({});
  const { balancer } = cluster;
  for (let n = 0; n < 4; n++) {
    expect((await publish(balancer, freshChannel(), n)).status).toBe(200);
  }
  const ports = () => balancer.sent.splice(0).map(({ port }) => port);
  expect(ports()).toEqual([one.port, two.port, one.port, two.port]);
  const sockets = [await Socket.connect(balancer), await Socket.connect(balancer)];
  expect(ports()).toEqual([one.port, two.port]);
  await one.end("SIGKILL");
  await sockets[0]?.closing();
  expect((await publish(balancer, freshChannel(), 1)).status).toBe(200);
  expect((await publish(balancer, freshChannel(), 1)).status).toBe(200);
  expect(ports()).toEqual([two.port, two.port]);
  expect(sockets[1]?.closed).toBeUndefined();
});
