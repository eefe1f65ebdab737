/** Every node of a cluster is replaced, one after the other, while clients publish and listen. */
import { setTimeout as delay } from "node:timers/promises";
import { afterAll, beforeAll, expect, test } from "vitest";
import type { StockClient, Subscription } from "../clients/client.js";
import { fayeInNode, pandapushInNode } from "../clients/node.js";
import { Cluster } from "./cluster.js";
import { freshChannel, publish } from "./requests.js";

let cluster: Cluster;
beforeAll(async () => {
  cluster = await Cluster.start({
    nodes: 3,
    environment: { DRAIN_MS: "20000", BAYEUX_TIMEOUT_MS: "5000", LOG_LEVEL: "debug" },
  });
});
afterAll(() => cluster?.stop());

const kinds = [
  fayeInNode("1.4.3", "websocket"),
  fayeInNode("1.4.3", "long-polling"),
  fayeInNode("1.1.3", "long-polling"),
  pandapushInNode("websocket"),
  pandapushInNode("long-polling"),
];
const clientsOfAKind = 4;
const pauseMs = 20;

test("a rolling restart under load loses nothing: every client hears everything once, in order, and keeps its session", async () => {
  const channels = [freshChannel(), freshChannel()];
  const clients: StockClient[] = [];
  const listening: { readonly subscription: Subscription; readonly what: string }[] = [];
  for (const kind of kinds) {
    for (let n = 0; n < clientsOfAKind; n++) {
      const client = await kind.open(cluster.balancer.url);
      clients.push(client);
      for (const channel of channels) {
        const subscription = await client.subscribe(channel);
        listening.push({ subscription, what: `${kind.name} over ${kind.transport}, ${channel}` });
      }
    }
  }

  let isOver = false;
  const taken = channels.map(async (channel) => {
    const numbers: number[] = [];
    for (let n = 0; !isOver; n++) {
      const { status } = await publish(cluster.balancer, channel, n);
      expect(status).toBe(200);
      numbers.push(n);
      await delay(pauseMs);
    }
    return numbers;
  });
  for (const node of cluster.nodes) {
    expect(await node.end("SIGTERM")).toBe(0);
    await node.start();
  }
  isOver = true;
  const published = new Map<string, number[]>();
  for (const [index, numbers] of (await Promise.all(taken)).entries()) {
    published.set(channels[index] ?? "", numbers);
  }

  const faults: object[] = [];
  for (const { subscription, what } of listening) {
    const numbers = published.get(subscription.pattern) ?? [];
    const heard = await subscription.heard.upTo((data) => data === numbers.at(-1));
    const missed = numbers.filter((n) => !heard.includes(n));
    const twice = heard.filter((n, index) => heard.indexOf(n) !== index);
    if (missed.length + twice.length > 0) faults.push({ what, missed, twice });
    else expect(heard).toEqual(numbers);
  }
  expect(faults).toEqual([]);
  await Promise.all(clients.map((client) => client.close()));
  // Nobody had to begin again.
  const written = (text: RegExp) => cluster.nodes.flatMap(({ log }) => log.match(text) ?? []);
  expect(written(/"msg":"session began"/g)).toHaveLength(clients.length);
  expect(written(/"reason":"unknownClient"/g)).toEqual([]);
});
