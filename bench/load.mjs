/**
 * A load generator: a process of its own that does what the benchmark asks over IPC.
 * `{ id, method, args }` comes in, `{ id, result }` or `{ id, error }` goes out.
 */
import {
  DELIVERY_MARKER,
  EVENT_MARKER,
  MarkerCounter,
  Member,
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
/** @type {Member[]} */
let members = [];
/** @type {string[]} sessions that began with a post; each is subscribed to the channel `channelOf` */
let clientIds = [];
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

const heardByMembers = () => members.reduce((sum, { heard }) => sum + heard, 0);

/** @returns {Promise<object>} the reply to one message */
async function post(port, message) {
  const response = await fetch(`http://127.0.0.1:${port}/push`, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify([message]),
  });
  const [reply] = await response.json();
  if (!reply?.successful) throw new Error(`the server refused: ${JSON.stringify(reply)}`);
  return reply;
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

  /** Of all publishes so far. */
  refusedPublishes() {
    return publishers.reduce((sum, { refused }) => sum + refused, 0);
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

  /** Spread over the ports in turn. */
  async openMembers({ ports, count }) {
    members = new Array(count);
    await inParallel(count, OPEN_CONCURRENCY, async (index) => {
      members[index] = await Member.open(ports[index % ports.length]);
    });
  },

  /** `joins` are `[index of a member, channel]`; `tokens` are the members'. */
  async join({ joins, tokens, inFlight }) {
    await inParallel(joins.length, inFlight, async (index) => {
      const [member, subscription] = joins[index];
      const ext = { auth: { token: tokens[member] } };
      await members[member].ask({ channel: "/meta/subscribe", subscription, ext });
    });
  },

  /**
   * Waits until all members together have heard so many events, and not one more; then they forget
   * them.
   * @returns {Promise<{ firstUs: number, lastUs: number }>} when the first and the last one came
   */
  async expectEvents({ total }) {
    if (heardByMembers() < total) {
      await new Promise((resolve, reject) => {
        const timer = setTimeout(
          () => reject(new Error(`${heardByMembers()} of ${total} events came`)),
          DELIVERY_DEADLINE_MS,
        );
        const check = () => {
          if (heardByMembers() >= total) resolve(clearTimeout(timer));
        };
        for (const member of members) member.onEvents = check;
        check();
      });
      for (const member of members) member.onEvents = () => {};
    }
    const heard = heardByMembers();
    if (heard > total) throw new Error(`${heard} events came instead of ${total}`);
    const hearing = members.filter((member) => member.heard > 0);
    const firstUs = Math.min(...hearing.map((member) => member.firstUs));
    const lastUs = Math.max(...hearing.map((member) => member.lastUs));
    for (const member of members) member.forget();
    return { firstUs, lastUs };
  },

  async closeMembers() {
    await Promise.all(members.map((member) => member.close()));
    members = [];
  },

  /** Sessions that begin with a post to this port, and are subscribed to a channel each. */
  async postSessions({ port, channels }) {
    clientIds = new Array(channels.length);
    await inParallel(channels.length, OPEN_CONCURRENCY, async (index) => {
      const supportedConnectionTypes = ["long-polling", "websocket"];
      const handshake = { channel: "/meta/handshake", version: "1.0", supportedConnectionTypes };
      const { clientId } = await post(port, handshake);
      const subscription = channels[index];
      await post(port, { channel: "/meta/subscribe", clientId, subscription });
      clientIds[index] = clientId;
    });
  },

  /**
   * Each session polls at `port`, and gets an event some time after its poll was sent, published by
   * the first member.
   * @returns {Promise<{ count: number, p50Ms: number, p99Ms: number }>} polls that were answered with
   * their event, and the time from publishing it
   */
  async pollFor({ port, channels, auth, pauseMs, durationMs }) {
    await Promise.all(
      clientIds.map(async (clientId, index) => {
        const connect = { channel: "/meta/connect", clientId, connectionType: "long-polling" };
        const request = {
          path: "/push",
          headers: { "Content-Type": "application/json" },
          body: JSON.stringify([connect]),
        };
        let publishedUs = 0;
        const publish = () => {
          publishedUs = nowUs();
          const data = { at: DELIVERY_MARKER };
          return members[0].ask({ channel: channels[index], data, ext: { auth } });
        };
        const requester = new Requester(port, request);
        await new Promise((resolve, reject) => {
          const onAnswer = (_, answer) => {
            if (answer.split(EVENT_MARKER).length !== 2) reject(new Error(`no event: ${answer}`));
            latenciesUs.push(nowUs() - publishedUs);
          };
          const onSent = () => setTimeout(() => publish().catch(reject), pauseMs);
          requester.run(durationMs, onAnswer, onSent).then(resolve, reject);
        });
        requester.close();
      }),
    );
    return { count: latenciesUs.length, ...takeLatencies() };
  },

  /**
   * Each session opens a WebSocket at one port after the other, and leaves the one before.
   * @returns {Promise<{ count: number, p50Ms: number, p99Ms: number }>} sockets that were bound, and
   * the time from opening to the connect's reply
   */
  async wanderFor({ ports, durationMs }) {
    const until = nowUs() + durationMs * 1000;
    await Promise.all(
      clientIds.map(async (clientId) => {
        let last = null;
        for (let hop = 0; nowUs() < until; hop++) {
          const startUs = nowUs();
          const next = await Session.resume(ports[hop % ports.length], clientId);
          latenciesUs.push(nowUs() - startUs);
          last?.socket.destroy();
          last = next;
        }
        last?.socket.destroy();
      }),
    );
    return { count: latenciesUs.length, ...takeLatencies() };
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
