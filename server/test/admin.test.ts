/** The admin API over real HTTP, on a real database: who may do what, and what it answers. */
import { once } from "node:events";
import { mkdtemp, rm } from "node:fs/promises";
import { type IncomingMessage, request } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { AppId } from "@pandapush/protocol";
import { createDecoder } from "fast-jwt";
import type { FastifyInstance } from "fastify";
import { afterAll, beforeAll, beforeEach, describe, expect, test, vi } from "vitest";
import { AdminAuth, type LoginMethod } from "../src/auth/admin.js";
import { createAuthorize } from "../src/auth/authorize.js";
import { KeyTable } from "../src/auth/keys.js";
import { createApp } from "../src/http/app.js";
import { createMemoryIdempotency } from "../src/idempotency/memory.js";
import { openStore } from "../src/storage/sql.js";
import type { Application, Key, Store } from "../src/storage/store.js";
import { quietLive } from "./quiet-live.js";

/** Anybody whose password is their own name; root is a root admin. */
const everybody: LoginMethod = {
  checkPassword: async (name, password) => password === name,
  binding: async (name) => `binding of ${name}`,
};

let directory: string;
let store: Store;
let keys: KeyTable;
let app: FastifyInstance;
let base: string;
/** What the router has, below the API's prefix. */
const served: string[] = [];
/** An application of ann's with a key. */
let shop: Application;
let key: Key;

beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), "pandapush-admin-"));
  store = await openStore({ path: join(directory, "db.sqlite") });
  keys = new KeyTable(store, { reloadMs: 60_000, usageMs: 60_000, report: fail });
  await keys.load();
  app = createApp({
    idempotency: createMemoryIdempotency(),
    authorize: createAuthorize(keys),
    publish: () => undefined,
    maxBodyBytes: 1024,
    log: (_level, message) => fail(message, undefined),
    build: { version: "3.0.0", rev: "abc", built: "today" },
    admin: {
      auth: new AdminAuth({
        method: everybody,
        rootAdmins: ["root"],
        sessionKey: "a key for sessions",
        sessionMs: 60_000,
        store,
      }),
      store,
      live: quietLive,
      changed: () => keys.changed(),
      addressOf: () => undefined,
      version: "3.0.0",
      deployment: {
        environments: [{ name: "live", url: "https://example.com" }],
        environment: "test",
        version: "3.0.0",
      },
    },
  });
  app.addHook("onRoute", ({ method, url }) => {
    // A list of methods is that of the route that answers 404 to the rest.
    if (typeof method !== "string" || method === "HEAD" || !url.startsWith("/admin/api/")) return;
    served.push(`${method} ${url.replace(/:(\w+)/g, "{$1}")}`);
  });
  await app.listen({ port: 0, host: "127.0.0.1" });
  base = `http://127.0.0.1:${(app.server.address() as AddressInfo).port}`;
});

afterAll(async () => {
  await app.close();
  await keys.close();
  await store.close();
  await rm(directory, { recursive: true });
});

beforeEach(async () => {
  shop = await store.addApplication({ name: "Shop", createdBy: "ann" });
  key = await store.addKey({ appId: shop.id, createdBy: "ann", expires: null, purpose: "web" });
  await keys.changed();
});

function fail(problem: string, error: unknown): never {
  throw new Error(problem, { cause: error });
}

/** The fields that tests look into; an answer has some of them. */
interface Json {
  readonly id: string;
  readonly name: string | null;
  readonly secret: string;
  readonly token: string;
  readonly status: string;
  readonly purpose: string | null;
  readonly expires: string;
  readonly created_at: string;
  readonly previous_secret_until: string;
  readonly previous_secrets_until: string[];
  readonly keys: readonly Json[];
  readonly message: string;
  readonly details: string;
  readonly params: readonly string[];
  readonly fields: Readonly<Record<string, string>>;
  readonly openapi: string;
  readonly paths: Readonly<Record<string, Readonly<Record<string, object>>>>;
}

interface Answer {
  readonly status: number;
  readonly headers: Headers;
  readonly text: string;
  /** Undefined where the answer is a text. */
  readonly json: Json;
  readonly list: readonly Json[];
}

interface Sent {
  readonly body?: unknown;
  /** Who sends it, with Basic credentials. */
  readonly as?: string;
  readonly headers?: Record<string, string>;
}

async function send(
  method: string,
  path: string,
  { body, as, headers }: Sent = {},
): Promise<Answer> {
  const response = await fetch(`${base}${path}`, {
    method,
    redirect: "manual",
    headers: {
      ...(as === undefined ? {} : { authorization: basic(as) }),
      ...(body === undefined ? {} : { "content-type": "application/json" }),
      ...headers,
    },
    ...(body === undefined ? {} : { body: typeof body === "string" ? body : JSON.stringify(body) }),
  });
  const text = await response.text();
  const isJson = response.headers.get("content-type")?.startsWith("application/json") === true;
  const json: unknown = isJson ? JSON.parse(text) : undefined;
  const { status, headers: got } = response;
  return { status, headers: got, text, json: json as Json, list: json as Json[] };
}

function basic(name: string, password = name): string {
  return `Basic ${Buffer.from(`${name}:${password}`).toString("base64")}`;
}

const api = (path: string) => `/admin/api${path}`;
const get = (path: string, as = "ann") => send("GET", api(path), { as });
const post = (path: string, body?: unknown, as = "ann") => send("POST", api(path), { body, as });
const remove = (path: string, as = "ann") => send("DELETE", api(path), { as });
const ofShop = (path = "") => `/application/${shop.id}${path}`;
const ofKey = (path = "") => ofShop(`/keys/${key.id}${path}`);

const publish = (secret: string, id: string = key.id, appId: string = shop.id) =>
  send("POST", `/channel/${appId}/private/a`, {
    body: {},
    headers: { authorization: basic(id, secret) },
  });

const time = expect.stringMatching(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/);

/** Every route but the login's, as it would do something. */
const routes = () =>
  [
    ["GET", "/info"],
    ["GET", "/openapi.json"],
    ["GET", "/applications"],
    ["POST", "/applications", { name: "x" }],
    ["GET", "/audit"],
    ...ownRoutes(),
  ] as [string, string, unknown?][];

/** The ones that are about one application. */
const ownRoutes = () =>
  [
    ["GET", ofShop()],
    ["POST", ofShop(), { name: "x" }],
    ["GET", ofShop("/audit")],
    ["GET", ofShop("/channels")],
    ["GET", ofShop("/channels/private/a/*")],
    ["GET", ofShop("/presence/a/b")],
    ["GET", ofShop("/connections")],
    ["GET", ofShop("/refusals")],
    ["POST", ofShop("/connections/abc/disconnect")],
    ["POST", ofShop("/users/ann/disconnect")],
    ["GET", ofShop("/keys")],
    ["POST", ofShop("/keys"), {}],
    ["POST", ofKey("/token"), { channel: `/${shop.id}/**` }],
    ["POST", ofShop("/token"), { channel: `/${shop.id}/**` }],
    ["POST", ofKey("/rotate"), {}],
    ["POST", ofKey("/revoke")],
    ["DELETE", ofKey()],
    ["DELETE", ofShop()],
  ] as [string, string, unknown?][];

describe("every route", () => {
  test("answers 401 in JSON to who is not logged in, and does nothing", async () => {
    const before = await store.audit({});
    for (const [method, path, body] of routes()) {
      const { status, json } = await send(method, api(path), { body });
      const told = { code: null, message: "Unauthorized", details: expect.any(String) };
      expect([method, path, status, json]).toMatchObject([method, path, 401, told]);
    }
    expect(await store.audit({})).toEqual(before);
  });

  test("answers 404 to the admin of another application as for one that does not exist", async () => {
    const before = await store.audit({});
    for (const [method, path, body] of ownRoutes()) {
      const foreign = await send(method, api(path), { body, as: "ben" });
      const absentPath = path.replace(shop.id, "nobody");
      const absentBody = JSON.stringify(body)?.replace(shop.id, "nobody");
      const absent = await send(method, api(absentPath), { body: absentBody, as: "ben" });
      expect([method, path, foreign.status]).toEqual([method, path, 404]);
      expect(foreign.json).toMatchObject({ message: "Not found" });
      expect([absent.status, absent.text]).toEqual([404, foreign.text]);
    }
    expect(await store.audit({})).toEqual(before);
  });

  test("works for its admin and for root alike, and shows no secret but a new one", async () => {
    for (const as of ["ann", "root"]) {
      const secrets = [key.secret];
      for (const [method, path, body] of routes()) {
        const { status, text, json } = await send(method, api(path), { body, as });
        const isNew = method === "POST" && path === "/applications";
        expect([method, path, status]).toEqual([method, path, isNew ? 201 : 200]);
        const isSecretShown = /\/(?:keys|rotate)$/.test(path) && method === "POST";
        expect([method, path, json?.secret !== undefined]).toEqual([method, path, isSecretShown]);
        for (const secret of secrets) expect(text).not.toContain(secret);
        if (isSecretShown) secrets.push(json.secret);
      }
      shop = await store.addApplication({ name: "Shop", createdBy: "ann" });
      key = await store.addKey({ appId: shop.id, createdBy: "ann", expires: null, purpose: null });
    }
  });

  test("that changes something refuses what a browser sends for another site", async () => {
    const before = await store.audit({});
    const { headers } = await send("POST", api("/login"), {
      body: { username: "ann", password: "ann" },
    });
    const cookie = headers.get("set-cookie")?.split(";")[0] ?? "";
    const credentials = [{ cookie }, { authorization: basic("ann") }];
    const sites = [
      { "sec-fetch-site": "cross-site" },
      { "sec-fetch-site": "same-site" },
      { origin: "https://evil.example" },
      { origin: "null" },
      { "sec-fetch-site": "cross-site", origin: base },
    ];
    for (const [method, path, body] of routes().filter(([name]) => name !== "GET")) {
      for (const site of sites) {
        for (const proof of credentials) {
          const sent = { body, headers: { ...proof, ...site } };
          const { status, json } = await send(method, api(path), sent);
          expect([path, status, json.message]).toEqual([path, 403, "Cross-site request"]);
        }
      }
    }
    expect(await store.audit({})).toEqual(before);
  });

  test.each([
    { "sec-fetch-site": "same-origin" },
    { "sec-fetch-site": "none" },
    { origin: "http://shop.example", "x-forwarded-host": "shop.example" },
  ])("takes what the console sends: %j", async (headers) => {
    const authorization = basic("ann");
    const sent = { body: {}, headers: { ...headers, authorization } };
    expect((await send("POST", api("/applications"), sent)).status).toBe(201);
  });

  test("answers 404 to a path that is none, when logged in", async () => {
    expect((await send("GET", api("/nothing"))).status).toBe(401);
    expect(await get("/nothing")).toMatchObject({ status: 404, json: { message: "Not found" } });
  });

  test("is in the OpenAPI description", async () => {
    const { paths, openapi } = (await get("/openapi.json")).json;
    expect(openapi).toBe("3.1.0");
    const described = Object.entries<object>(paths).flatMap(([path, methods]) =>
      Object.keys(methods).map((method) => `${method.toUpperCase()} ${path}`),
    );
    const names = described.map((path) => path.replace(/\{(?:channel|room)\}/, "*"));
    expect(names.sort()).toEqual(served.sort());
    expect(described).toHaveLength(routes().length + 2);
    expect(paths["/admin/api/application/{id}/keys"]?.post).toMatchObject({
      parameters: [{ name: "id", in: "path", required: true }],
      requestBody: {
        content: {
          "application/json": { schema: { properties: { purpose: {}, expires: {} } } },
        },
      },
      responses: {
        200: {
          content: { "application/json": { schema: { properties: { secret: {} } } } },
        },
        401: {},
        403: {},
        404: {},
        422: {},
      },
    });
  });
});

describe("input that cannot be taken", () => {
  const long = "x".repeat(256);

  test.each([
    ["/applications", { name: "" }, "name"],
    ["/applications", { name: "  " }, "name"],
    ["/applications", { name: 7 }, "name"],
    ["/applications", { name: long }, "name"],
    ["/applications", { name: "a\u0000b" }, "name"],
    ["/applications", [], "body"],
    ["/applications", '"text"', "body"],
    ["/applications", "null", "body"],
    ["OWN", { admins: "ann" }, "admins"],
    ["OWN", { admins: ["ann", ""] }, "admins.1"],
    ["OWN", { admins: [null] }, "admins.0"],
    ["OWN/keys", { expires: "soon" }, "expires"],
    ["OWN/keys", { expires: "2001-01-01" }, "expires"],
    ["OWN/keys", { expires: 5 }, "expires"],
    ["OWN/keys", { purpose: long }, "purpose"],
    ["OWN/keys/KEY/rotate", { overlap_ms: -1 }, "overlap_ms"],
    ["OWN/keys/KEY/rotate", { overlap_ms: 1.5 }, "overlap_ms"],
    ["OWN/keys/KEY/rotate", { overlap_ms: "1" }, "overlap_ms"],
    ["OWN/keys/KEY/token", {}, "channel"],
    ["OWN/keys/KEY/token", { channel: "/other/private/a" }, "channel"],
    ["OWN/token", { channel: "/ID/other/a" }, "channel"],
    ["OWN/token", { channel: "/ID/private/a", pub: "yes" }, "pub"],
    ["OWN/token", { channel: "/ID/private/a", sub: 1 }, "sub"],
    ["OWN/token", { channel: "/ID/presence/a", presence: {} }, "presence.id"],
    ["OWN/token", { channel: "/ID/presence/a", presence: "ann" }, "presence"],
    ["OWN/token", { channel: "/ID/private/a", expires: "2001-01-01" }, "expires"],
  ])("%s %j is refused with 422, naming %s", async (path, body, field) => {
    const before = await store.audit({});
    const text = JSON.stringify(body).replaceAll("/ID/", `/${shop.id}/`);
    const sent = typeof body === "string" ? body : text;
    const { status, json } = await post(path.replace("OWN", ofShop()).replace("KEY", key.id), sent);
    expect([status, json.params]).toEqual([422, [field]]);
    expect(json.fields[field]).toMatch(/^must /);
    expect(json.details).toContain(`${field}: `);
    expect(await store.audit({})).toEqual(before);
  });

  test.each([
    ["/applications?limit=0", "limit"],
    ["/applications?limit=1001", "limit"],
    ["/applications?limit=many", "limit"],
    ["/applications?limit=1&limit=2", "limit"],
    ["/applications?offset=-1", "offset"],
    ["/applications?search=a&search=b", "search"],
    ["/audit?offset=x", "offset"],
  ])("%s is refused with 422", async (path, field) => {
    expect(await get(path)).toMatchObject({ status: 422, json: { params: [field] } });
  });

  test("all fields at fault are named", async () => {
    const { json } = await post(ofShop("/keys"), { expires: "soon", purpose: 1 });
    expect(json.params).toEqual(["expires", "purpose"]);
  });

  test("what is no JSON, of another type or too large is refused", async () => {
    expect(await post("/applications", "{name:1}")).toMatchObject({
      status: 400,
      json: { message: "Malformed JSON" },
    });
    const authorization = basic("ann");
    const form = { authorization, "content-type": "application/x-www-form-urlencoded" };
    expect(
      await send("POST", api("/applications"), { body: "name=x", headers: form }),
    ).toMatchObject({ status: 415 });
    expect(await post("/applications", { name: "x".repeat(70_000) })).toMatchObject({
      status: 413,
      json: {
        message: "Message too large",
        details: "A request to /admin/api has at most 65536 bytes (64 KiB).",
      },
    });
  });

  test("a field that objects inherit changes nothing", async () => {
    const { json } = await post("/applications", '{"name":"x","__proto__":{"id":"mine"}}');
    expect(json.id).toMatch(/^[A-Za-z0-9]{20}$/);
  });
});

describe("applications", () => {
  test("POST makes one with its creator as admin, and answers as Pandapush 2.2", async () => {
    const { status, json } = await post("/applications", { name: "Mine" }, "zoe");
    expect(status).toBe(201);
    expect(json).toEqual({ id: json.id, name: "Mine", created_by: "zoe", created_at: time });
    expect(json.id).toMatch(/^[A-Za-z0-9]{20}$/);
    expect((await get(`/application/${json.id}`, "zoe")).json).toEqual({
      ...json,
      updated_at: null,
      keys: [],
      admins: ["zoe"],
      limits: {
        max_publishes_per_second: null,
        max_connections: null,
        max_sessions_per_second: null,
        max_message_bytes: null,
      },
    });
  });

  test("POST without a name, or without a body, makes one without a name", async () => {
    for (const body of [{}, undefined, { name: null }]) {
      const { status, json } = await post("/applications", body);
      expect([status, json.name]).toEqual([201, null]);
    }
  });

  test("GET lists those of the user, and all for root", async () => {
    const mine = await post("/applications", { name: "of Eve" }, "eve");
    const listed = { ...mine.json, updated_at: null };
    expect((await get("/applications", "eve")).json).toEqual([listed]);
    const all = (await get("/applications", "root")).json;
    expect(all).toContainEqual(listed);
    expect(all).toContainEqual(expect.objectContaining({ id: shop.id }));
    expect((await get("/applications", "nobody")).json).toEqual([]);
  });

  test("GET finds by text and gives pages with their total", async () => {
    for (const name of ["Alpha", "beta", "ALPHABET"]) await post("/applications", { name }, "finn");
    const found = await get("/applications?search=alpha&limit=1&offset=1", "finn");
    expect(found.list.map((each) => each.name)).toEqual(["ALPHABET"]);
    expect(found.headers.get("x-total-count")).toBe("2");
  });

  test("POST changes name and admins, and keeps the admins when none are given", async () => {
    expect(await post(ofShop(), { name: "Store", admins: ["ann", "ben"] })).toMatchObject({
      status: 200,
      json: { id: shop.id },
    });
    expect((await post(ofShop(), { name: "Stores" }, "ben")).status).toBe(200);
    const { json } = await get(ofShop());
    expect(json).toMatchObject({ name: "Stores", admins: ["ann", "ben"], updated_at: time });
    await post(ofShop(), { admins: ["ben"] });
    expect((await get(ofShop())).status).toBe(404);
    expect((await get(ofShop(), "ben")).json).toMatchObject({ name: "Stores", admins: ["ben"] });
  });

  test("[T12] DELETE answers OK, and its keys stop at once", async () => {
    expect((await publish(key.secret)).status).toBe(200);
    const { status, text, headers } = await remove(ofShop());
    expect([status, text]).toEqual([200, "OK"]);
    expect(headers.get("content-type")).toContain("text/plain");
    expect((await publish(key.secret)).json.message).toBe("Unknown application");
    expect((await remove(ofShop())).status).toBe(404);
  });
});

describe("keys", () => {
  test("POST makes one that works at once; only its answer has the secret", async () => {
    const expires = "2099-01-01T00:00:00.000Z";
    const { status, json } = await post(ofShop("/keys"), { expires, purpose: "batch" });
    expect(status).toBe(200);
    expect(json).toEqual({
      id: expect.stringMatching(/^PSID[A-Za-z0-9]{16}$/),
      secret: expect.stringMatching(/^[A-Za-z0-9]{256}$/),
      application_id: shop.id,
      created_by: "ann",
      expires,
      purpose: "batch",
      created_at: time,
    });
    expect((await publish(json.secret, json.id)).status).toBe(200);
    const shown = (await get(ofShop())).json.keys.at(-1);
    expect(shown).toEqual({
      id: json.id,
      application_id: shop.id,
      created_by: "ann",
      expires,
      purpose: "batch",
      created_at: json.created_at,
      updated_at: null,
      last_used: null,
      use_count: 0,
      status: "active",
      revoked_at: null,
      revoked_by: null,
      previous_secret_until: null,
      previous_secrets_until: [],
    });
  });

  test("expires may be a day, nothing, or empty", async () => {
    const expiresOf = async (body: object) => (await post(ofShop("/keys"), body)).json.expires;
    expect(await expiresOf({ expires: "2099-12-31" })).toBe("2099-12-31T00:00:00.000Z");
    expect(await expiresOf({ expires: "2099-12-31T01:00:00+01:00" })).toBe(
      "2099-12-31T00:00:00.000Z",
    );
    expect(await expiresOf({ expires: "" })).toBeNull();
    expect(await expiresOf({ expires: null })).toBeNull();
  });

  test("have a status", async () => {
    const day = 86_400_000;
    for (const [purpose, ms] of [
      ["end: over", -day],
      ["end: soon", day],
      ["later", 100 * day],
    ] as const) {
      const expires = new Date(Date.now() + ms);
      await store.addKey({ appId: shop.id, createdBy: "ann", expires, purpose });
    }
    const { list, headers } = await get(ofShop("/keys?search=end:"));
    expect(list.map((each) => each.status)).toEqual(["expired", "expiring"]);
    expect(headers.get("x-total-count")).toBe("2");
    expect((await get(ofShop("/keys?search=later"))).json).toMatchObject([{ status: "active" }]);
  });

  test("that end in a far year are shown", async () => {
    const expires = new Date(Date.UTC(12_026, 0, 1));
    await store.addKey({ appId: shop.id, createdBy: "ann", expires, purpose: "for ever" });
    const { json } = await get(ofShop());
    expect(json.keys.at(-1)).toMatchObject({ expires: "+012026-01-01T00:00:00.000Z" });
  });

  test("revoke stops one at once, and it stays to be seen; again changes nothing", async () => {
    expect((await publish(key.secret)).status).toBe(200);
    const revoked = await post(ofKey("/revoke"));
    expect(revoked).toMatchObject({
      status: 200,
      json: { id: key.id, status: "revoked", revoked_by: "ann", revoked_at: time },
    });
    expect((await publish(key.secret)).json.message).toBe("Revoked key");
    expect((await post(ofKey("/revoke"), undefined, "root")).json).toEqual(revoked.json);
    expect((await get(ofShop())).json.keys).toEqual([revoked.json]);
    const token = await post(ofKey("/token"), { channel: `/${shop.id}/**` });
    expect(token.json.message).toBe("Revoked key");
    const rotated = await post(ofKey("/rotate"), {});
    expect(rotated).toMatchObject({ status: 409, json: { message: "Key cannot be rotated" } });
    expect(rotated.json.details).toContain("revoked");
  });

  test("DELETE removes one at once", async () => {
    const { status, text } = await remove(ofKey());
    expect([status, text]).toEqual([200, "OK"]);
    expect((await publish(key.secret)).json.message).toBe("Could not find key");
    expect((await get(ofShop())).json.keys).toEqual([]);
  });

  test("rotate gives a new secret, and the old one works for the overlap", async () => {
    const { status, json } = await post(ofKey("/rotate"), { overlap_ms: 60_000 });
    expect(status).toBe(200);
    expect(json).toMatchObject({ id: key.id, previous_secret_until: time });
    for (const secret of [key.secret, json.secret]) {
      expect((await publish(secret)).status).toBe(200);
    }
    const again = await post(ofKey("/rotate"), { overlap_ms: 0 });
    expect(again.json.previous_secret_until).toBe(json.previous_secret_until);
    expect((await publish(json.secret)).json.message).toBe("Invalid secret");
    for (const secret of [key.secret, again.json.secret]) {
      expect((await publish(secret)).status).toBe(200);
    }
  });

  test("rotated twice, the former secrets end each at its time, and by a revocation at once", async () => {
    const first = (await post(ofKey("/rotate"), { overlap_ms: 120_000 })).json;
    const second = (await post(ofKey("/rotate"), { overlap_ms: 60_000 })).json;
    const [soonest, last, ...more] = second.previous_secrets_until;
    expect([last, more]).toEqual([first.previous_secret_until, []]);
    expect(Date.parse(last ?? "") - Date.parse(soonest ?? "")).toBeGreaterThan(30_000);
    expect(second.previous_secret_until).toBe(last);
    const secrets = [key.secret, first.secret, second.secret];
    for (const secret of secrets) expect((await publish(secret)).status).toBe(200);
    const revoked = (await post(ofKey("/revoke"))).json;
    expect(revoked).toMatchObject({ previous_secret_until: null, previous_secrets_until: [] });
    for (const secret of secrets) expect((await publish(secret)).status).toBe(400);
  });

  test("with five former secrets that count, one is rotated only without an overlap", async () => {
    for (let n = 1; n <= 5; n++) await post(ofKey("/rotate"), { overlap_ms: n * 60_000 });
    const { status, json } = await post(ofKey("/rotate"));
    expect([status, json.message]).toEqual([409, "Key cannot be rotated"]);
    const { previous_secrets_until: ends } = (await get(ofShop())).json.keys[0] ?? {};
    expect(ends).toHaveLength(5);
    expect(json.details).toContain(`ends at ${ends?.[0]}`);
    expect((await publish(key.secret)).status).toBe(200);
    expect((await post(ofKey("/rotate"), { overlap_ms: 0 })).status).toBe(200);
  });

  test("one that has expired is not rotated", async () => {
    const expires = new Date(Date.now() - 1);
    const { id } = await store.addKey({ appId: shop.id, createdBy: "ann", expires, purpose: null });
    const { status, json } = await post(ofShop(`/keys/${id}/rotate`));
    expect([status, json.message]).toEqual([409, "Key cannot be rotated"]);
    expect(json.details).toBe("Its time is over; create a new key.");
  });

  test("rotate without a body leaves the old secret a day", async () => {
    const { json } = await post(ofKey("/rotate"));
    const left = Date.parse(json.previous_secret_until) - Date.now();
    expect(left / 86_400_000).toBeCloseTo(1, 2);
  });

  test("a key that is made while another node deletes the application is 404", async () => {
    const addKey = vi.spyOn(store, "addKey").mockImplementationOnce(async (given) => {
      await store.removeApplication(shop.id);
      return store.addKey(given);
    });
    const { status, json } = await post(ofShop("/keys"), {});
    expect([status, json.message]).toEqual([404, "Not found"]);
    addKey.mockRestore();
  });

  test("[T11] that do not exist are 404, and the server goes on", async () => {
    const other = await store.addApplication({ name: "Other", createdBy: "ann" });
    for (const path of [ofShop("/keys/nokey"), `/application/${other.id}/keys/${key.id}`]) {
      for (const [method, rest, body] of [
        ["POST", "/token", { channel: `/${shop.id}/**` }],
        ["POST", "/rotate", {}],
        ["POST", "/revoke"],
        ["DELETE", ""],
      ] as const) {
        const { status, json } = await send(method, api(path + rest), { body, as: "ann" });
        expect([status, json.message]).toEqual([404, "could not find key"]);
      }
    }
    expect((await publish(key.secret)).status).toBe(200);
  });
});

describe("tokens", () => {
  const decode = createDecoder();
  const claimsOf = (token: string): Record<string, unknown> => decode(token);

  test("are signed with the key, and open their channel for an hour", async () => {
    const body = { channel: `/${shop.id}/private/a`, pub: true, presence: null };
    const { status, json } = await post(ofKey("/token"), body);
    expect([status, Object.keys(json)]).toEqual([200, ["token"]]);
    const claims = claimsOf(json.token);
    expect(claims).toMatchObject({ keyId: key.id, channel: body.channel, pub: true, sub: false });
    expect(Number(claims.exp) - Date.now() / 1000).toBeGreaterThan(3500);
    expect(Number(claims.exp) - Date.now() / 1000).toBeLessThanOrEqual(3600);
    const headers = { authorization: `Token ${json.token}` };
    const sent = { body: {}, headers };
    expect((await send("POST", `/channel${body.channel}`, sent)).status).toBe(200);
  });

  test("take presence and an end", async () => {
    const presence = { id: "u1", name: "Ann" };
    const expires = "2099-01-01T00:00:00Z";
    const body = { channel: `/${shop.id}/presence/*`, sub: true, presence, expires };
    const claims = claimsOf((await post(ofKey("/token"), body)).json.token);
    expect(claims).toMatchObject({ presence, sub: true, exp: Date.parse(expires) / 1000 });
  });

  test("of the console are signed with a key of its own, made once for ten years", async () => {
    const body = { channel: `/${shop.id}/meta/statistics`, sub: true };
    const together = await Promise.all([1, 2, 3].map(() => post(ofShop("/token"), body)));
    const keyIds = [...together, await post(ofShop("/token"), body)].map(
      ({ json }) => claimsOf(json.token).keyId,
    );
    expect(new Set(keyIds).size).toBe(1);
    const own = (await get(ofShop())).json.keys.at(-1) as Json;
    expect(own).toMatchObject({ id: keyIds[0], purpose: "web console" });
    expect(Date.parse(own.expires) - Date.now()).toBeGreaterThan(3600 * 86_400_000);
    await post(ofShop(`/keys/${own.id}/revoke`));
    const fresh = await post(ofShop("/token"), body);
    expect(claimsOf(fresh.json.token).keyId).not.toBe(own.id);
  });

  test("of the console are signed with another key for another admin", async () => {
    const body = { channel: `/${shop.id}/meta/statistics`, sub: true };
    const tokens = [await post(ofShop("/token"), body), await post(ofShop("/token"), body, "root")];
    expect(new Set(tokens.map(({ json }) => claimsOf(json.token).keyId)).size).toBe(2);
  });

  test("open channels of all lengths that there are", async () => {
    const channel = `/${shop.id}/private/`.padEnd(512, "x");
    for (const path of [ofShop("/token"), ofKey("/token")]) {
      const { status, json } = await post(path, { channel, sub: true });
      expect([status, claimsOf(json.token).channel]).toEqual([200, channel]);
      const long = await post(path, { channel: `${channel}x`, sub: true });
      expect([long.status, long.json.fields]).toEqual([
        422,
        { channel: "must have at most 512 characters" },
      ]);
    }
  });

  test("take presence up to a depth", async () => {
    const channel = `/${shop.id}/presence/a`;
    for (const path of [ofShop("/token"), ofKey("/token")]) {
      const tokenWith = (presence: object) => post(path, { channel, sub: true, presence });
      const tokenOf = (depth: number) => {
        // The object itself is the first level.
        const lists = `${"[".repeat(depth - 1)}${"]".repeat(depth - 1)}`;
        return post(path, `{"channel":"${channel}","presence":{"id":"u1","a":${lists}}}`);
      };
      expect((await tokenOf(32)).status).toBe(200);
      for (const depth of [33, 15_000]) {
        const { status, json } = await tokenOf(depth);
        expect([status, json.fields]).toEqual([
          422,
          { presence: "must be nested at most 32 deep" },
        ]);
      }
      for (const id of ["", null, {}]) {
        expect((await tokenWith({ id })).json.fields).toEqual({
          "presence.id": "must be a text with at least one character, or a number",
        });
      }
    }
  });

  test("are not signed with a key that is over", async () => {
    const expires = new Date(0);
    const over = await store.addKey({ appId: shop.id, createdBy: "ann", expires, purpose: null });
    const body = { channel: `/${shop.id}/private/a` };
    const { status, json } = await post(ofShop(`/keys/${over.id}/token`), body);
    expect([status, json.message]).toEqual([400, "Expired key"]);
  });
});

describe("the audit", () => {
  test("shows who changed what, to the application's admins and to root", async () => {
    await post(ofShop(), { name: "Store" }, "root");
    const { id } = (await post(ofShop("/keys"), { purpose: "batch" })).json;
    await post(ofShop(`/keys/${id}/revoke`));
    const { json, headers } = await get(ofShop("/audit?limit=3"));
    expect(json).toMatchObject([
      {
        user: "ann",
        action: "key.revoke",
        details: { key: id, purpose: "batch" },
        application_id: shop.id,
        application_name: "Store",
      },
      { user: "ann", action: "key.create", details: { key: id, purpose: "batch" }, at: time },
      { user: "root", action: "application.update", details: { name: "Store" } },
    ]);
    expect(headers.get("x-total-count")).toBe("5");
    expect((await get("/audit?limit=3")).json).toEqual(json);
    expect((await get("/audit?limit=3", "root")).json).toEqual(json);
    expect((await get("/audit", "nobody")).json).toEqual([]);
  });
});

describe("a session", () => {
  const logIn = (name: string, headers: Record<string, string> = {}) =>
    send("POST", api("/login"), { body: { username: name, password: name }, headers });

  const cookieOf = ({ headers }: Answer) => headers.get("set-cookie") ?? "";
  const infoWith = (cookie: string) => send("GET", api("/info"), { headers: { cookie } });

  test("begins with a login, in a cookie that scripts and other sites do not get", async () => {
    const answer = await logIn("zoe");
    expect([answer.status, answer.json]).toEqual([200, { username: "zoe" }]);
    expect(cookieOf(answer)).toMatch(
      /^pandapush_session=[\w-]+\.[\w-]+; Path=\/admin; Max-Age=60; HttpOnly; SameSite=Lax$/,
    );
    const [pair = ""] = cookieOf(answer).split(";");
    const { status, json, headers } = await infoWith(`other=1; pandapush_session=bad; ${pair}`);
    expect([status, json]).toEqual([
      200,
      {
        username: "zoe",
        environments: [{ name: "live", url: "https://example.com" }],
        environment: "test",
        version: "3.0.0",
      },
    ]);
    expect(headers.get("cache-control")).toBe("no-store");
  });

  test("behind TLS has a cookie that is sent by TLS only", async () => {
    expect(cookieOf(await logIn("zoe", { "x-forwarded-proto": "https" }))).toMatch(/; Secure$/);
  });

  test("that was changed, or signed by somebody else, is none", async () => {
    const value = cookieOf(await logIn("zoe")).split(/[=;]/)[1] ?? "";
    const [, signature] = value.split(".");
    const forged = Buffer.from(JSON.stringify(["root", Date.now() + 60_000])).toString("base64url");
    for (const bad of [
      "",
      ".",
      "x",
      `${forged}.${signature}`,
      `${forged}.`,
      `${value}x`,
      `${value}=`,
      "bnVsbA.",
    ]) {
      expect((await infoWith(`pandapush_session=${bad}`)).status).toBe(401);
    }
  });

  test("ends with a logout", async () => {
    const ended = /^pandapush_session=; Path=\/admin; Max-Age=0;/;
    const answer = await send("POST", api("/logout"));
    expect([answer.status, answer.text]).toEqual([200, "OK"]);
    expect(cookieOf(answer)).toMatch(ended);
    const old = await send("GET", "/logout");
    expect([old.status, old.headers.get("location")]).toEqual([302, "/admin/logout"]);
    expect(cookieOf(old)).toBe("");
  });

  test("a program is asked for Basic credentials, a page is not", async () => {
    const asked = async (headers: Record<string, string>): Promise<string | undefined> => {
      const [response] = (await once(
        request(base + api("/info"), { headers }).end(),
        "response",
      )) as [IncomingMessage];
      response.resume();
      expect(response.statusCode).toBe(401);
      return response.headers["www-authenticate"];
    };
    expect(await asked({})).toBe('Basic realm="Authorization Required"');
    expect(await asked({ authorization: basic("ann", "wrong") })).toMatch(/^Basic/);
    expect(await asked({ "sec-fetch-mode": "cors" })).toBeUndefined();
    expect(await asked({ "x-requested-with": "console" })).toBeUndefined();
  });

  test("a login without a name or password names the field", async () => {
    const { status, json } = await send("POST", api("/login"), { body: { username: "zoe" } });
    expect([status, json.params]).toEqual([422, ["password"]]);
  });
});

test("no application is found under names that objects inherit", async () => {
  for (const id of ["__proto__", "constructor", "%00", "a".repeat(10_000)] as AppId[]) {
    expect((await get(`/application/${id}`, "root")).status).toBe(404);
  }
});
