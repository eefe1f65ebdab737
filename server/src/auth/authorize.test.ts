import { createHmac } from "node:crypto";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { AppId, Credentials, KeyId } from "@pandapush/protocol";
import { afterAll, beforeAll, describe, expect, test, vi } from "vitest";
import { catalogue, type ErrorCode, Refusal } from "../errors.js";
import { openStore } from "../storage/sql.js";
import type { Store } from "../storage/store.js";
import { type Authorize, createAuthorize } from "./authorize.js";
import { KeyTable } from "./keys.js";

const secret = "s3cret-ß";
const longSecret = "x".repeat(1024);
const year2100 = 4_102_444_800;
const now = Math.floor(Date.now() / 1000);

let folder: string;
let store: Store;
let keys: KeyTable;
let authorize: Authorize;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "pandapush-auth-"));
  store = await openStore({ path: join(folder, "db.sqlite") });
  for (const id of ["app", "other"] as AppId[]) {
    await store.addApplication({ id, name: id, createdBy: "ann" });
  }
  await addKey("key", { secret });
  await addKey("long", { secret: longSecret });
  await addKey("until2100", { expires: new Date(year2100 * 1000) });
  await addKey("over", { expires: new Date("2020-01-01T00:00:00Z") });
  await addKey("foreign", { appId: "other" as AppId });
  keys = new KeyTable(store, {
    reloadMs: 60_000,
    usageMs: 60_000,
    report: (problem, error) => {
      throw new Error(problem, { cause: error });
    },
  });
  await keys.load();
  authorize = createAuthorize(keys);
});

afterAll(async () => {
  await keys.close();
  await store.close();
  await rm(folder, { recursive: true });
});

function addKey(id: string, given: { appId?: AppId; secret?: string; expires?: Date } = {}) {
  return store.addKey({
    id: id as KeyId,
    appId: "app" as AppId,
    secret,
    createdBy: "ann",
    expires: null,
    purpose: null,
    ...given,
  });
}

/** A JWT made by hand, so that it may be wrong in any way. */
function jwt(claims: unknown, { key = secret, alg = "HS256", header = {} } = {}): string {
  const encode = (value: unknown) => Buffer.from(JSON.stringify(value)).toString("base64url");
  const input = `${encode({ alg, typ: "JWT", ...header })}.${encode(claims)}`;
  if (alg === "none") return `${input}.`;
  const hash = alg.replace("HS", "sha");
  return `${input}.${createHmac(hash, key).update(input).digest("base64url")}`;
}

const all = { keyId: "key", channel: "/app/**", sub: true, pub: true };
const room = "/app/private/room";
const withKey = (secretOf: unknown, key: unknown = "key") => ({ key, secret: secretOf });
const withToken = (claims: object, options = {}) => ({
  token: jwt({ ...all, ...claims }, options),
});

/** What the answer is: a grant's key, or the refusal's code. */
async function decide(
  action: "subscribe" | "publish",
  channel: string,
  credentials?: Credentials,
): Promise<string> {
  try {
    return (await authorize(action, channel, credentials)).keyId ?? "no key";
  } catch (error) {
    if (error instanceof Refusal) return error.code;
    throw error;
  }
}

type Row = [
  rule: string,
  title: string,
  action: "subscribe" | "publish",
  channel: string,
  credentials: Credentials | undefined | null,
  expected: ErrorCode | "no key" | "key",
];

const rows: Row[] = [
  ["AUTH-1", "a channel without a kind", "subscribe", "/app/room", undefined, "invalidChannelName"],
  [
    "AUTH-1",
    "a channel of a wrong kind",
    "publish",
    "/app/secret/a",
    withKey(secret),
    "invalidChannelName",
  ],
  ["AUTH-1", "an empty channel", "subscribe", "", undefined, "invalidChannelName"],
  [
    "AUTH-1",
    "a character of Bayeux that is not ours",
    "subscribe",
    "/app/public/a!b",
    undefined,
    "invalidChannelName",
  ],
  [
    "AUTH-1",
    "an unknown application",
    "subscribe",
    "/nobody/private/a",
    withKey(secret),
    "unknownApplication",
  ],
  [
    "AUTH-1",
    "an unknown application's public channel",
    "subscribe",
    "/nobody/public/a",
    undefined,
    "unknownApplication",
  ],
  [
    "AUTH-1",
    "an application called __proto__",
    "subscribe",
    "/__proto__/public/a",
    undefined,
    "unknownApplication",
  ],
  [
    "AUTH-1",
    "an application called constructor",
    "publish",
    "/constructor/public/a",
    withKey(secret),
    "unknownApplication",
  ],
  [
    "AUTH-1",
    "publishing to a pattern, whatever the credentials",
    "publish",
    "/app/public/*",
    withKey(secret),
    "invalidChannel",
  ],
  [
    "AUTH-1",
    "publishing to meta, whatever the credentials",
    "publish",
    "/app/meta/statistics",
    withKey(secret),
    "metaPublish",
  ],
  [
    "AUTH-1",
    "publishing to meta without credentials",
    "publish",
    "/app/meta/statistics",
    undefined,
    "metaPublish",
  ],
  [
    "AUTH-2",
    "subscribing to a public channel without credentials",
    "subscribe",
    "/app/public/a",
    undefined,
    "no key",
  ],
  ["AUTH-2", "subscribing to a public pattern", "subscribe", "/app/public/**", undefined, "no key"],
  [
    "AUTH-2",
    "subscribing to a public channel with wrong credentials",
    "subscribe",
    "/app/public/a",
    withKey("wrong"),
    "no key",
  ],
  ["AUTH-3", "no credentials", "subscribe", room, undefined, "noAuth"],
  ["AUTH-3", "null as credentials", "publish", room, null, "noAuth"],
  [
    "AUTH-3",
    "publishing to a public channel without credentials",
    "publish",
    "/app/public/a",
    undefined,
    "noAuth",
  ],
  ["AUTH-4", "a token that is no JWT", "subscribe", room, { token: "abc" }, "invalidToken"],
  ["AUTH-4", "a token that is a number", "subscribe", room, { token: 5 }, "invalidToken"],
  [
    "AUTH-4",
    "a token that is an object",
    "subscribe",
    room,
    { token: { keyId: "key" } },
    "invalidToken",
  ],
  [
    "AUTH-4",
    "a token whose payload is not JSON",
    "subscribe",
    room,
    { token: "e30.bm8.eHg" },
    "invalidToken",
  ],
  [
    "AUTH-4",
    "a token without keyId",
    "subscribe",
    room,
    withToken({ keyId: undefined }),
    "invalidToken",
  ],
  [
    "AUTH-4",
    "a token whose keyId is a number",
    "subscribe",
    room,
    withToken({ keyId: 5 }),
    "invalidToken",
  ],
  [
    "AUTH-4",
    "a broken token beside a good key",
    "subscribe",
    room,
    { token: "abc", ...withKey(secret) },
    "invalidToken",
  ],
  ["AUTH-5", "credentials without token and key", "subscribe", room, {}, "noTokenOrKey"],
  ["AUTH-5", "an empty token", "publish", room, { token: "" }, "noTokenOrKey"],
  ["AUTH-5", "a secret alone", "publish", room, { secret }, "noTokenOrKey"],
  ["AUTH-6", "an unknown key", "publish", room, withKey(secret, "nokey"), "unknownKey"],
  [
    "AUTH-6",
    "a key of another application",
    "publish",
    room,
    withKey(secret, "foreign"),
    "unknownKey",
  ],
  [
    "AUTH-6",
    "a token signed with another application's key",
    "publish",
    room,
    withToken({ keyId: "foreign" }),
    "unknownKey",
  ],
  ["AUTH-6", "a key called __proto__", "publish", room, withKey(secret, "__proto__"), "unknownKey"],
  [
    "AUTH-6",
    "a token whose keyId is __proto__",
    "publish",
    room,
    withToken({ keyId: "__proto__" }),
    "unknownKey",
  ],
  ["AUTH-6", "a key that is a list", "publish", room, withKey(secret, ["key"]), "unknownKey"],
  [
    "AUTH-6",
    "a key that is a number beside a token",
    "publish",
    room,
    { ...withToken({}), ...withKey(secret, 5) },
    "unknownKey",
  ],
  [
    "AUTH-6",
    "a key of a megabyte",
    "publish",
    room,
    withKey(secret, "k".repeat(1_000_000)),
    "unknownKey",
  ],
  ["AUTH-7", "a wrong secret", "publish", room, withKey("wrong"), "invalidSecret"],
  [
    "AUTH-7",
    "a wrong secret of the right length",
    "publish",
    room,
    withKey("s3cret-ä"),
    "invalidSecret",
  ],
  ["AUTH-7", "no secret", "publish", room, { key: "key" }, "invalidSecret"],
  ["AUTH-7", "a secret that is a list", "publish", room, withKey([secret]), "invalidSecret"],
  [
    "AUTH-7",
    "a wrong secret of an expired key",
    "publish",
    room,
    withKey("wrong", "over"),
    "invalidSecret",
  ],
  [
    "AUTH-7",
    "a wrong secret beside a good token",
    "publish",
    room,
    { ...withToken({}), ...withKey("wrong") },
    "invalidSecret",
  ],
  [
    "AUTH-7",
    "a good secret beside a token of no rights",
    "publish",
    room,
    { ...withToken({ pub: false, exp: 1 }), ...withKey(secret) },
    "key",
  ],
  ["AUTH-8", "an expired key", "publish", room, withKey(secret, "over"), "expiredKey"],
  [
    "AUTH-10",
    "a token signed with something else",
    "subscribe",
    room,
    withToken({}, { key: "wrong" }),
    "invalidTokenProvided",
  ],
  [
    "AUTH-10",
    "a token without signature",
    "subscribe",
    room,
    withToken({}, { alg: "none" }),
    "invalidTokenProvided",
  ],
  [
    "AUTH-10",
    "a signature cut off",
    "subscribe",
    room,
    { token: jwt(all).replace(/[^.]+$/, "") },
    "invalidTokenProvided",
  ],
  [
    "AUTH-10",
    "a payload exchanged",
    "subscribe",
    room,
    {
      token: jwt(all).replace(
        /\.[^.]+\./,
        `.${Buffer.from(JSON.stringify({ ...all, exp: year2100 })).toString("base64url")}.`,
      ),
    },
    "invalidTokenProvided",
  ],
  [
    "AUTH-10",
    "a header that names another algorithm",
    "subscribe",
    room,
    withToken({}, { header: { alg: "RS256" } }),
    "invalidTokenProvided",
  ],
  [
    "AUTH-10",
    "an expired token",
    "subscribe",
    room,
    withToken({ exp: now - 10 }),
    "invalidTokenProvided",
  ],
  [
    "AUTH-10",
    "a token that is not valid yet",
    "subscribe",
    room,
    withToken({ nbf: now + 100 }),
    "invalidTokenProvided",
  ],
  [
    "AUTH-10",
    "a token whose exp is a text",
    "subscribe",
    room,
    withToken({ exp: "never" }),
    "invalidTokenProvided",
  ],
  [
    "AUTH-10",
    "a token signed with an expired key, wrongly",
    "subscribe",
    room,
    withToken({ keyId: "over" }, { key: "wrong" }),
    "invalidTokenProvided",
  ],
  [
    "AUTH-11",
    "a token signed with an expired key",
    "subscribe",
    room,
    withToken({ keyId: "over" }),
    "expiredKey",
  ],
  [
    "AUTH-12",
    "a token for another channel",
    "subscribe",
    room,
    withToken({ channel: "/app/private/kitchen" }),
    "tokenChannel",
  ],
  [
    "AUTH-12",
    "a token without channel",
    "subscribe",
    room,
    withToken({ channel: undefined }),
    "tokenChannel",
  ],
  [
    "AUTH-12",
    "a token whose channel is a list",
    "subscribe",
    room,
    withToken({ channel: [room] }),
    "tokenChannel",
  ],
  [
    "AUTH-12",
    "a * token and a grandchild",
    "subscribe",
    "/app/private/a/b",
    withToken({ channel: "/app/private/*" }),
    "tokenChannel",
  ],
  [
    "AUTH-12",
    "a * token and the ** pattern",
    "subscribe",
    "/app/private/**",
    withToken({ channel: "/app/private/*" }),
    "tokenChannel",
  ],
  [
    "AUTH-12",
    "a ** token and a sibling with the same beginning",
    "publish",
    "/app/private/foobar",
    withToken({ channel: "/app/private/foo/**" }),
    "tokenChannel",
  ],
  [
    "AUTH-12",
    "a * token and a child",
    "subscribe",
    room,
    withToken({ channel: "/app/private/*" }),
    "key",
  ],
  [
    "AUTH-12",
    "a ** token and a pattern below",
    "subscribe",
    "/app/private/a/*",
    withToken({ channel: "/app/private/**" }),
    "key",
  ],
  ["AUTH-13", "a token without sub", "subscribe", room, withToken({ sub: undefined }), "tokenSub"],
  [
    "AUTH-13",
    "a token whose sub is not exactly true",
    "subscribe",
    room,
    withToken({ sub: "true" }),
    "tokenSub",
  ],
  [
    "AUTH-13",
    "a token that may only subscribe",
    "subscribe",
    room,
    withToken({ pub: false }),
    "key",
  ],
  ["AUTH-14", "a token without pub", "publish", room, withToken({ pub: undefined }), "tokenPub"],
  [
    "AUTH-14",
    "a token whose pub is not exactly true",
    "publish",
    room,
    withToken({ pub: 1 }),
    "tokenPub",
  ],
  ["AUTH-14", "a token that may only publish", "publish", room, withToken({ sub: false }), "key"],
  ["AUTH-14", "a key and its secret", "publish", "/app/presence/room", withKey(secret), "key"],
  [
    "AUTH-14",
    "a key and its secret, subscribing to statistics",
    "subscribe",
    "/app/meta/statistics",
    withKey(secret),
    "key",
  ],
];

describe("authorize", () => {
  test.each(rows)("[%s] %s", async (_rule, _title, action, channel, credentials, expected) => {
    const sent = credentials as Credentials | undefined;
    expect(await decide(action, channel, sent)).toBe(expected);
    // A second time: nothing that is remembered changes an answer.
    expect(await decide(action, channel, sent)).toBe(expected);
  });

  test.each([
    ["invalidChannelName", "Invalid channel name"],
    ["noAuth", "No auth supplied"],
    ["invalidToken", "Invalid token"],
    ["noTokenOrKey", "Auth information does not include token or key"],
    ["unknownKey", "Could not find key"],
    ["invalidSecret", "Invalid secret"],
    ["expiredKey", "Expired key"],
    ["invalidTokenProvided", "Invalid token provided"],
    ["tokenChannel", "Token does not match channel"],
    ["tokenSub", "Token does not allow subscribing"],
    ["tokenPub", "Token does not allow publishing"],
  ] as const)("the text of %s is what clients of Pandapush 2.2 match", (code, text) => {
    expect(new Refusal(code).toBayeux()).toBe(text);
    expect(catalogue[code].http).toBe(400);
  });

  test.each(["HS256", "HS384", "HS512"])("[AUTH-10] takes tokens signed with %s", async (alg) => {
    expect(await decide("subscribe", room, withToken({}, { alg }))).toBe("key");
    const token = jwt({ ...all, keyId: "long" }, { alg, key: longSecret });
    expect(await decide("subscribe", room, { token })).toBe("long");
  });

  test("[AUTH-10] says beside the text what is wrong with a token", async () => {
    const expired = withToken({ exp: now - 10 });
    expect(() => authorize("subscribe", room, expired)).toThrow(
      expect.objectContaining({ help: expect.stringContaining("expired at") }),
    );
  });

  test("[AUTH-10] a token accepted a moment ago is refused when it has expired", async () => {
    const credentials = withToken({ exp: Math.floor(Date.now() / 1000) + 1 });
    expect(await decide("subscribe", room, credentials)).toBe("key");
    await expect
      .poll(() => decide("subscribe", room, credentials), { timeout: 5000 })
      .toBe("invalidTokenProvided");
  });

  test("answers in the same turn when application and key are known", () => {
    expect(authorize("publish", room, withKey(secret))).toEqual({ appId: "app", keyId: "key" });
    expect(authorize("subscribe", "/app/public/a", undefined)).toEqual({ appId: "app" });
  });

  test("the presence of a grant is what the token claims", async () => {
    const presence = { name: "Zoë", id: "u1", tags: [1, { deep: true }] };
    const credentials = withToken({ channel: "/app/presence/room", presence });
    expect(await authorize("subscribe", "/app/presence/room", credentials)).toEqual({
      appId: "app",
      keyId: "key",
      presence: { id: "u1", json: JSON.stringify(presence) },
    });
  });

  test.each([
    [{ id: 7 }, { id: "7", json: '{"id":7}' }],
    [{ id: "__proto__" }, { id: "__proto__", json: '{"id":"__proto__"}' }],
    [{ id: "" }, undefined],
    [{ id: null }, undefined],
    [{ name: "nobody" }, undefined],
    ["u1", undefined],
    [["u1"], undefined],
    [null, undefined],
  ])("the presence claim %j makes the member %j", async (presence, member) => {
    const grant = await authorize("subscribe", "/app/presence/room", withToken({ presence }));
    expect(grant.presence).toEqual(member);
  });

  test("a grant ends with the token or with its key, whichever is earlier", async () => {
    const until = async (keyId: string, exp?: number) =>
      (await authorize("subscribe", room, withToken({ keyId, exp }))).expiresAt;
    expect(await until("key")).toBeUndefined();
    expect(await until("key", now + 60)).toBe((now + 60) * 1000);
    expect(await until("until2100")).toBe(year2100 * 1000);
    expect(await until("until2100", now + 60)).toBe((now + 60) * 1000);
    expect(await until("until2100", year2100 + 60)).toBe(year2100 * 1000);
  });

  test("each authorised subscribe or publish with a key counts as a use of it, no other", async () => {
    await addKey("counted");
    const credentials = withKey(secret, "counted");
    expect(await decide("publish", room, credentials)).toBe("counted");
    expect(await decide("subscribe", room, withToken({ keyId: "counted" }))).toBe("counted");
    expect(await decide("subscribe", room, withToken({ keyId: "counted", sub: 0 }))).toBe(
      "tokenSub",
    );
    expect(await decide("publish", room, withKey("wrong", "counted"))).toBe("invalidSecret");
    expect(await decide("subscribe", "/app/public/a", credentials)).toBe("no key");
    await keys.close();
    expect(await store.findKey("app" as AppId, "counted" as KeyId)).toMatchObject({ useCount: 2 });
  });
});

describe("a key that was revoked", () => {
  test("[AUTH-9] says so to whoever proves to have it, and to nobody else", async () => {
    await addKey("revoked");
    await store.revokeKey("app" as AppId, "revoked" as KeyId);
    await keys.changed();
    expect(await decide("publish", room, withKey(secret, "revoked"))).toBe("revokedKey");
    expect(await decide("publish", room, withToken({ keyId: "revoked" }))).toBe("revokedKey");
    expect(await decide("publish", room, withKey("wrong", "revoked"))).toBe("invalidSecret");
    const forged = withToken({ keyId: "revoked" }, { key: "wrong" });
    expect(await decide("publish", room, forged)).toBe("invalidTokenProvided");
  });

  test("[AUTH-11] refuses a token that it was asked about a moment ago", async () => {
    await addKey("soon-revoked");
    const credentials = withToken({ keyId: "soon-revoked" });
    expect(await decide("publish", room, credentials)).toBe("soon-revoked");
    await store.revokeKey("app" as AppId, "soon-revoked" as KeyId);
    await keys.changed();
    expect(await decide("publish", room, credentials)).toBe("revokedKey");
  });
});

test("a signature counts only as base64url writes it", async () => {
  const right = withToken({}).token;
  expect(await decide("publish", room, { token: right })).toBe("key");
  const letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
  // The last of 43 letters has two bits too many for 32 bytes.
  const next = letters[letters.indexOf(right.at(-1) ?? "") + 1] ?? "";
  for (const token of [right.slice(0, -1) + next, `${right}=`, `${right}A`, `${right} `]) {
    expect(await decide("publish", room, { token })).toMatch(/^invalidToken/);
  }
});

describe("a key that was rotated", () => {
  const id = "rotated" as KeyId;
  const appId = "app" as AppId;

  async function rotate(overlapMs: number): Promise<string> {
    const rotated = await store.rotateKey(appId, id, overlapMs);
    await keys.changed();
    return rotated?.secret ?? "";
  }

  async function currentSecret(): Promise<string> {
    return (await store.findKey(appId, id))?.secret ?? "";
  }

  test("[AUTH-19] takes both secrets, and tokens signed with either, during the overlap", async () => {
    await addKey(id);
    await keys.changed();
    const oldToken = withToken({ keyId: id });
    expect(await decide("publish", room, oldToken)).toBe(id);
    const fresh = await rotate(60_000);
    const newToken = withToken({ keyId: id }, { key: fresh });
    for (const credentials of [withKey(secret, id), withKey(fresh, id), oldToken, newToken]) {
      // Twice, because a token is remembered.
      expect(await decide("publish", room, credentials)).toBe(id);
      expect(await decide("subscribe", room, credentials)).toBe(id);
    }
    expect(await decide("publish", room, withKey("wrong", id))).toBe("invalidSecret");
    const forged = withToken({ keyId: id }, { key: "wrong" });
    expect(await decide("publish", room, forged)).toBe("invalidTokenProvided");
  });

  test("[AUTH-19] rotated again, takes every former secret until the time it was promised", async () => {
    const oldToken = withToken({ keyId: id });
    const second = await currentSecret();
    const third = await rotate(30_000);
    for (const each of [secret, second, third]) {
      expect(await decide("publish", room, withKey(each, id))).toBe(id);
      expect(await decide("publish", room, withToken({ keyId: id }, { key: each }))).toBe(id);
    }
    const now = Date.now();
    vi.useFakeTimers({ toFake: ["Date"] });
    try {
      for (const [laterMs, [first, middle]] of [
        [31_000, [id, "invalidSecret"]],
        [61_000, ["invalidSecret", "invalidSecret"]],
      ] as const) {
        vi.setSystemTime(now + laterMs);
        expect(await decide("publish", room, withKey(secret, id))).toBe(first);
        expect(await decide("publish", room, withKey(second, id))).toBe(middle);
        expect(await decide("publish", room, withKey(third, id))).toBe(id);
        const isOver = first !== id;
        expect(await decide("publish", room, oldToken)).toBe(isOver ? "invalidTokenProvided" : id);
      }
    } finally {
      vi.useRealTimers();
    }
  });

  test("says what is wrong with a token that one of the secrets signed", async () => {
    const exp = Math.floor(Date.now() / 1000) - 60;
    for (const each of [secret, await currentSecret()]) {
      const { auth } = { auth: withToken({ keyId: id, exp }, { key: each }) };
      await expect(async () => authorize("publish", room, auth)).rejects.toMatchObject({
        help: expect.stringContaining("expired"),
      });
    }
  });

  test("without an overlap ends the secret that is replaced at once, and no other", async () => {
    const replaced = await currentSecret();
    const fresh = await rotate(0);
    expect(await decide("publish", room, withKey(replaced, id))).toBe("invalidSecret");
    const replacedToken = withToken({ keyId: id }, { key: replaced });
    expect(await decide("publish", room, replacedToken)).toBe("invalidTokenProvided");
    expect(await decide("publish", room, withKey(secret, id))).toBe(id);
    expect(await decide("publish", room, withKey(fresh, id))).toBe(id);
  });
});
