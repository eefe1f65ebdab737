/** The console's login and the reach of what is done there, on a whole running server. */
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { AdminAuth, type AdminRequest, sharedSessionKey } from "../src/auth/admin.js";
import {
  addPassword,
  basicLogin,
  hashPassword,
  hasPassword,
  resetPassword,
} from "../src/auth/password.js";
import type { Refusal } from "../src/errors.js";
import type { Store } from "../src/storage/store.js";
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

const noSessions = { endSession: async () => undefined, isSessionEnded: async () => false };
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
    expect(refused.status).toBe(429);
    const leftSeconds = Number(refused.headers.get("retry-after"));
    expect(leftSeconds).toBeGreaterThan(240);
    expect(leftSeconds).toBeLessThanOrEqual(300);
    expect(await refused.json()).toMatchObject({
      message: "Too many failed logins",
      details: "Too many logins from your address failed; try again in 5 minutes.",
    });
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
    const auth = new AdminAuth({
      method,
      rootAdmins: [],
      sessionKey,
      sessionMs: 60_000,
      store: server.store,
    });
    const request: AdminRequest = { headers: {}, address: undefined, isSecure: false };
    const [cookie = ""] = (await auth.beginSession("admin", request)).split(";");
    expect(await status(send(server, "GET", "/info", { cookie }))).toBe(200);
  });
});

describe("failed logins", () => {
  let failed: unknown[];
  let auth: AdminAuth;

  beforeEach(() => {
    failed = [];
    auth = new AdminAuth({
      method: { checkPassword: async () => false, binding: async () => "x" },
      rootAdmins: [],
      sessionKey: "key",
      sessionMs: 1000,
      store: noSessions,
      onFailure: ({ address }) => failed.push(address),
    });
  });

  const failureFrom = (address: string) =>
    auth
      .logIn("ann", "guess", { headers: {}, address, isSecure: false })
      .then(String, (error: Refusal) => error);
  const tryFrom = async (address: string) => ((await failureFrom(address)) as Refusal).code;

  test("of one address leave another's alone", async () => {
    for (let i = 0; i < 10; i++) expect(await tryFrom("192.0.2.1")).toBe("loginFailed");
    expect(await tryFrom("192.0.2.1")).toBe("tooManyLogins");
    expect(await tryFrom("192.0.2.2")).toBe("loginFailed");
    expect(failed).toHaveLength(11);
  });

  test("are counted for all that one subscriber has of IPv6", async () => {
    for (let i = 0; i < 10; i++) expect(await tryFrom(`2001:db8::${i}`)).toBe("loginFailed");
    expect(await tryFrom("2001:db8::ffff:0:0:1")).toBe("tooManyLogins");
    expect(await tryFrom("2001:db8:0:1::1")).toBe("loginFailed");
  });

  test("are counted for an IPv4 address however it is written", async () => {
    for (let i = 0; i < 10; i++) expect(await tryFrom("::ffff:192.0.2.1")).toBe("loginFailed");
    expect(await tryFrom("192.0.2.1")).toBe("tooManyLogins");
    expect(await tryFrom("::ffff:192.0.2.2")).toBe("loginFailed");
  });

  test("say how long they are in the way", async () => {
    // Whole milliseconds: sums with fractions would be rounded.
    const start = Math.ceil(performance.now());
    const now = vi.spyOn(performance, "now").mockReturnValue(start);
    for (let i = 0; i < 10; i++) await tryFrom("192.0.2.1");
    for (const [atMs, seconds, words] of [
      [0, 300, "5 minutes"],
      [200_000, 100, "2 minutes"],
      [299_999, 1, "a minute"],
    ] as const) {
      now.mockReturnValue(start + atMs);
      expect(await failureFrom("192.0.2.1")).toMatchObject({
        code: "tooManyLogins",
        retryAfterSeconds: seconds,
        help: expect.stringContaining(`try again in ${words}`),
      });
    }
    now.mockReturnValue(start + 300_000);
    expect(await tryFrom("192.0.2.1")).toBe("loginFailed");
    now.mockRestore();
  });
});

describe("passwords that are hashed", () => {
  const stored = hashPassword("right");
  const store = { setting: () => stored } as unknown as Store;
  const login = () => basicLogin(store, { username: "admin" });
  const stop = () => {
    throw new Error("stopped");
  };

  test("wait for their turn: many wrong ones do not refuse the right one", async () => {
    const { checkPassword } = login();
    const guesses = Array.from({ length: 12 }, (_, n) => checkPassword?.("admin", `guess ${n}`));
    expect(await checkPassword?.("admin", "right")).toBe(true);
    expect(new Set(await Promise.all(guesses))).toEqual(new Set([false]));
  });

  test("that have waited are not checked any more for who has failed too often meanwhile", async () => {
    const { checkPassword } = login();
    const first = [1, 2].map((n) => checkPassword?.("admin", `guess ${n}`));
    const waiting = checkPassword?.("admin", "right", stop);
    await expect(waiting).rejects.toThrow("stopped");
    expect(await Promise.all(first)).toEqual([false, false]);
  });

  test("are refused with a reason when too many wait, and taken again later", async () => {
    const { checkPassword } = login();
    const first = [1, 2].map((n) => checkPassword?.("admin", `guess ${n}`));
    const waiting = Array.from({ length: 64 }, (_, n) => checkPassword?.("admin", `w ${n}`, stop));
    const settled = Promise.allSettled(waiting);
    await expect(checkPassword?.("admin", "right")).rejects.toMatchObject({
      code: "unavailable",
      help: expect.stringContaining("passwords are being checked"),
    });
    expect(await Promise.all(first)).toEqual([false, false]);
    expect((await settled).every(({ status: end }) => end === "rejected")).toBe(true);
    expect(await checkPassword?.("admin", "right")).toBe(true);
  });

  test("are hashed for users who do not exist as well, also after the right one was seen", async () => {
    const { checkPassword } = login();
    expect(await checkPassword?.("admin", "right")).toBe(true);
    for (const [name, password] of [
      ["admin", "wrong"],
      ["nobody", "wrong"],
      ["nobody", "right"],
    ] as const) {
      const beforeWork = vi.fn();
      expect(await checkPassword?.(name, password, beforeWork)).toBe(false);
      expect([name, password, beforeWork.mock.calls.length]).toEqual([name, password, 1]);
    }
  });
});

test("credentials that a page of another site sends are nobody's, and no failure", async () => {
  const server = await start(configured);
  const wrong = { ...basic({ ...right, password: "x" }), "sec-fetch-site": "cross-site" };
  for (let n = 0; n < 12; n++) expect(await status(send(server, "GET", "/info", wrong))).toBe(401);
  expect(await status(send(server, "GET", "/info", basic(right)))).toBe(200);
});

describe("a session that was ended", () => {
  test("is over at all nodes, also for a copy of its cookie; others go on", async () => {
    const server = await start({ ...configured, SESSION_PRIVATE_KEY: "0123456789abcdef" });
    const [session, another] = [
      cookieOf(await logIn(server, right)),
      cookieOf(await logIn(server, right)),
    ];
    expect(session).not.toEqual(another);
    const binding = async () => right.password;
    const node = new AdminAuth({
      method: { binding },
      rootAdmins: [],
      sessionKey: "0123456789abcdef",
      sessionMs: 60_000,
      store: server.store,
    });
    const request = (headers: { cookie: string }): AdminRequest => ({
      headers,
      address: undefined,
      isSecure: false,
    });
    expect(await node.identify(request(session))).toMatchObject({ name: "zoe" });
    expect(await status(send(server, "POST", "/logout", session))).toBe(200);
    expect(await status(send(server, "GET", "/info", session))).toBe(401);
    expect(await node.identify(request(session))).toBeUndefined();
    expect(await node.identify(request(another))).toMatchObject({ name: "zoe" });
    // Without a session there is nothing to end.
    expect(await status(send(server, "POST", "/logout", session))).toBe(200);
    expect(await status(send(server, "POST", "/logout"))).toBe(200);
  });

  test("is remembered until it would be over", async () => {
    const { store } = await start(configured);
    await store.endSession("long", new Date(Date.now() + 60_000));
    await store.endSession("short", new Date(Date.now() - 1));
    await store.endSession("long", new Date(Date.now() + 60_000));
    expect(await store.isSessionEnded("long")).toBe(true);
    expect(await store.isSessionEnded("short")).toBe(false);
    expect(await store.isSessionEnded("none")).toBe(false);
  });
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

  test("an admin who is removed hears no more what the console heard for them", async () => {
    const { server, socket, root } = await startLive();
    const path = `/application/${appId}`;
    const admins = (...names: string[]) => send(server, "POST", path, root, { admins: names });
    expect(await status(admins("zoe", "ann"))).toBe(200);
    const channel = `/${appId}/private/seen`;
    const answer = await send(server, "POST", `${path}/token`, root, { channel, sub: true });
    const { token } = (await answer.json()) as { token: string };
    expect((await socket.subscribe(channel, { auth: { token } })).successful).toBe(true);
    expect(await status(admins("zoe"))).toBe(200);
    expect(await status(admins("ann"))).toBe(200);
    const end = await socket.next((message) => message.error !== undefined, 1000);
    expect(end).toMatchObject({ subscription: channel, successful: false, error: "Revoked key" });
    expect((await socket.subscribe(channel, { auth: { token } })).error).toBe("Revoked key");
    // What other keys permit goes on.
    await socket.publish(room, 1);
    expect((await socket.event(room)).data).toBe(1);
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
