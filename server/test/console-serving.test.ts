/** `/admin`: what is shown to whom, on a real server with a build of a console. */
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { request } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { gunzipSync } from "node:zlib";
import type { FastifyInstance } from "fastify";
import { afterAll, afterEach, beforeAll, expect, test } from "vitest";
import { AdminAuth, type LoginMethod } from "../src/auth/admin.js";
import { createAuthorize } from "../src/auth/authorize.js";
import { KeyTable } from "../src/auth/keys.js";
import { OidcLogin } from "../src/auth/oidc.js";
import { createApp } from "../src/http/app.js";
import { createMemoryIdempotency } from "../src/idempotency/memory.js";
import { openStore } from "../src/storage/sql.js";
import type { Store } from "../src/storage/store.js";
import { quietLive } from "./quiet-live.js";

const script = `console.log("${"pandapush ".repeat(500)}");`;
const indexHtml = `<!doctype html><script type="module" src="/admin/assets/index-abc.js"></script>`;

/** Anybody whose password is their own name. */
const everybody: LoginMethod = {
  checkPassword: async (name, password) => password === name,
  binding: async (name) => `binding of ${name}`,
};

let directory: string;
let store: Store;
let keys: KeyTable;
const apps: FastifyInstance[] = [];

beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), "pandapush-console-"));
  store = await openStore({ path: join(directory, "db.sqlite") });
  keys = new KeyTable(store, { reloadMs: 60_000, usageMs: 60_000, report: () => undefined });
  await keys.load();
});

afterAll(async () => {
  await keys.close();
  await store.close();
  await rm(directory, { recursive: true });
});

afterEach(async () => {
  for (const app of apps.splice(0)) await app.close();
});

type Login = "password" | "provider" | "none";

async function start(build: string, login: Login = "password"): Promise<string> {
  const oidc = new OidcLogin(
    {
      name: `"Us" & them`,
      variables: "OIDC",
      issuer: "http://127.0.0.1:1",
      clientId: "id",
      clientSecret: "secret",
      redirectUri: "http://127.0.0.1/admin/login/callback",
      scopes: "openid",
      usernameClaim: "email",
    },
    { key: "key", report: () => undefined },
  );
  const auth = new AdminAuth({
    method: login === "provider" ? oidc : everybody,
    rootAdmins: [],
    sessionKey: "a key for sessions",
    sessionMs: 60_000,
    store,
  });
  const app = createApp({
    idempotency: createMemoryIdempotency(),
    authorize: createAuthorize(keys),
    publish: () => undefined,
    maxBodyBytes: 1024,
    log: (_level, message) => {
      throw new Error(message);
    },
    build: { version: "3.0.0", rev: "abc", built: "today" },
    admin: {
      auth: login === "none" ? undefined : auth,
      ...(login === "provider" ? { oidc } : {}),
      store,
      live: quietLive,
      changed: () => keys.changed(),
      addressOf: () => undefined,
      version: "3.0.0",
      deployment: { environments: [], environment: "test", version: "3.0.0" },
      consoleDirectory: join(directory, build),
    },
  });
  apps.push(app);
  await app.listen({ port: 0, host: "127.0.0.1" });
  return `http://127.0.0.1:${(app.server.address() as AddressInfo).port}`;
}

async function writeBuild(name: string, files: Record<string, string | Buffer>): Promise<void> {
  await mkdir(join(directory, name, "assets"), { recursive: true });
  for (const [path, content] of Object.entries(files)) {
    await writeFile(join(directory, name, path), content);
  }
}

async function startBuilt(login?: Login): Promise<string> {
  await writeBuild("built", {
    "index.html": indexHtml,
    "assets/index-abc.js": script,
    "assets/logo-1.png": Buffer.from([0x89, 0x50]),
    "assets/empty-1.css": "",
    "secret.txt": "not for anybody",
  });
  return start("built", login);
}

const as = (name: string, password = name) => ({
  authorization: `Basic ${Buffer.from(`${name}:${password}`).toString("base64")}`,
});

async function logIn(base: string): Promise<{ cookie: string }> {
  const response = await fetch(`${base}/admin/api/login`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ username: "ann", password: "ann" }),
  });
  return { cookie: response.headers.get("set-cookie")?.split(";")[0] ?? "" };
}

/** As `fetch`, which has no say over what it accepts, and tidies paths up. */
function get(
  base: string,
  path: string,
  headers: Record<string, string> = {},
): Promise<{ status: number | undefined; headers: Record<string, unknown>; body: Buffer }> {
  return new Promise((resolve, reject) => {
    const sent = request(base, { path, headers }, async (response) => {
      const chunks: Buffer[] = [];
      for await (const chunk of response) chunks.push(chunk as Buffer);
      const { statusCode: status } = response;
      resolve({ status, headers: response.headers, body: Buffer.concat(chunks) });
    });
    sent.once("error", reject).end();
  });
}

const safety = {
  "x-content-type-options": "nosniff",
  "x-frame-options": "DENY",
  "referrer-policy": "same-origin",
  "cross-origin-opener-policy": "same-origin",
  "cross-origin-resource-policy": "same-origin",
};

test("without a session every page is the sign-in page", async () => {
  const base = await startBuilt();
  for (const path of [
    "/admin",
    "/admin/",
    "/admin?x=1",
    "/admin/applications/a/keys",
    "/admin/index.html",
    "/admin/apix",
    "/admin/assets/index-abc.js",
    "/admin/assets/none.js",
  ]) {
    const { status, headers, body } = await get(base, path);
    expect([path, status]).toEqual([path, 401]);
    expect(headers).toMatchObject({
      ...safety,
      "content-type": "text/html; charset=utf-8",
      "cache-control": "no-store",
    });
    // A browser would open a window of its own.
    expect(headers).not.toHaveProperty("www-authenticate");
    expect(headers["content-security-policy"]).toMatch(/^default-src 'none'; script-src 'self';/);
    expect(headers["content-security-policy"]).not.toContain("unsafe");
    expect(body.toString()).toContain(
      `<form id="sign-in" method="post" action="/admin/api/login">`,
    );
    expect(body.toString()).not.toContain("index-abc");
  }
});

test("the sign-in page has its files, and no others are open", async () => {
  const base = await startBuilt();
  for (const path of ["/admin/sign-in.css", "/admin/sign-in.js", "/style.css", "/favicon.ico"]) {
    expect((await get(base, path)).status).toBe(200);
  }
  expect((await get(base, "/admin/sign-in.js")).headers).toMatchObject({
    ...safety,
    "content-type": "text/javascript; charset=utf-8",
  });
  const { body } = await get(base, "/admin");
  const linked = [...body.toString().matchAll(/(?:href|src)="([^"]+)"/g)].map(([, url]) => url);
  expect(linked.sort()).toEqual([
    "/admin/sign-in.css",
    "/admin/sign-in.js",
    "/favicon.ico",
    "/style.css",
  ]);
});

test.each([
  ["a session", logIn],
  ["Basic credentials", async () => as("ann")],
])("with %s every page is the console's", async (_, credentials) => {
  const base = await startBuilt();
  const own = await credentials(base);
  for (const path of ["/admin", "/admin/", "/admin/applications/a?b=c", "/admin/sign-in.html"]) {
    const { status, headers, body } = await get(base, path, own);
    expect([path, status, body.toString()]).toEqual([path, 200, indexHtml]);
    expect(headers).toMatchObject({
      ...safety,
      "content-type": "text/html; charset=utf-8",
      "cache-control": "private, no-cache",
    });
    const policy = String(headers["content-security-policy"]);
    expect(policy).toContain("script-src 'self';");
    expect(policy).toContain("frame-ancestors 'none'");
    expect(policy.replace("style-src 'self' 'unsafe-inline'", "")).not.toContain("unsafe");
    const known = { ...own, "if-none-match": `"other", W/${headers.etag}` };
    expect((await get(base, path, known)).status).toBe(304);
    // Also who knows the page has to be somebody.
    expect((await get(base, path, { "if-none-match": known["if-none-match"] })).status).toBe(401);
  }
});

test("assets are kept for ever by the browser of whoever is logged in", async () => {
  const base = await startBuilt();
  const session = await logIn(base);
  const plain = await get(base, "/admin/assets/index-abc.js", session);
  expect([plain.status, plain.body.toString()]).toEqual([200, script]);
  expect(plain.headers).toMatchObject({
    ...safety,
    "content-type": "text/javascript; charset=utf-8",
    "cache-control": "private, max-age=31536000, immutable",
    vary: "Accept-Encoding",
  });
  expect(plain.headers).not.toHaveProperty("content-encoding");
  const zipped = await get(base, "/admin/assets/index-abc.js", {
    ...session,
    "accept-encoding": "br, gzip;q=0.5",
  });
  expect(zipped.headers).toMatchObject({ "content-encoding": "gzip" });
  expect(zipped.body.length).toBeLessThan(script.length / 10);
  expect(gunzipSync(zipped.body).toString()).toBe(script);
  for (const accepted of ["br", "gzip;q=0", "gzip; q=0.0, br"]) {
    const headers = { ...session, "accept-encoding": accepted };
    const refused = await get(base, "/admin/assets/index-abc.js", headers);
    expect(refused.headers).not.toHaveProperty("content-encoding");
  }
  const image = await get(base, "/admin/assets/logo-1.png", {
    ...session,
    "accept-encoding": "gzip",
  });
  expect([image.headers["content-type"], [...image.body]]).toEqual(["image/png", [0x89, 0x50]]);
});

test.each([
  "/admin/assets/none.js",
  "/admin/assets/",
  "/admin/assets/..%2findex.html",
  "/admin/assets/..%2fsecret.txt",
  "/admin/assets/..",
  "/admin/assets/.hidden",
  "/admin/assets/a%00.js",
  `/admin/assets/${"x".repeat(300)}.js`,
])("there is no asset at %s", async (path) => {
  const base = await startBuilt();
  const { status, headers, body } = await get(base, path, as("ann"));
  expect(status).toBe(404);
  expect(headers).toMatchObject(safety);
  expect(body.toString()).not.toContain("not for anybody");
});

test("a build that comes or changes while the server is up is served", async () => {
  const base = await start("later");
  const missing = await get(base, "/admin", as("ann"));
  expect([missing.status, missing.body.toString()]).toEqual([
    503,
    expect.stringContaining("npm run build"),
  ]);
  expect((await get(base, "/admin/assets/new-1.js", as("ann"))).status).toBe(404);
  await writeBuild("later", { "index.html": "one", "assets/new-1.js": "1" });
  expect((await get(base, "/admin", as("ann"))).body.toString()).toBe("one");
  expect((await get(base, "/admin/assets/new-1.js", as("ann"))).body.toString()).toBe("1");
  await writeBuild("later", { "index.html": "two" });
  expect((await get(base, "/admin", as("ann"))).body.toString()).toBe("two");
});

test("wrong Basic credentials show the sign-in page, and too many of them for a while", async () => {
  const base = await startBuilt();
  for (let n = 0; n < 10; n++) {
    const { status, body } = await get(base, "/admin", as("ann", `${n}`));
    expect([status, body.toString()]).toEqual([401, expect.stringContaining("Wrong user name")]);
  }
  const { status, headers, body } = await get(base, "/admin", as("ann"));
  expect(status).toBe(429);
  expect(Number(headers["retry-after"])).toBeGreaterThan(60);
  expect(body.toString()).toContain("Too many failed logins");
});

test("the sign-in page of a provider's users leads there, and takes nothing for HTML", async () => {
  const base = await startBuilt("provider");
  const { status, body } = await get(base, `/admin/x?a="><script>alert(1)</script>&b='`);
  expect(status).toBe(401);
  expect(body.toString()).not.toContain("<script>alert");
  expect(body.toString()).toContain("Sign in with &quot;Us&quot; &amp; them</a>");
  const away = await get(base, "/admin//evil.example");
  expect(away.body.toString()).toContain(`return=%2Fadmin%2F%2Fevil.example"`);
});

test("AUTH_METHOD=none closes all of it, and says how to open it", async () => {
  const base = await startBuilt("none");
  for (const path of ["/admin", "/admin/x", "/admin/assets/index-abc.js"]) {
    const { status, headers, body } = await get(base, path, as("ann"));
    expect([status, body.toString()]).toEqual([403, expect.stringContaining("AUTH_METHOD=basic")]);
    expect(headers).toMatchObject(safety);
  }
  expect((await get(base, "/admin/api/info", as("ann"))).status).toBe(403);
  expect((await get(base, "/logout")).status).toBe(404);
});

test("what is no page under /admin is JSON or a text, and safe as well", async () => {
  const base = await startBuilt();
  for (const path of ["/admin/api", "/admin/api/", "/admin/api/none", "/admin/api/x/y"]) {
    const { status, headers } = await get(base, path, as("ann"));
    expect([path, status]).toEqual([path, 404]);
    expect(headers).toMatchObject({
      ...safety,
      "content-type": "application/json; charset=utf-8",
      "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
    });
    expect((await get(base, path)).status).toBe(401);
  }
  const garbled = await get(base, "/admin/%zz");
  expect([garbled.status, garbled.headers]).toEqual([400, expect.objectContaining(safety)]);
  const posted = await fetch(`${base}/admin/x`, { method: "POST" });
  expect([posted.status, posted.headers.get("x-frame-options")]).toEqual([404, "DENY"]);
});

test("a page of another site can log nobody in", async () => {
  const base = await startBuilt();
  const foreign = [
    { "sec-fetch-site": "cross-site" },
    { "sec-fetch-site": "same-site" },
    { origin: "https://evil.example" },
    { origin: "null" },
  ];
  for (const headers of foreign) {
    const response = await fetch(`${base}/admin/api/login`, {
      method: "POST",
      headers: { "content-type": "application/json", ...headers },
      body: JSON.stringify({ username: "ann", password: "ann" }),
    });
    expect([response.status, response.headers.get("set-cookie")]).toEqual([403, null]);
  }
});

test("a link, also one of another site, ends no session; the button of its page does", async () => {
  const base = await startBuilt();
  const session = await logIn(base);
  const foreign = { ...session, "sec-fetch-site": "cross-site" };
  expect((await get(base, "/logout", foreign)).headers.location).toBe("/admin/logout");
  for (const headers of [session, foreign]) {
    const { status, headers: given, body } = await get(base, "/admin/logout", headers);
    expect([status, given["set-cookie"]]).toEqual([200, undefined]);
    expect(body.toString()).toContain(`<form method="post" action="/admin/logout">`);
    expect(given).toMatchObject(safety);
  }
  const post = (headers: Record<string, string>) =>
    fetch(`${base}/admin/logout`, { method: "POST", headers, redirect: "manual" });
  const host = new URL(base).host;
  for (const headers of [
    { "sec-fetch-site": "cross-site" },
    { origin: "null" },
    { origin: "https://evil.example" },
    { origin: `ftp://${host}` },
    { origin: `http://${host}`, "x-forwarded-proto": "https" },
  ]) {
    const refused = await post({ ...session, ...headers });
    expect([refused.status, refused.headers.getSetCookie()]).toEqual([403, []]);
  }
  expect((await get(base, "/admin/api/info", session)).status).toBe(200);
  const { status, headers } = await post({ ...session, origin: base });
  expect([status, headers.get("location")]).toEqual([303, "/admin"]);
  expect(headers.getSetCookie()).toEqual([
    "pandapush_session=; Path=/admin; Max-Age=0; HttpOnly; SameSite=Lax",
  ]);
  // A copy of the cookie is over, too.
  expect((await get(base, "/admin/api/info", session)).status).toBe(401);
});

test("a form of our own is taken where a proxy does TLS and does not say so", async () => {
  const base = await startBuilt();
  const headers = { ...(await logIn(base)), origin: base.replace("http:", "https:") };
  const answer = await fetch(`${base}/admin/logout`, {
    method: "POST",
    headers,
    redirect: "manual",
  });
  expect(answer.status).toBe(303);
});
