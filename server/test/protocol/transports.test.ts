/** TR: routing, headers and bytes of each transport. */
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { request as httpRequest, type IncomingMessage } from "node:http";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import {
  keyAuth,
  keyId,
  type Message,
  Poller,
  Socket,
  secret,
  startTestServer,
  type TestServer,
} from "../harness.js";
import { freshChannel, headEnds, http, postText, raw, upgradeRequest } from "./peers.js";

let server: TestServer;
let quick: TestServer;
const quickMs = 600;
beforeAll(async () => {
  server = await startTestServer();
  quick = await startTestServer({ BAYEUX_TIMEOUT_MS: String(quickMs), PING_INTERVAL_MS: "200" });
});
afterAll(async () => {
  await server.close();
  await quick.close();
});

const json = { "Content-Type": "application/json" };
const refused = '[{"channel":"/meta/x","id":"1"}]';
const publisher = (): Poller => new Poller(server);

/** Headers that this server sets itself, with the answer's own length checked. */
function ownHeaders({ headers, body }: { headers: IncomingMessage["headers"]; body: string }) {
  const { date, connection, "keep-alive": keepAlive, "content-length": length, ...own } = headers;
  expect([typeof date, connection, keepAlive === undefined]).toEqual(["string", "close", true]);
  expect(Number(length)).toBe(Buffer.byteLength(body));
  return own;
}

describe("[TR-1] the mount", () => {
  test.each(["/push", "/push/", "/push/x/y.z", "/push.json", "/push?a=b", "/push/connect?x"])(
    "[TR-1] %s is Bayeux's",
    async (path) => {
      expect(await postText(server, "[]", path)).toEqual([]);
    },
  );

  test.each(["/pushfoo", "/pus", "/", "/Push", "/x/push"])("[TR-1] %s is not", async (path) => {
    const answer = await http(server, path, { method: "POST", headers: json, body: "[]" });
    expect(answer.status).toBe(404);
  });
});

describe("[TR-2] the order of decisions", () => {
  test("[TR-2] a script's path comes before the method, even before a preflight", async () => {
    for (const method of ["GET", "POST", "OPTIONS", "DELETE"]) {
      const answer = await http(server, "/push/client.js", { method });
      expect([method, answer.status, answer.headers["content-type"]]).toEqual([
        method,
        200,
        "text/javascript; charset=utf-8",
      ]);
    }
  });

  test("[TR-2] a preflight comes before everything else, whatever its method", async () => {
    for (const method of ["OPTIONS", "POST", "GET", "PUT"]) {
      const headers = { "Access-Control-Request-Method": "POST", Accept: "text/event-stream" };
      const answer = await http(server, "/push", { method, headers });
      expect([method, answer.status, answer.body]).toEqual([method, 200, ""]);
      expect(answer.headers["access-control-max-age"]).toBe("86400");
    }
    const other = await http(server, "/push", {
      headers: { "Access-Control-Request-Method": "PUT" },
    });
    expect(other.status).toBe(400);
  });

  test.each(["PUT", "DELETE", "PATCH", "HEAD"])("[TR-7] %s is refused", async (method) => {
    const answer = await http(server, "/push?message=%5B%5D", { method, headers: json });
    expect([answer.status, answer.headers["content-type"]]).toEqual([
      400,
      "text/plain; charset=utf-8",
    ]);
  });
});

describe("[TR-5] a preflight", () => {
  test.each([
    [{ Origin: "https://a.example" }, "https://a.example"],
    [{ Origin: "null", Referer: "https://b.example/page" }, "null"],
    [{ Referer: "https://b.example/page" }, "https://b.example/page"],
    [{}, "*"],
  ])("[TR-5] with %j allows %s", async (headers, allowed) => {
    const answer = await http(server, "/push/x", { method: "OPTIONS", headers });
    expect(ownHeaders(answer)).toEqual({
      "access-control-allow-credentials": "true",
      "access-control-allow-headers":
        "Accept, Authorization, Content-Type, Pragma, X-Requested-With",
      "access-control-allow-methods": "POST, GET",
      "access-control-allow-origin": allowed,
      "access-control-max-age": "86400",
    });
    expect([answer.status, answer.body]).toEqual([200, ""]);
  });
});

describe("[TR-6] replies", () => {
  const plain = {
    "content-type": "application/json; charset=utf-8",
    "cache-control": "no-cache, no-store",
    "x-content-type-options": "nosniff",
  };

  test("[TR-6] without an origin have no CORS headers, and no cookies", async () => {
    const answer = await http(server, "/push", { method: "POST", headers: json, body: refused });
    expect(answer.status).toBe(200);
    expect(ownHeaders(answer)).toEqual(plain);
  });

  test.each(["https://a.example:1", "null"])("[TR-6] to %s allow exactly it", async (Origin) => {
    const headers = { ...json, Origin };
    const answer = await http(server, "/push", { method: "POST", headers, body: refused });
    expect(ownHeaders(answer)).toEqual({
      ...plain,
      "access-control-allow-credentials": "true",
      "access-control-allow-origin": Origin,
    });
  });

  test("[TR-6] by JSONP are scripts that are downloaded rather than shown", async () => {
    const message = encodeURIComponent(refused);
    const headers = { Origin: "https://a.example" };
    const answer = await http(server, `/push?jsonp=a&message=${message}`, { headers });
    expect(ownHeaders(answer)).toEqual({
      ...plain,
      "content-type": "text/javascript; charset=utf-8",
      "content-disposition": "attachment; filename=f.txt",
      "access-control-allow-credentials": "true",
      "access-control-allow-origin": "https://a.example",
    });
  });

  test("[TR-6] have their length in bytes", async () => {
    const body = '{"channel":"/meta/x","id":"é☃😀"}';
    const answer = await http(server, "/push", { method: "POST", headers: json, body });
    ownHeaders(answer);
    expect(answer.body).toContain('"id":"é☃😀"');
  });

  test("[TR-6] leave the connection open for the next request", async () => {
    const post = `POST /push HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n[]`;
    const text = await raw(server, post + post, (got) => got.split("\r\n\r\n[]").length === 3);
    expect(text.match(/HTTP\/1\.1 200 /g)?.length).toBe(2);
    expect(text).not.toMatch(/connection: close/i);
  });
});

describe("[TR-7] unreadable requests", () => {
  test.each([
    ["POST", "/push", json, "{"],
    ["POST", "/push", json, "5"],
    ["POST", "/push", json, ""],
    ["POST", "/push", json, Buffer.from([0x5b, 0x22, 0xff, 0x22, 0x5d])],
    ["POST", "/push", {}, "nothing=1"],
    ["POST", "/push", {}, "message={"],
    ["POST", "/push", { "Content-Type": "Application/JSON" }, "[]"],
    ["GET", "/push", {}, undefined],
    ["GET", "/push?message=%7B", {}, undefined],
    ["GET", "/push?message=%5B%5D&jsonp=a(", {}, undefined],
  ])(
    "[TR-7] %s %s with %j and the body %j is a 400 in plain text",
    async (method, path, headers, body) => {
      const answer = await http(server, path, {
        method,
        headers: { Origin: "https://a.example", ...headers },
        ...(body === undefined ? {} : { body }),
      });
      expect(answer.status).toBe(400);
      expect(answer.body).toMatch(/^Bad request\n/);
      expect(answer.headers["content-type"]).toBe("text/plain; charset=utf-8");
      expect(Object.keys(answer.headers).join()).not.toMatch(/access-control|cache-control/);
    },
  );
});

describe("bodies", () => {
  test("[TR-3] a JSON body may come in chunks and have a charset", async () => {
    const bytes = Buffer.from('{"channel":"/meta/x","id":"☃"}');
    const chunks = [bytes.subarray(0, 28), bytes.subarray(28)].map((chunk) =>
      Buffer.concat([Buffer.from(`${chunk.length.toString(16)}\r\n`), chunk, Buffer.from("\r\n")]),
    );
    const head =
      "POST /push HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json; charset=UTF-8\r\nTransfer-Encoding: chunked\r\n\r\n";
    const text = await raw(
      server,
      Buffer.concat([Buffer.from(head), ...chunks, Buffer.from("0\r\n\r\n")]),
    );
    expect(Buffer.from(text, "latin1").toString()).toContain('"id":"☃"');
  });

  test("[TR-4] [TR-FORM-1] the first message of a form counts, in any place", async () => {
    for (const body of [
      `message=${encodeURIComponent(refused)}`,
      `a=b&message=${encodeURIComponent(refused)}&message=5`,
      `m%65ssage=${encodeURIComponent(refused)}`,
    ]) {
      const answer = await http(server, "/push", { method: "POST", body });
      expect(JSON.parse(answer.body)).toMatchObject([{ id: "1", channel: "/meta/x" }]);
    }
  });

  test("[TR-POLL-1] a poll may be held by a form or JSONP too, and names its type freely", async () => {
    const channel = freshChannel();
    const { clientId } = await (async () => {
      const poller = await Poller.connect(server);
      await poller.subscribe(channel);
      return poller;
    })();
    const connect = (connectionType: string) =>
      encodeURIComponent(JSON.stringify([{ channel: "/meta/connect", clientId, connectionType }]));
    const form = http(server, "/push", {
      method: "POST",
      body: `message=${connect("cross-origin-long-polling")}`,
    });
    await publisher().publish(channel, "form");
    expect(JSON.parse((await form).body)).toMatchObject([{ successful: true }, { data: "form" }]);
    const jsonp = http(server, `/push?jsonp=f&message=${connect("callback-polling")}`);
    await publisher().publish(channel, "<\u2028jsonp\u2029/>");
    const { body } = await jsonp;
    expect(body).toMatch(/^\/\*\*\/f\(\[.*\]\);$/);
    expect(body).toContain('"data":"<\\u2028jsonp\\u2029/>"');
  });

  test("[TR-POLL-2] what could not be written to a poll comes with the next", async () => {
    const channel = freshChannel();
    const poller = await Poller.connect(server);
    await poller.subscribe(channel);
    for (let round = 0; round < 10; round++) {
      await publisher().publish(channel, round);
      const abort = new AbortController();
      const poll = poller.poll({}, { signal: abort.signal }).catch(() => []);
      abort.abort();
      await poll;
    }
    const heard: unknown[] = [];
    await publisher().publish(channel, "end");
    while (heard.at(-1) !== "end") {
      const [, ...events] = await poller.poll();
      heard.push(...events.map(({ data }) => data));
    }
    // An abort that came after the kernel took the reply loses it: nothing comes twice.
    expect(new Set(heard).size).toBe(heard.length);
  });

  test("[TR-JSONP-1] a callback's name may have dots and dollars, nothing else", async () => {
    for (const [name, status] of [
      ["a", 200],
      ["$._a.b9", 200],
      ["A.B", 200],
      ["a..b", 400],
      ["9a", 400],
      ["a.9", 400],
      ["a b", 400],
      ["a\n", 400],
      ["alert(1)//", 400],
      ["ａ", 400],
    ] as const) {
      const path = `/push?message=%5B%5D&jsonp=${encodeURIComponent(name)}`;
      expect([name, (await http(server, path)).status]).toEqual([name, status]);
    }
    expect((await http(server, "/push?message=%5B%5D")).body).toBe("/**/jsonpcallback([]);");
  });

  test("[TR-JSONP-2] parameters come in any order, and spaces as + or %20", async () => {
    const message = encodeURIComponent('{"channel":"/meta/x","id":"a b"}');
    for (const path of [
      `/push?jsonp=f&message=${message}`,
      `/push/connect?message=${message.replace("%20", "+")}&jsonp=f&t=1`,
    ]) {
      expect((await http(server, path)).body).toMatch(/^\/\*\*\/f\(\[\{"id":"a b",/);
    }
  });
});

test("[TR-JSONP-3] an address that is too long is refused", async () => {
  const message = encodeURIComponent(`{"channel":"/meta/x","id":"${"x".repeat(8_000)}"}`);
  expect((await http(server, `/push?message=${message}`)).status).toBe(200);
  const text = await raw(
    server,
    `GET /push?message=${message.repeat(3)} HTTP/1.1\r\nHost: x\r\n\r\n`,
  );
  expect(text).toMatch(/^HTTP\/1\.1 431 /);
});

describe("WebSocket", () => {
  test("[TR-WS-1] any path below the mount and any origin is upgraded, with the bare headers", async () => {
    for (const path of ["/push", "/push/", "/push/x/y"]) {
      const head = await raw(server, upgradeRequest(path, ["Origin: https://a.example"]), headEnds);
      const [status, ...headers] = head.trim().split("\r\n");
      expect(status).toBe("HTTP/1.1 101 Switching Protocols");
      expect(headers.map((header) => header.toLowerCase()).sort()).toEqual([
        "connection: upgrade",
        "sec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo=",
        "upgrade: websocket",
      ]);
    }
  });

  test("[TR-WS-2] no subprotocol and no extension is selected", async () => {
    const asked = [
      "Sec-WebSocket-Protocol: bayeux",
      "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits",
    ];
    const head = await raw(server, upgradeRequest("/push", asked), headEnds);
    expect(head).toMatch(/^HTTP\/1\.1 101 /);
    expect(head).not.toMatch(/sec-websocket-(protocol|extensions)/i);
  });

  test("[TR-WS-1] an upgrade without key, or of another version, is a 400", async () => {
    for (const [header, other] of [
      ["Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n", ""],
      ["Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", "Sec-WebSocket-Key: short"],
      ["Version: 13", "Version: 99"],
    ] as const) {
      const text = await raw(server, upgradeRequest("/push").replace(header, other));
      expect(text).toMatch(/^HTTP\/1\.1 400 Bad Request\r\n/);
      expect(text).toMatch(/content-type: text\/plain/i);
    }
  });

  test("[TR-WS-3] frames hold an array each way; an object, binary and fragments are taken too", async () => {
    const socket = await Socket.open(server);
    socket.sendText('{"channel":"/meta/x","id":"text"}');
    socket.sendText(Buffer.from('[{"channel":"/meta/x","id":"binary"}]'));
    await socket.next(({ id }) => id === "binary");
    expect(
      socket.frames.map((frame) => (JSON.parse(frame) as Message[]).map(({ id }) => id)),
    ).toEqual([["text"], ["binary"]]);
    const mask = (text: string, opcode: number): Buffer =>
      Buffer.concat([
        Buffer.from([opcode, 0x80 | text.length, 0, 0, 0, 0]),
        Buffer.from(text, "latin1"),
      ]);
    const bytes = Buffer.concat([
      Buffer.from(upgradeRequest("/push")),
      mask('{"channel":"/me', 0x01),
      mask('ta/x","id":"f"}', 0x80),
    ]);
    const text = await raw(server, bytes, (got) => got.includes('"id":"f"'));
    expect(text).toContain('"error":"403:/meta/x:Forbidden channel"');
  });

  test.each([
    ["text that is not UTF-8", [0x81, 0x82, 0, 0, 0, 0, 0xff, 0xfe], 1007],
    ["an unmasked frame", [0x81, 0x02, 0x5b, 0x5d], 1002],
    ["an unknown opcode", [0x83, 0x80, 0, 0, 0, 0], 1002],
    ["a frame that claims to be huge", [0x81, 0xff, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0], 1009],
  ])("[TR-WS-8] %s closes the socket", async (_what, frame, code) => {
    const bytes = Buffer.concat([Buffer.from(upgradeRequest("/push")), Buffer.from(frame)]);
    const text = await raw(server, bytes);
    const closing = Buffer.from(text.slice(text.indexOf("\r\n\r\n") + 4), "latin1");
    expect([closing[0], closing.readUInt16BE(2)]).toEqual([0x88, code]);
  });

  test("[TR-WS-7] every socket is pinged, and one that does not answer is cut", async () => {
    // This client knows nothing of pings.
    const text = await raw(quick, upgradeRequest("/push"));
    const frames = Buffer.from(text.slice(text.indexOf("\r\n\r\n") + 4), "latin1");
    expect(frames[0]).toBe(0x89);
  });

  test("[TR-WS-7] a client's ping is answered", async () => {
    const ping = Buffer.from([0x89, 0x82, 0, 0, 0, 0, 0x68, 0x69]);
    const bytes = Buffer.concat([Buffer.from(upgradeRequest("/push")), ping]);
    expect(await raw(server, bytes, (got) => got.includes("\x8a\x02hi"))).toContain("\x8a\x02hi");
  });

  test("[TR-WS-3] large frames keep their bytes in both directions", async () => {
    const channel = freshChannel();
    const socket = await Socket.connect(server);
    await socket.subscribe(channel);
    for (const length of [100, 125, 126, 60_000, 65_535, 65_536, 200_000]) {
      const data = "é".repeat(length / 2);
      await socket.publish(channel, data);
      expect((await socket.event()).data).toBe(data);
    }
  });
});

/** A stream of server-sent events, read as text. */
class EventStream {
  text = "";
  isClosed = false;
  private readonly changed = new Set<() => void>();

  private constructor(
    readonly response: IncomingMessage,
    readonly abort: () => void,
  ) {
    response.setEncoding("utf8");
    response.on("data", (text: string) => {
      this.text += text;
      for (const look of [...this.changed]) look();
    });
    response.on("error", () => undefined);
    response.on("close", () => {
      this.isClosed = true;
      for (const look of [...this.changed]) look();
    });
  }

  static open(
    to: TestServer,
    clientId: string,
    accept = "text/event-stream",
  ): Promise<EventStream> {
    return new Promise((resolve, reject) => {
      const sent = httpRequest(`${to.url}/push/${clientId}`, {
        agent: false,
        headers: { Accept: accept },
      });
      sent.on("response", (response) => resolve(new EventStream(response, () => sent.destroy())));
      sent.on("error", reject);
      sent.end();
    });
  }

  until(isTrue: (stream: EventStream) => boolean): Promise<void> {
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => {
        this.changed.delete(look);
        reject(new Error(`Not seen within 5 s in: ${this.text}`));
      }, 5_000);
      const look = (): void => {
        if (!isTrue(this)) return;
        clearTimeout(timer);
        this.changed.delete(look);
        resolve();
      };
      this.changed.add(look);
      look();
    });
  }

  /** What the server published, as a browser would put the lines together. */
  get messages(): Message[] {
    return this.text.split("\r\n\r\n").flatMap((block) => {
      const lines = block.split("\r\n").filter((line) => line.startsWith("data: "));
      if (lines.length === 0) return [];
      return JSON.parse(lines.map((line) => line.slice(6)).join("\n")) as Message[];
    });
  }
}

describe("EventSource", () => {
  test("[TR-ES-3] the stream begins with bare headers and the time to come back", async () => {
    const poller = await Poller.connect(server);
    const stream = await EventStream.open(server, poller.clientId);
    const { headers, statusCode, httpVersion } = stream.response;
    expect([statusCode, httpVersion]).toEqual([200, "1.1"]);
    const { date, ...own } = headers;
    expect(typeof date).toBe("string");
    expect(own).toEqual({
      "content-type": "text/event-stream",
      "cache-control": "no-cache, no-store",
      connection: "close",
    });
    await stream.until(({ text }) => text !== "");
    expect(stream.text).toBe("retry: 5000\r\n\r\n");
    stream.abort();
  });

  test("[TR-ES-3] events are data lines of JSON arrays, split where the text has newlines", async () => {
    const channel = freshChannel();
    const poller = await Poller.connect(server);
    await poller.subscribe(channel);
    const stream = await EventStream.open(server, poller.clientId);
    await stream.until(({ text }) => text !== "");
    await publisher().publish(channel, { a: 1 });
    await stream.until(({ messages }) => messages.length === 1);
    expect(stream.text).toMatch(
      /^retry: 5000\r\n\r\ndata: \[\{"channel":"[^"]+","data":\{"a":1\},"id":"[^"]+"\}\]\r\n\r\n$/,
    );
    await http(server, `/channel${channel}`, {
      method: "POST",
      auth: `${keyId}:${secret}`,
      headers: json,
      body: '{\n"b":\r\n[2,\r3]}',
    });
    await stream.until(({ messages }) => messages.length === 2);
    expect(stream.messages[1]?.data).toEqual({ b: [2, 3] });
    stream.abort();
  });

  test.each([
    ["text/html, text/event-stream", 200],
    ["text/event-stream , */*", 200],
    ["text/event-stream;q=1", 400],
    ["text/event-streams", 400],
    ["*/*", 400],
  ])("[TR-ES-1] Accept: %s gives %i", async (accept, status) => {
    const stream = await EventStream.open(server, "x", accept);
    expect(stream.response.statusCode).toBe(status);
    stream.abort();
  });

  test("[TR-ES-2] an unknown client gets a stream on which nothing comes", async () => {
    const stream = await EventStream.open(server, "__proto__");
    await stream.until(({ text }) => text !== "");
    const socket = await Socket.connect(server);
    await socket.ask({ channel: "/meta/x" });
    expect([stream.text, stream.isClosed]).toEqual(["retry: 5000\r\n\r\n", false]);
    stream.abort();
  });

  test("[TR-ES-4] replies come in the posts, connects at once, and what waited on the stream", async () => {
    const channel = freshChannel();
    const poller = await Poller.connect(server);
    await poller.subscribe(channel);
    await publisher().publish(channel, 1);
    const stream = await EventStream.open(server, poller.clientId);
    const connected = await poller.poll({ connectionType: "eventsource" });
    expect(connected).toMatchObject([
      { successful: true, advice: { reconnect: "retry", interval: 30_000, timeout: 0 } },
    ]);
    await publisher().publish(channel, 2);
    await stream.until(({ messages }) => messages.length === 2);
    expect(stream.messages.map(({ data }) => data)).toEqual([1, 2]);
    expect(stream.text).not.toContain("/meta/");
    stream.abort();
  });

  test("[TR-ES-5] a lost stream costs nothing: the next one goes on", async () => {
    const channel = freshChannel();
    const poller = await Poller.connect(server);
    await poller.subscribe(channel);
    const first = await EventStream.open(server, poller.clientId);
    await publisher().publish(channel, 1);
    await first.until(({ messages }) => messages.length === 1);
    first.abort();
    await first.until(({ isClosed }) => isClosed);
    await publisher().publish(channel, 2);
    const second = await EventStream.open(server, poller.clientId);
    await second.until(({ messages }) => messages.length === 1);
    expect(second.messages[0]?.data).toBe(2);
    second.abort();
  });

  test("[TR-ES-5] the server closes the stream when its client ends", async () => {
    const poller = await Poller.connect(server);
    const stream = await EventStream.open(server, poller.clientId);
    await poller.ask({ channel: "/meta/disconnect" });
    await stream.until(({ isClosed }) => isClosed);
    const expiring = await Poller.connect(quick);
    const other = await EventStream.open(quick, expiring.clientId);
    await other.until(({ isClosed }) => isClosed);
  });
});

describe("[TR-STATIC-1] Faye's browser build", () => {
  const folder = join(
    dirname(createRequire(import.meta.url).resolve("faye-1.4.3/package.json")),
    "client",
  );

  test.each([
    ["/push/client.js", "faye-browser-min.js"],
    ["/push.js", "faye-browser-min.js"],
    ["/push/a/b/client.js?x=1", "faye-browser-min.js"],
    ["/push/faye-browser.js", "faye-browser.js"],
    ["/push/faye-browser-min.js", "faye-browser-min.js"],
    ["/push/faye-browser.js.map", "faye-browser.js.map"],
    ["/push/faye-browser-min.js.map", "faye-browser-min.js.map"],
  ])("[TR-STATIC-1] %s is %s", async (path, name) => {
    const file = readFileSync(join(folder, name));
    const type = name.endsWith(".map") ? "application/json" : "text/javascript";
    const answer = await http(server, path, { headers: { Origin: "https://a.example" } });
    expect(answer.status).toBe(200);
    expect(answer.body).toBe(file.toString());
    expect(ownHeaders(answer)).toEqual({
      "content-type": `${type}; charset=utf-8`,
      etag: createHash("sha1").update(file).digest("hex"),
      "last-modified": expect.stringMatching(/ GMT$/),
    });
  });

  test("[TR-STATIC-2] a copy that is still good is not sent again", async () => {
    const { headers } = await http(server, "/push/client.js");
    const { etag = "", "last-modified": modified = "" } = headers;
    const status = async (conditions: Record<string, string>) =>
      (await http(server, "/push/client.js", { headers: conditions })).status;
    expect(await status({ "If-None-Match": etag })).toBe(304);
    expect(await status({ "If-None-Match": "x" })).toBe(200);
    expect(await status({ "If-Modified-Since": modified })).toBe(304);
    const later = new Date(Date.parse(modified) + 1_000).toUTCString();
    expect(await status({ "If-Modified-Since": later })).toBe(304);
    const earlier = new Date(Date.parse(modified) - 1_000).toUTCString();
    expect(await status({ "If-Modified-Since": earlier })).toBe(200);
  });

  test("[TR-STATIC-1] other scripts do not exist", async () => {
    for (const path of [
      "/push/x.js",
      "/push/client.map",
      "/push/__proto__.js",
      "/push/constructor.js",
    ]) {
      const answer = await http(server, path);
      expect([path, answer.status, answer.body]).toEqual([path, 404, ""]);
    }
  });
});

test("[TR-WS-3] events pushed in one turn come in order beside replies", async () => {
  const channel = freshChannel();
  const socket = await Socket.connect(server);
  await socket.subscribe(channel);
  const batch = Array.from({ length: 50 }, (_, data) => ({
    id: data + 1,
    channel,
    data,
    ext: keyAuth,
  }));
  socket.sendText(JSON.stringify(batch));
  const heard: unknown[] = [];
  while (heard.length < 50) heard.push((await socket.event(channel)).data);
  expect(heard).toEqual(batch.map(({ data }) => data));
});
