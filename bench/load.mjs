/**
 * A load generator: a process of its own that does what the benchmark asks over IPC.
 * `{ id, method, args }` comes in, `{ id, result }` or `{ id, error }` goes out.
 */
import {
  DELIVERY_MARKER,
  MarkerCounter,
  nowUs,
  Publisher,
  Requester,
  readTimeUs,
  Session,
} from "./wire.mjs";

const OPEN_CONCURRENCY = 50;
/** Latency is read from this many sockets, spread evenly; the others only count. */
const SAMPLED_SOCKETS = 20;
const DELIVERY_DEADLINE_MS = 30_000;

/** @type {Session[]} */
let sessions = [];
/** @type {Publisher[]} */
let publishers = [];
let interests = [];
let delivered = 0;
let latenciesUs = [];
let reached = null;

function sample(text, at) {
  const publishedUs = readTimeUs(text, at);
  if (publishedUs !== undefined) latenciesUs.push(nowUs() - publishedUs);
}

function startCounting(session, isSampled) {
  const counter = new MarkerCounter(DELIVERY_MARKER);
  const onFound = isSampled ? sample : null;
  session.socket.onChunk = (chunk) => {
    delivered += counter.count(chunk, onFound);
    if (reached !== null && delivered >= reached.total) reached.resolve();
  };
}

/** Runs `task(0) … task(count - 1)`, at most `concurrency` at a time. */
async function inParallel(count, concurrency, task) {
  let next = 0;
  const worker = async () => {
    while (next < count) {
      const index = next;
      next += 1;
      await task(index);
    }
  };
  await Promise.all(Array.from({ length: Math.min(count, concurrency) }, worker));
}

const percentile = (sorted, part) => sorted[Math.floor((sorted.length - 1) * part)] ?? Number.NaN;

/** Gives `{ p50Ms, p99Ms }` of the latencies gathered so far and forgets them. */
function takeLatencies() {
  const sorted = Float64Array.from(latenciesUs).sort();
  latenciesUs = [];
  return { p50Ms: percentile(sorted, 0.5) / 1000, p99Ms: percentile(sorted, 0.99) / 1000 };
}

const methods = {
  /** Takes the clients' subscriptions beforehand, so that opening them measures nothing else. */
  prepare(list) {
    interests = list;
  },

  /** Spread over the ports in turn. */
  async openSessions({ ports }) {
    const opened = new Array(interests.length);
    const stride = Math.max(1, Math.floor(interests.length / SAMPLED_SOCKETS));
    await inParallel(interests.length, OPEN_CONCURRENCY, async (index) => {
      opened[index] = await Session.open(ports[index % ports.length], interests[index]);
      startCounting(opened[index], index % stride === 0);
    });
    sessions = opened;
  },

  forgetDeliveries() {
    delivered = 0;
    latenciesUs = [];
  },

  /** Waits until all sessions together have received `total` messages, and not one more. */
  async expectDeliveries({ total }) {
    if (delivered < total) {
      await new Promise((resolve, reject) => {
        const timer = setTimeout(() => {
          const closed = sessions.filter((session) => session.socket.isClosed).length;
          reject(new Error(`${delivered} of ${total} deliveries came; ${closed} sockets closed`));
        }, DELIVERY_DEADLINE_MS);
        reached = { total, resolve: () => resolve(clearTimeout(timer)) };
      });
      reached = null;
    }
    if (delivered > total) throw new Error(`${delivered} deliveries came instead of ${total}`);
    return takeLatencies();
  },

  async closeSessions() {
    await Promise.all(sessions.map((session) => session.close()));
    sessions = [];
  },

  /** One at each port. */
  async openPublishers({ ports, plan }) {
    publishers = await Promise.all(ports.map((port) => Publisher.open(port, plan)));
  },

  async publishFor({ durationMs }) {
    const published = await Promise.all(publishers.map((each) => each.run(durationMs)));
    return published.reduce((sum, count) => sum + count, 0);
  },

  async closePublishers() {
    await Promise.all(publishers.map((each) => each.close()));
    publishers = [];
  },

  async requestFor({ port, request, connections, durationMs }) {
    const requesters = Array.from({ length: connections }, () => new Requester(port, request));
    const keep = (latencyUs) => latenciesUs.push(latencyUs);
    await Promise.all(requesters.map((requester) => requester.run(durationMs, keep)));
    for (const requester of requesters) requester.close();
    const requests = latenciesUs.length;
    return { requests, ...takeLatencies() };
  },

  cpuSeconds() {
    const { user, system } = process.cpuUsage();
    return (user + system) / 1e6;
  },
};

process.on("message", async ({ id, method, args }) => {
  try {
    process.send({ id, result: await methods[method](args) });
  } catch (error) {
    process.send({ id, error: String(error?.stack ?? error) });
  }
});
process.on("disconnect", () => process.exit());
