/** One fault at a time, and exactly what it does. */
import { setTimeout as delay } from "node:timers/promises";
import { afterAll, afterEach, beforeAll, beforeEach, expect, onTestFinished, test } from "vitest";
import {
  appId,
  keyAuth,
  keyId,
  type Message,
  Poller,
  Socket,
  secret,
  token,
} from "../../server/test/harness.js";
import { Cluster, type ClusterNode } from "./cluster.js";
import { ask, freshChannel, publish } from "./requests.js";

/** How soon the leaves of a dead node are heard. */
const deathWithinMs = 15_000;
/** How soon all is as before when a fault is over. */
const backWithin = { timeout: 5_000, interval: 50 };
/** Behind everything that was said before. */
const marker = "marker";

let cluster: Cluster;
let one: ClusterNode;
let two: ClusterNode;
let three: ClusterNode;
let room: string;
/** Hear who joins and leaves: one at each of the nodes that nothing happens to. */
let watchers: Socket[];

beforeAll(async () => {
  cluster = await Cluster.start({ nodes: 3, redisHosts: 2, hasWires: true });
  [one, two, three] = cluster.nodes as [ClusterNode, ClusterNode, ClusterNode];
});
afterAll(() => cluster?.stop());

beforeEach(async () => {
  room = freshChannel("presence");
  watchers = [];
  for (const node of [two, three]) {
    const watcher = await connect(node);
    await watcher.subscribe(`/${appId}/presence/**`, keyAuth);
    watchers.push(watcher);
  }
});
afterEach(async () => {
  one.thaw();
  for (const node of cluster.nodes) node.flow();
  if (!one.isRunning) await one.start();
});

async function connect(node: ClusterNode): Promise<Socket> {
  const socket = await Socket.connect(node);
  onTestFinished(() => socket.close());
  return socket;
}

/** A client at this node that is present in the room. */
async function member(node: ClusterNode, id: string): Promise<Socket> {
  const socket = await connect(node);
  expect(await enter(socket, room, id)).toMatchObject({ successful: true });
  return socket;
}

function enter(client: Socket, channel: string, id: string): Promise<Message> {
  const claims = { channel, sub: true, presence: { id } };
  return client.subscribe(channel, { auth: { token: token(claims) } });
}

/** The same client, whose requests go to that node. */
function elsewhere(client: { readonly clientId: string }, node: ClusterNode): Poller {
  const poller = new Poller(node);
  poller.clientId = client.clientId;
  return poller;
}

async function poll(poller: Poller, timeout: number): Promise<Message> {
  const [reply] = await poller.poll({ advice: { timeout } });
  return reply as Message;
}

/** Waits for the next thing that each watcher hears of the room. */
async function allHear(data: unknown, deadlineMs = 5_000): Promise<void> {
  const isOfRoom = ({ channel, successful }: Message): boolean =>
    channel === room && successful === undefined;
  const heard = watchers.map((watcher) => watcher.next(isOfRoom, deadlineMs));
  for (const event of await Promise.all(heard)) expect(event.data).toEqual(data);
}

const joinOf = (id: string) => ({ subscribe: { [id]: { id } } });
const leaveOf = (id: string) => ({ unsubscribe: { [id]: null } });

/** Whatever was announced has been heard: nothing but what the test waited for. */
async function nothingElseIsHeard(): Promise<void> {
  await takesAll(two);
  expect((await publish(two, room, marker)).status).toBe(200);
  await allHear(marker);
}

async function membersAt(node: ClusterNode, channel = room): Promise<string[]> {
  const path = channel.replace(`/${appId}/`, "");
  const { text } = await ask(node, "GET", `/api/${appId}/${path}`, [keyId, secret]);
  const { members = {} } = JSON.parse(text) as { members?: object };
  return Object.keys(members).sort();
}

async function membersEverywhere(...ids: string[]): Promise<void> {
  const lists = () => Promise.all(cluster.nodes.map((node) => membersAt(node)));
  await expect.poll(lists, backWithin).toEqual([ids, ids, ids]);
}

/** Publishes at the node are taken, whichever Redis host the channel is on. */
async function takesAll(node: ClusterNode): Promise<void> {
  const parent = freshChannel();
  const refused = async (): Promise<number[]> => {
    const channels = Array.from({ length: 12 }, (_, n) => `${parent}/${n}`);
    const replies = await Promise.all(channels.map((channel) => publish(node, channel, 1)));
    return replies.map(({ status }) => status).filter((status) => status !== 200);
  };
  await expect.poll(refused, backWithin).toEqual([]);
}

/** It can be used like any other: it hears what others say, and they hear what it says. */
async function isWell(node: ClusterNode): Promise<void> {
  await takesAll(node);
  const channel = freshChannel();
  const [here, there] = [await connect(node), await connect(two)];
  for (const each of [here, there]) {
    expect(await each.subscribe(channel)).toMatchObject({ successful: true });
  }
  for (const [n, publisher] of [node, two].entries()) {
    expect((await publish(publisher, channel, n)).status).toBe(200);
    for (const each of [here, there]) expect((await each.event()).data).toBe(n);
  }
}

const unknownClient = {
  successful: false,
  error: expect.stringMatching(/^401:[a-z0-9]+:Unknown client$/),
  advice: { reconnect: "handshake", interval: expect.any(Number) },
};

const passing = {
  successful: false,
  error: expect.stringMatching(/^503:/),
  advice: { reconnect: "retry", interval: expect.any(Number) },
};

/** One that does not yet know of its owner's death says so: 503. */
async function isUnknown(clientId: string, ...nodes: readonly ClusterNode[]): Promise<void> {
  for (const node of nodes) {
    const reply = () => poll(elsewhere({ clientId }, node), 0);
    await expect.poll(reply, backWithin).toMatchObject(unknownClient);
  }
}

/** How often these were declared dead, or declared others dead. */
function deathsOf(...nodes: readonly ClusterNode[]): number {
  return nodes.flatMap(({ log }) => log.match(/declared dead/g) ?? []).length;
}

test("a node is killed: its members leave once, its clients are told to begin again, and polls that others held open for it are answered", async () => {
  const gone = await member(one, "gone");
  await allHear(joinOf("gone"));
  await member(one, "both");
  await allHear(joinOf("both"));
  await member(two, "both");
  const poller = await Poller.connect(one);
  const held = poll(elsewhere(poller, two), 25_000);
  // The owner has it when it answers what came behind it.
  expect(await elsewhere(poller, two).subscribe(freshChannel())).toMatchObject({
    successful: true,
  });

  await one.end("SIGKILL");
  await allHear(leaveOf("gone"), deathWithinMs);
  // Its session may have gone elsewhere: who asks again hears whether it has.
  expect(await held).toMatchObject(passing);
  for (const { clientId } of [poller, gone]) await isUnknown(clientId, two, three);
  await nothingElseIsHeard();
  await one.start();
  await membersEverywhere("both");
  await isWell(one);
}, 60_000);

test("a node stands still for longer than its lease: it has lost its sessions, writes nothing for them, and goes on as another", async () => {
  const socket = await member(one, "frozen");
  await allHear(joinOf("frozen"));
  const poller = await Poller.connect(one);
  const known = deathsOf(one);

  one.freeze();
  // They are read when it goes on.
  const late = [enter(socket, room, "late"), socket.subscribe(freshChannel())].map((asked) =>
    asked.catch(() => ({ successful: false })),
  );
  const polled = poll(poller, 0);
  await allHear(leaveOf("frozen"), deathWithinMs);
  one.thaw();
  expect(await polled).toMatchObject(unknownClient);
  await socket.closing();
  for (const reply of await Promise.all(late)) expect(reply.successful).toBe(false);
  await isUnknown(socket.clientId, ...cluster.nodes);
  expect(deathsOf(one)).toBe(known + 1);
  await nothingElseIsHeard();
  await membersEverywhere();

  await isWell(one);
  const again = await member(one, "again");
  await allHear(joinOf("again"));
  await membersEverywhere("again");
  again.send({ channel: "/meta/disconnect" });
  await allHear(leaveOf("again"));
}, 60_000);

test("a node stands still for less than its lease: nothing happens, and its clients hear what was said meanwhile", async () => {
  const socket = await member(one, "slow");
  await allHear(joinOf("slow"));
  const channel = freshChannel();
  await socket.subscribe(channel);
  const poller = await Poller.connect(one);
  await poller.subscribe(channel);
  const known = deathsOf(...cluster.nodes);

  one.freeze();
  const numbers: number[] = [];
  // Half its lease, which it renews at least every quarter.
  for (const end = performance.now() + 3_000; performance.now() < end; await delay(100)) {
    expect((await publish(two, channel, numbers.length)).status).toBe(200);
    numbers.push(numbers.length);
  }
  one.thaw();
  for (const n of numbers) expect((await socket.event(channel)).data).toBe(n);
  const polled: unknown[] = [];
  while (polled.length < numbers.length) {
    const [reply, ...events] = await elsewhere(poller, three).poll({ advice: { timeout: 5_000 } });
    expect(reply).toMatchObject({ successful: true });
    polled.push(...events.map(({ data }) => data));
  }
  expect(polled).toEqual(numbers);
  await nothingElseIsHeard();
  await membersEverywhere("slow");
  expect(deathsOf(...cluster.nodes)).toBe(known);
}, 60_000);

test("a node cannot reach Redis for longer than its lease: it refuses in time what needs Redis, and goes on as another when it is back", async () => {
  const socket = await member(one, "apart");
  await allHear(joinOf("apart"));
  const channel = freshChannel();
  await socket.subscribe(channel);
  const guest = await Poller.connect(two);
  expect(await poll(elsewhere(guest, one), 0)).toMatchObject({ successful: true });
  const poller = await Poller.connect(one);
  const held = poll(elsewhere(poller, two), 25_000);
  expect(await elsewhere(poller, two).subscribe(channel)).toMatchObject({ successful: true });

  one.stall();
  const polledAt = performance.now();
  expect(await poll(elsewhere(guest, one), 0)).toMatchObject({
    successful: false,
    error: expect.stringMatching(/^503:/),
  });
  expect(performance.now() - polledAt).toBeLessThan(6_000);
  const refused = await publish(one, channel, "refused");
  expect(refused.status).toBe(503);
  expect(refused.ms).toBeLessThan(1_500);
  expect(await socket.ask({ channel: "/meta/subscribe", subscription: channel })).toMatchObject({
    successful: true,
  });
  await allHear(leaveOf("apart"), deathWithinMs);
  // Its session may have gone elsewhere: who asks again hears whether it has.
  expect(await held).toMatchObject(passing);
  // Nobody can tell it what has become of it.
  expect(socket.closed).toBeUndefined();

  one.flow();
  await socket.closing(10_000);
  await isUnknown(socket.clientId, ...cluster.nodes);
  await takesAll(one);
  expect(await poll(elsewhere(guest, one), 0)).toMatchObject({ successful: true });
  await nothingElseIsHeard();
  await membersEverywhere();
  await isWell(one);
}, 60_000);

test("a node cannot reach Redis for longer than its lease, and Redis comes back empty meanwhile: nobody is present by it any more", async () => {
  // Some on each host, whichever it reaches first.
  const rooms = Array.from({ length: 12 }, () => freshChannel("presence"));
  const socket = await connect(one);
  for (const each of rooms) {
    expect(await enter(socket, each, "gone")).toMatchObject({ successful: true });
  }
  // Whom the others never knew they cannot miss: they hear of each other in the next renewal.
  await delay(2_000);
  const known = deathsOf(two, three);
  one.stall();
  await Promise.all(cluster.redis.map((host) => host.restart({ isEmpty: true })));
  await expect.poll(() => deathsOf(two, three), { timeout: 30_000 }).toBeGreaterThan(known);
  const lost = deathsOf(one);
  one.flow();
  await expect.poll(() => deathsOf(one), { timeout: 10_000 }).toBeGreaterThan(lost);
  await isWell(one);
  for (const each of rooms) expect(await membersAt(two, each)).toEqual([]);
}, 60_000);

test("[CON-9] the answer to a poll is lost between two nodes: the poll is answered all the same, and what stood in it comes with the next", async () => {
  const channel = freshChannel();
  const poller = await Poller.connect(one);
  await poller.subscribe(channel);
  const sentAt = performance.now();
  const held = poll(elsewhere(poller, two), 1_000);
  expect(await elsewhere(poller, two).subscribe(channel)).toMatchObject({ successful: true });
  await Promise.all(cluster.redis.map((host) => host.kill()));
  await delay(2_000);
  await Promise.all(cluster.redis.map((host) => host.restart()));
  await held;
  expect(performance.now() - sentAt).toBeLessThan(8_000);
  await takesAll(three);
  expect((await publish(three, channel, 1)).status).toBe(200);
  const [reply, event] = await elsewhere(poller, two).poll({ advice: { timeout: 5_000 } });
  expect(reply).toMatchObject({ successful: true });
  expect(event).toMatchObject({ channel, data: 1 });
}, 60_000);

test("[CON-9] the word that a poll was answered elsewhere is lost: who polls again waits some seconds for what stood in it, and no longer", async () => {
  const channel = freshChannel();
  const poller = await Poller.connect(three);
  await poller.subscribe(channel);
  const held = poll(elsewhere(poller, one), 20_000).catch(() => undefined);
  expect(await elsewhere(poller, one).subscribe(channel)).toMatchObject({ successful: true });
  one.stall();
  expect((await publish(two, channel, 1)).status).toBe(200);
  // Until it gives up these connections, with all that is on its way in them; it lives on.
  await delay(4_500);
  one.flow();
  const sentAt = performance.now();
  const [reply, event] = await poller.poll({ advice: { timeout: 20_000 } });
  expect(reply).toMatchObject({ successful: true });
  expect(event).toMatchObject({ channel, data: 1 });
  expect(performance.now() - sentAt).toBeLessThan(15_000);
  await held;
}, 60_000);

/** Moves the session to that node. */
async function attach(
  { clientId }: { readonly clientId: string },
  node: ClusterNode,
): Promise<Socket> {
  const socket = await Socket.open(node);
  onTestFinished(() => socket.close());
  socket.clientId = clientId;
  const message = { channel: "/meta/connect", connectionType: "websocket", advice: { timeout: 0 } };
  await expect.poll(() => socket.ask(message), backWithin).toMatchObject({ successful: true });
  return socket;
}

test("a session moves from a node that lags behind: nothing is lost between its two nodes", async () => {
  for (const host of [0, 1]) {
    for (const node of [two, three]) {
      const parent = freshChannel();
      const channels = Array.from({ length: 12 }, (_, n) => `${parent}/${n}`);
      const poller = await Poller.connect(one);
      await poller.subscribe(channels);
      one.stall(host);
      for (const channel of channels) {
        expect((await publish(three, channel, 1)).status).toBe(200);
      }
      const moving = attach(poller, node);
      // As far as it comes without that host, for less time than it takes to give up.
      await delay(600);
      one.flow(host);
      const socket = await moving;
      const heard: (string | undefined)[] = [];
      while (heard.length < channels.length) heard.push((await socket.event()).channel);
      expect(heard.sort()).toEqual([...channels].sort());
    }
  }
}, 60_000);

test("where a session lives is known also when its first node has gone and Redis comes back empty", async () => {
  const channel = freshChannel();
  const socket = await attach(await Poller.connect(one), two);
  expect(await one.end("SIGTERM")).toBe(0);
  await one.start();
  await Promise.all(cluster.redis.map((host) => host.restart({ isEmpty: true })));
  await takesAll(three);
  await takesAll(two);
  expect(await elsewhere(socket, one).subscribe(channel)).toMatchObject({ successful: true });
  expect((await publish(three, channel, 1)).status).toBe(200);
  expect(await socket.event(channel)).toMatchObject({ data: 1 });
}, 60_000);

test("a session that cannot be reached, and of which Redis has forgotten where it is, is not unknown", async () => {
  const socket = await attach(await Poller.connect(one), two);
  two.stall();
  for (const host of cluster.redis) {
    const forgotten = (await host.command("KEYS", "*moved*")) as string[];
    if (forgotten.length > 0) await host.command("DEL", ...forgotten);
    await host.command("CLIENT", "KILL", "USER", two.name);
  }
  expect(await poll(elsewhere(socket, one), 0)).toMatchObject({
    successful: false,
    error: expect.stringMatching(/^503:/),
  });
  two.flow();
  const reply = () => poll(elsewhere(socket, one), 0);
  await expect.poll(reply, backWithin).toMatchObject({ successful: true });
}, 60_000);

test("a Redis host that names a node that is dead hides no session from those who ask", async () => {
  const socket = await attach(await Poller.connect(one), two);
  const [host] = cluster.redis as [(typeof cluster.redis)[number]];
  const noted = (): Promise<unknown> => host.command("KEYS", "*moved*");
  await expect.poll(noted, backWithin).not.toEqual([]);
  for (const key of (await noted()) as string[]) await host.command("SET", key, "deadnode");
  const reply = () => poll(elsewhere(socket, three), 0);
  // Until Redis has been back for a lease, nobody is sure of who is dead.
  await expect.poll(reply, { ...backWithin, timeout: 15_000 }).toMatchObject({ successful: true });
}, 60_000);

test("all Redis hosts come back empty: nobody is declared dead, and sessions, subscriptions and members go on", async () => {
  const channel = freshChannel();
  const members: Socket[] = [];
  for (const [n, node] of cluster.nodes.entries()) {
    const socket = await member(node, `user${n}`);
    await allHear(joinOf(`user${n}`));
    await socket.subscribe(channel);
    members.push(socket);
  }
  const poller = await Poller.connect(one);
  await poller.subscribe(channel);
  // It is at home at two now, and born at one.
  const moved = await attach(await Poller.connect(one), two);
  const known = deathsOf(...cluster.nodes);

  await Promise.all(cluster.redis.map((host) => host.restart({ isEmpty: true })));
  const heard: unknown[] = [];
  const taken: number[] = [];
  // Longer than it takes to declare somebody dead.
  const end = performance.now() + 10_000;
  for (let n = 0; performance.now() < end; n++) {
    const { status } = await publish(cluster.nodes[n % 3] as ClusterNode, channel, n);
    if (status === 200) taken.push(n);
    await delay(100);
    if (n % 10 !== 9) continue;
    const [, ...events] = await elsewhere(poller, two).poll({ advice: { timeout: 0 } });
    heard.push(...events.map(({ data }) => data));
  }
  expect(taken.length).toBeGreaterThan(30);
  expect(await elsewhere(moved, three).subscribe(channel)).toMatchObject({ successful: true });
  expect(deathsOf(...cluster.nodes)).toBe(known);
  for (const { closed } of members) expect(closed).toBeUndefined();
  await nothingElseIsHeard();
  await membersEverywhere("user0", "user1", "user2");
  expect((await publish(three, channel, marker)).status).toBe(200);
  for (const socket of [...members, moved]) {
    expect((await socket.next(({ data }) => data === marker)).data).toBe(marker);
  }
  while (heard.at(-1) !== marker) {
    const [reply, ...events] = await elsewhere(poller, two).poll({ advice: { timeout: 5_000 } });
    expect(reply).toMatchObject({ successful: true });
    heard.push(...events.map(({ data }) => data));
  }
  const late = taken.slice(-20);
  expect(heard.slice(-21)).toEqual([...late, marker]);
}, 60_000);
