/** Whole servers on a Postgres that is shared, down, restarted or frozen. */
import { execFile } from "node:child_process";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { AppId, KeyId } from "@pandapush/protocol";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { resetPassword } from "../src/auth/password.js";
import type { PostgresConfig } from "../src/config.js";
import { repositoryPath } from "../src/docs.js";
import {
  appId,
  keyAuth,
  keyId,
  type Message,
  Socket,
  secret,
  startTestServer,
  type TestServer,
  token,
} from "./harness.js";
import { environmentOf, Postgres } from "./postgres.js";

/** What happens by itself happens well within this. */
const soon = { timeout: 15_000, interval: 20 };
/** The longest that a request may take while nothing answers: connecting, or one statement. */
const boundedMs = 5000;
const timeoutMs = 1000;

let postgres: Postgres;
let database: PostgresConfig;
const servers: TestServer[] = [];

beforeAll(async () => {
  postgres = await Postgres.start();
}, 60_000);

afterAll(() => postgres.remove());

beforeEach(async () => {
  database = await postgres.createDatabase({ timeoutMs });
});

afterEach(async () => {
  postgres.thaw();
  await Promise.all(servers.splice(0).map((server) => server.close()));
  await postgres.start();
});

async function start(environment: Record<string, string> = {}): Promise<TestServer> {
  const server = await startTestServer({
    ...environmentOf(database),
    ADMIN_PASSWORD: "password",
    ...environment,
  });
  servers.push(server);
  return server;
}

const basic = (user: string, password: string) => ({
  authorization: `Basic ${Buffer.from(`${user}:${password}`).toString("base64")}`,
});

/** A request that is answered in bounded time, with its status and JSON. */
async function ask(
  server: TestServer,
  method: string,
  path: string,
  given: { headers?: Record<string, string>; body?: object } = {},
): Promise<{ status: number; json: unknown; headers: Headers }> {
  const startedAt = performance.now();
  const response = await fetch(`${server.url}${path}`, {
    method,
    headers: { "content-type": "application/json", ...given.headers },
    ...(given.body === undefined ? {} : { body: JSON.stringify(given.body) }),
  });
  const text = await response.text();
  expect(performance.now() - startedAt).toBeLessThan(boundedMs);
  const json: unknown = text.startsWith("{") || text.startsWith("[") ? JSON.parse(text) : text;
  return { status: response.status, json, headers: response.headers };
}

const admin = (server: TestServer, method: string, path: string, body?: object) =>
  ask(server, method, `/admin/api${path}`, {
    headers: basic("admin", "password"),
    ...(body === undefined ? {} : { body }),
  });

const publish = (server: TestServer, user = keyId, password = secret, app: string = appId) =>
  ask(server, "POST", `/channel/${app}/public/news`, {
    headers: basic(user, password),
    body: { n: 1 },
  });

const statusOf = async (server: TestServer, path: string) =>
  (await ask(server, "GET", path)).status;

async function isReady(server: TestServer): Promise<boolean> {
  return (await statusOf(server, "/ready")) === 200;
}

const unavailable = {
  code: 503,
  message: "Service unavailable",
  details: expect.any(String),
};

async function makeKey(server: TestServer, app: string = appId) {
  const made = await admin(server, "POST", `/application/${app}/keys`, { purpose: "web" });
  expect(made.status).toBe(200);
  return made.json as { id: string; secret: string };
}

/** What goes on, and what does not, while the database is out of reach. */
async function expectOutage(server: TestServer): Promise<void> {
  const reason = expect.stringMatching(/^database: not available/);
  await expect
    .poll(async () => (await ask(server, "GET", "/ready")).json, soon)
    .toEqual({ ready: false, reasons: [reason] });
  expect(await statusOf(server, "/ready?exclude=database")).toBe(200);
  expect(await statusOf(server, "/live")).toBe(200);
  expect(await statusOf(server, "/health_check.json")).toBe(200);

  expect((await publish(server)).status).toBe(200);
  const socket = await Socket.connect(server);
  const presence = { id: "ann" };
  const channel = `/${appId}/presence/room`;
  const auth = { auth: { token: token({ channel, sub: true, presence }) } };
  expect(await socket.subscribe(channel, auth)).toMatchObject({ successful: true });

  for (const call of [
    () => publish(server, "unknown"),
    () => publish(server, keyId, secret, "unknown"),
    () => admin(server, "GET", "/applications"),
    () => admin(server, "POST", "/applications", { name: "shop" }),
    () => admin(server, "DELETE", `/application/${appId}`),
  ]) {
    const { status, json, headers } = await call();
    expect({ status, json }).toEqual({
      status: 503,
      json: expect.objectContaining(unavailable),
    });
    expect(Number(headers.get("retry-after"))).toBeGreaterThan(0);
  }
  const unknown = { auth: { key: "unknown", secret } };
  const refused: Message = await socket.publish(`/${appId}/public/news`, 1, unknown);
  expect(refused.error).toBe("503::Service unavailable");
  expect(await socket.publish(`/${appId}/public/news`, 1, keyAuth)).toMatchObject({
    successful: true,
  });
  socket.close();
}

async function expectBack(server: TestServer): Promise<void> {
  await expect.poll(() => isReady(server), soon).toBe(true);
  const { id, secret: made } = await makeKey(server);
  expect((await publish(server, id, made)).status).toBe(200);
  expect((await publish(server, "unknown")).status).toBe(400);
}

describe("two nodes on one Postgres", () => {
  test("[AUTH-16] a key and an application work on one from the moment the other has made them", async () => {
    const [one, other] = [await start(), await start()];
    for (let i = 0; i < 5; i++) {
      const { id, secret: made } = await makeKey(one);
      expect((await publish(other, id, made)).status).toBe(200);
    }
    const app = await admin(one, "POST", "/applications", { name: "shop" });
    const { id } = app.json as { id: string };
    const key = await makeKey(one, id);
    expect((await publish(other, key.id, key.secret, id)).status).toBe(200);
  });

  test("[AUTH-16] a key works that was asked for before it existed", async () => {
    const [one, other] = [await start(), await start()];
    expect((await publish(other, "later", "hidden")).status).toBe(400);
    const key = { id: "later" as KeyId, secret: "hidden", appId: appId as AppId };
    await one.store.addKey({ ...key, createdBy: "ann", expires: null, purpose: null });
    await expect
      .poll(async () => (await publish(other, "later", "hidden")).status, { timeout: 500 })
      .toBe(200);
  });

  test("[AUTH-18] a key that is revoked at one, or deleted with psql, is refused by the other", async () => {
    const [one, other] = [await start(), await start()];
    const [first, second] = [await makeKey(one), await makeKey(one)];
    for (const { id, secret: made } of [first, second]) {
      expect((await publish(other, id, made)).status).toBe(200);
    }
    const socket = await Socket.connect(other);
    const channel = `/${appId}/private/news`;
    const auth = (key: typeof first) => ({ auth: { key: key.id, secret: key.secret } });
    await socket.subscribe(channel, auth(first));
    await admin(one, "POST", `/application/${appId}/keys/${first.id}/revoke`);
    expect(await socket.next((message) => message.error === "Revoked key")).toMatchObject({
      channel: "/meta/subscribe",
      subscription: channel,
      successful: false,
    });
    await socket.subscribe(channel, auth(second));
    await postgres.query(database.name, `DELETE FROM keys WHERE id = '${second.id}'`);
    await socket.next((message) => message.error === "Revoked key");
    expect((await publish(other, second.id, second.secret)).status).toBe(400);
    socket.close();
  });

  test("several that start at once on an empty database agree on its first key", async () => {
    const started = await Promise.all(Array.from({ length: 4 }, () => start()));
    for (const server of started) {
      expect((await publish(server)).status).toBe(200);
      expect(await isReady(server)).toBe(true);
    }
    expect(await started[0]?.store.keys()).toHaveLength(1);
  });

  test("what they count of a key adds up", async () => {
    const counting = { KEY_STATS_INTERVAL_MS: "50" };
    const both = [await start(counting), await start(counting)];
    await Promise.all(both.flatMap((server) => [publish(server), publish(server)]));
    const count = async () => (await both[0]?.store.keys())?.[0]?.useCount;
    await expect.poll(count, soon).toBe(4);
  });
});

describe("a Postgres that is down", () => {
  test("while a server runs: known keys work, the rest is refused, and all is well again by itself", async () => {
    const server = await start({ KEY_STATS_INTERVAL_MS: "50" });
    await expect.poll(() => isReady(server), soon).toBe(true);
    await postgres.stop();
    await expectOutage(server);
    await postgres.start();
    await expectBack(server);
  });

  test("the use of keys is counted all the same, and written later", async () => {
    const server = await start({ KEY_STATS_INTERVAL_MS: "50" });
    await postgres.stop();
    for (let i = 0; i < 7; i++) expect((await publish(server)).status).toBe(200);
    await postgres.start();
    const count = async () =>
      (await server.store.keys().catch(() => [])).find(({ id }) => id === keyId)?.useCount;
    await expect.poll(count, soon).toBe(7);
  });

  test("is told in the log a few times, and not with each request", async () => {
    const server = await start();
    await postgres.stop();
    await expect.poll(() => isReady(server), soon).toBe(false);
    for (let i = 0; i < 20; i++) await publish(server, `unknown${i}`);
    const problems = server.logged.filter((line) => line.includes("database is not available"));
    expect(problems.length).toBeGreaterThan(0);
    expect(problems.length).toBeLessThanOrEqual(5);
  });

  test("says at the console that nobody can log in, where the password is in it", async () => {
    const server = await start({ ADMIN_PASSWORD: "" });
    const headers = basic("admin", await resetPassword(server.store, "test"));
    expect((await ask(server, "GET", "/admin/api/info", { headers })).status).toBe(200);
    await postgres.stop();
    const api = await ask(server, "GET", "/admin/api/info", { headers });
    expect(api).toMatchObject({ status: 503, json: unavailable });
    expect(Number(api.headers.get("retry-after"))).toBeGreaterThan(0);
    const page = await ask(server, "GET", "/admin", { headers });
    expect(page).toMatchObject({ status: 503, json: expect.stringContaining("<!doctype html>") });
    await postgres.start();
    const back = async () => (await ask(server, "GET", "/admin/api/info", { headers })).status;
    await expect.poll(back, soon).toBe(200);
  });

  test("when a server starts: it is not ready, tries again, and makes what it needs", async () => {
    await postgres.stop();
    const server = await start();
    expect(await ask(server, "GET", "/ready")).toMatchObject({
      status: 503,
      json: {
        ready: false,
        reasons: [expect.stringMatching(/^database: /), "keys: not loaded yet"],
      },
    });
    expect(await statusOf(server, "/ready?exclude=database")).toBe(503);
    expect(await statusOf(server, "/live")).toBe(200);
    expect(await publish(server)).toMatchObject({ status: 503, json: unavailable });
    expect((await admin(server, "GET", "/applications")).status).toBe(503);
    await postgres.start();
    await expect.poll(() => isReady(server), soon).toBe(true);
    expect((await publish(server)).status).toBe(200);
    expect((await admin(server, "GET", "/applications")).status).toBe(200);
  });
});

describe("a Postgres that does not answer", () => {
  test("while a server runs: every request is answered in bounded time", async () => {
    const server = await start();
    postgres.freeze();
    // The first that meet it wait; nobody does any more once it is known.
    const first = await Promise.all([
      publish(server, "unknown"),
      admin(server, "GET", "/applications"),
      publish(server),
    ]);
    expect(first.map(({ status }) => status)).toEqual([503, 503, 200]);
    await expectOutage(server);
    postgres.thaw();
    await expectBack(server);
  });

  test("when a server starts: it is not ready until it answers", async () => {
    postgres.freeze();
    const server = await start();
    expect(await isReady(server)).toBe(false);
    postgres.thaw();
    await expect.poll(() => isReady(server), soon).toBe(true);
    expect((await publish(server)).status).toBe(200);
  });

  test("holds up the end of a server for half a second at most", async () => {
    const server = await start({ DRAIN_MS: "0" });
    await publish(server);
    postgres.freeze();
    const startedAt = performance.now();
    await server.close();
    expect(performance.now() - startedAt).toBeLessThan(3000);
    servers.length = 0;
  });
});

describe("the pandapush command with DATABASE=postgres", () => {
  let folder: string;

  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), "pandapush-outage-"));
  });

  afterAll(() => rm(folder, { recursive: true }));

  function run(args: readonly string[], environment: Record<string, string> = {}) {
    const env = { PATH: process.env.PATH, ...environmentOf(database), ...environment };
    const file = [repositoryPath("server/dist/cli.js"), ...args];
    return new Promise<{ code: number; out: string; err: string }>((resolve) => {
      execFile(process.execPath, file, { cwd: folder, env }, (error, out, err) => {
        resolve({ code: typeof error?.code === "number" ? error.code : error ? -1 : 0, out, err });
      });
    });
  }

  test("makes tables, applications, keys and tokens, which a running server takes", async () => {
    const name = `${database.name} at 127.0.0.1:${postgres.port}`;
    expect(await run(["migrate"])).toEqual({ code: 0, out: `${name} is up to date.\n`, err: "" });
    expect((await run(["app", "list"])).out).toContain(`No applications yet in ${name}.`);
    const server = await start();
    const app = JSON.parse((await run(["app", "add", "Shop", "--json"])).out) as { id: string };
    const added = await run(["key", "add", app.id, "--json"]);
    const made = JSON.parse(added.out) as { id: string; secret: string };
    expect((await publish(server, made.id, made.secret, app.id)).status).toBe(200);
    const channel = `/${app.id}/public/news`;
    const signed = await run(["token", app.id, made.id, channel, "--pub"]);
    const headers = { authorization: `Bearer ${signed.out.trim()}` };
    const published = await ask(server, "POST", `/channel${channel}`, { headers, body: {} });
    expect(published.status).toBe(200);
    expect((await run(["key", "delete", app.id, made.id])).code).toBe(0);
    const refused = async () => (await publish(server, made.id, made.secret, app.id)).status;
    await expect.poll(refused, soon).toBe(400);
  });

  test("says what is wrong with the database, and ends with 1", async () => {
    const failed = await run(["app", "list"], { DATABASE_NAME: "nowhere" });
    expect(failed).toMatchObject({ code: 1, out: "" });
    expect(failed.err).toMatch(/^Cannot open the database nowhere at .*set DATABASE_NAME\n$/);
    const down = await run(["app", "list"], { DATABASE_PORT: "1" });
    expect(down).toMatchObject({ code: 1, err: expect.stringContaining("nothing listens at") });
    const start = await run(["start"], { DATABASE_NAME: "nowhere", PORT: "0" });
    expect(start.code).toBe(1);
    expect(start.err).toMatch(/^Pandapush cannot start: Cannot open the database nowhere at /);
  });

  test("waits for a database that does not answer no longer than it may", async () => {
    postgres.freeze();
    const startedAt = performance.now();
    expect(await run(["app", "list"])).toMatchObject({
      code: 1,
      err: expect.stringMatching(/^Cannot open the database /),
    });
    expect(performance.now() - startedAt).toBeLessThan(10_000);
  });
});
