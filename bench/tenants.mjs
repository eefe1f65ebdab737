import { setTimeout as delay } from "node:timers/promises";
import { ADMIN_PASSWORD, KEY, Server } from "./processes.mjs";
import { Load, publicChannel, repeat } from "./works.mjs";

const quietSubscribers = 20;
const quietEveryMs = 10;
const noisySubscribers = 500;
const noisyPublishers = 4;
const noisyInFlight = 16;
/** Publishes per second. */
const noisyLimit = 20;
/** How long the noise is there before what counts begins, and afterwards. */
const marginMs = 500;

const noisyEveryMs = 2;
const noisyPerSecond = (noisyPublishers * 1000) / noisyEveryMs;

/** What the noisy tenant does meanwhile. */
export const tenantRows = [
  { name: "nothing" },
  ...[
    { name: `${noisyPerSecond} publishes a second`, everyMs: noisyEveryMs },
    { name: "publishes as fast as answered" },
  ].flatMap(({ name, ...pace }) => [
    { name: `${name}, limit of ${noisyLimit}`, limit: noisyLimit, ...pace },
    { name: `${name}, no limit`, limit: null, ...pace },
  ]),
];

async function admin(server, path, body) {
  const basic = Buffer.from(`admin:${ADMIN_PASSWORD}`).toString("base64");
  const response = await fetch(`http://127.0.0.1:${server.port}/admin/api${path}`, {
    method: "POST",
    headers: { Authorization: `Basic ${basic}`, "Content-Type": "application/json" },
    body: JSON.stringify(body),
  });
  if (!response.ok) throw new Error(`${path}: ${response.status} ${await response.text()}`);
  return response.json();
}

/** For one turn: nobody connects again. */
async function openTenant(load, server, { channel, auth, subscribers, publishers, ...how }) {
  const interests = repeat(subscribers, () => ({ subscription: channel }));
  await load.receivers.call("prepare", interests);
  await load.receivers.call("openSessions", { ports: [server.port] });
  const ports = repeat(publishers, () => server.port);
  const plan = { channels: [channel], auth, dataBytes: 100, ...how };
  await load.publisher.call("openPublishers", { ports, plan });
}

async function closeTenant(load) {
  await load.publisher.call("closePublishers");
  await load.receivers.call("closeSessions");
}

/** Publishes for a time; all that was not refused must arrive. */
async function publish(load, subscribers, durationMs) {
  const before = await load.publisher.call("refusedPublishes");
  await load.receivers.call("forgetDeliveries");
  const published = await load.publisher.call("publishFor", { durationMs });
  const refused = (await load.publisher.call("refusedPublishes")) - before;
  const total = (published - refused) * subscribers;
  const latencies = await load.receivers.call("expectDeliveries", { total });
  return { published, refused, delivered: total, ...latencies };
}

/**
 * Each round takes a turn of each row, on one server: a quiet tenant publishes 100 times a second to
 * 20 subscribers, and a noisy one far more over several sockets.
 * @param {number} rounds
 * @param {(row: object, turn: object) => void} onTurn told of each turn
 * @returns {Promise<object[][]>} by round, what the quiet tenant noticed in the turn of each row, and
 * what the noisy one did
 */
export async function tenantRounds(rounds, durationMs, onTurn) {
  const server = await Server.start("pandapush");
  const [quiet, noisy] = [new Load(), new Load()];
  try {
    const { id } = await admin(server, "/applications", { name: "noisy" });
    const key = await admin(server, `/application/${id}/keys`, {});
    const quietTenant = {
      channel: publicChannel("quiet"),
      auth: KEY,
      subscribers: quietSubscribers,
      publishers: 1,
      everyMs: quietEveryMs,
    };
    const noisyTenant = {
      channel: `/${id}/public/noise`,
      auth: { key: key.id, secret: key.secret },
      subscribers: noisySubscribers,
      publishers: noisyPublishers,
      inFlight: noisyInFlight,
      mayBeRefused: true,
    };
    const found = [];
    for (let round = 0; round < rounds; round++) {
      const turns = [];
      for (const row of tenantRows) {
        const { limit, everyMs } = row;
        if (limit !== undefined) {
          await admin(server, `/application/${id}`, {
            limits: { max_publishes_per_second: limit },
          });
        }
        await openTenant(quiet, server, quietTenant);
        await openTenant(noisy, server, { ...noisyTenant, everyMs });
        await publish(quiet, quietSubscribers, marginMs);
        const noiseMs = durationMs + 2 * marginMs;
        const noise = limit === undefined ? undefined : publish(noisy, noisySubscribers, noiseMs);
        // It may fail before it is waited for.
        noise?.catch(() => undefined);
        await delay(marginMs);
        const turn = await quiet.measure(server, async () => {
          const { delivered, p50Ms, p99Ms } = await publish(quiet, quietSubscribers, durationMs);
          return { count: delivered, p50Ms, p99Ms };
        });
        const { published = 0, refused = 0 } = (await noise) ?? {};
        await Promise.all([quiet, noisy].map(closeTenant));
        const perSecond = (count) => (count * 1000) / noiseMs;
        const { p50Ms, p99Ms, perSecond: deliveries, serverLoad } = turn;
        turns.push({
          p50Ms,
          p99Ms,
          deliveries,
          serverLoad,
          noiseTaken: perSecond(published - refused),
          noiseRefused: perSecond(refused),
        });
        onTurn(row, turns.at(-1));
      }
      found.push(turns);
    }
    return found;
  } finally {
    quiet.stop();
    noisy.stop();
    await server.stop();
  }
}
