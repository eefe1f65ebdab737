import { execFile, spawn } from "node:child_process";
import { mkdtemp, rm } from "node:fs/promises";
import { type AddressInfo, connect } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import type { AppId, Channel, KeyId } from "@pandapush/protocol";
import type { FastifyInstance } from "fastify";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { createAuthorize } from "../src/auth/authorize.js";
import { KeyTable } from "../src/auth/keys.js";
import { signToken } from "../src/auth/token.js";
import { Refusal } from "../src/errors.js";
import { createApp } from "../src/http/app.js";
import type { PublishParts } from "../src/http/publish.js";
import { createMemoryIdempotency } from "../src/idempotency/memory.js";
import { openStore } from "../src/storage/sql.js";
import type { Store } from "../src/storage/store.js";
import * as harness from "./harness.js";

const maxBodyBytes = 256 * 1024;
const appId = "app" as AppId;
const keyId = "PSIDrest" as KeyId;
/** A colon and a letter beyond ASCII: both are legal in a secret. */
const secret = "se:crét";
const channel = "/app/public/news";
const channelUrl = `/channel${channel}`;
const basic = `Basic ${Buffer.from(`${keyId}:${secret}`).toString("base64")}`;

const run = promisify(execFile);

let directory: string;
let store: Store;
let keys: KeyTable;
let app: FastifyInstance;
let port: number;
let published: { channel: Channel; data: string }[];
let logged: { level: string; message: string; fields: object }[];
/** Why it is not ready. */
let reasons: { database?: string; broker?: string };
/** What the broker does with a publication that it was handed. */
let take: PublishParts["publish"];

beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), "pandapush-rest-"));
  store = await openStore({ path: join(directory, "db.sqlite") });
  await store.addApplication({ id: appId, name: "REST", createdBy: "test" });
  const key = { appId, createdBy: "test", expires: null, purpose: null };
  await store.addKey({ ...key, id: keyId, secret });
  await store.addKey({ ...key, id: "PSIDold" as KeyId, secret, expires: new Date(0) });
  keys = new KeyTable(store, { reloadMs: 60_000, usageMs: 60_000, report: fail });
  await keys.load();
  app = createApp({
    idempotency: createMemoryIdempotency(),
    authorize: createAuthorize(keys),
    publish: (grant, to, data) => take(grant, to, data),
    maxBodyBytes,
    publishTimeoutMs: 200,
    log: (level, message, fields) => logged.push({ level, message, fields }),
    build: { version: "3.0.0", rev: "abc", built: "today" },
    checks: { database: () => reasons.database, broker: () => reasons.broker },
  });
  await app.listen({ port: 0, host: "127.0.0.1" });
  port = (app.server.address() as AddressInfo).port;
});

afterAll(async () => {
  await app.close();
  await keys.close();
  await store.close();
  await rm(directory, { recursive: true });
});

beforeEach(() => {
  published = [];
  logged = [];
  reasons = {};
  take = (_grant, to, data) => {
    published.push({ channel: to, data });
  };
});

afterEach(() => {
  expect(JSON.stringify(logged)).not.toContain(secret);
});

function fail(problem: string, error: unknown): never {
  throw new Error(problem, { cause: error });
}

interface Answer {
  status: number;
  type: string | null;
  headers: Headers;
  text: string;
}

/** Bodies are sent as bytes, so that fetch adds no Content-Type of its own. */
async function request(path: string, init: RequestInit = {}): Promise<Answer> {
  const response = await fetch(`http://127.0.0.1:${port}${path}`, init);
  return {
    status: response.status,
    type: response.headers.get("content-type"),
    headers: response.headers,
    text: await response.text(),
  };
}

function post(
  body: string | Uint8Array,
  headers: Record<string, string> = {},
  path = channelUrl,
): Promise<Answer> {
  return request(path, {
    method: "POST",
    headers: { authorization: basic, "content-type": "application/json", ...headers },
    body: typeof body === "string" ? Buffer.from(body) : new Uint8Array(body),
  });
}

function postForm(body: string): Promise<Answer> {
  return post(body, { "content-type": "application/x-www-form-urlencoded" });
}

function postWithout(name: string, body = '{"a":1}', path = channelUrl): Promise<Answer> {
  const all = { authorization: basic, "content-type": "application/json" };
  const headers = Object.entries(all).filter(([key]) => key !== name);
  return request(path, { method: "POST", headers, body: Buffer.from(body) });
}

/** Writes bytes as they are and reads until the server closes the connection. */
function raw(bytes: string): Promise<string> {
  return new Promise((resolve, reject) => {
    let answer = "";
    const socket = connect(port, "127.0.0.1", () => socket.write(bytes));
    socket.setEncoding("latin1").on("data", (text: string) => {
      answer += text;
    });
    socket.on("close", () => resolve(answer)).on("error", reject);
    socket.setTimeout(5000, () => socket.destroy(new Error(`no end after: ${answer}`)));
  });
}

const ok = expect.objectContaining({
  status: 200,
  type: "text/plain; charset=utf-8",
  text: "OK",
});

function expectRefusal(answer: Answer, status: number, message: string): RestError {
  const body = JSON.parse(answer.text) as RestError;
  expect({ status: answer.status, type: answer.type, message: body.message }).toEqual({
    status,
    type: "application/json; charset=utf-8",
    message,
  });
  expect(Object.keys(body)).toEqual(["code", "params", "message", "details"]);
  return body;
}

interface RestError {
  code: number | null;
  params: string[];
  message: string;
  details: string;
}

function token(claims: object, key = secret): string {
  return signToken(key, { keyId, channel, pub: true, ...claims }, Date.now() + 60_000);
}

describe("a publish over REST", () => {
  it("is answered 200 text OK once the broker has taken it, and not before", async () => {
    const events: string[] = [];
    take = async () => {
      await new Promise((resolve) => setImmediate(resolve));
      events.push("taken");
    };
    expect(await post('{"a":1}')).toEqual(ok);
    events.push("answered");
    expect(events).toEqual(["taken", "answered"]);
  });

  it.each(["public", "private", "presence"])("reaches a %s channel", async (kind) => {
    expect(await post("1", {}, `/channel/app/${kind}/a/b_~-9`)).toEqual(ok);
    expect(published).toEqual([{ channel: `/app/${kind}/a/b_~-9`, data: "1" }]);
  });

  it("reads percent-encoded letters of a channel as the letters they are", async () => {
    expect(await post("1", {}, "/channel/%61pp/public/%7Ejoe")).toEqual(ok);
    expect(published).toEqual([{ channel: "/app/public/~joe", data: "1" }]);
  });

  it("accepts the longest channel name", async () => {
    const longest = `/app/public/${"x".repeat(500)}`;
    expect(await post("1", {}, `/channel${longest}`)).toEqual(ok);
    expect(published[0]?.channel).toBe(longest);
  });

  it("is refused by a failing broker with the broker's refusal", async () => {
    take = () => Promise.reject(new Refusal("busy"));
    const answer = await post("1");
    expect(expectRefusal(answer, 503, "Application is busy").code).toBe(503);
    expect(answer.headers.get("retry-after")).toBe("5");
  });

  it("[REST-13] a repetition waits for a broker that did not answer the first in time", async () => {
    const named = { "idempotency-key": "slow" };
    let confirm = (): void => undefined;
    take = (_grant, to, data) => {
      published.push({ channel: to, data });
      return new Promise<void>((resolve) => {
        confirm = resolve;
      });
    };
    expect((await post("1", named)).status).toBe(503);
    expect((await post("1", named)).status).toBe(503);
    const third = post("1", named);
    confirm();
    expect(await third).toMatchObject({ status: 200, text: "OK" });
    expect((await post("1", named)).headers.get("idempotent-replayed")).toBe("true");
    expect(published).toHaveLength(1);
  });

  it("is answered 503 when the broker does not answer in time", async () => {
    take = () => new Promise(() => undefined);
    const answer = await post("1");
    const { details } = expectRefusal(answer, 503, "Service unavailable");
    expect(details).toContain("200 ms");
    expect(answer.headers.get("retry-after")).toBe("5");
  });

  it("is answered 500 without internals when the server fails, and the cause is logged", async () => {
    take = () => {
      throw new TypeError("the inside");
    };
    const answer = await post("1");
    expectRefusal(answer, 500, "Internal server error");
    expect(answer.text).not.toContain("inside");
    expect(logged).toMatchObject([{ level: "error", fields: { err: { message: "the inside" } } }]);
  });
});

describe("credentials", () => {
  it.each([
    ["Basic", basic],
    ["basic in small letters", basic.replace("Basic", "basic")],
    ["Token", `Token ${token({})}`],
    ["token in small letters", `token ${token({})}`],
    ["Bearer", `Bearer ${token({})}`],
    ["BEARER", `BEARER  ${token({})}`],
  ])("are taken from Authorization: %s", async (_name, authorization) => {
    expect(await post("1", { authorization })).toEqual(ok);
  });

  it("are taken from ?token=", async () => {
    const path = `${channelUrl}?token=${token({})}`;
    expect(await postWithout("authorization", "1", path)).toEqual(ok);
  });

  it("in ?token= win over the header", async () => {
    const bad = `${channelUrl}?token=x`;
    expectRefusal(await post("1", {}, bad), 400, "Invalid token");
    const good = `${channelUrl}?token=${token({})}&token=x`;
    expect(await post("1", { authorization: "Basic eA==" }, good)).toEqual(ok);
  });

  it("in an empty ?token= are none", async () => {
    expect(await post("1", {}, `${channelUrl}?token=`)).toEqual(ok);
  });

  it.each([
    ["no header", undefined],
    ["an unknown scheme", "Digest a=b"],
    ["a scheme alone", "Basic"],
    ["a scheme and nothing", "Token  "],
  ])("are missing with %s: 403 text Unauthorized", async (_name, authorization) => {
    const answer =
      authorization === undefined
        ? await postWithout("authorization")
        : await post('{"a":1}', { authorization });
    expect(answer).toMatchObject({
      status: 403,
      type: "text/plain; charset=utf-8",
      text: "Unauthorized",
    });
  });

  it.each([
    ["no base64", "Basic %%%"],
    ["no colon", `Basic ${Buffer.from("key").toString("base64")}`],
  ])("of Basic with %s are refused by name", async (_name, authorization) => {
    const { details } = expectRefusal(
      await post("1", { authorization }),
      400,
      "Auth information does not include token or key",
    );
    expect(details).toContain("base64 of <key id>:<key secret>");
  });

  const colon = (id: string, key: string) =>
    `Basic ${Buffer.from(`${id}:${key}`).toString("base64")}`;
  it.each([
    ["Could not find key", colon("nobody", secret)],
    ["Invalid secret", colon(keyId, "wrong")],
    ["Expired key", colon("PSIDold", secret)],
    ["Invalid token", "Token nonsense"],
    ["Invalid token provided", `Token ${token({}, "another")}`],
    ["Token does not match channel", `Token ${token({ channel: "/app/public/other" })}`],
    ["Token does not allow publishing", `Token ${token({ pub: false })}`],
  ])("that are wrong are refused as 400 JSON: %s", async (message, authorization) => {
    const body = expectRefusal(await post("1", { authorization }), 400, message);
    expect(body).toMatchObject({ code: null, params: [] });
    expect(published).toEqual([]);
  });

  it("of one application do not work for another", async () => {
    const answer = await post("1", {}, "/channel/nobody/public/news");
    expectRefusal(answer, 400, "Unknown application");
  });

  it("do not open a meta channel", async () => {
    const answer = await post("1", {}, "/channel/app/meta/statistics");
    expectRefusal(answer, 400, "Cannot publish to a meta channel");
  });
});

describe("a JSON body", () => {
  it.each([
    ['{"b":1,"a":2,"10":3,"2":4}'],
    ['{"n":1.0,"e":1E+2,"big":12345678901234567890,"minus":-0}'],
    ['{"text":"\\u00e9 é 🐼 \\ud83d\\udc3c \\/"}'],
    ['{ "spaced" : [ 1 ,\n\t2 ] }'],
    ['{"twice":1,"twice":2,"__proto__":{"x":1}}'],
    ['[1,"two",null]'],
    ['"text"'],
    ['""'],
    ["0"],
    ["-1.50e3"],
    ["null"],
    ["false"],
    ["{}"],
    ["[]"],
  ])("is carried as the text it arrived as: %s", async (body) => {
    expect(await post(body)).toEqual(ok);
    expect(published).toEqual([{ channel, data: body }]);
  });

  it("loses white space around it and a byte order mark", async () => {
    expect(await post('\ufeff \r\n\t{"a": 1}\n')).toEqual(ok);
    expect(published[0]?.data).toBe('{"a": 1}');
  });

  it("never shows subscribers a top-level __auth", async () => {
    expect(
      await post('{"a":1.0,"__auth":{"secret":"s"},"\\u005f_auth":2,"b":{"__auth":3}}'),
    ).toEqual(ok);
    expect(published[0]?.data).toBe('{"a":1.0,"b":{"__auth":3}}');
  });

  it.each(["application/json; charset=utf-8", "Application/JSON", "application/vnd.news+json"])(
    "may be called %s",
    async (type) => {
      expect(await post("1", { "content-type": type })).toEqual(ok);
    },
  );

  it.each([
    ['{"a":1,}', ["1", "8", "7"], "A name in double quotes was expected"],
    ['{"a":1\n "b":2}', ["2", "2", "8"], "A comma was expected"],
    ['{"a" 1}', ["1", "6", "5"], "A colon was expected"],
    ["[1,2", ["1", "5", "4"], "] was expected"],
    ['{"a":"b', ["1", "6", "5"], "The string has no closing quote"],
    ["hello", ["1", "1", "0"], "Unexpected text"],
    ["[1] [2]", ["1", "5", "4"], "Text after the end of the value"],
    ["/* x */ 1", ["1", "1", "0"], "JSON has no comments"],
    ['\n\n  ["\\x"]', ["3", "4", "5"], "Malformed escape in the string"],
    ["[NaN]", ["1", "2", "1"], "Unexpected text"],
  ])("that is malformed is refused with the fault's place: %s", async (body, params, fault) => {
    const answer = expectRefusal(await post(body), 400, "Malformed JSON");
    expect(answer.params).toEqual(params);
    const [line, column, offset] = params;
    expect(answer.details).toContain(
      `${fault} at line ${line}, column ${column} (offset ${offset}).`,
    );
    expect(published).toEqual([]);
  });

  it('with an unquoted name is refused with the hint to quote it: {"text":"hello"}', async () => {
    const answer = expectRefusal(await post('{text:"hello"}'), 400, "Malformed JSON");
    expect(answer).toMatchObject({
      code: null,
      params: ["1", "2", "1"],
      details: 'Unexpected text at line 1, column 2 (offset 1). Quote the name: {"text":"hello"}',
    });
  });

  it("with several unquoted names, or single quotes, is refused with a fitting hint", async () => {
    const names = expectRefusal(await post("{a: 1, b:{c :2}}"), 400, "Malformed JSON");
    expect(names.details).toContain('Quote the name: {"a": 1, "b":{"c" :2}}');
    const broken = expectRefusal(await post("{a: 1, b:}"), 400, "Malformed JSON");
    expect(broken.details).toMatch(/Quote the name: "a"$/);
    const quotes = expectRefusal(await post("{'a':1}"), 400, "Malformed JSON");
    expect(quotes.details).toContain("Use double quotes");
  });

  it("that is nested very deeply is published when whole and refused when not", async () => {
    const deep = `${"[".repeat(100_000)}${"]".repeat(100_000)}`;
    expect(await post(deep)).toEqual(ok);
    expect(published[0]?.data).toBe(deep);
    expectRefusal(await post("[".repeat(200_000)), 400, "Malformed JSON");
  });

  it("in another encoding than UTF-8 is refused", async () => {
    const latin = Buffer.from('{"a":"é"}', "latin1");
    const { details } = expectRefusal(await post(latin), 400, "Malformed JSON");
    expect(details).toContain("UTF-8");
  });

  it.each(["", " \n"])("that is empty is refused: %j", async (body) => {
    expectRefusal(await post(body), 400, "Empty body");
    expectRefusal(await postWithout("content-type", ""), 400, "Empty body");
  });
});

describe("a form body", () => {
  it.each([
    ["foo=bar", { foo: "bar" }],
    ["a[b]=c&a[d][e]=f", { a: { b: "c", d: { e: "f" } } }],
    ["a[]=1&a[]=2", { a: ["1", "2"] }],
    ["a[]=1", { a: ["1"] }],
    ["a[0]=1&a[1]=2", { a: ["1", "2"] }],
    ["a%5Bb%5D%5B%5D=1", { a: { b: ["1"] } }],
    ["a[0][x]=1&a[0][y]=2&a[1][x]=3", { a: [{ x: "1", y: "2" }, { x: "3" }] }],
    ["a[][x]=1&a[][y]=2&a[][x]=3", { a: [{ x: "1", y: "2" }, { x: "3" }] }],
    ["p%5Ba%5D%5B%5D%5Bx%5D=1&p%5Ba%5D%5B%5D%5Bx%5D=3", { p: { a: [{ x: "1" }, { x: "3" }] } }],
    ["a[][x][]=1&a[][x][]=2", { a: [{ x: ["1", "2"] }] }],
    ["a+b=%C3%A9+%F0%9F%90%BC%26", { "a b": "é 🐼&" }],
    ["flag", { flag: "" }],
    [
      "toString=1&constructor[prototype][x]=2",
      { toString: "1", constructor: { prototype: { x: "2" } } },
    ],
  ])("arrives as an object: %s", async (body, object) => {
    expect(await postForm(body)).toEqual(ok);
    expect(JSON.parse(published[0]?.data ?? "")).toEqual(object);
  });

  it("cannot reach a prototype, nor bring __auth to subscribers", async () => {
    expect(await postForm("a=1&__proto__[x]=2&b[__proto__][x]=3&__auth[secret]=s")).toEqual(ok);
    expect(published[0]?.data).toBe('{"a":"1","b":{}}');
    expect("x" in {}).toBe(false);
  });

  it.each(['{"text":"hello"}', "[1]", '"text"', ' {text:"a=b"}', "5", "null"])(
    "that is JSON is refused with the header that is missing: %s",
    async (body) => {
      const { details } = expectRefusal(await postForm(body), 400, "Malformed form");
      expect(details).toContain("-H 'Content-Type: application/json'");
    },
  );

  it.each(["", " ", "&", "__proto__=1"])("without a field is refused: %j", async (body) => {
    expectRefusal(await postForm(body), 400, "Empty body");
  });

  it("with broken percent-encoding is refused", async () => {
    for (const body of ["a=%E9", "a=%", "%zz=1"]) {
      expectRefusal(await postForm(body), 400, "Malformed form");
    }
  });

  it("with too many fields or too deep a nest is refused with the limit", async () => {
    const many = Array.from({ length: 1001 }, (_, i) => `a[]=${i}`).join("&");
    const { details } = expectRefusal(await postForm(many), 400, "Malformed form");
    expect(details).toContain("1000 fields");
    expectRefusal(await postForm(`a${"[x]".repeat(40)}=1`), 400, "Malformed form");
  });

  it("of HTTParty works as written in the README", async () => {
    const script = `
      require "httparty"
      answer = HTTParty.post("http://127.0.0.1:${port}${channelUrl}",
        basic_auth: { username: "${keyId}", password: "${secret}" },
        body: { foo: "bar", list: [1, 2], people: [{ name: "a", age: 1 }, { name: "b" }], deep: { x: { y: "z" } } })
      print answer.code, " ", answer.body`;
    const { stdout } = await run(process.env.RUBY_PATH ?? "ruby", ["-e", script]);
    expect(stdout).toBe("200 OK");
    expect(JSON.parse(published[0]?.data ?? "")).toEqual({
      foo: "bar",
      list: ["1", "2"],
      people: [{ name: "a", age: "1" }, { name: "b" }],
      deep: { x: { y: "z" } },
    });
  });
});

describe("requests that cannot be published", () => {
  it.each(["text/plain", "multipart/form-data; boundary=x", "application/xml", "json"])(
    "of type %s are refused with the two types allowed",
    async (type) => {
      const { details } = expectRefusal(
        await post("1", { "content-type": type }),
        415,
        "Unsupported content type",
      );
      expect(details).toContain("application/json or application/x-www-form-urlencoded");
      expect(details).toContain("multipart forms (curl -F) are not taken");
    },
  );

  it("without a type are refused the same way", async () => {
    expectRefusal(await postWithout("content-type"), 415, "Unsupported content type");
  });

  it("may be as large as the limit and no larger, which the refusal names", async () => {
    const body = `"${"x".repeat(maxBodyBytes - 2)}"`;
    expect(await post(body)).toEqual(ok);
    const answer = expectRefusal(await post(`${body} `), 413, "Message too large");
    expect(answer.params).toEqual([String(maxBodyBytes)]);
    expect(answer.details).toContain(`${maxBodyBytes} bytes`);
  });

  it("are refused for their size also when they announce none", async () => {
    const size = 2 * maxBodyBytes;
    const chunk = `${size.toString(16)}\r\n${"x".repeat(size)}\r\n0\r\n\r\n`;
    const head =
      `POST ${channelUrl} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: ${basic}\r\n` +
      "Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n";
    expect(await raw(head + chunk)).toMatch(/^HTTP\/1\.1 413 /);
  });

  it("get their answer though the client sends everything before it reads", async () => {
    const body = Buffer.alloc(20 * maxBodyBytes, 32);
    expectRefusal(await post(body), 413, "Message too large");
    expect((await postWithout("authorization", " ".repeat(20 * maxBodyBytes))).status).toBe(403);
  });

  it.each([
    "/channel/",
    "/channel/app",
    "/channel/app/other/x",
    "/channel/app/public/",
    "/channel//app/public/x",
    "/channel/app/public/x/",
    "/channel/app/public/*",
    "/channel/app/public/**",
    "/channel/app/public/a.b",
    "/channel/app/public/a%2Fb",
    "/channel/app/public/%2A",
    "/channel/app/public/%E0%A4",
    "/channel/app/public/%",
    `/channel/app/public/${"x".repeat(600)}`,
  ])("to no channel are answered 404 with the grammar: %s", async (path) => {
    const { details } = expectRefusal(await post("1", {}, path), 404, "No such channel");
    expect(details).toContain("/channel/<applicationId>/<public|private|presence>/");
  });

  it.each(["GET", "PUT", "PATCH", "DELETE", "OPTIONS"])(
    "with %s on a channel are answered 405 with the method allowed",
    async (method) => {
      const answer = await request(channelUrl, { method });
      expectRefusal(answer, 405, "Method not allowed");
      expect(answer.headers.get("allow")).toBe("POST");
    },
  );

  it.each(["/nothing", "/channel", "/channels/app/public/x", "/index.php", "/../package.json"])(
    "to an unknown address are answered with a 404 that says where to publish: %s",
    async (path) => {
      for (const method of ["GET", "POST"]) {
        const answer = await request(path, { method });
        expect(answer).toMatchObject({
          status: 404,
          type: "text/plain; charset=utf-8",
          text: expect.stringMatching(
            /^Not found\. .*POST \/channel\/<applicationId>\/<public\|private\|presence>\/…\n$/,
          ),
        });
      }
    },
  );

  it("are refused in an order that asks least of the server first", async () => {
    const none = { authorization: "None at-all", "content-type": "text/plain" };
    const huge = " ".repeat(maxBodyBytes + 1);
    const wrong = { authorization: `Basic ${Buffer.from("a:b").toString("base64")}` };
    expect((await post(huge, none, "/channel/app/x")).status).toBe(404);
    expect((await post(huge, none)).status).toBe(403);
    expect((await post(huge, { ...wrong, "content-type": "text/plain" })).status).toBe(415);
    expect((await post(huge, wrong)).status).toBe(413);
    expectRefusal(await post("{", wrong), 400, "Could not find key");
    expectRefusal(await post("{"), 400, "Malformed JSON");
  });

  it.each([
    ["a bad address", "GET /% HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", 400],
    ["garbage", "\x16\x03\x01\r\n\r\n", 400],
    ["a bad header", "GET / HTTP/1.1\r\nHost: x\r\nbad header\r\n\r\n", 400],
    ["too long a header", `GET / HTTP/1.1\r\nX: ${"x".repeat(20_000)}\r\n\r\n`, 431],
    [
      "a bad type",
      `POST ${channelUrl} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: ;;\r\nAuthorization: ${basic}\r\nContent-Length: 1\r\n\r\n1`,
      415,
    ],
  ])("are answered even with %s, and tell no internals", async (_name, bytes, status) => {
    const answer = await raw(bytes);
    expect(answer).toMatch(new RegExp(`^HTTP/1\\.1 ${status} `));
    expect(answer).not.toMatch(/FST_|node_modules|\bat \S+:\d+/);
    expect(answer.length).toBeLessThan(600);
  });

  it("that break off do no harm", async () => {
    const head = `POST ${channelUrl} HTTP/1.1\r\nHost: x\r\nAuthorization: ${basic}\r\nContent-Type: application/json\r\nContent-Length: 10\r\n\r\n`;
    const socket = connect(port, "127.0.0.1");
    socket.write(`${head}{"a"`);
    await new Promise<void>((resolve) => app.server.once("request", () => resolve()));
    socket.destroy();
    await new Promise((resolve) => socket.once("close", resolve));
    expect(await post("1")).toEqual(ok);
    expect(published).toEqual([{ channel, data: "1" }]);
    expect(logged).toEqual([]);
  });
});

it("curl with -u and a JSON header publishes", async () => {
  const url = `http://127.0.0.1:${port}${channelUrl}`;
  const curl = spawn(process.env.CURL_PATH ?? "curl", [
    ...["-sS", "-u", `${keyId}:${secret}`, "-H", "Content-Type: application/json"],
    ...["-d", '{"text":"hello"}', url],
  ]);
  let output = "";
  curl.stdout.on("data", (text: Buffer) => {
    output += text.toString();
  });
  expect(await new Promise((resolve) => curl.once("close", resolve))).toBe(0);
  expect(output).toBe("OK");
  expect(published).toEqual([{ channel, data: '{"text":"hello"}' }]);
});

describe("beside publishing", () => {
  it("/health_check.json tells which build answers", async () => {
    const answer = await request("/health_check.json");
    expect(answer).toMatchObject({ status: 200, type: "application/json; charset=utf-8" });
    expect(answer.text).toBe('{"version":"3.0.0","rev":"abc","built":"today"}');
  });

  it("/live says that the process answers, whatever else is wrong", async () => {
    reasons = { database: "down" };
    const answer = await request("/live");
    expect(answer).toMatchObject({ status: 200, type: "application/json; charset=utf-8" });
    expect(answer.text).toBe('{"live":true}');
    expect(answer.headers.get("cache-control")).toBe("no-store");
  });

  it("/ready says whether clients may come, and if not, all reasons", async () => {
    const ready = await request("/ready");
    expect(ready).toMatchObject({ status: 200, type: "application/json; charset=utf-8" });
    expect(ready.text).toBe('{"ready":true}');
    expect(ready.headers.get("cache-control")).toBe("no-store");
    reasons = { database: "down", broker: "one of two hosts is down" };
    const unready = await request("/ready");
    expect(unready.status).toBe(503);
    expect(unready.headers.get("cache-control")).toBe("no-store");
    expect(JSON.parse(unready.text)).toEqual({
      ready: false,
      reasons: ["database: down", "broker: one of two hosts is down"],
    });
    expect((await request("/ready", { method: "HEAD" })).status).toBe(503);
  });

  it.each([
    ["/ready?exclude=broker", 503, ["database: down"]],
    ["/ready?exclude=database,broker", 200, undefined],
    ["/ready?exclude=database&exclude=broker", 200, undefined],
    ["/ready?exclude=nothing", 503, ["database: down", "broker: down"]],
  ])("%s leaves out what it names", async (path, status, left) => {
    reasons = { database: "down", broker: "down" };
    const answer = await request(path);
    expect(answer.status).toBe(status);
    expect((JSON.parse(answer.text) as { reasons?: string[] }).reasons).toEqual(left);
  });

  it("/favicon.ico is a picture, for the pages that name none", async () => {
    const answer = await request("/favicon.ico");
    expect(answer).toMatchObject({ status: 200, type: "image/svg+xml" });
    expect(answer.text).toMatch(/^<svg /);
  });

  it("/ is a page that may run only this server's scripts", async () => {
    const answer = await request("/?channel=/app/public/hello");
    expect(answer).toMatchObject({ status: 200, type: "text/html; charset=utf-8" });
    expect(answer.headers.get("content-security-policy")).toContain("script-src 'self'");
    expect(answer.text).not.toMatch(/<script(?![^>]*\ssrc=)|\son\w+=|<style|\sstyle=/);
    for (const [, path = ""] of answer.text.matchAll(/(?:src|href)="(\/[\w./]+)"/g)) {
      // Served by the Bayeux side and the console, which are not part of this app.
      if (!path.startsWith("/push/") && path !== "/admin")
        expect([path, (await request(path)).status]).toEqual([path, 200]);
    }
  });
});

describe("a subscriber", () => {
  let server: harness.TestServer;
  beforeAll(async () => {
    server = await harness.startTestServer();
  });
  afterAll(() => server.close());

  async function publishTo(path: string, body: string, type = "application/json") {
    const user = Buffer.from(`${harness.keyId}:${harness.secret}`).toString("base64");
    const response = await fetch(`http://127.0.0.1:${server.port}/channel${path}`, {
      method: "POST",
      headers: { authorization: `Basic ${user}`, "content-type": type },
      body: Buffer.from(body),
    });
    return `${response.status} ${await response.text()}`;
  }

  it.each(["public", "private"])("of a %s channel receives the very text", async (kind) => {
    const socket = await harness.Socket.connect(server);
    const to = `/${harness.appId}/${kind}/rest`;
    expect(await socket.subscribe(to, harness.keyAuth)).toMatchObject({ successful: true });
    const bodies = ['{"b":1.0,"a":[1E+2, "\\u00e9 é 🐼"]}', "0", "null", '"text"', "[]"];
    for (const body of bodies) expect(await publishTo(to, ` ${body}\n`)).toBe("200 OK");
    expect(await publishTo(to, "foo=bar", "application/x-www-form-urlencoded")).toBe("200 OK");
    for (const body of [...bodies, '{"foo":"bar"}']) {
      expect((await socket.event(to)).data).toEqual(JSON.parse(body));
      expect(socket.frames.some((frame) => frame.includes(`"data":${body}`))).toBe(true);
    }
    socket.close();
  });

  it("of a presence channel hears what was published, but never a forged membership", async () => {
    const socket = await harness.Socket.connect(server);
    const to = `/${harness.appId}/presence/rest`;
    const member = { token: harness.token({ channel: to, sub: true, presence: { id: "u1" } }) };
    expect(await socket.subscribe(to, { auth: member })).toMatchObject({ successful: true });
    expect(await publishTo(to, '{"subscribe":{"u2":{"id":"u2"}}}')).toMatch(
      /^400 .*"Cannot publish presence membership"/,
    );
    expect(await publishTo(to, '{"text":"hello"}')).toBe("200 OK");
    expect((await socket.event(to)).data).toEqual({ text: "hello" });
    socket.close();
  });

  it("is reached by as large a message as the server's setting allows", async () => {
    const to = `/${harness.appId}/public/rest`;
    expect(await publishTo(to, `"${"x".repeat(256 * 1024 - 2)}"`)).toBe("200 OK");
    expect(await publishTo(to, `"${"x".repeat(256 * 1024 - 1)}"`)).toMatch(/^413 .*262144 bytes/);
  });
});
