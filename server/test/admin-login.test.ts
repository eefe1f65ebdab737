/** The console's login and the reach of what is done there, on a whole running server. */
import { afterEach, describe, expect, test, vi } from "vitest";
import { AdminAuth, type AdminRequest, sharedSessionKey } from "../src/auth/admin.js";
import { addPassword, basicLogin, hasPassword, resetPassword } from "../src/auth/password.js";
import { appId, keyAuth, keyId, Socket, startTestServer, type TestServer } from "./harness.js";

const servers: TestServer[] = [];

afterEach(async () => {
  vi.useRealTimers();
  for (const server of servers.splice(0)) await server.close();
});

async function start(environment: Record<string, string> = {}): Promise<TestServer> {
  const server = await startTestServer(environment);
  servers.push(server);
  return server;
}

const configured = { ADMIN_USERNAME: "zoe", ADMIN_PASSWORD: "pass:wörd" };
const right = { username: "zoe", password: configured.ADMIN_PASSWORD };

function send(server: TestServer, method: string, path: string, headers = {}, body?: object) {
  return fetch(`${server.url}/admin/api${path}`, {
    method,
    headers: { ...headers, ...(body === undefined ? {} : { "content-type": "application/json" }) },
    ...(body === undefined ? {} : { body: JSON.stringify(body) }),
  });
}

const logIn = (server: TestServer, { username, password }: typeof right) =>
  send(server, "POST", "/login", {}, { username, password });

const basic = ({ username, password }: typeof right) => ({
  authorization: `Basic ${Buffer.from(`${username}:${password}`).toString("base64")}`,
});

const cookieOf = (response: Response) => ({
  cookie: response.headers.get("set-cookie")?.split(";")[0] ?? "",
});

const status = async (response: Promise<Response>) => (await response).status;

describe("AUTH_METHOD=basic with ADMIN_PASSWORD", () => {
  test("logs in its user, by form and by Basic credentials, as root", async () => {
    const server = await start({ ...configured, CG_ENVIRONMENT: "live", CG_GIT_COMMIT_ID: "abc" });
    const session = cookieOf(await logIn(server, right));
    for (const headers of [session, basic(right)]) {
      const response = await send(server, "GET", "/info", headers);
      expect(await response.json()).toEqual({
        username: "zoe",
        environments: [],
        environment: "live",
        version: "abc",
      });
      expect(await (await send(server, "GET", "/applications", headers)).json()).toMatchObject([
        { id: appId },
      ]);
    }
  });

  test("refuses everybody else with 401, and tells the log but not what was typed", async () => {
    const server = await start(configured);
    for (const wrong of [
      { ...right, password: "guess-me" },
      { ...right, username: "admin" },
      { username: "typed-here-by-mistake", password: "" },
      { username: "x".repeat(300), password: right.password },
    ]) {
      const response = await logIn(server, wrong);
      expect(response.status).toBe(401);
      expect(await response.json()).toMatchObject({ message: "Wrong user name or password" });
      expect(await status(send(server, "GET", "/info", basic(wrong)))).toBe(401);
    }
    expect(server.logged[0]).toContain("admin login failed");
    expect(server.logged.join()).not.toMatch(/guess-me|by-mistake/);
  });

  test("refuses more tries after ten that failed, also the right one", async () => {
    const server = await start(configured);
    for (let i = 0; i < 10; i++) {
      expect(await status(logIn(server, { ...right, password: `${i}` }))).toBe(401);
    }
    const refused = await logIn(server, right);
    expect([refused.status, refused.headers.get("retry-after")]).toEqual([429, "5"]);
    expect(await refused.json()).toMatchObject({ message: "Too many failed logins" });
    expect(await status(send(server, "GET", "/info", basic(right)))).toBe(429);
  });

  test("a session goes on during too many failed logins, and through a restart with its key", async () => {
    const environment = { ...configured, SESSION_PRIVATE_KEY: "0123456789abcdef" };
    const server = await start(environment);
    const session = cookieOf(await logIn(server, right));
    for (let i = 0; i < 11; i++) await logIn(server, { ...right, password: "no" });
    expect(await status(send(server, "GET", "/info", session))).toBe(200);
    expect(await status(send(await start(environment), "GET", "/info", session))).toBe(200);
    const otherPassword = { ...environment, ADMIN_PASSWORD: "another" };
    expect(await status(send(await start(otherPassword), "GET", "/info", session))).toBe(401);
    const otherKey = { ...environment, SESSION_PRIVATE_KEY: "another key, long" };
    expect(await status(send(await start(otherKey), "GET", "/info", session))).toBe(401);
  });

  test("a session ends after ADMIN_SESSION_MS", async () => {
    const server = await start({ ...configured, ADMIN_SESSION_MS: "60000" });
    const session = cookieOf(await logIn(server, right));
    vi.useFakeTimers({ toFake: ["Date"], now: Date.now() + 59_000 });
    expect(await status(send(server, "GET", "/info", session))).toBe(200);
    vi.setSystemTime(Date.now() + 2000);
    expect(await status(send(server, "GET", "/info", session))).toBe(401);
  });
});

describe("AUTH_METHOD=basic without ADMIN_PASSWORD", () => {
  test("lets nobody in before there is a password", async () => {
    const server = await start();
    for (const password of ["", "admin", "undefined", "null"]) {
      expect(await status(logIn(server, { username: "admin", password }))).toBe(401);
    }
    expect(await hasPassword(server.store)).toBe(false);
  });

  test("takes the generated password, which is made once and kept hashed", async () => {
    const server = await start();
    const password = (await addPassword(server.store)) ?? "";
    expect(password).toMatch(/^(?:[a-z2-9]{4}-){3}[a-z2-9]{4}$/);
    expect(await addPassword(server.store)).toBeUndefined();
    expect(await server.store.setting("admin.password")).toMatch(/^scrypt\$/);
    expect(await server.store.setting("admin.password")).not.toContain(password);
    const admin = { username: "admin", password };
    expect(await status(logIn(server, admin))).toBe(200);
    const many = Array.from({ length: 40 }, () =>
      status(send(server, "GET", "/info", basic(admin))),
    );
    expect(new Set(await Promise.all(many))).toEqual(new Set([200]));
    expect(await status(logIn(server, { username: "admin", password: "no" }))).toBe(401);
  });

  test("a new password ends the old one and its sessions at once", async () => {
    const server = await start();
    const admin = { username: "admin", password: (await addPassword(server.store)) ?? "" };
    const session = cookieOf(await logIn(server, admin));
    const password = await resetPassword(server.store, "command line");
    expect(await status(send(server, "GET", "/info", session))).toBe(401);
    expect(await status(send(server, "GET", "/info", basic(admin)))).toBe(401);
    expect(await status(send(server, "GET", "/info", basic({ ...admin, password })))).toBe(200);
  });

  test("all nodes of a database take each other's sessions", async () => {
    const server = await start();
    await resetPassword(server.store, "test");
    const sessionKey = sharedSessionKey(server.store);
    const method = basicLogin(server.store, { username: "admin" });
    const auth = new AdminAuth({ method, rootAdmins: [], sessionKey, sessionMs: 60_000 });
    const request: AdminRequest = { headers: {}, address: undefined, isSecure: false };
    const [cookie = ""] = (await auth.beginSession("admin", request)).split(";");
    expect(await status(send(server, "GET", "/info", { cookie }))).toBe(200);
  });
});

test("failed logins of one address leave another's alone", async () => {
  const method = { checkPassword: async () => false, binding: async () => "x" };
  const failed: unknown[] = [];
  const auth = new AdminAuth({
    method,
    rootAdmins: [],
    sessionKey: "key",
    sessionMs: 1000,
    onFailure: ({ address }) => failed.push(address),
  });
  const tryFrom = (address: string) =>
    auth
      .logIn("ann", "guess", { headers: {}, address, isSecure: false })
      .then(String, (error: { code: string }) => error.code);
  for (let i = 0; i < 10; i++) expect(await tryFrom("192.0.2.1")).toBe("loginFailed");
  expect(await tryFrom("192.0.2.1")).toBe("tooManyLogins");
  expect(await tryFrom("192.0.2.2")).toBe("loginFailed");
  expect(failed).toHaveLength(11);
});

test("AUTH_METHOD=none closes the API", async () => {
  const server = await start({ ...configured, AUTH_METHOD: "none" });
  for (const [method, path] of [
    ["GET", "/info"],
    ["POST", "/login"],
    ["GET", "/openapi.json"],
    ["DELETE", `/application/${appId}`],
  ] as const) {
    const response = await send(server, method, path, basic(right));
    expect([path, response.status]).toEqual([path, 403]);
    expect(await response.json()).toMatchObject({ message: "Unauthorized" });
  }
});

describe("on live traffic", () => {
  const room = `/${appId}/private/room`;

  async function startLive() {
    const server = await start(configured);
    const socket = await Socket.connect(server);
    expect((await socket.subscribe(room, keyAuth)).successful).toBe(true);
    return { server, socket, root: basic(right) };
  }

  test("a revoked key ends its subscriptions, and is refused", async () => {
    const { server, socket, root } = await startLive();
    const path = `/application/${appId}/keys/${keyId}/revoke`;
    expect(await status(send(server, "POST", path, root))).toBe(200);
    const end = await socket.next((message) => message.error !== undefined, 1000);
    expect(end).toMatchObject({ subscription: room, successful: false, error: "Revoked key" });
    expect((await socket.publish(room, {})).error).toBe("Revoked key");
    expect((await socket.subscribe(room, keyAuth)).error).toBe("Revoked key");
  });

  test("a deleted key ends its subscriptions", async () => {
    const { server, socket, root } = await startLive();
    const path = `/application/${appId}/keys/${keyId}`;
    expect(await status(send(server, "DELETE", path, root))).toBe(200);
    const end = await socket.next((message) => message.error !== undefined, 1000);
    expect(end).toMatchObject({ subscription: room, error: "Revoked key" });
  });

  test("a deleted application ends its subscriptions", async () => {
    const { server, socket, root } = await startLive();
    expect(await status(send(server, "DELETE", `/application/${appId}`, root))).toBe(200);
    const end = await socket.next((message) => message.error !== undefined, 1000);
    expect(end).toMatchObject({ subscription: room, successful: false });
  });

  test("a rotated key goes on, and so do its subscriptions", async () => {
    const { server, socket, root } = await startLive();
    const path = `/application/${appId}/keys/${keyId}/rotate`;
    const rotated = await send(server, "POST", path, root, {});
    const { secret } = (await rotated.json()) as { secret: string };
    const auth = { auth: { key: keyId, secret } };
    expect((await socket.publish(room, "new", auth)).successful).toBe(true);
    expect((await socket.publish(room, "old")).successful).toBe(true);
    expect([(await socket.event(room)).data, (await socket.event(room)).data]).toEqual([
      "new",
      "old",
    ]);
  });
});
