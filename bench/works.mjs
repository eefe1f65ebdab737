import { createHmac } from "node:crypto";
import { setTimeout as delay } from "node:timers/promises";
import { APP, Generator, KEY, Server } from "./processes.mjs";

const DATA_BYTES = 100;
const WARM_UP_MS = 500;
const SETTLE_STEP_MS = 500;
const SETTLE_STEPS = 24;

export const publicChannel = (rest) => `/${APP}/public/${rest}`;
export const privateChannel = (rest) => `/${APP}/private/${rest}`;
export const presenceChannel = (rest) => `/${APP}/presence/${rest}`;
export const repeat = (count, make) => Array.from({ length: count }, (_, index) => make(index));

const base64url = (value) => Buffer.from(JSON.stringify(value)).toString("base64url");

/**
 * A token that lets its bearer subscribe, signed with the benchmark's key.
 * @param {string} channel or a pattern
 * @param {object} [presence] who its bearer is
 */
export function signToken(channel, presence) {
  const claims = { keyId: KEY.key, channel, sub: true, pub: true, presence };
  const text = `${base64url({ alg: "HS256", typ: "JWT" })}.${base64url(claims)}`;
  return `${text}.${createHmac("sha256", KEY.secret).update(text).digest("base64url")}`;
}

export const withToken = (channel) => ({ subscription: channel, token: signToken(channel) });

/**
 * What one turn of one server found.
 * @typedef {object} Turn
 * @property {number} value what is compared
 * @property {number} [perSecond] deliveries, clients or requests per second of wall time
 * @property {number} [p50Ms]
 * @property {number} [p99Ms]
 * @property {number} [serverLoad] server CPU seconds per second
 * @property {number} [generatorLoad] the same of the busiest generator process
 */

/** Two generator processes: reading a thousand sockets must not delay the publisher. */
export class Load {
  receivers = new Generator();
  publisher = new Generator();

  /**
   * Runs an action and gives what it cost.
   * @param {Server} server
   * @param {() => Promise<{ count: number }>} action says how many deliveries it made
   * @returns {Promise<Turn>}
   */
  async measure(server, action) {
    const generators = [this.receivers, this.publisher];
    const spent = () => Promise.all(generators.map((generator) => generator.call("cpuSeconds")));
    const generatorsBefore = await spent();
    const startMs = performance.now();
    const cpuBefore = server.cpuSeconds();
    const { count, ...found } = await action();
    const cpuSeconds = server.cpuSeconds() - cpuBefore;
    const seconds = (performance.now() - startMs) / 1000;
    const generatorsAfter = await spent();
    const generatorSeconds = generatorsAfter.map((after, i) => after - generatorsBefore[i]);
    return {
      value: count / cpuSeconds,
      perSecond: count / seconds,
      serverLoad: cpuSeconds / seconds,
      generatorLoad: Math.max(...generatorSeconds) / seconds,
      ...found,
    };
  }

  stop() {
    this.receivers.stop();
    this.publisher.stop();
  }
}

/**
 * Opens subscribers and a publisher, publishes for a time, and waits for every delivery.
 * @param {Load} load
 * @param {Server} server or several as one: `ports` of the subscribers, and `publisherPorts`
 * @param {object} plan
 * @param {object[]} plan.interests what each subscriber subscribes to
 * @param {string[]} plan.channels where to publish, in turn
 * @param {number} plan.heardBy how many deliveries one publish makes
 * @param {number} plan.inFlight publishes kept unacknowledged, by each publisher
 * @param {number} plan.durationMs
 * @param {(action: () => Promise<object>) => Promise<object>} [plan.around] runs the part that counts
 */
export async function publishTurn(
  load,
  server,
  { interests, channels, heardBy, inFlight, durationMs, around = (action) => action() },
) {
  const { receivers, publisher } = load;
  const { port, ports = [port], publisherPorts = ports } = server;
  const plan = { channels, auth: KEY, dataBytes: DATA_BYTES, inFlight };
  await receivers.call("prepare", interests);
  await receivers.call("openSessions", { ports });
  await publisher.call("openPublishers", { ports: publisherPorts, plan });
  const publish = async (forMs) => {
    await receivers.call("forgetDeliveries");
    const published = await publisher.call("publishFor", { durationMs: forMs });
    const count = published * heardBy;
    const latencies = await receivers.call("expectDeliveries", { total: count });
    return { count, published, ...latencies };
  };
  await publish(WARM_UP_MS);
  const turn = await around(() => load.measure(server, () => publish(durationMs)));
  await publisher.call("closePublishers");
  await receivers.call("closeSessions");
  return turn;
}

const fanOut = (subscribers, inFlight, durationMs) => ({
  interests: repeat(subscribers, () => ({ subscription: publicChannel("news") })),
  channels: [publicChannel("news")],
  heardBy: subscribers,
  inFlight,
  durationMs,
});

function ownChannels(count, inFlight, durationMs) {
  const channels = repeat(count, (index) => privateChannel(`users/${index}`));
  return { interests: channels.map(withToken), channels, heardBy: 1, inFlight, durationMs };
}

async function arrivalTurn(load, server, clients) {
  const ports = [server.port];
  const channels = repeat(clients, (index) => privateChannel(`users/${index}`));
  await load.receivers.call("prepare", channels.slice(0, 200).map(withToken));
  await load.receivers.call("openSessions", { ports });
  await load.receivers.call("closeSessions");
  await load.receivers.call("prepare", channels.map(withToken));
  const turn = await load.measure(server, async () => {
    await load.receivers.call("openSessions", { ports });
    return { count: clients };
  });
  await load.receivers.call("closeSessions");
  return turn;
}

/** Waits until the memory of a server stands still, and gives it. */
export async function settledBytes(server) {
  const seen = [];
  for (let step = 0; step < SETTLE_STEPS; step++) {
    await delay(SETTLE_STEP_MS);
    seen.push(server.residentBytes());
    const last = seen.slice(-6);
    if (last.length === 6 && Math.max(...last) < 1.005 * Math.min(...last)) break;
  }
  return seen.at(-1);
}

/** @returns {Promise<Turn>} bytes per client */
async function memoryTurn(load, server, clients) {
  const ports = [server.port];
  const channels = repeat(clients, (index) => privateChannel(`users/${index}`));
  await load.receivers.call("prepare", channels.map(withToken));
  const before = await settledBytes(server);
  await load.receivers.call("openSessions", { ports });
  const after = await settledBytes(server);
  await load.receivers.call("closeSessions");
  return { value: (after - before) / clients };
}

async function restTurn(load, server, durationMs) {
  const data = JSON.stringify({ text: "x".repeat(DATA_BYTES - '{"text":""}'.length) });
  const basic = Buffer.from(`${KEY.key}:${KEY.secret}`).toString("base64");
  const request = {
    path: `/channel${publicChannel("news")}`,
    headers: { Authorization: `Basic ${basic}`, "Content-Type": "application/json" },
    body: data,
  };
  const plan = { port: server.port, request, connections: 32 };
  const publish = async (forMs) => {
    const found = await load.publisher.call("requestFor", { ...plan, durationMs: forMs });
    const { requests: count, ...latencies } = found;
    return { count, ...latencies };
  };
  await publish(WARM_UP_MS);
  return load.measure(server, () => publish(durationMs));
}

/**
 * Questions with a target. `turn(load, server, quick)` is one server's turn; `isFresh` says that
 * each turn needs a server that has done nothing before.
 */
export const comparisons = [
  {
    name: "fan-out-16",
    question: "1 channel, 1000 subscribers, 16 publishes in flight",
    unit: "deliveries per CPU-second",
    rival: "faye",
    atLeast: 15,
    rounds: 5,
    turn: (load, server, quick) => publishTurn(load, server, fanOut(1000, 16, quick ? 1000 : 3000)),
  },
  {
    name: "fan-out-1",
    question: "1 channel, 1000 subscribers, 1 publish in flight",
    unit: "deliveries per CPU-second",
    rival: "faye",
    atLeast: 1.7,
    rounds: 5,
    turn: (load, server, quick) => publishTurn(load, server, fanOut(1000, 1, quick ? 1000 : 3000)),
  },
  {
    name: "private",
    question: "1000 subscribers on 1000 private channels, 32 publishes in flight",
    unit: "deliveries per CPU-second",
    rival: "faye",
    atLeast: 1.7,
    rounds: 5,
    turn: (load, server, quick) =>
      publishTurn(load, server, ownChannels(1000, 32, quick ? 1000 : 3000)),
  },
  {
    name: "arrival",
    question: "handshake and token-authorised subscribe of 2000 clients",
    unit: "clients per CPU-second",
    rival: "faye",
    atLeast: 2,
    rounds: 5,
    turn: (load, server, quick) => arrivalTurn(load, server, quick ? 1000 : 2000),
  },
  {
    name: "memory",
    question: "resident memory per idle subscribed client, 5000 clients",
    unit: "bytes per client",
    rival: "faye",
    atMost: 0.5,
    rounds: 3,
    isFresh: true,
    turn: (load, server, quick) => memoryTurn(load, server, quick ? 2000 : 5000),
  },
  {
    name: "rest",
    question: "REST publishes with Basic auth over 32 connections",
    unit: "requests per CPU-second",
    rival: "bare",
    atLeast: 0.5,
    rounds: 5,
    turn: (load, server, quick) => restTurn(load, server, quick ? 1000 : 3000),
  },
];

const heard = 10;

/** `count` channels, each heard by the same number of sessions, on at most 1000 sessions. */
function spread(count, durationMs) {
  const channels = repeat(count, (index) => publicChannel(`spread/${index}`));
  const sessions = Math.min(1000, count * heard);
  const lists = repeat(sessions, () => []);
  for (let i = 0; i < count * heard; i++) {
    lists[i % sessions].push(channels[Math.floor(i / heard)]);
  }
  const interests = lists.map((subscription) => ({ subscription }));
  return { interests, channels, heardBy: heard, inFlight: 1, durationMs };
}

const deepChannel = publicChannel("a/b/c/d/e");
const levels = ["**", "a/**", "a/b/**", "a/b/c/**", "a/b/c/d/**"].map(publicChannel);

function patterns(subscriptionOf, durationMs) {
  const interests = repeat(1000, (index) => ({ subscription: subscriptionOf(index) }));
  return { interests, channels: [deepChannel], heardBy: 1000, inFlight: 1, durationMs };
}

/** Rows of the growth table: what a delivery costs this server as one thing grows. */
export const growth = [
  ...[100, 1000, 5000].flatMap((subscribers) =>
    [1, 16].map((inFlight) => ({
      name: `1 channel, ${subscribers} subscribers, ${inFlight} in flight`,
      plan: (durationMs) => fanOut(subscribers, inFlight, durationMs),
    })),
  ),
  ...[1, 100, 10_000].map((channels) => ({
    name: `${channels} channel${channels === 1 ? "" : "s"}, ${heard} subscribers each, 1 in flight`,
    plan: (durationMs) => spread(channels, durationMs),
  })),
  {
    name: "1000 subscribers of the channel itself, 1 in flight",
    plan: (durationMs) => patterns(() => deepChannel, durationMs),
  },
  {
    name: "1000 subscribers, 200 on a pattern at each of 5 levels, 1 in flight",
    plan: (durationMs) => patterns((index) => levels[index % levels.length], durationMs),
  },
  {
    name: "1000 subscribers, each on the patterns of all 5 levels, 1 in flight",
    plan: (durationMs) => patterns(() => levels, durationMs),
  },
];

/**
 * @param {{ name: string, plan: (durationMs: number) => object }} row
 * @returns {Promise<Turn & { costUs: number }>} `costUs`: server CPU per delivery
 */
export async function growthTurn(load, row, quick) {
  const server = await Server.start("pandapush");
  try {
    const turn = await publishTurn(load, server, row.plan(quick ? 1000 : 2000));
    return { ...turn, costUs: 1e6 / turn.value };
  } finally {
    await server.stop();
  }
}
