/** What is published at one node, and who hears it at others. */
import { afterAll, beforeAll, expect, test } from "vitest";
import { type Message, Socket } from "../../server/test/harness.js";
import { Cluster } from "./cluster.js";
import { freshChannel, publish } from "./requests.js";

let cluster: Cluster;
beforeAll(async () => {
  cluster = await Cluster.start({ nodes: 3, redisHosts: 2 });
});
afterAll(() => cluster?.stop());

const isEvent = ({ successful }: Message): boolean => successful === undefined;

test("2000 publications, each through another node right after a subscribe was acknowledged: none is missed", async () => {
  const [rounds, lanes] = [100, 20];
  const missed: string[] = [];
  await Promise.all(
    Array.from({ length: lanes }, async (_, lane) => {
      const sockets = await Promise.all(cluster.nodes.map((node) => Socket.connect(node)));
      for (let round = 0; round < rounds; round++) {
        const at = (lane + round) % sockets.length;
        const through = (at + 1 + (round % 2)) % sockets.length;
        const [listener, node] = [sockets[at] as Socket, cluster.nodes[through]];
        const channel = `${freshChannel()}/news`;
        const heardBy = [channel, channel.replace("news", "*"), channel.replace("news", "**")];
        const name = heardBy[round % 3] ?? channel;
        expect(await listener.subscribe(name)).toMatchObject({ successful: true });
        if (round % 4 === 3 && node !== undefined) {
          expect((await publish(node, channel, round)).status).toBe(200);
        } else {
          const reply = await (sockets[through] as Socket).publish(channel, round);
          expect(reply).toMatchObject({ successful: true });
        }
        await listener.event(channel).catch(() => missed.push(`${name} at node ${at}`));
      }
      for (const socket of sockets) socket.close();
    }),
  );
  expect(missed).toEqual([]);
}, 120_000);

test("64 channels on two hosts, each heard exactly and by patterns: one copy each", async () => {
  const parent = freshChannel();
  const channels = Array.from({ length: 64 }, (_, n) => `${parent}/${n}`);
  const listeners = await Promise.all(cluster.nodes.map((node) => Socket.connect(node)));
  for (const listener of listeners) {
    for (const name of [...channels, `${parent}/*`, `${parent}/**`]) {
      expect((await listener.subscribe(name)).successful).toBe(true);
    }
  }
  const scripts = async (): Promise<number[]> => {
    const counts = await Promise.all(cluster.redis.map((host) => host.commandCounts()));
    return counts.map((count) => count.get("evalsha") ?? 0);
  };
  const before = await scripts();
  // Whatever second copies there were of the first round came before the second round.
  for (const round of ["first", "second"]) {
    await Promise.all(
      channels.map(async (channel, n) => {
        const node = cluster.nodes[n % cluster.nodes.length];
        if (node !== undefined) expect((await publish(node, channel, round)).status).toBe(200);
      }),
    );
    for (const listener of listeners) {
      const copies: unknown[] = [];
      while (copies.length < channels.length) {
        const { channel, data } = await listener.next(isEvent);
        copies.push([data, channel]);
      }
      expect(copies.sort()).toEqual(channels.map((channel) => [round, channel]).sort());
    }
  }
  const after = await scripts();
  const shares = after.map((count, host) => count - (before[host] ?? 0));
  for (const share of shares) expect(share).toBeGreaterThan(20);
  for (const listener of listeners) {
    expect(listener.received.filter(isEvent)).toEqual([]);
    listener.close();
  }
});
