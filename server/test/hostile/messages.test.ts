import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import {
  appId,
  keyId,
  type Message,
  Poller,
  Socket,
  secret,
  startTestServer,
  type TestServer,
  token,
} from "../harness.js";
import { basicAuth, eachInParallel, expectServes } from "./raw.js";
import { hostileValues, nestedArray, signed, templates, withValue } from "./values.js";

let server: TestServer;
beforeAll(async () => {
  server = await startTestServer({ BAYEUX_TIMEOUT_MS: "1000" });
});
afterAll(() => server.close());
afterEach(async () => {
  await expectServes(server);
  expect(Object.keys({})).toEqual([]);
  expect(({} as { polluted?: boolean }).polluted).toBe(undefined);
});

interface Case {
  readonly what: string;
  readonly text: string;
}

function casesFor(clientId: string, name: string): Case[] {
  const template = templates(clientId).find((each) => each.name === name);
  if (template === undefined) throw new Error(`There is no template ${name}`);
  return template.fields.flatMap((path) =>
    Object.entries(hostileValues).map(([what, value]) => ({
      what: `${path.join(".")} is ${what}`,
      text: withValue(template.message, path, value),
    })),
  );
}

const names = templates("").map(({ name }) => name);

/** A reply is what it says it is, and never an internal error. */
function expectReplies(replies: readonly Message[], what: string): void {
  for (const reply of replies) {
    if (reply.successful === undefined) continue;
    const { successful, error } = reply;
    const isSound = successful === true ? error === undefined : typeof error === "string";
    expect({ what, isSound, error: error?.slice(0, 300) }).toMatchObject({ isSound: true });
    expect({ what, isInternal: /^50\d/.test(error ?? "") }).toMatchObject({ isInternal: false });
  }
}

/** A frame of replies, not of events; the answer to nothing is the empty array. */
function isAnswer(frame: string): boolean {
  const messages = JSON.parse(frame) as Message[];
  return messages.length === 0 || messages.some(({ successful }) => successful !== undefined);
}

describe("every field of every message with every wrong value is answered", () => {
  test.each(names)("over WebSocket: %s", async (name) => {
    const socket = await Socket.open(server);
    await socket.handshake();
    const before = socket.frames.length;
    const cases = casesFor(socket.clientId, name);
    for (const { text } of cases) socket.sendText(text);
    await expect
      .poll(() => socket.frames.slice(before).filter(isAnswer).length, { timeout: 8_000 })
      .toBe(cases.length);
    expectReplies(socket.received, name);
    expect(socket.closed).toBe(undefined);
    socket.close();
  });

  test.each(names)("over long-polling, forms and JSONP: %s", async (name) => {
    const poller = await Poller.connect(server);
    await eachInParallel(casesFor(poller.clientId, name), 16, async ({ what, text }) => {
      const form = `message=${encodeURIComponent(text)}`;
      const responses = [
        await fetch(server.pushUrl, {
          method: "POST",
          headers: { "Content-Type": "application/json" },
          body: `[${text}]`,
        }),
        await fetch(server.pushUrl, { method: "POST", body: form }),
      ];
      // Longer addresses are refused by the HTTP parser; another test sees to that.
      if (form.length < 12_000) responses.push(await fetch(`${server.pushUrl}?${form}&jsonp=a.b`));
      for (const response of responses) {
        const body = await response.text();
        const isSound = [200, 400, 413].includes(response.status);
        expect({ what, isSound, status: response.status, body: body.slice(0, 200) }).toMatchObject({
          isSound: true,
        });
        if (response.status !== 200) continue;
        const json = body.startsWith("/**/a.b(") ? body.slice("/**/a.b(".length, -2) : body;
        expectReplies(JSON.parse(json) as Message[], what);
      }
    });
  });

  test("what is no message at all is answered too, and the next message as well", async () => {
    const socket = await Socket.open(server);
    const texts = [
      "",
      " ",
      "{",
      "[",
      "[{]",
      "]",
      "nonsense",
      "'a'",
      "NaN",
      "undefined",
      "[1,]",
      '{"a":1}}',
      '\ufeff{"channel":"/meta/connect"}',
      "1",
      '"text"',
      "true",
      "null",
      "[]",
      "[null]",
      "[1]",
      '["x"]',
      "[[]]",
      "{}",
      nestedArray(100_000),
      `${"[".repeat(100_000)}`,
      `${'{"channel":'.repeat(10_000)}`,
      '{"channel":"/meta/handshake\\u0000"}',
      '{"channel":"/meta/connect","channel":{"toString":1}}',
    ];
    for (const text of texts) {
      const before = socket.frames.length;
      socket.sendText(text);
      await expect.poll(() => socket.frames.length, { interval: 1 }).toBe(before + 1);
      expectReplies(JSON.parse(socket.frames.at(-1) ?? "") as Message[], text.slice(0, 100));
      for (const type of ["application/json", "text/plain"]) {
        const body = type === "text/plain" ? `message=${encodeURIComponent(text)}` : text;
        const response = await fetch(server.pushUrl, {
          method: "POST",
          headers: { "Content-Type": type },
          body,
        });
        expect([200, 400, 413]).toContain(response.status);
        await response.text();
      }
    }
    socket.close();
  });

  test("more than a message may have closes a WebSocket with 1009 and gets a 413 elsewhere", async () => {
    const text = withValue({ channel: "/meta/handshake" }, ["id"], `"${"x".repeat(300_000)}"`);
    const socket = await Socket.open(server);
    socket.sendText(text);
    expect((await socket.closing()).code).toBe(1009);
    for (const [type, body] of [
      ["application/json", text],
      ["text/plain", `message=${text}`],
    ] as const) {
      const headers = { "Content-Type": type };
      const response = await fetch(server.pushUrl, { method: "POST", headers, body });
      expect([response.status, await response.text()]).toEqual([
        413,
        "Message too large\nA request may have 262144 bytes.\n",
      ]);
    }
  });
});

describe("hostile credentials", () => {
  const channel = `/${appId}/presence/tokens`;
  const claims = `"keyId":"${keyId}","channel":"${channel}","sub":true,"pub":true,"exp":9999999999`;
  const payloads = Object.entries(hostileValues).flatMap(([what, value]) =>
    ["keyId", "channel", "pub", "sub", "exp", "nbf", "iat", "presence", "aud"]
      .map((claim) => ({
        what: `claim ${claim} is ${what}`,
        payload: `{${claims},"presence":{"id":"1"},"${claim}":${value}}`,
      }))
      .concat({ what: `presence.id is ${what}`, payload: `{${claims},"presence":{"id":${value}}}` })
      .concat({ what: `payload is ${what}`, payload: value }),
  );
  const header = '{"alg":"HS256","typ":"JWT"}';

  test("tokens with every wrong claim are answered", async () => {
    const socket = await Socket.open(server);
    await socket.handshake();
    await eachInParallel(payloads, 32, async ({ what, payload }) => {
      const auth = { token: signed(header, payload) };
      if (auth.token.length > 200_000) return;
      expectReplies([await socket.subscribe(channel, { auth })], what);
      expectReplies([await socket.publish(channel, 1, { auth })], what);
    });
    socket.close();
  });

  test("tokens with every wrong header, and what is no token, are refused", async () => {
    const socket = await Socket.open(server);
    await socket.handshake();
    const payload = `{${claims},"presence":{"id":"1"}}`;
    const headers = Object.values(hostileValues).flatMap((value) => [
      value,
      `{"alg":${value},"typ":"JWT"}`,
    ]);
    const whole = token({ channel, sub: true, pub: true, presence: { id: "1" } });
    const tokens = [
      ...headers.map((each) => signed(each, payload)),
      whole.slice(0, -1),
      whole.slice(1),
      `${whole}.x`,
      whole.split(".").slice(0, 2).join("."),
      whole.split(".").reverse().join("."),
      `..${"a".repeat(1_000)}`,
      ".".repeat(10_000),
      "é.☃.\u2028",
      token({ channel, sub: true, pub: true, presence: { id: "1" } }, secret, "none"),
    ];
    await eachInParallel(tokens, 32, async (each) => {
      if (each.length > 200_000) return;
      const reply = await socket.publish(channel, 1, { auth: { token: each } });
      expectReplies([reply], each.slice(0, 100));
      expect({ token: each.slice(0, 100), successful: reply.successful }).toMatchObject({
        successful: false,
      });
    });
    socket.close();
  });

  test("ids of presence and fields of data that are names of methods are like any other", async () => {
    const [first, second] = [await Socket.connect(server), await Socket.connect(server)];
    const room = `/${appId}/presence/odd-names`;
    const ids = [
      "__proto__",
      "constructor",
      "toString",
      "hasOwnProperty",
      "\u2028",
      "\ud83d\ude00",
    ];
    const join = (id: string, socket: Socket): Promise<Message> => {
      const claim = JSON.stringify({
        keyId,
        channel: room,
        sub: true,
        exp: 9_999_999_999,
        presence: { id },
      });
      return socket.subscribe(room, { auth: { token: signed(header, claim) } });
    };
    await join("watcher", first);
    for (const id of ids) {
      const reply = await join(id, second);
      expect(reply.successful).toBe(true);
      expect(
        Object.keys(
          (reply.ext?.presence as { subscribe: object } | undefined)?.subscribe ?? {},
        ).sort(),
      ).toEqual(["watcher", id].sort());
    }
    await second.ask({ channel: "/meta/disconnect" });
    const changes: string[] = [];
    while (changes.at(-1) !== `-${ids.at(-1)}`) {
      const { data } = await first.event(room);
      for (const [kind, change] of Object.entries(data as Record<string, object>)) {
        for (const id of Object.keys(change))
          changes.push(`${kind === "subscribe" ? "+" : "-"}${id}`);
      }
    }
    const expected = ids.flatMap((id, index) =>
      index === 0 ? [`+${id}`] : [`-${ids[index - 1]}`, `+${id}`],
    );
    expect(changes).toEqual([...expected, `-${ids.at(-1)}`]);
    first.close();
  });
});

describe("REST", () => {
  const url = (): string => `http://127.0.0.1:${server.port}/channel/${appId}/public/hostile`;

  test("every wrong value as body, token or header is answered", async () => {
    await eachInParallel(Object.entries(hostileValues), 8, async ([what, value]) => {
      const json = { Authorization: basicAuth, "Content-Type": "application/json" };
      const form = { ...json, "Content-Type": "application/x-www-form-urlencoded" };
      const inHeader = encodeURIComponent(value).slice(0, 6_000);
      const requests: [string, RequestInit][] = [
        [url(), { headers: json, body: value }],
        [url(), { headers: json, body: `${value}${value}` }],
        [url(), { headers: form, body: value }],
        [
          url(),
          { headers: form, body: `${encodeURIComponent(value)}=${encodeURIComponent(value)}` },
        ],
        [
          url(),
          { headers: form, body: `a[__proto__][${encodeURIComponent(value)}]=1&__proto__=2` },
        ],
        [`${url()}?token=${inHeader}`, { headers: json, body: "1" }],
        [`${url()}/${inHeader}`, { headers: json, body: "1" }],
        [url(), { headers: { ...json, Authorization: `Bearer ${inHeader}` }, body: "1" }],
        [url(), { headers: { ...json, Authorization: `Basic ${inHeader}` }, body: "1" }],
        [url(), { headers: { ...json, Authorization: inHeader }, body: "1" }],
        [url(), { headers: { ...json, "Content-Type": inHeader }, body: "1" }],
      ];
      for (const [address, init] of requests) {
        const response = await fetch(address, { method: "POST", ...init });
        await response.text();
        expect({ what, status: response.status, isSound: response.status < 500 }).toMatchObject({
          isSound: true,
        });
      }
    });
  });

  test("bodies that are deep, wide or broken are answered at once", async () => {
    const bodies = [
      nestedArray(100_000),
      "[".repeat(200_000),
      '{"a":'.repeat(40_000),
      `{${'"a":1,'.repeat(30_000)}"b":2}`,
      `"${"\\".repeat(200_000)}"`,
      `${"a=1&".repeat(50_000)}`,
      `${"a[]".repeat(60_000)}=1`,
      `a${"[b]".repeat(60_000)}=1`,
      `${"a[][b]=1&".repeat(25_000)}`,
      "%".repeat(100_000),
      "\u0000".repeat(1_000),
    ];
    await eachInParallel(bodies, 2, async (body) => {
      for (const type of ["application/json", "application/x-www-form-urlencoded"]) {
        const start = performance.now();
        const headers = { Authorization: basicAuth, "Content-Type": type };
        const response = await fetch(url(), { method: "POST", headers, body });
        await response.text();
        expect([200, 400, 413]).toContain(response.status);
        expect(performance.now() - start).toBeLessThan(3_000);
      }
    });
  });
});

test("paths below the mount that no client asks for are answered", async () => {
  const paths = ["/%", "/%00", "/..%2f..%2fetc/passwd.js", "/__proto__.js", "//", "/a.map", "/☃"];
  for (const path of paths) {
    for (const method of ["GET", "POST", "PUT", "DELETE", "HEAD", "PATCH", "OPTIONS"]) {
      const response = await fetch(`${server.pushUrl}${path}`, { method });
      await response.text();
      expect({ path, method, isSound: response.status < 500 }).toMatchObject({ isSound: true });
    }
  }
});
