/**
 * What goes on in an application, asked over HTTP: by a back end with its key and by an admin, of
 * a real server with real clients.
 */
import { execFile } from "node:child_process";
import { readFile } from "node:fs/promises";
import { promisify } from "node:util";
import type { AppId, KeyId } from "@pandapush/protocol";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { repositoryPath } from "../src/docs.js";
import {
  type Message,
  Poller,
  Socket,
  secret,
  startTestServer,
  type TestServer,
  token,
} from "./harness.js";
import { eventsBefore, http, type Peer, transports } from "./protocol/peers.js";

const run = promisify(execFile);
const password = "the admin's password";
let server: TestServer;
/** An application and a key of its own for each test; and another tenant's. */
let app: AppId;
let other: AppId;
let key: KeyId;
let otherKey: KeyId;
let count = 0;
/** Everything that was answered: none of it may show a secret. */
let answers: string[] = [];
/** What no answer may show. */
let hidden: string[] = [];

beforeAll(async () => {
  server = await startTestServer({
    ADMIN_PASSWORD: password,
    MAX_BATCH_MESSAGES: "20",
    MAX_MESSAGE_BYTES: "65536",
    KEY_STATS_INTERVAL_MS: "20",
  });
});
afterAll(() => server.close());

beforeEach(async () => {
  count++;
  answers = [];
  hidden = [secret, password];
  app = `app${count}` as AppId;
  other = `app${count}0other` as AppId;
  key = `PSIDapp${count}` as KeyId;
  otherKey = `PSIDother${count}` as KeyId;
  for (const [appId, id] of [
    [app, key],
    [other, otherKey],
  ] as const) {
    await server.store.addApplication({ id: appId, name: null, createdBy: "test" });
    await addKey({ appId, id });
  }
  await server.keys.changed();
});

afterEach(() => {
  for (const text of hidden) for (const answer of answers) expect(answer).not.toContain(text);
});

async function addKey(fields: { appId: AppId; id: KeyId; expires?: Date }): Promise<void> {
  await server.store.addKey({ secret, createdBy: "test", purpose: null, expires: null, ...fields });
}

interface Json {
  readonly [field: string]: unknown;
  readonly message: string;
  readonly details: string;
  readonly params: readonly string[];
}

interface Answer {
  readonly status: number;
  readonly headers: Headers;
  readonly text: string;
  readonly json: Json;
  readonly list: readonly Json[];
}

async function send(method: string, path: string, init: RequestInit = {}): Promise<Answer> {
  const response = await fetch(`${server.url}${path}`, { method, ...init });
  const text = await response.text();
  answers.push(text);
  const isJson = response.headers.get("content-type")?.startsWith("application/json") === true;
  const json: unknown = isJson ? JSON.parse(text) : undefined;
  const { status, headers } = response;
  return { status, headers, text, json: json as Json, list: json as Json[] };
}

const basic = (name: string, word: string): string =>
  `Basic ${Buffer.from(`${name}:${word}`).toString("base64")}`;
const withKey = () => ({ headers: { authorization: basic(key, secret) } });
const withPassword = () => ({ headers: { authorization: basic("admin", password) } });

/** Both ways to ask the same. */
const mounts: [string, (method: string, path: string) => Promise<Answer>][] = [
  ["a back end", (method, path) => send(method, `/api/${app}${path}`, withKey())],
  [
    "an admin",
    (method, path) => send(method, `/admin/api/application/${app}${path}`, withPassword()),
  ],
];
const [[, ask]] = mounts as [(typeof mounts)[number]];

function publish(body: unknown): Promise<Answer> {
  return send("POST", `/api/${app}/publish`, {
    headers: { ...withKey().headers, "content-type": "application/json" },
    body: typeof body === "string" ? body : JSON.stringify(body),
  });
}

const keyAuth = (keyId = key) => ({ auth: { key: keyId, secret } });
const present = (channel: string, presence: object, keyId = key) => ({
  auth: { token: token({ keyId, channel, sub: true, presence }) },
});

/** A client, whose clientId is nobody's business. */
async function connect(open: (to: TestServer) => Promise<Peer> = connectSocket): Promise<Peer> {
  const peer = await open(server);
  hidden.push(peer.clientId);
  return peer;
}
const connectSocket = (to: TestServer): Promise<Peer> => {
  const [[, open]] = transports as [(typeof transports)[number]];
  return open(to);
};

async function subscribe(peer: Peer, channel: string, ext: object = keyAuth()): Promise<void> {
  const { error } = await peer.subscribe(channel, ext);
  expect(error).toBeUndefined();
}

const time = expect.stringMatching(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/);
const names = ({ list }: Answer): unknown[] => list.map(({ channel }) => channel);
const total = ({ headers }: Answer): string | null => headers.get("x-total-count");

/** Every route below `/api/<app>`. */
const routes = [
  ["GET", "/channels"],
  ["GET", "/channels/private/a"],
  ["GET", "/presence/room"],
  ["GET", "/connections"],
  ["GET", "/refusals"],
  ["POST", "/publish"],
  ["POST", "/connections/abc/disconnect"],
  ["POST", "/users/ann/disconnect"],
] as const;

describe("[REST-10] every route below /api", () => {
  test("takes a key with its secret, and nothing else", async () => {
    const jwt = token({ keyId: key, channel: `/${app}/**`, sub: true, pub: true });
    hidden.push(jwt);
    for (const [method, path] of routes) {
      for (const [query, headers] of [
        ["", {}],
        ["", { authorization: `Bearer ${jwt}` }],
        ["", { authorization: `Token ${jwt}` }],
        ["", { authorization: "Basic" }],
        [`?token=${jwt}`, {}],
      ] as [string, Record<string, string>][]) {
        const answer = await send(method, `/api/${app}${path}${query}`, { headers });
        expect([path, answer.status, answer.json]).toEqual([
          path,
          401,
          {
            code: null,
            params: [],
            message: "Unauthorized",
            details: expect.stringContaining("Authorization: Basic"),
          },
        ]);
      }
    }
  });

  test("asks programs for credentials, and lets no browser ask its user", async () => {
    const challenge = async (headers: Record<string, string>) =>
      (await http(server, `/api/${app}/channels`, { headers })).headers["www-authenticate"];
    expect(await challenge({})).toMatch(/^Basic /);
    expect(await challenge({ "sec-fetch-mode": "cors" })).toBeUndefined();
  });

  test("refuses a key that does not count, and says why", async () => {
    const [expired, revoked, deleted] = ["expired", "revoked", "deleted"].map(
      (name) => `PSID${name}${count}` as KeyId,
    ) as [KeyId, KeyId, KeyId];
    await addKey({ appId: app, id: expired, expires: new Date(0) });
    await addKey({ appId: app, id: revoked });
    await addKey({ appId: app, id: deleted });
    await server.keys.changed();
    for (const id of [revoked, deleted]) {
      const headers = { authorization: basic(id, secret) };
      expect((await send("GET", `/api/${app}/channels`, { headers })).status).toBe(200);
    }
    await server.store.revokeKey(app, revoked);
    await server.store.removeKey(app, deleted);
    await server.keys.changed();
    for (const [method, path] of routes) {
      for (const [appId, name, word, message] of [
        [app, key, `${secret}x`, "Invalid secret"],
        [app, key, "", "Invalid secret"],
        [app, otherKey, secret, "Could not find key"],
        [app, "", secret, "Could not find key"],
        [app, expired, secret, "Expired key"],
        [app, revoked, secret, "Revoked key"],
        [app, deleted, secret, "Could not find key"],
        [other, key, secret, "Could not find key"],
        ["nobody", key, secret, "Unknown application"],
      ] as const) {
        const headers = { authorization: basic(name, word) };
        const { status, json } = await send(method, `/api/${appId}${path}`, { headers });
        expect([path, name, status, json.message]).toEqual([path, name, 403, message]);
      }
    }
    const unreadable = { headers: { authorization: "Basic §§§".replaceAll("§", "!") } };
    const { status, json } = await send("GET", `/api/${app}/channels`, unreadable);
    expect([status, json.details]).toEqual([403, expect.stringContaining("base64")]);
  });

  test("changes nothing for what a browser sends for another site", async () => {
    const headers = { ...withKey().headers, "sec-fetch-site": "cross-site" };
    for (const [method, path] of routes.filter(([name]) => name === "POST")) {
      const { status, json } = await send(method, `/api/${app}${path}`, { headers });
      expect([path, status, json.message]).toEqual([path, 403, "Cross-site request"]);
    }
  });

  test("counts as a use of its key", async () => {
    await ask("GET", "/channels");
    const uses = async () => (await server.store.findKey(app, key))?.useCount;
    await expect.poll(uses, { timeout: 5_000 }).toBe(1);
  });

  test("that there is not, is answered 404 to a key and 401 to others", async () => {
    for (const path of ["", "/", "/nothing", "/publish", "/channels/", "/users/ann"]) {
      const answer = await ask("GET", path);
      const isName = path === "/channels/";
      expect([path, answer.status]).toEqual([path, isName ? 400 : 404]);
      expect(answer.json.details).toEqual(expect.any(String));
    }
    expect((await send("GET", `/api/${app}/nothing`)).status).toBe(401);
  });

  test("is in the OpenAPI description, with who may use it", async () => {
    const { json } = await send("GET", "/admin/api/openapi.json", withPassword());
    const { paths, components } = json as unknown as {
      paths: Record<string, Record<string, object>>;
      components: { securitySchemes: Record<string, object> };
    };
    const described = Object.entries(paths).flatMap(([path, methods]) =>
      Object.keys(methods).map((method) => `${method.toUpperCase()} ${path}`),
    );
    const below = (prefix: string) => [
      `GET ${prefix}/channels`,
      `GET ${prefix}/channels/{channel}`,
      `GET ${prefix}/presence/{room}`,
      `GET ${prefix}/connections`,
      `GET ${prefix}/refusals`,
      `POST ${prefix}/connections/{connectionId}/disconnect`,
      `POST ${prefix}/users/{presenceId}/disconnect`,
    ];
    expect(described.filter((path) => path.includes(" /api/")).sort()).toEqual(
      [...below("/api/{app}"), "POST /api/{app}/publish"].sort(),
    );
    expect(described).toEqual(expect.arrayContaining(below("/admin/api/application/{id}")));
    expect(paths["/api/{app}/channels/{channel}"]?.get).toMatchObject({
      security: [{ key: [] }],
      parameters: [
        { name: "app", in: "path" },
        { name: "channel", in: "path" },
      ],
      responses: { 200: {}, 400: {}, 401: {}, 403: {} },
    });
    expect(components.securitySchemes).toMatchObject({
      key: { type: "http", scheme: "basic" },
      basic: { type: "http", scheme: "basic" },
      session: { type: "apiKey", in: "cookie" },
    });
  });
});

describe.each(mounts)("%s", (_who, ask) => {
  test("lists what is subscribed to, the busiest first, then by name", async () => {
    const [one, two] = [await connect(), await connect()];
    const room = `/${app}/presence/room`;
    for (const name of ["private/b", "private/a", "private/a/**", "meta/statistics"]) {
      await subscribe(one, `/${app}/${name}`);
    }
    await subscribe(two, `/${app}/private/b`);
    await subscribe(one, room, present(room, { id: "ann" }));
    await subscribe(two, room, present(room, { id: "ann" }));
    await subscribe(two, `/${app}/presence/*`, keyAuth());
    await subscribe(two, `/${other}/private/b`, keyAuth(otherKey));
    const answer = await ask("GET", "/channels");
    expect(answer.json).toEqual([
      { channel: room, subscribers: 2, members: 1 },
      { channel: `/${app}/private/b`, subscribers: 2 },
      { channel: `/${app}/meta/statistics`, subscribers: 1 },
      { channel: `/${app}/presence/*`, subscribers: 1 },
      { channel: `/${app}/private/a`, subscribers: 1 },
      { channel: `/${app}/private/a/**`, subscribers: 1 },
    ]);
    expect(total(answer)).toBe("6");
    await one.disconnect();
    expect((await ask("GET", "/channels")).json).toEqual([
      { channel: `/${app}/presence/*`, subscribers: 1 },
      { channel: room, subscribers: 1, members: 1 },
      { channel: `/${app}/private/b`, subscribers: 1 },
    ]);
  });

  test("lists them by the beginning of their names, and in pages", async () => {
    const peer = await connect();
    const all = Array.from({ length: 25 }, (_, n) => `/${app}/private/x/${String(n).padStart(2)}`);
    const channels = all.map((name) => name.replaceAll(" ", "_"));
    for (const channel of [...channels, `/${app}/private/xyz`, `/${app}/public/x/1`]) {
      await subscribe(peer, channel);
    }
    const listed = async (query: string) => names(await ask("GET", `/channels?${query}`));
    expect(await listed("prefix=private/x/")).toEqual([...channels].sort());
    expect(await listed("prefix=private/x/1")).toHaveLength(10);
    expect(await listed("prefix=public")).toEqual([`/${app}/public/x/1`]);
    for (const odd of [
      "*",
      ".",
      "private/x.",
      "[",
      "\\",
      "%",
      "%25",
      "private/%",
      "\u0000",
      "é☃",
      "''",
    ]) {
      expect(await listed(new URLSearchParams({ prefix: odd }).toString())).toEqual([]);
    }
    const pages: unknown[] = [];
    for (let offset = 0; offset < 27; offset += 10) {
      const page = await ask("GET", `/channels?limit=10&offset=${offset}`);
      expect(total(page)).toBe("27");
      pages.push(...names(page));
    }
    expect(pages).toEqual(await listed("limit=1000"));
    expect(new Set(pages).size).toBe(27);
    expect(await listed("offset=10000")).toEqual([]);
  });

  test("tells of one channel who is subscribed and who hears it, each once", async () => {
    const [one, two, three] = [await connect(), await connect(), await connect()];
    const channel = `/${app}/public/a/b`;
    await subscribe(one, channel);
    for (const name of ["a/b", "a/*", "a/**", "**"]) await subscribe(two, `/${app}/public/${name}`);
    await subscribe(three, `/${app}/public/**`);
    await subscribe(three, `/${app}/public/a/b/c`);
    const info = async (name: string) => (await ask("GET", `/channels/${name}`)).json;
    expect(await info("public/a/b")).toEqual({ channel, subscribers: 2, listeners: 3 });
    const pattern = `/${app}/public/**`;
    expect(await info("public/**")).toEqual({ channel: pattern, subscribers: 2, listeners: 2 });
    expect(await info("public")).toEqual({
      channel: `/${app}/public`,
      subscribers: 0,
      listeners: 0,
    });
    const room = `/${app}/presence/r`;
    expect(await info("presence/r")).toEqual({
      channel: room,
      subscribers: 0,
      listeners: 0,
      members: 0,
    });
    await subscribe(one, room, present(room, { id: 7 }));
    expect(await info("presence/r")).toEqual({
      channel: room,
      subscribers: 1,
      listeners: 1,
      members: 1,
    });
  });

  test.each(["nothing/a", "public//a", "public/a!", "public/a%20b", "public/%2e%2e%2fx", "x"])(
    "names what is wrong with the channel %s",
    async (name) => {
      for (const path of [`/channels/${name}`, `/presence/${name === "x" ? "*" : name}!`]) {
        const { status, json } = await ask("GET", path);
        expect([path, status, json.message]).toEqual([path, 400, "Invalid channel name"]);
      }
    },
  );

  test("lists who is present, with what they say of themselves unchanged", async () => {
    const room = `/${app}/presence/a/b`;
    const members = [
      { id: "__proto__", n: 1 },
      { id: "é☃😀", name: '"quoted" \u2028' },
      { id: "constructor", nested: { __proto__: null, list: [1, "2"] } },
      { id: 7 },
    ];
    const peers: Peer[] = [];
    for (const each of members) {
      const peer = await connect();
      peers.push(peer);
      await subscribe(peer, room, present(room, each));
    }
    const { text, status } = await ask("GET", "/presence/a/b");
    expect(status).toBe(200);
    const list = members.map(
      (each) => `${JSON.stringify(String(each.id))}:${JSON.stringify(each)}`,
    );
    expect(text).toBe(`{"channel":"${room}","members":{${list.join(",")}}}`);
    await peers[0]?.disconnect();
    expect((await ask("GET", "/presence/a/b")).text).not.toContain('__proto__":');
    expect((await ask("GET", "/presence/nobody")).json).toEqual({
      channel: `/${app}/presence/nobody`,
      members: {},
    });
  });

  test("lists connections with how they came, and only what concerns the application", async () => {
    const before = Date.now();
    const peer = await connect();
    const room = `/${app}/presence/room`;
    await subscribe(peer, `/${app}/private/a`);
    await subscribe(peer, room, present(room, { id: "ann" }));
    await subscribe(peer, `/${app}/presence/*`);
    const theirs = `/${other}/presence/room`;
    await subscribe(peer, theirs, present(theirs, { id: "secretly" }, otherKey));
    const answer = await ask("GET", "/connections");
    expect(answer.json).toEqual([
      {
        id: expect.stringMatching(/^[0-9a-f]{16}$/),
        transport: "websocket",
        since: time,
        user_agent: null,
        address: "127.0.0.1",
        subscriptions: [`/${app}/private/a`, room, `/${app}/presence/*`],
        subscription_count: 3,
        presence: ["ann"],
      },
    ]);
    expect(total(answer)).toBe("1");
    const since = Date.parse(String(answer.list[0]?.since));
    expect(since).toBeGreaterThanOrEqual(before);
    expect(since).toBeLessThanOrEqual(Date.now());
    expect((await ask("GET", "/connections?search=secretly")).json).toEqual([]);
    expect((await ask("GET", `/connections?search=${other}`)).json).toEqual([]);
  });

  test("finds connections by anything that they show, and in pages", async () => {
    const channel = `/${app}/private/Orders`;
    for (let n = 0; n < 5; n++) {
      const socket = await Socket.open(server, [], { "user-agent": `Agent/${n}` });
      hidden.push(await socket.handshake());
      socket.sendConnect();
      await socket.subscribe(channel, keyAuth());
      const room = `/${app}/presence/r`;
      await socket.subscribe(room, present(room, { id: `User-${n}` }));
    }
    const found = async (query: string) => {
      const answer = await ask("GET", `/connections?${query}`);
      return [total(answer), answer.list.map((each) => String(each.user_agent)).sort()];
    };
    const all = Array.from({ length: 5 }, (_, n) => `Agent/${n}`);
    expect(await found("search=orders")).toEqual(["5", all]);
    expect(await found("search=USER-3")).toEqual(["1", ["Agent/3"]]);
    expect(await found("search=agent/2")).toEqual(["1", ["Agent/2"]]);
    expect(await found("search=127.0.0")).toEqual(["5", all]);
    expect(await found("search=WebSock")).toEqual(["5", all]);
    expect(await found("search=eventsource")).toEqual(["0", []]);
    const { list } = await ask("GET", "/connections");
    const [first] = list;
    expect(await found(`search=${first?.id}`)).toEqual(["1", [first?.user_agent]]);
    const pages: unknown[] = [];
    for (let offset = 0; offset < 5; offset += 2) {
      const page = await ask("GET", `/connections?limit=2&offset=${offset}`);
      pages.push(...page.list);
    }
    expect(pages).toEqual(list);
    const times = list.map(({ since }) => since);
    expect(times).toEqual([...times].sort().reverse());
  });

  test("[SUB-8] ends all subscriptions of one connection in the application", async () => {
    const [peer, witness] = [await connect(), await connect()];
    const room = `/${app}/presence/room`;
    await subscribe(witness, room, present(room, { id: "ben" }));
    await subscribe(peer, room, present(room, { id: "ann" }));
    await subscribe(peer, `/${app}/public/a`);
    await subscribe(peer, `/${other}/private/a`, keyAuth(otherKey));
    expect((await witness.event(room)).data).toEqual({ subscribe: { ann: { id: "ann" } } });
    const { list } = await ask("GET", "/connections?search=ann");
    const path = `/connections/${list[0]?.id}/disconnect`;
    const answer = await ask("POST", path);
    expect([answer.status, answer.json]).toEqual([200, { disconnected: 1 }]);
    for (const subscription of [room, `/${app}/public/a`]) {
      expect(await peer.event()).toEqual({
        channel: "/meta/subscribe",
        clientId: peer.clientId,
        subscription,
        successful: false,
        error: "Disconnected",
      });
    }
    expect((await witness.event(room)).data).toEqual({ unsubscribe: { ann: null } });
    expect(names(await ask("GET", "/channels"))).toEqual([room]);
    await peer.publish(`/${app}/public/a`, "not heard", keyAuth());
    await peer.publish(`/${other}/private/a`, "heard", keyAuth(otherKey));
    expect((await peer.event()).data).toBe("heard");
    const again = await ask("POST", path);
    expect([again.status, again.json.message]).toEqual([404, "Not found"]);
    await subscribe(peer, `/${app}/public/a`);
    expect((await ask("POST", path)).json).toEqual({ disconnected: 1 });
  });

  test("[SUB-8] ends those of all connections of one user", async () => {
    const [one, two, three] = [await connect(), await connect(), await connect()];
    const [room, hall] = [`/${app}/presence/room`, `/${app}/presence/hall`];
    const theirs = `/${other}/presence/room`;
    const id = "an/n?%#é ";
    await subscribe(one, room, present(room, { id }));
    await subscribe(two, hall, present(hall, { id }));
    await subscribe(two, `/${app}/private/a`);
    await subscribe(two, theirs, present(theirs, { id }, otherKey));
    await subscribe(three, room, present(room, { id: "ben" }));
    const path = `/users/${encodeURIComponent(id)}/disconnect`;
    expect((await ask("POST", path)).json).toEqual({ disconnected: 2 });
    expect(await one.event("/meta/subscribe")).toMatchObject({ subscription: room });
    const ended = [await two.event("/meta/subscribe"), await two.event("/meta/subscribe")];
    expect(ended).toMatchObject([{ subscription: hall }, { subscription: `/${app}/private/a` }]);
    expect((await ask("GET", "/channels")).json).toEqual([
      { channel: room, subscribers: 1, members: 1 },
    ]);
    expect((await ask("POST", path)).json).toEqual({ disconnected: 0 });
    const { json } = await send("GET", `/api/${other}/presence/room`, {
      headers: { authorization: basic(otherKey, secret) },
    });
    expect(json.members).toEqual({ [id]: { id } });
  });

  test.each([
    ["/channels?limit=0", "limit"],
    ["/channels?limit=1001", "limit"],
    ["/channels?limit=1&limit=2", "limit"],
    ["/channels?offset=10001", "offset"],
    ["/channels?offset=-1", "offset"],
    ["/channels?prefix=a&prefix=b", "prefix"],
    [`/channels?prefix=${"x".repeat(513)}`, "prefix"],
    ["/connections?limit=201", "limit"],
    ["/connections?limit=x", "limit"],
    ["/connections?search=a&search=b", "search"],
    [`/connections?search=${"x".repeat(256)}`, "search"],
    ["/refusals?limit=101", "limit"],
    ["/refusals?offset=0.5", "offset"],
  ])("is told what is wrong with %s", async (path, field) => {
    const { status, json } = await ask("GET", path);
    expect([status, json.params]).toEqual([422, [field]]);
    expect(json.details).toMatch(/: must be|: must have/);
  });
});

describe("an admin's disconnects", () => {
  test("are written to the audit, a back end's are not", async () => {
    const peer = await connect();
    const room = `/${app}/presence/room`;
    const join = () => subscribe(peer, room, present(room, { id: "ann" }));
    const [backend, admin] = mounts.map(([, each]) => each) as [typeof ask, typeof ask];
    await join();
    const id = String((await ask("GET", "/connections")).list[0]?.id);
    const entries = async () => (await server.store.audit({ appId: app })).items;
    const before = (await entries()).length;
    for (const each of [backend, admin]) {
      for (const path of [`/connections/${id}/disconnect`, "/users/ann/disconnect"]) {
        await join();
        expect((await each("POST", path)).json).toEqual({ disconnected: 1 });
      }
      // Nobody was there: nothing was changed.
      expect((await each("POST", "/users/ann/disconnect")).json).toEqual({ disconnected: 0 });
      expect((await each("POST", `/connections/${id}/disconnect`)).status).toBe(404);
    }
    const written = (await entries()).slice(0, -before);
    expect(written.map(({ user, action, details }) => ({ user, action, details }))).toEqual([
      { user: "admin", action: "user.disconnect", details: { user: "ann", connections: 1 } },
      { user: "admin", action: "connection.disconnect", details: { connection: id } },
    ]);
  });
});

describe.each(transports)("over %s", (name, open) => {
  test("[SUB-8] a client is told at once that it was disconnected", async () => {
    const peer = await connect(open);
    const channel = `/${app}/private/a`;
    await subscribe(peer, channel);
    const told = peer.event("/meta/subscribe");
    const { list } = await ask("GET", "/connections");
    expect(list[0]?.transport).toBe(name === "WebSocket" ? "websocket" : "long-polling");
    await ask("POST", `/connections/${list[0]?.id}/disconnect`);
    expect(await told).toEqual({
      channel: "/meta/subscribe",
      clientId: peer.clientId,
      subscription: channel,
      successful: false,
      error: "Disconnected",
    });
    await peer.publish(channel, "not heard", keyAuth());
    await subscribe(peer, `${channel}/marker`);
    await peer.publish(`${channel}/marker`, "end", keyAuth());
    expect(await eventsBefore(peer, `${channel}/marker`)).toEqual([]);
  });
});

describe("a connection shows how it came last", () => {
  const transport = async () => (await ask("GET", "/connections")).list[0]?.transport;

  test("a socket that is lost is none, and the next one counts", async () => {
    const first = await Socket.open(server, [], { "user-agent": "first" });
    const clientId = await first.handshake();
    hidden.push(clientId);
    await first.subscribe(`/${app}/public/a`);
    expect(await transport()).toBe("none");
    first.sendConnect({ advice: { timeout: 0 } });
    await first.next(({ channel }) => channel === "/meta/connect");
    expect(await transport()).toBe("websocket");
    first.close();
    await first.closing();
    // The server has seen the end of the socket when the client has.
    expect(await transport()).toBe("none");
    const second = await Socket.open(server, [], { "user-agent": "second" });
    second.clientId = clientId;
    second.sendConnect({ advice: { timeout: 0 } });
    await second.next(({ channel }) => channel === "/meta/connect");
    const { list } = await ask("GET", "/connections");
    expect(list).toMatchObject([{ transport: "websocket", user_agent: "second" }]);
  });

  test("JSONP and EventSource are told apart from polls", async () => {
    const poller = await Poller.connect(server);
    const { clientId } = poller;
    hidden.push(clientId);
    await poller.subscribe(`/${app}/public/a`);
    expect(await transport()).toBe("long-polling");
    const connectMessage = (connectionType: string) => ({
      channel: "/meta/connect",
      clientId,
      connectionType,
      advice: { timeout: 0 },
    });
    const message = encodeURIComponent(JSON.stringify([connectMessage("callback-polling")]));
    await http(server, `/push?message=${message}&jsonp=cb`);
    expect(await transport()).toBe("callback-polling");
    const aborter = new AbortController();
    const stream = await fetch(`${server.pushUrl}/${clientId}`, {
      headers: { accept: "text/event-stream", "user-agent": "streaming" },
      signal: aborter.signal,
    });
    expect(stream.status).toBe(200);
    expect(await transport()).toBe("eventsource");
    // Its connects are posts, which tell nothing.
    await poller.post([connectMessage("eventsource")]);
    const { list } = await ask("GET", "/connections");
    expect(list).toMatchObject([{ transport: "eventsource", user_agent: "streaming" }]);
    aborter.abort();
  });

  test("what its program calls itself is cut", async () => {
    const socket = await Socket.open(server, [], { "user-agent": `A${"x".repeat(5_000)}` });
    hidden.push(await socket.handshake());
    await socket.subscribe(`/${app}/public/a`);
    const { list } = await ask("GET", "/connections");
    expect(list[0]?.user_agent).toBe(`A${"x".repeat(255)}`);
  });

  test("its address is the one behind the proxy that is believed", async () => {
    const proxied = await startTestServer({ TRUST_PROXY: "loopback" });
    try {
      const socket = await Socket.open(proxied, [], { "x-forwarded-for": "203.0.113.7" });
      hidden.push(await socket.handshake());
      await socket.subscribe("/testapp/public/a");
      const headers = { authorization: basic("PSIDtestkey", secret) };
      const response = await fetch(`${proxied.url}/api/testapp/connections`, { headers });
      expect(await response.json()).toMatchObject([{ address: "203.0.113.7" }]);
    } finally {
      await proxied.close();
    }
  });

  test("of many subscriptions it shows some, and how many there are", async () => {
    const peer = await connect();
    const all = Array.from({ length: 120 }, (_, n) => `/${app}/public/${n}`);
    for (let at = 0; at < all.length; at += 20) await peer.subscribe(all.slice(at, at + 20));
    const { list } = await ask("GET", "/connections");
    expect(list[0]?.subscription_count).toBe(120);
    expect(list[0]?.subscriptions).toEqual(all.slice(0, 100));
  });
});

describe("[REST-11] POST /publish", () => {
  test("publishes to several channels, and answers each in its place", async () => {
    const peer = await connect();
    await subscribe(peer, `/${app}/private/**`);
    await subscribe(peer, `/${app}/public/**`);
    const { status, json } = await publish({
      messages: [
        { channel: `/${app}/private/a`, data: { n: 1 } },
        { channels: [`/${app}/public/b`, "bad", `/${app}/private/c`], data: 2 },
        { channels: [], data: "nobody" },
        { channel: `/${app}/meta/statistics`, data: 3 },
        { channel: `/${app}/private/*`, data: 4 },
        { channel: `/${other}/private/a`, data: 5 },
        { channel: "/nobody/private/a", data: 6 },
        { channel: `/${app}/presence/r`, data: { subscribe: { ann: {} } } },
        { channel: `/${app}/private/d`, data: null },
      ],
    });
    expect(status).toBe(200);
    const failure = (
      channel: string,
      message: string,
      params: string[] = [],
      code: unknown = null,
    ) => ({
      channel,
      successful: false,
      error: { code, params, message, details: expect.stringMatching(/\w/) },
    });
    const success = (channel: string) => ({ channel, successful: true });
    expect(json).toEqual({
      results: [
        success(`/${app}/private/a`),
        success(`/${app}/public/b`),
        failure("bad", "Invalid channel name"),
        success(`/${app}/private/c`),
        failure(`/${app}/meta/statistics`, "Cannot publish to a meta channel"),
        failure(`/${app}/private/*`, "Invalid channel", [`/${app}/private/*`], 405),
        failure(`/${other}/private/a`, "Could not find key"),
        failure("/nobody/private/a", "Unknown application"),
        failure(`/${app}/presence/r`, "Cannot publish presence membership"),
        success(`/${app}/private/d`),
      ],
    });
    const heard: [unknown, unknown][] = [];
    for (let n = 0; n < 4; n++) {
      const { channel, data } = await peer.event();
      heard.push([channel, data]);
    }
    expect(heard).toEqual([
      [`/${app}/private/a`, { n: 1 }],
      [`/${app}/public/b`, 2],
      [`/${app}/private/c`, 2],
      [`/${app}/private/d`, null],
    ]);
  });

  test("carries data as it was written", async () => {
    const socket = await Socket.connect(server);
    hidden.push(socket.clientId);
    const channel = `/${app}/private/a`;
    await socket.subscribe(channel, keyAuth());
    const texts = [
      "1.0",
      "1e400",
      '{"b":1,"a":2, "a":3}',
      "[1 ,\n2]",
      String.raw`"\u00e9\/é"`,
      "12345678901234567890",
      '{"data":{"messages":[]}}',
      "false",
      '""',
    ];
    const messages = texts.map((text) => `{"data": ${text} ,"channel":"${channel}"}`);
    const body = `\ufeff \n{"x":[{"data":0}], "messages" : [ ${messages.join(" ,")} ] } `;
    const { json } = await publish(body);
    expect(json.results).toHaveLength(texts.length);
    for (const text of texts) {
      await socket.event(channel);
      expect(socket.frames.join()).toContain(`"data":${text},"id"`);
    }
    // Credentials that old clients put there are nobody's business; of a name the last one counts.
    const odd = `{"messages":0,"mess\\u0061ges":[{"data":0,"channel":"/x","channel":"${channel}","data":{"__auth":{"secret":"${secret}"},"a":1}}]}`;
    expect((await publish(odd)).json).toEqual({ results: [{ channel, successful: true }] });
    expect((await socket.event(channel)).data).toEqual({ a: 1 });
  });

  test.each<[unknown, string]>([
    [{}, "messages"],
    [[], "body"],
    ["null", "body"],
    ['"text"', "body"],
    [{ messages: {} }, "messages"],
    [{ messages: [1] }, "messages.0"],
    [{ messages: [{ data: 1 }] }, "messages.0.channel"],
    [{ messages: [{ channel: 1, data: 1 }] }, "messages.0.channel"],
    [{ messages: [{ channel: null, data: 1 }] }, "messages.0.channel"],
    [{ messages: [{ channel: "/a/public/b" }] }, "messages.0.data"],
    [{ messages: [{ channels: "/a/public/b", data: 1 }] }, "messages.0.channels"],
    [{ messages: [{ channels: ["/a/public/b", 1], data: 1 }] }, "messages.0.channels.1"],
    [{ messages: [{ channels: [], channel: "/a/public/b", data: 1 }] }, "messages.0.channels"],
  ])("refuses the envelope %j, naming %s, and publishes nothing of it", async (body, field) => {
    const peer = await connect();
    await subscribe(peer, `/${app}/public/**`);
    const good = { channel: `/${app}/public/a`, data: "must not be heard" };
    const messages = (body as { messages?: unknown }).messages;
    const sent = Array.isArray(messages) ? { messages: [...messages, good] } : body;
    const { status, json } = await publish(sent);
    expect([status, json.params]).toEqual([422, [field]]);
    expect(json.fields).toEqual({ [field]: expect.stringMatching(/^must /) });
    await publish({ messages: [{ channel: `/${app}/public/b`, data: "end" }] });
    expect((await peer.event()).data).toBe("end");
  });

  test("refuses what is no JSON, of another type, too long or too large", async () => {
    const told = ({ status, json }: Answer) => [status, json.message];
    expect(told(await publish("{messages:[]}"))).toEqual([400, "Malformed JSON"]);
    expect(told(await publish("  "))).toEqual([400, "Empty body"]);
    const form = { ...withKey().headers, "content-type": "application/x-www-form-urlencoded" };
    const asForm = { headers: form, body: "a=b" };
    expect(told(await send("POST", `/api/${app}/publish`, asForm))).toEqual([
      415,
      "Unsupported content type",
    ]);
    const notUtf8 = { ...withKey().headers, "content-type": "application/json" };
    const bytes = { headers: notUtf8, body: Buffer.from([0x22, 0xff, 0x22]) };
    expect(told(await send("POST", `/api/${app}/publish`, bytes))).toEqual([400, "Malformed JSON"]);
    const channel = `/${app}/public/a`;
    const many = (count: number) => ({
      messages: [{ channels: Array(count).fill(channel), data: 1 }],
    });
    expect((await publish(many(20))).status).toBe(200);
    const long = await publish(many(21));
    expect(told(long)).toEqual([413, "Too many messages in one request"]);
    expect(long.json.details).toContain("20");
    const large = await publish({ messages: [{ channel, data: "x".repeat(65_536) }] });
    expect(told(large)).toEqual([413, "Message too large"]);
    const deep = `{"messages":[{"channel":"${channel}","data":${"[".repeat(30_000)}${"]".repeat(30_000)}}]}`;
    expect((await publish(deep)).json).toEqual({ results: [{ channel, successful: true }] });
  });
});

describe("refusals", () => {
  const refusals = async () => (await ask("GET", "/refusals")).list;
  const fields = (each: Json | undefined) => [each?.action, each?.channel, each?.message];
  const restPublish = (path: string, headers: Record<string, string>, body = "{}") =>
    send("POST", path, { headers: { "content-type": "application/json", ...headers }, body });

  test("are listed with what was tried, the last first, and equal ones counted", async () => {
    const peer = await connect();
    const before = Date.now();
    const channel = `/${app}/private/a`;
    await peer.subscribe(channel);
    await peer.subscribe([`/${app}/public/fine`, channel, `/${app}/public/never`]);
    await peer.publish(channel, 1, keyAuth(otherKey));
    const jwt = token({ keyId: key, channel: `/${app}/private/b`, pub: true });
    hidden.push(jwt);
    await peer.publish(channel, 1, { auth: { token: jwt } });
    const wrong = { authorization: basic(key, "wrong-secret") };
    await restPublish(`/channel${channel}?token=`, wrong);
    await restPublish(`/channel/${app}/privat/a`, wrong);
    await send("GET", `/api/${app}/channels`, { headers: wrong });
    await publish({ messages: [{ channel: `/${app}/meta/a`, data: 1 }] });
    await peer.subscribe(channel);
    const list = await refusals();
    expect(list.map(fields)).toEqual([
      ["subscribe", channel, "No auth supplied"],
      ["rest_publish", `/${app}/meta/a`, "Cannot publish to a meta channel"],
      ["rest", null, "Invalid secret"],
      ["rest_publish", `/${app}/privat/a`, "No such channel"],
      ["rest_publish", channel, "Invalid secret"],
      ["publish", channel, "Token does not match channel"],
      ["publish", channel, "Could not find key"],
    ]);
    expect(list.map((each) => each.count)).toEqual([3, 1, 1, 1, 1, 1, 1]);
    expect(list.map((each) => each.key_id)).toEqual([null, key, key, null, key, key, null]);
    for (const { details, first_at, last_at } of list) {
      expect(details).toMatch(/\w/);
      const [first, last] = [Date.parse(String(first_at)), Date.parse(String(last_at))];
      expect([before <= first, first <= last, last <= Date.now()]).toEqual([true, true, true]);
    }
    hidden.push("wrong-secret");
    const [, admin] = mounts.map(([, each]) => each) as [typeof ask, typeof ask];
    expect((await admin("GET", "/refusals")).json).toEqual(list);
    const page = await ask("GET", "/refusals?limit=2&offset=1");
    expect([page.list, total(page)]).toEqual([list.slice(1, 3), "7"]);
    const theirs = await send("GET", `/api/${other}/refusals`, {
      headers: { authorization: basic(otherKey, secret) },
    });
    expect(theirs.json).toEqual([]);
  });

  test("do not show another application's key to the one where it was tried", async () => {
    const path = `/api/${other}/publish`;
    const authorization = basic(otherKey, secret);
    const body = JSON.stringify({ messages: [{ channel: `/${app}/private/a`, data: 1 }] });
    expect((await restPublish(path, { authorization }, body)).status).toBe(200);
    const list = await refusals();
    expect(list.map(fields)).toEqual([["rest_publish", `/${app}/private/a`, "Could not find key"]]);
    expect(list[0]?.key_id).toBeNull();
  });

  test("show nothing that was sent but channels and the ids of the application's keys", async () => {
    const peer = await connect();
    const channel = `/${app}/private/a`;
    const mistaken = "x".repeat(40);
    const forged = token({ keyId: key, channel, sub: true }, "another secret");
    hidden.push(mistaken, forged, "precious");
    await peer.publish(channel, 1, { auth: { key: mistaken, secret } });
    await peer.publish(channel, 1, { auth: { key, secret: mistaken } });
    await peer.publish(channel, 1, { auth: { token: mistaken } });
    await peer.publish(channel, 1, { auth: { token: token({ keyId: mistaken, channel }) } });
    await peer.subscribe(channel, { auth: { token: forged } });
    await peer.subscribe(`${channel}?token=${forged}`);
    await peer.subscribe(`${channel}/${forged}`);
    const authorization = basic(key, secret);
    // The answer to the sender does show how to mend it.
    const unquoted = await restPublish(`/channel${channel}`, { authorization }, '{a:"precious"}');
    expect(unquoted.text).toContain("precious");
    answers = [];
    await restPublish(`/channel${channel}?token=${forged}`, {});
    const list = await refusals();
    expect(list.map(fields)).toEqual([
      ["rest_publish", channel, "Invalid token provided"],
      ["rest_publish", channel, "Malformed JSON"],
      ["subscribe", `${channel}/…`, "Invalid channel name"],
      ["subscribe", `${channel}?…`, "Invalid channel name"],
      ["subscribe", channel, "Invalid token provided"],
      ["publish", channel, "Could not find key"],
      ["publish", channel, "Invalid token"],
      ["publish", channel, "Invalid secret"],
    ]);
    for (const { key_id } of list) expect([null, key]).toContain(key_id);
    for (const text of hidden) expect(JSON.stringify(list)).not.toContain(text);
  });

  test("are bounded, in number and length", async () => {
    const peer = await connect();
    for (let n = 0; n < 110; n += 10) {
      const messages = Array.from({ length: 10 }, (_, m) => ({
        channel: `/${app}/private/${n + m}/${"long-".repeat(60)}`,
        data: 1,
      }));
      for (const message of messages) await peer.ask(message);
    }
    const list = await refusals();
    expect(list).toHaveLength(100);
    for (const { channel } of list) expect(String(channel)).toMatch(/^.{255}…$/);
  });

  test("are kept for applications that exist, and go with them", async () => {
    const peer = await connect();
    const doomed = `doomed${count}` as AppId;
    const message = { channel: `/${doomed}/private/a`, data: 1 };
    const listed = async () => {
      const path = `/admin/api/application/${doomed}/refusals`;
      return (await send("GET", path, withPassword())).json;
    };
    await peer.ask(message);
    await server.store.addApplication({ id: doomed, name: null, createdBy: "test" });
    await server.keys.changed();
    expect(await listed()).toEqual([]);
    await peer.ask(message);
    expect(await listed()).toMatchObject([{ count: 1 }]);
    await server.store.removeApplication(doomed);
    await server.keys.changed();
    await server.store.addApplication({ id: doomed, name: null, createdBy: "test" });
    await server.keys.changed();
    expect(await listed()).toEqual([]);
  });

  test("leave out a client that comes back after its session ended", async () => {
    const peer = await connect();
    const reply: Message = await peer.ask({
      channel: "/meta/subscribe",
      clientId: "gone",
      subscription: `/${app}/public/a`,
    });
    expect(reply.error).toBe("401:gone:Unknown client");
    expect(await refusals()).toEqual([]);
  });
});

describe("[LIM-9] an application that asks much at once", () => {
  test("is answered or told to ask later, and others are answered", async () => {
    const asked = Array.from({ length: 60 }, () => ask("GET", "/connections"));
    const theirs = send("GET", `/api/${other}/connections`, {
      headers: { authorization: basic(otherKey, secret) },
    });
    const statuses = (await Promise.all(asked)).map(({ status }) => status);
    for (const status of statuses) expect([200, 503]).toContain(status);
    expect((await theirs).status).toBe(200);
  });
});

describe("docs/rest.md", () => {
  test("has a line for every route that there is, and no other", async () => {
    const page = await readFile(repositoryPath("docs/rest.md"), "utf8");
    const { json } = await send("GET", "/admin/api/openapi.json", withPassword());
    const { paths } = json as unknown as { paths: Record<string, Record<string, object>> };
    const served = Object.entries(paths)
      .filter(([path]) => path.startsWith("/api/"))
      .flatMap(([path, methods]) => Object.keys(methods).map((each) => `${each} ${path}`));
    const listed = [...page.matchAll(/^\| \[`(\w+ (?:…|\/api\/<).*?)`\]/gm)].map(
      ([, route]) => route,
    );
    const inGeneral = (route = "") =>
      route
        .toLowerCase()
        .replace("…", "/api/{app}")
        .replaceAll(/<.*?>|\{.*?\}/g, "*");
    expect(listed.map(inGeneral).sort()).toEqual(served.map(inGeneral).sort());
  });

  test("has lines that work when pasted, and shows what they answer", async () => {
    const page = await readFile(repositoryPath("docs/rest.md"), "utf8");
    const socket = await Socket.open(server, [], { "user-agent": "Mozilla/5.0" });
    hidden.push(await socket.handshake());
    socket.sendConnect();
    const lobby = `/${app}/presence/lobby`;
    await socket.subscribe(lobby, present(lobby, { id: "user1", name: "Joe" }));
    await socket.subscribe([`/${app}/public/news`, `/${app}/private/orders/**`], keyAuth());
    await subscribe(await connect(), `/${app}/public/news`);
    await socket.publish(`/${app}/private/orders`, 1, keyAuth(otherKey));
    const { list } = await ask("GET", "/connections?search=user1");
    const blocks = [...page.matchAll(/^```(sh|json)\n(.*?)^```$/gms)].map(
      ([, type, text = ""]) => ({
        type,
        text: text
          .replaceAll("CONNECTION_ID", String(list[0]?.id))
          .replace("admin:PASSWORD", `'admin:${password.replace("'", "'\\''")}'`),
      }),
    );
    const [setting, ...others] = blocks;
    const values = setting?.text
      .replace("KEY_ID:KEY_SECRET", `${key}:${secret}`)
      .replace("APP_ID", app)
      .replace("http://localhost:3000", server.url);
    const curl = `curl() { ${process.env.CURL_PATH ?? "command curl"} -sS --fail-with-body -w '\\n' "$@"; }`;
    let lastAnswer = "";
    for (const { type, text } of others) {
      if (type === "sh") {
        const { stdout } = await run("bash", ["-ec", `${values}\n${curl}\n${text}`]);
        answers.push(stdout);
        lastAnswer = stdout.trim().split("\n").at(-1) ?? "";
      } else {
        expect([text, shapeOf(JSON.parse(lastAnswer))]).toEqual([text, shapeOf(JSON.parse(text))]);
      }
    }
    expect(others.filter(({ type }) => type === "sh")).toHaveLength(10);
  });
});

/** Names and types; of a list, those of its first item. */
function shapeOf(value: unknown): unknown {
  if (Array.isArray(value)) return value.slice(0, 1).map(shapeOf);
  if (typeof value !== "object" || value === null) return typeof value;
  return Object.fromEntries(Object.entries(value).map(([name, each]) => [name, shapeOf(each)]));
}
