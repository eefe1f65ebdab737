import { setTimeout as delay } from "node:timers/promises";
import { costOf, withCluster } from "./cluster.mjs";
import { KEY } from "./processes.mjs";
import { nowUs } from "./wire.mjs";
import { presenceChannel, publicChannel, repeat, signToken } from "./works.mjs";

const memberCount = 1000;
const inFlight = 64;

const tokensOf = (count, prefix) =>
  repeat(count, (index) =>
    signToken(presenceChannel("**"), { id: `${prefix}-${index}`, name: `Member ${index}` }),
  );

/** Rooms that fill together: `[member, channel]`, the first of each room, the second of each … */
const joinsOf = (name, rooms, size) =>
  repeat(rooms * size, (index) => {
    const [place, room] = [Math.floor(index / rooms), index % rooms];
    return [(room * size + place) % memberCount, presenceChannel(`${name}/${room}`)];
  });

/** Everybody hears who joins after him. */
const eventsOf = (rooms, size) => (rooms * size * (size - 1)) / 2;

/** 1000 sessions, spread over the nodes, fill rooms of this size. */
export const presenceRows = [1, 10, 100, 1000].flatMap((size) =>
  [
    { name: "memory", hosts: 0 },
    { name: "Redis, 1 node", hosts: 1 },
    { name: "Redis, 2 nodes", hosts: 1, nodes: 2 },
  ].map((row) => ({ ...row, name: `rooms of ${size}, ${row.name}`, size })),
);

/** Figures for each join, those of telling the others included. */
export function presenceTurn(load, row, quick) {
  const { size } = row;
  const joinCount = Math.max(size, quick ? 2000 : 4000);
  const tokens = tokensOf(memberCount, "user");
  return withCluster(row, async (servers, redis) => {
    const { receivers } = load;
    const ports = servers.map(({ port }) => port);
    const fill = async (name, rooms, roomSize) => {
      const joins = joinsOf(name, rooms, roomSize);
      await receivers.call("join", { joins, tokens, inFlight });
      await receivers.call("expectEvents", { total: eventsOf(rooms, roomSize) });
      return { count: joins.length };
    };
    await receivers.call("openMembers", { ports, count: memberCount });
    await fill("warm-up", 100, 10);
    const rooms = Math.floor(joinCount / size);
    const turn = await costOf(servers, redis, () => fill("room", rooms, size));
    await receivers.call("closeMembers");
    return turn;
  });
}

const roomSize = 100;
const leaseRenewalMs = 1500;

/** How many members the killed node has, in rooms of 100. */
export const killRows = [100, 5000];

/**
 * Kills a node, over and over; a member at another node is in all rooms.
 * @returns {Promise<{ name: string, first: number[], last: number[] }>} seconds until the first and
 * until the last leave, of each run
 */
export function killTurn(load, count, quick) {
  return withCluster({ hosts: 1 }, async ([survivor], _, addNode) => {
    const { receivers, publisher: listener } = load;
    const [first, last] = [[], []];
    const rooms = count / roomSize;
    for (let run = 0; run < (quick ? 3 : 7); run++) {
      const victim = await addNode();
      const tokens = tokensOf(count, `user-${run}`);
      const channels = repeat(rooms, (room) => presenceChannel(`${run}/${room}`));
      const joins = repeat(count, (index) => [index, channels[index % rooms]]);
      await receivers.call("openMembers", { ports: [victim.port], count });
      await receivers.call("join", { joins, tokens, inFlight });
      await listener.call("openMembers", { ports: [survivor.port], count: 1 });
      await listener.call("join", {
        joins: channels.map((channel) => [0, channel]),
        tokens: tokensOf(1, "listener"),
        inFlight,
      });
      // The moment is to be any between two renewals of the lease.
      await delay(Math.random() * leaseRenewalMs);
      const killedUs = nowUs();
      victim.kill();
      const { firstUs, lastUs } = await listener.call("expectEvents", { total: count });
      first.push((firstUs - killedUs) / 1e6);
      last.push((lastUs - killedUs) / 1e6);
      await Promise.all([listener, receivers].map((each) => each.call("closeMembers")));
    }
    return { name: `${count} members in rooms of ${roomSize}`, first, last };
  });
}

const sessionCount = 64;
/** From a poll to its event: by then it is held. */
const pauseMs = 30;

/** Two nodes; the sessions begin at the first. */
export const forwardRows = [
  { name: "a poll at the owner, with its event", method: "pollFor", polledAt: 0 },
  { name: "a poll at the other node, with its event", method: "pollFor", polledAt: 1 },
  { name: "a new WebSocket at the owner", method: "wanderFor", at: [0] },
  { name: "a new WebSocket at the other node: the session moves", method: "wanderFor", at: [1, 0] },
];

/**
 * Figures for each poll or socket, of sessions with one subscription. Events are published at the
 * owner.
 */
export function forwardTurn(load, { method, polledAt, at = [] }, quick) {
  return withCluster({ hosts: 1, nodes: 2 }, async (servers, redis) => {
    const { receivers } = load;
    const ports = servers.map(({ port }) => port);
    const channels = repeat(sessionCount, (index) => publicChannel(`session/${index}`));
    const polling = { port: ports[polledAt], channels, auth: KEY, pauseMs };
    const plan = { ...polling, ports: at.map((node) => ports[node]) };
    const run = (durationMs) => receivers.call(method, { ...plan, durationMs });
    await receivers.call("openMembers", { ports: ports.slice(0, 1), count: 1 });
    await receivers.call("postSessions", { port: ports[0], channels });
    await run(2000);
    const turn = await costOf(servers, redis, () => run(quick ? 1500 : 4000));
    await receivers.call("closeMembers");
    return turn;
  });
}
