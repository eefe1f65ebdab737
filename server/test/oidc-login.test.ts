/** What a login at a provider rests on, where a real provider would take too long to show it. */
import { once } from "node:events";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import type { AdminRequest } from "../src/auth/admin.js";
import { OidcLogin } from "../src/auth/oidc.js";

const request: AdminRequest = { headers: {}, address: undefined, isSecure: false };

let server: Server;
let issuer: string;
/** What the ID token says, and what the provider says beside it when it is asked. */
let told: object;
let said: object | undefined;
/** What the provider was asked; it answers while `isUp`. */
let asked: number;
let isUp: boolean;
let reasons: string[];

beforeEach(async () => {
  [asked, isUp, reasons, told, said] = [0, true, [], {}, undefined];
  server = createServer(({ url }, response) => {
    asked++;
    if (!isUp) return response.writeHead(500).end("no");
    response.setHeader("content-type", "application/json");
    if (url === "/token") {
      const tokens = { access_token: "access", token_type: "Bearer", id_token: idToken(told) };
      return response.end(JSON.stringify(tokens));
    }
    if (url === "/userinfo") return response.end(JSON.stringify({ sub: "u1", ...said }));
    const metadata = {
      issuer,
      authorization_endpoint: `${issuer}/authorize`,
      token_endpoint: `${issuer}/token`,
      ...(said === undefined ? {} : { userinfo_endpoint: `${issuer}/userinfo` }),
    };
    return response.end(JSON.stringify(metadata));
  }).listen(0, "127.0.0.1");
  await once(server, "listening");
  issuer = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
});

afterEach(async () => {
  vi.useRealTimers();
  server.close();
  server.closeAllConnections();
  await once(server, "close");
});

function createLogin(key = "key"): OidcLogin {
  return new OidcLogin(
    {
      name: "Us",
      variables: "OIDC",
      issuer,
      clientId: "id",
      clientSecret: "secret",
      redirectUri: "https://push.example.com/back",
      scopes: "openid",
      usernameClaim: "email",
    },
    { key, report: (_problem, { reason }) => reasons.push(reason) },
  );
}

/** The query that the provider sends the browser back with, and the cookie it comes with. */
async function begin(login: OidcLogin) {
  const { url, cookie } = await login.begin("/admin/x", false, request);
  const [pair = ""] = cookie.split(";");
  const sent = new URL(url).searchParams;
  const search = `?${new URLSearchParams({ state: sent.get("state") ?? "" })}`;
  return { search, pair, cookie, nonce: sent.get("nonce") };
}

function idToken(claims: object): string {
  const encode = (value: unknown) => Buffer.from(JSON.stringify(value)).toString("base64url");
  const iat = Math.floor(Date.now() / 1000);
  const all = { iss: issuer, aud: "id", sub: "u1", iat, exp: iat + 60, ...claims };
  return `${encode({ alg: "RS256" })}.${encode(all)}.c2lnbmVk`;
}

const withCookie = (cookie: string): AdminRequest => ({ ...request, headers: { cookie } });

test("a login is resumed within ten minutes, at any node", async () => {
  const { search, pair, cookie } = await begin(createLogin());
  expect(cookie).toMatch(/; Path=\/back; Max-Age=600; HttpOnly; SameSite=Lax; Secure$/);
  const other = createLogin();
  expect(await other.resume(search, withCookie(`x=1; ${pair}`))).toMatchObject({
    returnTo: "/admin/x",
  });
  vi.useFakeTimers({ toFake: ["Date"], now: Date.now() + 599_000 });
  expect(await other.resume(search, withCookie(pair))).toBeDefined();
  vi.setSystemTime(Date.now() + 2000);
  expect(await other.resume(search, withCookie(pair))).toBeUndefined();
});

test("a login is resumed only as we wrote it", async () => {
  const login = createLogin();
  const { search, pair, nonce } = await begin(login);
  const [name = "", value = ""] = pair.split("=");
  const [payload = "", signature = ""] = value.split(".");
  const forged = Buffer.from(JSON.stringify(["//evil", Date.now() + 60_000])).toString("base64url");
  const otherName = (await begin(login)).pair.split("=")[0];
  for (const cookie of [
    "",
    `${name}=`,
    `${name}=${payload}`,
    `${name}=${payload}.`,
    `${name}=${forged}.${signature}`,
    `${otherName}=${value}`,
    `${name}=nonce.${nonce}`,
    (await begin(createLogin("another key"))).pair,
  ]) {
    expect([cookie, await login.resume(search, withCookie(cookie))]).toEqual([cookie, undefined]);
  }
  for (const bad of ["", "?state=", "?state=__proto__", `${search}x`, search.replace("?", "?x")]) {
    expect([bad, await login.resume(bad, withCookie(pair))]).toEqual([bad, undefined]);
  }
});

test("the provider is asked what it is once, and again after an hour, without waiting for it", async () => {
  const login = createLogin();
  await Promise.all([begin(login), begin(login), login.prepare()]);
  await begin(login);
  expect(asked).toBe(1);
  const now = performance.now();
  vi.spyOn(performance, "now").mockImplementation(() => now + 3_601_000);
  isUp = false;
  await begin(login);
  await vi.waitFor(() => expect(reasons).toEqual(["the provider answered 500"]));
  expect(asked).toBe(2);
  vi.restoreAllMocks();
});

test("a provider that is down is asked again by the next login", async () => {
  isUp = false;
  const login = createLogin();
  await login.prepare();
  await expect(begin(login)).rejects.toMatchObject({ code: "providerDown", http: 503 });
  expect(reasons).toEqual(["the provider answered 500", "the provider answered 500"]);
  isUp = true;
  expect((await begin(login)).pair).toMatch(/^pandapush_login_/);
});

test("a provider without a logout, or that does not answer, is left alone at a logout", async () => {
  isUp = false;
  const login = createLogin();
  expect(await login.logoutUrl("token")).toBeUndefined();
  isUp = true;
  expect(await login.logoutUrl("token")).toBeUndefined();
});

test.each([
  ["the ID token", { email: "ann@x.org", email_verified: true }, undefined, "ann@x.org"],
  ["what it says when asked", {}, { email: "ann@x.org", email_verified: true }, "ann@x.org"],
  [
    "the ID token, whatever it says when asked",
    { email: "ann@x.org", email_verified: true, name: "Ann" },
    { email: "evil@x.org", email_verified: false },
    "ann@x.org",
  ],
  [
    "one place, and not half of it from another",
    { email: "evil@x.org" },
    { email: "ann@x.org", email_verified: true },
    "ann@x.org",
  ],
  ["no place", { email: "evil@x.org" }, { email_verified: true }, undefined],
  ["no place", { email_verified: true }, { email: "evil@x.org" }, undefined],
  ["no place", { email: "evil@x.org" }, undefined, undefined],
])("a verified e-mail address is taken from %s", async (_where, inToken, whenAsked, expected) => {
  [told, said] = [{}, whenAsked];
  const login = createLogin();
  const { search, pair, nonce } = await begin(login);
  told = { nonce, ...inToken };
  const attempt = await login.resume(search, withCookie(pair));
  if (attempt === undefined) throw new Error("The login did not begin");
  const completed = login.complete(attempt, `${search}&code=c`);
  if (expected === undefined)
    await expect(completed).rejects.toMatchObject({ code: "loginDenied" });
  else expect(await completed).toMatchObject({ name: expected });
});
