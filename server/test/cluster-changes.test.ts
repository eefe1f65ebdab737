/** What admins change at one node holds at all, when they share Postgres and Redis. */
import { afterAll, afterEach, beforeAll, beforeEach, expect, test, vi } from "vitest";
import { Socket, startTestServer, type TestServer } from "./harness.js";
import { environmentOf, Postgres } from "./postgres.js";
import { http } from "./protocol/peers.js";
import { TestRedis } from "./redis.js";

/** What is promised to take a second: with it, the time that a busy machine takes. */
const soon = { timeout: 2_000, interval: 20 };
const password = "the admin's password";
let postgres: Postgres;
let redis: TestRedis;
let one: TestServer;
let two: TestServer;
let app: string;
let key: { readonly id: string; readonly secret: string };
const sockets: Socket[] = [];

beforeAll(async () => {
  [postgres, redis] = await Promise.all([Postgres.start(), TestRedis.start()]);
  const variables = {
    ...environmentOf(await postgres.createDatabase()),
    REDIS_HOSTS: redis.address,
    ADMIN_PASSWORD: password,
    KEY_STATS_INTERVAL_MS: "20",
  };
  [one, two] = await Promise.all([startTestServer(variables), startTestServer(variables)]);
}, 60_000);
afterEach(() => {
  for (const socket of sockets.splice(0)) socket.close();
});
afterAll(async () => {
  await Promise.all([one.close(), two.close()]);
  await Promise.all([redis.stop(), postgres.remove()]);
});

beforeEach(async () => {
  const made = await admin(one, "POST", "/admin/api/applications", { name: "shop" });
  app = String(made.id);
  key = (await admin(one, "POST", `/admin/api/application/${app}/keys`, {})) as typeof key;
});

async function admin(
  node: TestServer,
  method: string,
  path: string,
  body?: object,
): Promise<Readonly<Record<string, unknown>>> {
  const authorization = `Basic ${Buffer.from(`admin:${password}`).toString("base64")}`;
  const content = body === undefined ? {} : { "content-type": "application/json" };
  const answer = await http(node, path, {
    method,
    headers: { authorization, ...content },
    ...(body === undefined ? {} : { body: JSON.stringify(body) }),
  });
  expect(answer.status).toBeLessThan(300);
  return answer.body.startsWith("{") || answer.body.startsWith("[") ? JSON.parse(answer.body) : {};
}

async function connect(node: TestServer): Promise<Socket> {
  const socket = await Socket.connect(node);
  sockets.push(socket);
  return socket;
}

const auth = () => ({ auth: { key: key.id, secret: key.secret } });

/** A client at each node that is subscribed with the key. */
async function listeners(): Promise<Socket[]> {
  const all = [await connect(one), await connect(two)];
  for (const socket of all) {
    const reply = await socket.subscribe(`/${app}/private/a`, auth());
    expect(reply.error).toBeUndefined();
  }
  return all;
}

const ended = (socket: Socket) =>
  socket.next(({ id, error }) => id === undefined && error !== undefined);

test("a key works at every node at once, and its uses add up", async () => {
  await listeners();
  const [first, second] = [await connect(one), await connect(two)];
  for (let n = 0; n < 3; n++) {
    for (const socket of [first, second]) {
      const reply = await socket.publish(`/${app}/private/a`, n, auth());
      expect(reply.successful).toBe(true);
    }
  }
  for (const node of [one, two]) {
    await vi.waitFor(async () => {
      const [shown] = (await admin(
        node,
        "GET",
        `/admin/api/application/${app}/keys`,
      )) as unknown as {
        use_count: number;
        last_used: string | null;
      }[];
      expect(shown).toMatchObject({ use_count: 8, last_used: expect.any(String) });
    }, soon);
  }
});

test("a revoked key ends what it permitted at every node", async () => {
  const sessions = await listeners();
  await admin(one, "POST", `/admin/api/application/${app}/keys/${key.id}/revoke`, {});
  for (const socket of sessions)
    expect(await ended(socket)).toMatchObject({ error: "Revoked key" });
  for (const node of [one, two]) {
    const reply = await (await connect(node)).publish(`/${app}/private/a`, 1, auth());
    expect(reply.error).toBe("Revoked key");
  }
});

test("a deleted application is unknown at every node", async () => {
  const sessions = await listeners();
  await admin(one, "DELETE", `/admin/api/application/${app}`);
  for (const socket of sessions) {
    expect(await ended(socket)).toMatchObject({ error: "Unknown application" });
  }
  for (const node of [one, two]) {
    const reply = await (await connect(node)).publish(`/${app}/private/a`, 1, auth());
    expect(reply.error).toBe("Unknown application");
  }
});

test("a rotated key's new secret works at every node soon, its former one no longer", async () => {
  const path = `/admin/api/application/${app}/keys/${key.id}/rotate`;
  const former = key.secret;
  const rotated = await admin(two, "POST", path, { overlap_ms: 0 });
  key = { id: key.id, secret: String(rotated.secret) };
  for (const node of [two, one]) {
    await vi.waitFor(async () => {
      const socket = await connect(node);
      const reply = await socket.publish(`/${app}/private/a`, 1, auth());
      expect(reply.successful).toBe(true);
      const old = { auth: { key: key.id, secret: former } };
      expect((await socket.publish(`/${app}/private/a`, 1, old)).error).toBe("Invalid secret");
    }, soon);
  }
});

test("who is disconnected at another node is told, and it is in the audit", async () => {
  const [, socket] = await listeners();
  await socket?.subscribe(`/${app}/public/b`);
  const list = (await admin(
    one,
    "GET",
    `/admin/api/application/${app}/connections?search=public/b`,
  )) as unknown as {
    id: string;
  }[];
  expect(list).toHaveLength(1);
  const path = `/admin/api/application/${app}/connections/${list[0]?.id}/disconnect`;
  expect(await admin(one, "POST", path, {})).toEqual({ disconnected: 1 });
  expect(await ended(socket as Socket)).toMatchObject({ error: "Disconnected" });
  const audit = await admin(two, "GET", `/admin/api/application/${app}/audit`);
  expect(audit).toMatchObject([{ action: "connection.disconnect" }, {}, {}]);
});
