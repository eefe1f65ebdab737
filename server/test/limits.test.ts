/** What an application may do, where it has limits of its own. */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { AppId } from "@pandapush/protocol";
import Database from "libsql";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test, vi } from "vitest";
import { metricsToken } from "./exposition.js";
import { type Message, Poller, Socket, startTestServer, type TestServer } from "./harness.js";
import { type Answer, http } from "./protocol/peers.js";
import { TestRedis } from "./redis.js";

/** What is promised to take a second: with it, the time that a busy machine takes. */
const soon = { timeout: 3_000, interval: 20 };
const password = "the admin's password";
const directory = mkdtempSync(join(tmpdir(), "pandapush-limits-"));
const databasePath = join(directory, "db.sqlite");
const sockets: Socket[] = [];

let server: TestServer;
/** An application and a key of its own for each test. */
let app: AppId;
let key: { readonly id: string; readonly secret: string };

beforeAll(async () => {
  server = await startTestServer({
    ADMIN_PASSWORD: password,
    METRICS_TOKEN: metricsToken,
    DATABASE_PATH: databasePath,
  });
});
beforeEach(async () => {
  ({ app, key } = await newApplication());
});
afterEach(() => {
  for (const socket of sockets.splice(0)) socket.close();
});
afterAll(async () => {
  await server.close();
  rmSync(directory, { recursive: true, force: true });
});

function ask(method: string, path: string, body?: object, node = server): Promise<Answer> {
  const authorization = `Basic ${Buffer.from(`admin:${password}`).toString("base64")}`;
  const content = body === undefined ? {} : { "content-type": "application/json" };
  return http(node, `/admin/api${path}`, {
    method,
    headers: { authorization, ...content },
    ...(body === undefined ? {} : { body: JSON.stringify(body) }),
  });
}

async function admin<T>(method: string, path: string, body?: object): Promise<T> {
  const answer = await ask(method, path, body);
  expect(answer.status, answer.body).toBeLessThan(300);
  return JSON.parse(answer.body) as T;
}

async function newApplication(): Promise<{ app: AppId; key: typeof key }> {
  const { id } = await admin<{ id: AppId }>("POST", "/applications", { name: "shop" });
  return { app: id, key: await admin<typeof key>("POST", `/application/${id}/keys`, {}) };
}

const limit = (limits: object, of = app) => admin("POST", `/application/${of}`, { limits });

const auth = (of = key) => ({ auth: { key: of.id, secret: of.secret } });

/** Publishes once by REST. */
function publish(channel: string, data: unknown = 1, of = key): Promise<Answer> {
  const authorization = `Basic ${Buffer.from(`${of.id}:${of.secret}`).toString("base64")}`;
  return http(server, `/channel${channel}`, {
    method: "POST",
    headers: { authorization, "content-type": "application/json" },
    body: JSON.stringify(data),
  });
}

interface Result {
  readonly successful: boolean;
  readonly error?: { readonly code: number; readonly params: string[]; readonly details: string };
}

/** Publishes `count` times by one request, in far less than a second. */
async function publishBatch(count: number, of = { app, key }, headers = {}): Promise<Result[]> {
  const basic = Buffer.from(`${of.key.id}:${of.key.secret}`).toString("base64");
  const channels = Array.from({ length: count }, (_, n) => `/${of.app}/public/b${n}`);
  const answer = await http(server, `/api/${of.app}/publish`, {
    method: "POST",
    headers: { authorization: `Basic ${basic}`, "content-type": "application/json", ...headers },
    body: JSON.stringify({ messages: [{ channels, data: 1 }] }),
  });
  return (JSON.parse(answer.body) as { results: Result[] }).results;
}

const taken = (results: readonly { readonly successful?: boolean }[]) =>
  results.map(({ successful }) => successful);

async function connect(node = server): Promise<Socket> {
  const socket = await Socket.connect(node);
  sockets.push(socket);
  return socket;
}

describe("[LIM-11] publishes per second", () => {
  test("[LIM-11] as many as the limit are taken at once, each channel counts, and others later", async () => {
    const quiet = await newApplication();
    await limit({ max_publishes_per_second: 2 });
    const results = await publishBatch(4);
    expect(taken(results)).toEqual([true, true, false, false]);
    expect(results[2]?.error).toEqual({
      code: 429,
      params: [`/${app}/public/b2`, "2", "1"],
      message: "Publish limit reached",
      details:
        "This application may publish 2 times a second at each node (max_publishes_per_second); try again in a second.",
    });
    expect(new Set(taken(await publishBatch(500, quiet)))).toEqual(new Set([true]));
    await expect.poll(async () => taken(await publishBatch(1)), soon).toEqual([true]);
  });

  test("[LIM-11] [REST-9] what is refused says when to try again", async () => {
    const channel = `/${app}/public/a`;
    await limit({ max_publishes_per_second: 1 });
    const { headers, body } = await vi.waitFor(async () => {
      const answer = await publish(channel);
      expect(answer.status).toBe(429);
      return answer;
    }, soon);
    expect(headers["retry-after"]).toBe("1");
    expect(JSON.parse(body)).toMatchObject({
      code: 429,
      params: [channel, "1", "1"],
      message: "Publish limit reached",
      details: expect.stringMatching(/once a second .*max_publishes_per_second.*try again in a/),
    });
    await expect.poll(async () => (await publish(channel)).status, soon).toBe(200);
  });

  test("[LIM-11] over Bayeux too, whoever publishes", async () => {
    await limit({ max_publishes_per_second: 2 });
    const channel = `/${app}/public/a`;
    const poller = await Poller.connect(server);
    const message = { channel, data: 1, ext: auth() };
    const replies = await poller.post([message, message, message]);
    expect(taken(replies)).toEqual([true, true, false]);
    expect(replies[2]).toMatchObject({
      error: `429:${channel},2,1:Publish limit reached`,
      ext: { detail: expect.stringContaining("2 times a second") },
    });
    expect(replies[2]).not.toHaveProperty("advice");
    const socket = await connect();
    await expect
      .poll(async () => (await socket.publish(channel, 1, auth())).successful, soon)
      .toBe(true);
  });

  test("[LIM-11] [REST-13] what is sent again with the same Idempotency-Key publishes the rest", async () => {
    await limit({ max_publishes_per_second: 2 });
    const hearing = await connect();
    await hearing.subscribe(`/${app}/public/*`);
    const name = { "idempotency-key": "again" };
    expect(taken(await publishBatch(3, { app, key }, name))).toEqual([true, true, false]);
    await expect
      .poll(async () => taken(await publishBatch(3, { app, key }, name)), soon)
      .toEqual([true, true, true]);
    const heard: unknown[] = [];
    for (let n = 0; n < 3; n++) heard.push((await hearing.event()).channel);
    expect(heard).toEqual([0, 1, 2].map((n) => `/${app}/public/b${n}`));
  });

  test("[LIM-11] admins see what was refused, and so do operators", async () => {
    await limit({ max_publishes_per_second: 1 });
    await publishBatch(2);
    const refusals = await admin<object[]>("GET", `/application/${app}/refusals`);
    expect(refusals).toEqual([
      expect.objectContaining({
        action: "rest_publish",
        channel: `/${app}/public/b1`,
        message: "Publish limit reached",
        details: expect.stringContaining("once a second"),
        key_id: key.id,
      }),
    ]);
    const { body } = await http(server, "/metrics", {
      headers: { authorization: `Bearer ${metricsToken}` },
    });
    expect(body).toMatch(/^pandapush_refusals_total{.*reason="publishLimit".*} \d+$/m);
  });
});

describe("[LIM-11] connections", () => {
  test("[LIM-11] no more sessions than the limit are subscribed to something", async () => {
    await limit({ max_connections: 2 });
    const [one, two, three] = [await connect(), await connect(), await connect()];
    const channel = `/${app}/public/a`;
    for (const socket of [one, two]) {
      expect(await socket.subscribe(channel)).toMatchObject({ successful: true });
    }
    expect(await three.subscribe(channel)).toMatchObject({
      successful: false,
      error: `429:${channel},2,5:Connection limit reached`,
      ext: { detail: expect.stringMatching(/2 connections .*max_connections.*5 seconds/) },
    });
    expect(await two.subscribe(`/${app}/public/b`)).toMatchObject({ successful: true });
    await two.ask({ channel: "/meta/unsubscribe", subscription: channel });
    expect(await three.subscribe(channel)).toMatchObject({ successful: false });
    const { app: elsewhere } = await newApplication();
    expect(await three.subscribe(`/${elsewhere}/public/a`)).toMatchObject({ successful: true });
    await two.ask({ channel: "/meta/disconnect" });
    expect(await three.subscribe(channel)).toMatchObject({ successful: true });
  });

  test("[LIM-11] whoever looks at what goes on is let in, and to nothing else", async () => {
    await limit({ max_connections: 1 });
    const channel = `/${app}/public/a`;
    await (await connect()).subscribe(channel);
    const watching = await connect();
    const statistics = await watching.subscribe(`/${app}/meta/statistics`, auth());
    expect(statistics).toMatchObject({ successful: true });
    expect(await watching.subscribe(channel)).toMatchObject({ successful: false });
  });
});

test("[LIM-11] no more new sessions than the limit come in a second", async () => {
  await limit({ max_sessions_per_second: 2 });
  const pollers: Poller[] = [];
  for (let n = 0; n < 4; n++) pollers.push(await Poller.connect(server));
  const subscription = `/${app}/public/a`;
  const subscribes = (channel: string) =>
    pollers.map(({ clientId }) => ({
      channel: "/meta/subscribe",
      clientId,
      subscription: channel,
    }));
  const [first] = pollers;
  // What comes by one request comes at once.
  const replies = (await first?.post(subscribes(subscription))) ?? [];
  expect(taken(replies)).toEqual([true, true, false, false]);
  expect(replies[2]).toMatchObject({
    error: `429:${subscription},2,1:New session limit reached`,
    ext: { detail: expect.stringMatching(/2 new sessions .*max_sessions_per_second/) },
  });
  // Those that are there may do what they like.
  const more = `/${app}/public/b`;
  expect(taken((await first?.post(subscribes(more).slice(0, 2))) ?? [])).toEqual([true, true]);
  const late = async () => (await pollers[3]?.subscribe(subscription))?.successful;
  await expect.poll(late, soon).toBe(true);
});

test("[LIM-11] messages have as many bytes as the limit allows", async () => {
  await limit({ max_message_bytes: 10 });
  const channel = `/${app}/public/a`;
  expect((await publish(channel, "éééé")).status).toBe(200);
  const { status, headers, body } = await publish(channel, "ééééé");
  expect([status, headers["retry-after"]]).toEqual([413, undefined]);
  expect(JSON.parse(body)).toEqual({
    code: 413,
    params: [channel, "10"],
    message: "Message too large for this application",
    details:
      "A message of this application may have 10 bytes (max_message_bytes); this one has 12.",
  });
  const socket = await connect();
  expect(await socket.publish(channel, "123456789", auth())).toMatchObject({
    error: `413:${channel},10:Message too large for this application`,
  });
});

test("[LIM-11] what another program writes into the database counts soon, and no more when it is gone", async () => {
  const write = (value: number | null) => {
    const database = new Database(databasePath);
    const sql = "UPDATE applications SET max_message_bytes = ? WHERE id = ?";
    database.prepare(sql).run(value, app);
    database.close();
  };
  const status = async () => (await publish(`/${app}/public/a`, "12345678")).status;
  expect(await status()).toBe(200);
  write(5);
  await expect.poll(status, soon).toBe(413);
  write(null);
  await expect.poll(status, soon).toBe(200);
});

describe("[LIM-11] admins", () => {
  const none = {
    max_publishes_per_second: null,
    max_connections: null,
    max_sessions_per_second: null,
    max_message_bytes: null,
  };

  test("see and set limits, one by one or together, and remove them", async () => {
    const seen = async () => (await admin<{ limits: object }>("GET", `/application/${app}`)).limits;
    expect(await seen()).toEqual(none);
    await limit({ max_connections: 100, max_message_bytes: 1_000_000_000 });
    const some = { ...none, max_connections: 100, max_message_bytes: 1_000_000_000 };
    expect(await seen()).toEqual(some);
    await admin("POST", `/application/${app}`, { name: "store" });
    await limit({ max_publishes_per_second: 1, max_connections: 100 });
    expect(await seen()).toEqual({ ...some, max_publishes_per_second: 1 });
    await limit(none);
    expect(await seen()).toEqual(none);
    expect((await publishBatch(100)).every(({ successful }) => successful)).toBe(true);
  });

  test("find in the audit what was changed, from what and to what", async () => {
    await limit({ max_connections: 100 });
    await limit({ max_connections: 100 });
    await limit({ max_connections: null, max_publishes_per_second: 5 });
    const entries = await admin<{ action: string; user: string; details: object }[]>(
      "GET",
      `/application/${app}/audit?limit=2`,
    );
    expect(entries.map(({ action, user, details }) => [action, user, details])).toEqual([
      [
        "application.limits",
        "admin",
        {
          before: { max_publishes_per_second: null, max_connections: 100 },
          after: { max_publishes_per_second: 5, max_connections: null },
        },
      ],
      [
        "application.limits",
        "admin",
        { before: { max_connections: null }, after: { max_connections: 100 } },
      ],
    ]);
  });

  test.each([0, -1, 1.5, "5", 1_000_000_001, true, {}])("may not set one to %j", async (value) => {
    const { status, body } = await ask("POST", `/application/${app}`, {
      limits: { max_connections: value },
    });
    expect(status).toBe(422);
    expect(JSON.parse(body)).toMatchObject({
      fields: { "limits.max_connections": expect.stringMatching(/^must be /) },
    });
  });
});

test("[LIM-11] each node counts for itself, and knows of a change at another within a second", async () => {
  const redis = await TestRedis.start();
  const variables = {
    REDIS_HOSTS: redis.address,
    REDIS_PREFIX: "limits:",
    DATABASE_PATH: join(directory, "shared.sqlite"),
    ADMIN_PASSWORD: password,
  };
  const one = await startTestServer(variables);
  const two = await startTestServer(variables);
  try {
    const { id } = await one.store.addApplication({ name: "shop", createdBy: "admin" });
    const channel = `/${id}/public/a`;
    const outcomes = async (node: TestServer): Promise<Message[]> => {
      const all: Message[] = [];
      for (let n = 0; n < 2; n++) all.push(await (await connect(node)).subscribe(channel));
      return all;
    };
    const made = await ask("POST", `/application/${id}`, { limits: { max_connections: 1 } }, one);
    expect(made.status).toBe(200);
    await expect.poll(() => two.keys.limitsOf(id)?.maxConnections, soon).toBe(1);
    for (const node of [one, two]) expect(taken(await outcomes(node))).toEqual([true, false]);
    // A session of one node that comes by the other is told what its own node says.
    const poller = await Poller.connect(one);
    const elsewhere = new Poller(two);
    elsewhere.clientId = poller.clientId;
    expect(await elsewhere.subscribe(channel)).toMatchObject({
      error: `429:${channel},1,5:Connection limit reached`,
      ext: { detail: expect.stringContaining("one connection at each node") },
    });
    await ask("POST", `/application/${id}`, { limits: { max_connections: null } }, one);
    await expect.poll(() => two.keys.limitsOf(id)?.maxConnections, soon).toBeNull();
    expect(taken(await outcomes(two))).toEqual([true, true]);
  } finally {
    await Promise.all([one.close(), two.close()]);
    await redis.stop();
  }
}, 60_000);
