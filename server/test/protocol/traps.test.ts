/**
 * What has gone wrong between Bayeux clients and servers before, each under the number that the
 * project knows it by.
 */
import { execFile } from "node:child_process";
import { mkdtemp, rm } from "node:fs/promises";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { CometD } from "cometd";
import { adapt } from "cometd-nodejs-client";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { repositoryPath } from "../../src/docs.js";
import {
  appId,
  keyAuth,
  keyId,
  type Message,
  Poller,
  Socket,
  secret,
  startTestServer,
  type TestServer,
  token,
} from "../harness.js";
import {
  eventsBefore,
  freshChannel,
  headEnds,
  http,
  member,
  postText,
  raw,
  transports,
  upgradeRequest,
} from "./peers.js";

interface FayeMessage {
  channel: string;
  clientId?: string;
  connectionType?: string;
  id?: string;
  data?: unknown;
  ext?: object;
  supportedConnectionTypes?: string[];
  successful?: boolean;
}

interface FayeExtension {
  incoming?(message: FayeMessage, pass: (message: FayeMessage) => void): void;
  outgoing?(message: FayeMessage, pass: (message: FayeMessage) => void): void;
}

/** The part of npm `faye` that is used here. */
interface FayeClient {
  addExtension(extension: FayeExtension): void;
  connect(): void;
  disable(transport: string): void;
  disconnect(): unknown;
  publish(channel: string, data: unknown): PromiseLike<unknown>;
  subscribe(channel: string, listener: (data: unknown) => void): PromiseLike<unknown>;
}

const { Client: Faye } = createRequire(import.meta.url)("faye-1.4.3") as {
  readonly Client: new (url: string, options?: object) => FayeClient;
};

let server: TestServer;
/** Holds connects for a moment only, so sessions end soon too. */
let quick: TestServer;
const quickMs = 600;
beforeAll(async () => {
  server = await startTestServer({ STATISTICS_INTERVAL_MS: "50" });
  quick = await startTestServer({
    BAYEUX_TIMEOUT_MS: String(quickMs),
    PING_INTERVAL_MS: "100",
    UNBOUND_SOCKET_MS: "300",
  });
});
afterAll(async () => {
  await server.close();
  await quick.close();
});

/** Publishes with the key, from a client that is nobody else. */
async function publish(channel: string, data: unknown, fields: object = {}): Promise<Message> {
  const message = { channel, data, ext: keyAuth, ...fields };
  const [reply] = await postText(server, JSON.stringify(message));
  expect(reply).toMatchObject({ successful: true });
  return reply as Message;
}

function form(message: string): string {
  return `message=${encodeURIComponent(message)}`;
}

describe.each(transports)("over %s", (name, connect) => {
  test("[T1] presence events carry nothing that opens doors", async () => {
    const channel = freshChannel("presence");
    const [first, second] = [await connect(server), await connect(server)];
    const reply = await first.subscribe(channel, member(channel, { id: "one" }));
    await second.subscribe(channel, member(channel, { id: "two" }));
    const joined = await first.event(channel);
    await second.disconnect();
    const left = await first.event(channel);
    await publish(channel, 1, { ext: { ...keyAuth, internalToken: "x", kind: "y" } });
    const published = await first.event(channel);
    const seen = JSON.stringify([reply, joined, left, published]);
    expect(seen).not.toMatch(/internalToken|__internal|"auth"|eyJ/);
    expect(seen).not.toContain(secret);
    expect(published).toMatchObject({ ext: { kind: "y" } });
    expect(Object.keys(joined).sort()).toEqual(["channel", "data", "id"]);
  });

  test("[T2] both of two held connects of one client are answered", async () => {
    if (name === "WebSocket") {
      const socket = await Socket.connect(server);
      const older = socket.sendConnect();
      const newer = socket.sendConnect();
      expect(await socket.next(({ id }) => id === older)).toMatchObject({ successful: true });
      await socket.ask({ channel: "/meta/disconnect" });
      expect(await socket.next(({ id }) => id === newer)).toMatchObject({ successful: true });
      return;
    }
    const poller = await Poller.connect(server);
    const held = poller.poll();
    const second = poller.poll();
    const channel = freshChannel();
    await poller.subscribe(channel);
    await publish(channel, 1);
    const answers = await Promise.all([held, second]);
    // Which of the two parallel requests came first is not known here.
    expect(answers.map(([reply]) => reply?.successful)).toEqual([true, true]);
    expect(answers.map(([, ...events]) => events.length).sort()).toEqual([0, 1]);
  });

  test("[T3] a publisher's advice is not forwarded", async () => {
    const channel = freshChannel();
    const peer = await connect(server);
    await peer.subscribe(channel);
    await publish(channel, 1, { advice: { reconnect: "handshake" } });
    expect(await peer.event()).toEqual({ channel, data: 1, id: expect.any(String) });
  });

  test("[T4] a publisher cannot answer somebody's pending request", async () => {
    const channel = freshChannel();
    const peer = await connect(server);
    await peer.subscribe(channel);
    const forged = { id: "m3", successful: false, subscription: "/x", clientId: "y" };
    await publish(channel, 1, forged);
    const event = await peer.event();
    expect(Object.keys(event).sort()).toEqual(["channel", "data", "id"]);
    expect(event.id).not.toBe("m3");
    // Client ids are counters in base 36 or decimal: a publication's id is never one.
    expect(event.id).toMatch(/-/);
    const reply = await postText(
      server,
      JSON.stringify({ channel, data: 1, id: "3", error: "x", ext: keyAuth }),
    );
    expect(reply).toMatchObject([{ id: "3", successful: false, error: "x" }]);
    await publish(channel, "marker");
    expect((await peer.event()).data).toBe("marker");
  });

  test("[T13] a token for direct children opens no deeper pattern, one for a path no neighbour", async () => {
    const peer = await connect(server);
    const base = freshChannel("private");
    const ask = async (granted: string, wanted: string) => {
      const auth = { token: token({ channel: granted, sub: true }) };
      return (await peer.subscribe(wanted, { auth })).error ?? "allowed";
    };
    const refused = "Token does not match channel";
    expect(await ask(`${base}/*`, `${base}/**`)).toBe(refused);
    expect(await ask(`${base}/*`, `${base}/a/b`)).toBe(refused);
    expect(await ask(`${base}/**`, base)).toBe(refused);
    expect(await ask(`${base}/**`, `${base}yz`)).toBe(refused);
    expect(await ask(`${base}/*`, `${base}/a`)).toBe("allowed");
    expect(await ask(`${base}/*`, `${base}/*`)).toBe("allowed");
    expect(await ask(`${base}/**`, `${base}/a/b`)).toBe("allowed");
    expect(await ask(`${base}/**`, `${base}/*`)).toBe("allowed");
    // As wide as the key itself: its own application, and no other.
    expect(await ask("/**", base)).toBe("allowed");
    expect(await ask("/**", "/elsewhere/private/a")).toBe("Unknown application");
  });

  test("[T14] a joiner learns the members, itself included, and does not hear itself join", async () => {
    const channel = freshChannel("presence");
    const [first, joiner] = [await connect(server), await connect(server)];
    await first.subscribe(channel, member(channel, { id: "one" }));
    const reply = await joiner.subscribe(channel, member(channel, { id: "two", name: "Two" }));
    expect(reply.ext).toEqual({
      presence: { subscribe: { one: { id: "one" }, two: { id: "two", name: "Two" } } },
    });
    await publish(channel, "first message");
    expect((await joiner.event()).data).toBe("first message");
    expect((await first.event()).data).toEqual({ subscribe: { two: { id: "two", name: "Two" } } });
  });

  test("[T15] presence counts users: a second tab is silent, the last one leaves", async () => {
    const channel = freshChannel("presence");
    const watcher = await connect(server);
    const [tab, otherTab] = [await connect(server), await connect(server)];
    await watcher.subscribe(channel, member(channel, { id: "watcher" }));
    await tab.subscribe(channel, member(channel, { id: "user" }));
    await otherTab.subscribe(channel, member(channel, { id: "user", tab: 2 }));
    await tab.disconnect();
    await publish(channel, "marker");
    expect((await watcher.event()).data).toEqual({ subscribe: { user: { id: "user" } } });
    expect((await watcher.event()).data).toBe("marker");
    await otherTab.disconnect();
    expect((await watcher.event()).data).toEqual({ unsubscribe: { user: null } });
  });

  test("[T15] a client that comes back under another id leaves no ghost", async () => {
    const channel = freshChannel("presence");
    const [watcher, peer] = [await connect(server), await connect(server)];
    await watcher.subscribe(channel, member(channel, { id: "watcher" }));
    await peer.subscribe(channel, member(channel, { id: "old" }));
    const reply = await peer.subscribe(channel, member(channel, { id: "new" }));
    expect(reply.ext).toEqual({
      presence: { subscribe: { watcher: { id: "watcher" }, new: { id: "new" } } },
    });
    const changes = [await watcher.event(), await watcher.event(), await watcher.event()];
    expect(changes.map(({ data }) => data)).toEqual([
      { subscribe: { old: { id: "old" } } },
      { unsubscribe: { old: null } },
      { subscribe: { new: { id: "new" } } },
    ]);
  });

  test("[T16] the token says who is present, not the client", async () => {
    const channel = freshChannel("presence");
    const peer = await connect(server);
    const claims = { channel, sub: true, presence: { id: "real" } };
    const reply = await peer.subscribe(channel, {
      auth: { token: token(claims) },
      presence: { id: "fake" },
    });
    expect(reply.ext).toEqual({ presence: { subscribe: { real: { id: "real" } } } });
    const nobody = await peer.subscribe(freshChannel("presence"), {
      auth: { token: token({ channel: `/${appId}/presence/**`, sub: true }) },
      presence: { id: "fake" },
    });
    expect(nobody.error).toBe("No presence id specified in presence subscription");
  });

  test("[T17] each channel of an array is authorised; those before a refused one stay", async () => {
    const peer = await connect(server);
    const [first, forbidden, last] = [freshChannel(), freshChannel("private"), freshChannel()];
    const subscription = [first, forbidden, last];
    expect(await peer.subscribe(subscription)).toMatchObject({
      successful: false,
      error: "No auth supplied",
      subscription,
    });
    await publish(last, "not heard");
    await publish(first, "heard");
    expect((await peer.event()).data).toBe("heard");
    expect(await peer.subscribe([first, last])).toMatchObject({
      successful: true,
      subscription: [first, last],
    });
  });

  test("[T26] a connect is held as long as the advice says", async () => {
    const peer = await connect(quick);
    const advised = (await peer.ask({ channel: "/meta/handshake", ...handshake })).advice?.timeout;
    expect(advised).toBe(quickMs);
    const start = performance.now();
    const connectionType = name === "WebSocket" ? "websocket" : "long-polling";
    const reply = await peer.ask({ channel: "/meta/connect", connectionType });
    expect(reply).toMatchObject({ successful: true, advice: { timeout: quickMs } });
    const heldMs = performance.now() - start;
    expect(heldMs).toBeGreaterThan(quickMs - 20);
    expect(heldMs).toBeLessThan(quickMs * 3);
  });

  test("[T27] a connect with a timeout of 0 is answered at once", async () => {
    const peer = await connect(server);
    const connectionType = name === "WebSocket" ? "websocket" : "long-polling";
    const start = performance.now();
    const reply = await peer.ask({
      channel: "/meta/connect",
      connectionType,
      advice: { timeout: 0 },
    });
    expect(reply).toMatchObject({ successful: true, advice: { timeout: 30_000 } });
    expect(performance.now() - start).toBeLessThan(3_000);
  });

  test("[T28] a client without connects expires, whatever else it sends", async () => {
    const peer = await connect(quick);
    // What is sent for a client counts the same by any socket; its own will be closed.
    const socket = await Socket.open(quick);
    socket.clientId = peer.clientId;
    const channel = freshChannel();
    let reply: Message;
    do {
      reply = await socket.subscribe(channel);
    } while (reply.successful === true);
    expect(reply.error).toBe(`401:${peer.clientId}:Unknown client`);
  });

  test("[T29] a failed connect says to handshake; a failed subscribe gives no advice", async () => {
    const peer = await connect(server);
    const connectReply = await peer.ask({
      channel: "/meta/connect",
      connectionType: "long-polling",
      clientId: "nobody",
    });
    expect(connectReply).toMatchObject({
      successful: false,
      error: "401:nobody:Unknown client",
      advice: { reconnect: "handshake" },
    });
    expect(connectReply).not.toHaveProperty("clientId");
    const reply = await peer.ask({
      channel: "/meta/subscribe",
      subscription: "/a/public/b",
      clientId: "nobody",
    });
    expect(reply).toMatchObject({ error: "401:nobody:Unknown client", clientId: "nobody" });
    expect(reply).not.toHaveProperty("advice");
  });

  test("[T31] subscribing twice is the same as once", async () => {
    const channel = freshChannel("presence");
    const [watcher, peer] = [await connect(server), await connect(server)];
    await watcher.subscribe(channel, member(channel, { id: "watcher" }));
    await peer.subscribe(channel, member(channel, { id: "user" }));
    await peer.subscribe(channel, member(channel, { id: "user" }));
    await publish(channel, "marker");
    expect((await watcher.event()).data).toEqual({ subscribe: { user: { id: "user" } } });
    expect((await watcher.event()).data).toBe("marker");
    expect((await peer.event()).data).toBe("marker");
    await publish(channel, "once");
    expect((await peer.event()).data).toBe("once");
    await peer.ask({ channel: "/meta/unsubscribe", subscription: channel });
    expect((await watcher.event()).data).toBe("once");
    expect((await watcher.event()).data).toEqual({ unsubscribe: { user: null } });
  });

  test("[T32] overlapping subscriptions give one copy, also of one's own message", async () => {
    const base = freshChannel();
    const peer = await connect(server);
    await peer.subscribe([`${base}/b`, `${base}/*`, `${base}/**`, `/${appId}/public/**`]);
    await peer.publish(`${base}/b`, "own");
    await peer.publish(`${base}/marker`, "next");
    expect(await eventsBefore(peer, `${base}/marker`)).toEqual([
      { channel: `${base}/b`, data: "own", id: expect.any(String) },
    ]);
    await peer.publish(`${base}/c`, "last");
    expect((await peer.event()).data).toBe("last");
  });

  test("[T34] ids keep their JSON type; the falsy ones are not repeated", async () => {
    for (const id of [7, "x", { a: 1 }, [1], true, -1.5]) {
      const [reply] = await sendTo(name, JSON.stringify({ channel: "/meta/x", id }));
      expect(reply?.id).toEqual(id);
    }
    for (const id of [0, "", null, false]) {
      const [reply] = await sendTo(name, JSON.stringify({ channel: "/meta/x", id }));
      expect(reply).toMatchObject({ error: "403:/meta/x:Forbidden channel" });
      expect(reply).not.toHaveProperty("id");
    }
  });

  test("[T38] only the five exact names under /meta reach their handlers", async () => {
    const peer = await connect(server);
    const send = async (channel: string) =>
      (await peer.ask({ channel, subscription: freshChannel("private"), version: "1.0" })).error;
    for (const channel of ["/meta", "/meta/*", "/meta/**", "/meta/subscribe/x", "/meta/hand"]) {
      expect(await send(channel)).toBe(`403:${channel}:Forbidden channel`);
    }
    for (const channel of ["/meta/subscribe/", "/meta//subscribe", "/meta/subscribe "]) {
      expect(await send(channel)).toBe("402:data:Missing required parameter");
      const { error } = await peer.ask({ channel, data: 1, ext: keyAuth });
      expect(error).toBe(`405:${channel}:Invalid channel`);
    }
    expect(await send("/META/subscribe")).toBe("402:data:Missing required parameter");
  });

  test("[T39] nothing is published to or heard from /service", async () => {
    const peer = await connect(server);
    const refused = "Invalid channel name";
    expect((await peer.subscribe("/**", keyAuth)).error).toBe(refused);
    expect((await peer.subscribe("/service/x", keyAuth)).error).toBe(refused);
    expect((await peer.publish("/service/x", 1)).error).toBe(refused);
    const unsubscribed = await peer.ask({
      channel: "/meta/unsubscribe",
      subscription: "/service/x",
    });
    expect(unsubscribed.error).toBe("403:/service/x:Forbidden channel");
  });

  test("[T40] __proto__ and its like are names as any other", async () => {
    const channel = freshChannel();
    const peer = await connect(server);
    await peer.subscribe(channel);
    const data = '{"__proto__":{"x":1},"constructor":{"prototype":{}},"toString":1}';
    const text = `{"channel":"${channel}","id":"__proto__","clientId":"__proto__","data":${data},"ext":{"__proto__":1,"auth":{"key":"${keyId}","secret":"${secret}"}}}`;
    const [reply] = await sendTo(name, text);
    expect(reply).toMatchObject({ id: "__proto__", clientId: "__proto__", successful: true });
    const event = await peer.event();
    expect(JSON.stringify(event.data)).toBe(data);
    expect(Object.keys(event.ext ?? {})).toEqual(["__proto__"]);
    for (const clientId of ["__proto__", "constructor", "hasOwnProperty"]) {
      const [refused] = await sendTo(
        name,
        JSON.stringify({ channel: "/meta/disconnect", clientId, id: clientId }),
      );
      expect(refused?.error).toBe(`401:${clientId}:Unknown client`);
    }
    const [strange] = await sendTo(
      name,
      '{"channel":"/meta/x","id":{"__proto__":{"a":1}},"__proto__":{"channel":"/meta/y"}}',
    );
    expect(strange?.error).toBe("403:/meta/x:Forbidden channel");
    expect(JSON.stringify(strange?.id)).toBe('{"__proto__":{"a":1}}');
  });

  test("[T41] credentials are cut out, and nothing else of the payload changes", async () => {
    const channel = freshChannel();
    const socket = await Socket.connect(server);
    const poller = await Poller.connect(server);
    await socket.subscribe(channel);
    await poller.subscribe(channel);
    const kept =
      '{ "n":1.50, "big":12345678901234567890,"e":"é☃\u2028\\u00e9", "a":{"__auth":1} ,"z":1}';
    const auth = `"__auth":{"key":"${keyId}","secret":"${secret}"}`;
    const data = kept.replace(',"e"', `,${auth},"e"`);
    const [reply] = await sendTo(
      name,
      `[{"channel":"${channel}","data":${data},"ext":{"tag":1.0}}]`,
    );
    expect(reply).toMatchObject({ successful: true });
    await socket.event(channel);
    // Members before and after the cut keep their text; the white space around them may go.
    const expected =
      '{"n":1.50,"big":12345678901234567890,"e":"é☃\u2028\\u00e9","a":{"__auth":1},"z":1}';
    expect(socket.frames.at(-1)).toContain(`"data":${expected}`);
    expect(socket.frames.at(-1)).toContain('"ext":{"tag":1.0}');
    const queued = await http(server, "/push", {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({
        channel: "/meta/connect",
        connectionType: "long-polling",
        clientId: poller.clientId,
      }),
    });
    expect(queued.body).toContain(`"data":${expected}`);
    expect(`${queued.body}${socket.frames.join()}${server.logged.join()}`).not.toContain(secret);
  });

  test("[T45] errors are strings, those of Pandapush without a code", async () => {
    const peer = await connect(server);
    const wrong = { auth: { key: keyId, secret: "wrong" } };
    const channel = freshChannel("private");
    const errors = [
      (await peer.subscribe("/x")).error,
      (await peer.subscribe(channel)).error,
      (await peer.subscribe(channel, { auth: { token: "x" } })).error,
      (await peer.subscribe(channel, { auth: {} })).error,
      (await peer.publish(channel, 1, wrong)).error,
      (await peer.publish(channel, 1, { auth: { token: token({ channel, exp: 1 }) } })).error,
    ];
    expect(errors).toEqual([
      "Invalid channel name",
      "No auth supplied",
      "Invalid token",
      "Auth information does not include token or key",
      "Invalid secret",
      "Invalid token provided",
    ]);
  });

  test("[T47] what is published between subscribe and first connect is delivered", async () => {
    const channel = freshChannel();
    const clientId = await newClient();
    const [reply] = await sendTo(
      name,
      JSON.stringify({ channel: "/meta/subscribe", clientId, subscription: channel }),
    );
    expect(reply).toMatchObject({ successful: true });
    await publish(channel, 1);
    await publish(channel, 2);
    if (name === "WebSocket") {
      const socket = await Socket.open(server);
      socket.clientId = clientId;
      socket.sendConnect();
      expect([(await socket.event()).data, (await socket.event()).data]).toEqual([1, 2]);
    } else {
      const [connected, ...events] = await postText(
        server,
        JSON.stringify({ channel: "/meta/connect", connectionType: "long-polling", clientId }),
      );
      expect(connected).toMatchObject({ channel: "/meta/connect", successful: true });
      expect(events.map(({ data }) => data)).toEqual([1, 2]);
    }
  });

  test("[T48] publishing needs no handshake and takes any clientId", async () => {
    const channel = freshChannel();
    const peer = await connect(server);
    await peer.subscribe(channel);
    const [reply] = await sendTo(name, JSON.stringify({ channel, data: 1, ext: keyAuth }));
    expect(reply).toEqual({ channel, successful: true });
    const strange = { channel, data: 2, clientId: "nobody", id: 5, ext: keyAuth };
    const [second] = await sendTo(name, JSON.stringify(strange));
    expect(second).toEqual({ id: 5, clientId: "nobody", channel, successful: true });
    expect([(await peer.event()).data, (await peer.event()).data]).toEqual([1, 2]);
  });
});

const handshake = {
  version: "1.0",
  supportedConnectionTypes: ["websocket", "long-polling"],
};

async function newClient(): Promise<string> {
  const [reply] = await postText(
    server,
    JSON.stringify({ channel: "/meta/handshake", ...handshake }),
  );
  return reply?.clientId ?? "";
}

/** Sends text as it is, by a connection of its own; resolves with the reply frame or body. */
async function sendTo(name: string, text: string): Promise<Message[]> {
  if (name === "long-polling") return postText(server, text);
  const socket = await Socket.open(server);
  socket.sendText(text);
  await socket.next(() => true);
  socket.close();
  return JSON.parse(socket.frames[0] ?? "") as Message[];
}

function closing(...clients: FayeClient[]): void {
  for (const client of clients) client.disconnect();
}

test("[T5] a Faye client whose handshake is refused does not come back within a second", async () => {
  const client = new Faye(server.pushUrl);
  let attempts = 0;
  const refused = new Promise<FayeMessage>((resolve) => {
    client.addExtension({
      outgoing(message, pass) {
        if (message.channel === "/meta/handshake") {
          attempts++;
          message.supportedConnectionTypes = ["telepathy"];
        }
        pass(message);
      },
      incoming(message, pass) {
        if (message.channel === "/meta/handshake") resolve(message);
        pass(message);
      },
    });
  });
  client.connect();
  expect(await refused).toMatchObject({
    successful: false,
    error: "301:telepathy:Connection types not supported",
    advice: { reconnect: "handshake", interval: expect.any(Number) },
  });
  // By then a client without an interval has tried some eighty times.
  const poller = await Poller.connect(quick);
  await poller.poll();
  await poller.poll();
  expect(attempts).toBe(1);
  closing(client);
});

test("[T6] every message of every malformed shape is answered on a WebSocket", async () => {
  const socket = await Socket.open(server);
  const frames: [string, unknown][] = [
    ["{", [{ successful: false, error: "400::Bad request" }]],
    ["", [{ successful: false, error: "400::Bad request" }]],
    ["5", [{ successful: false, error: "400::Bad request" }]],
    ['"x"', [{ successful: false, error: "400::Bad request" }]],
    ["true", [{ successful: false, error: "400::Bad request" }]],
    ["null", []],
    ["[]", []],
    ["[null]", []],
    ['["x"]', [{ successful: false, error: "402:data:Missing required parameter" }]],
    ["[[]]", [{ successful: false, error: "402:data:Missing required parameter" }]],
    ["{}", [{ successful: false, error: "402:data:Missing required parameter" }]],
    ['{"id":"1"}', [{ id: "1", error: "402:data:Missing required parameter" }]],
    ['{"id":"1","data":1}', [{ id: "1", error: "405::Invalid channel" }]],
    ['{"id":"1","channel":5,"data":1}', [{ id: "1", channel: 5, error: "405:5:Invalid channel" }]],
    [
      '{"id":"1","channel":"/meta/subscribe","clientId":["x"],"subscription":"/a"}',
      [{ id: "1", clientId: ["x"], error: "401:x:Unknown client" }],
    ],
    [
      '{"id":"1","channel":"/meta/handshake","version":{},"supportedConnectionTypes":5}',
      [{ id: "1", error: "301:5:Connection types not supported" }],
    ],
    [
      '{"id":"1","channel":"/meta/connect","connectionType":{"a":1}}',
      [{ id: "1", error: "301:[object Object]:Connection types not supported" }],
    ],
  ];
  for (const [sent, expected] of frames) {
    const before = socket.frames.length;
    socket.sendText(sent);
    socket.sendText('{"channel":"/meta/marker","id":"marker"}');
    await socket.next(({ id }) => id === "marker");
    expect(socket.frames.length, sent).toBe(before + 2);
    expect(JSON.parse(socket.frames[before] ?? ""), sent).toMatchObject(expected as object);
  }
  expect(socket.closed).toBeUndefined();
});

test("[T6] a refused message in a batch leaves the others their replies", async () => {
  const channel = freshChannel();
  const batch = [{ id: 1, channel: "/meta/x" }, { id: 2 }, { id: 3, channel, data: 1 }, {}];
  const replies = await postText(server, JSON.stringify(batch));
  expect(replies.map(({ id, successful }) => [id, successful])).toEqual([
    [1, false],
    [2, false],
    [3, false],
    [undefined, false],
  ]);
});

test("[T7] closing an old socket leaves the client's new socket alone", async () => {
  const channel = freshChannel();
  const old = await Socket.connect(server);
  await old.subscribe(channel);
  const current = await Socket.open(server);
  current.clientId = old.clientId;
  current.sendConnect();
  // Its connect is answered when the new socket's has taken over.
  await old.next((message) => message.channel === "/meta/connect");
  for (const leave of ["close", "cut"] as const) {
    old[leave]();
    await old.closing();
    await publish(channel, leave);
    expect((await current.event()).data).toBe(leave);
  }
  expect(current.closed).toBeUndefined();
});

test("[T8] what is published after a held poll was aborted comes with the next one", async () => {
  const channel = freshChannel();
  const poller = await Poller.connect(server);
  await poller.subscribe(channel);
  for (let round = 0; round < 20; round++) {
    const abort = new AbortController();
    const held = poller.poll({}, { signal: abort.signal });
    // Time for the poll to reach the server; if it did not, it cannot swallow anything.
    await poller.subscribe(channel);
    abort.abort();
    await expect(held).rejects.toThrow();
    await publish(channel, round);
    const [, ...events] = await poller.poll();
    expect(events.map(({ data }) => data)).toEqual([round]);
  }
});

test("[T10] a REST publish with a wrong secret is answered", async () => {
  const start = performance.now();
  const answer = await http(server, `/channel${freshChannel()}`, {
    method: "POST",
    auth: `${keyId}:wrong`,
    headers: { "Content-Type": "application/json" },
    body: "1",
  });
  expect(performance.now() - start).toBeLessThan(1_000);
  expect(answer.status).toBe(400);
  expect(JSON.parse(answer.body)).toMatchObject({
    code: null,
    params: [],
    message: "Invalid secret",
  });
});

test("[T11] an empty database starts, and a key can be added from the terminal", async () => {
  const folder = await mkdtemp(join(tmpdir(), "pandapush-trap-"));
  const path = join(folder, "db.sqlite");
  const run = async (...args: string[]): Promise<string> => {
    const { stdout } = await promisify(execFile)(
      process.execPath,
      [repositoryPath("server/dist/cli.js"), ...args],
      { cwd: folder, env: { PATH: process.env.PATH, DATABASE_PATH: path } },
    );
    return stdout;
  };
  const app = JSON.parse(await run("add", "First", "ann")) as { id: string };
  const key = JSON.parse(await run("addKey", app.id, "ann", "test")) as Record<string, string>;
  const started = await startTestServer({ DATABASE_PATH: path });
  const channel = `/${app.id}/public/a`;
  const ext = { auth: { key: key.id, secret: key.secret } };
  const replies = await postText(started, JSON.stringify({ channel, data: 1, ext }));
  expect(replies).toEqual([{ channel, successful: true }]);
  await started.close();
  await rm(folder, { recursive: true });
});

test("[T18] a body that is not labelled JSON is a form, whatever its type", async () => {
  const text = '{"channel":"/meta/x","id":"a b+c"}';
  const forms = [form(text), form(text).replaceAll("%20", "+"), `x=1&${form(text)}&message=2`];
  for (const type of ["text/plain;charset=UTF-8", "application/x-www-form-urlencoded", "x/y", ""]) {
    for (const body of forms) {
      const headers = type === "" ? {} : { "Content-Type": type };
      const answer = await http(server, "/push", { method: "POST", headers, body });
      expect([type, answer.status]).toEqual([type, 200]);
      expect(JSON.parse(answer.body)).toMatchObject([{ id: "a b+c" }]);
    }
  }
});

test("[T19] a handshake may come by JSONP and go on elsewhere", async () => {
  const message = encodeURIComponent(
    JSON.stringify([{ channel: "/meta/handshake", id: "1", ...handshake }]),
  );
  const { status, body } = await http(server, `/push?message=${message}&jsonp=__jsonp1__`);
  expect(status).toBe(200);
  const [, json = ""] = /^\/\*\*\/__jsonp1__\((.*)\);$/s.exec(body) ?? [];
  const [reply] = JSON.parse(json) as Message[];
  const socket = await Socket.open(server);
  socket.clientId = reply?.clientId ?? "";
  const connected = await socket.ask({
    channel: "/meta/connect",
    connectionType: "websocket",
    advice: { timeout: 0 },
  });
  expect(connected.successful).toBe(true);
});

test("[T20] a preflight allows Pragma and credentials for exactly the asking origin", async () => {
  const { status, headers } = await http(server, "/push", {
    method: "OPTIONS",
    headers: {
      Origin: "https://page.example:8443",
      "Access-Control-Request-Method": "POST",
      "Access-Control-Request-Headers": "pragma",
    },
  });
  expect(status).toBe(200);
  expect(headers["access-control-allow-origin"]).toBe("https://page.example:8443");
  expect(headers["access-control-allow-credentials"]).toBe("true");
  expect(headers["access-control-allow-headers"]).toMatch(/\bPragma\b/);
});

test("[T21] application/json with a charset is JSON", async () => {
  for (const type of ["application/json;charset=UTF-8", "application/json ; charset=utf-8"]) {
    const headers = { "Content-Type": type };
    const answer = await http(server, "/push", { method: "POST", headers, body: "[]" });
    expect([answer.status, answer.body]).toEqual([200, "[]"]);
  }
});

test("[T22] clients may post to any path below the mount", async () => {
  for (const path of ["/push/", "/push/handshake", "/push/connect", "/push/a/b.c", "/push?x=1"]) {
    expect(await postText(server, "[]", path)).toEqual([]);
  }
});

test("[T23] a silent socket stays while its client handshakes elsewhere, then serves it", async () => {
  const channel = freshChannel();
  const socket = await Socket.open(server);
  const poller = await Poller.connect(server);
  await poller.subscribe(channel);
  expect(socket.received).toEqual([]);
  socket.clientId = poller.clientId;
  socket.sendConnect();
  await publish(channel, 1);
  expect((await socket.event()).data).toBe(1);

  const client = new Faye(server.pushUrl);
  const heard = new Promise((resolve) => {
    client.subscribe(channel, resolve).then(() => publish(channel, "by faye"), resolve);
  });
  expect(await heard).toBe("by faye");
  closing(client);
});

test("[T24] no subprotocol is selected, nor required", async () => {
  for (const headers of [[], ["Sec-WebSocket-Protocol: bayeux, other"]]) {
    const head = await raw(server, upgradeRequest("/push", headers), headEnds);
    expect(head).toMatch(/^HTTP\/1\.1 101 /);
    expect(head).not.toMatch(/sec-websocket-(protocol|extensions)/i);
  }
});

test("[T25] an empty batch is answered with an empty batch", async () => {
  expect(await postText(server, "[]")).toEqual([]);
  const socket = await Socket.open(server);
  socket.sendText("[]");
  socket.sendText('[{"channel":"/meta/x"}]');
  await socket.next(({ channel }) => channel === "/meta/x");
  expect(socket.frames[0]).toBe("[]");
});

test("[T25] a Faye client's lone big publish goes through by long-polling", async () => {
  const client = new Faye(server.pushUrl);
  client.disable("websocket");
  client.addExtension({
    outgoing(message, pass) {
      if (message.data !== undefined) message.ext = keyAuth;
      pass(message);
    },
  });
  const channel = freshChannel();
  const big = "x".repeat(5_000);
  const heard = new Promise((resolve) => {
    client.subscribe(channel, resolve).then(() => client.publish(channel, big));
  });
  expect(await heard).toBe(big);
  closing(client);
});

test.each(["close", "cut"] as const)(
  "[T28] a client whose socket was lost (%s) finds its messages when it comes back",
  async (leave) => {
    const channel = freshChannel();
    const socket = await Socket.connect(server);
    await socket.subscribe(channel);
    socket[leave]();
    await socket.closing();
    await publish(channel, 1);
    await publish(channel, 2);
    const again = await Socket.open(server);
    again.clientId = socket.clientId;
    again.sendConnect();
    expect([(await again.event()).data, (await again.event()).data]).toEqual([1, 2]);
    again[leave]();
    await again.closing();
    await publish(channel, 3);
    const poller = new Poller(server);
    poller.clientId = socket.clientId;
    const [reply, event] = await poller.poll();
    expect(reply).toMatchObject({ successful: true });
    expect(event?.data).toBe(3);
  },
);

test("[T30] held connects are answered when their client ends, so no old one comes later", async () => {
  const ended = await Socket.connect(server);
  const poller = await Poller.connect(server);
  poller.clientId = ended.clientId;
  await poller.ask({ channel: "/meta/disconnect" });
  await ended.next((message) => message.channel === "/meta/connect" && message.successful === true);
  expect(await ended.closing()).toMatchObject({ code: 1000 });

  const channel = freshChannel();
  const socket = await Socket.connect(server);
  await socket.subscribe(channel);
  const late = await socket.ask({
    channel: "/meta/connect",
    connectionType: "websocket",
    clientId: ended.clientId,
  });
  expect(late.error).toBe(`401:${ended.clientId}:Unknown client`);
  await publish(channel, "still bound");
  expect((await socket.event()).data).toBe("still bound");
});

test("[T30] a Faye client whose session ended handshakes once and hears each message once", async () => {
  const channel = freshChannel();
  const client = new Faye(server.pushUrl, { retry: 1 });
  const connects: string[] = [];
  const heard: unknown[] = [];
  let handshakes = 0;
  const again: { resolve?: () => void } = {};
  const resubscribed = new Promise<void>((resolve) => {
    again.resolve = resolve;
  });
  client.addExtension({
    outgoing(message, pass) {
      if (message.channel === "/meta/handshake") handshakes++;
      if (message.channel === "/meta/connect") connects.push(message.clientId ?? "");
      pass(message);
    },
    incoming(message, pass) {
      if (message.channel === "/meta/subscribe" && handshakes === 2) again.resolve?.();
      pass(message);
    },
  });
  const marker = new Promise<void>((resolve) => {
    client
      .subscribe(channel, (data) => {
        heard.push(data);
        if (data === "marker") resolve();
      })
      .then(() => {
        const poller = new Poller(server);
        poller.clientId = connects[0] ?? "";
        return poller.ask({ channel: "/meta/disconnect" });
      });
  });
  await resubscribed;
  await publish(channel, "after");
  // Longer than the client waits before it repeats what was not answered.
  const poller = await Poller.connect(quick);
  for (let round = 0; round < 3; round++) await poller.poll();
  await publish(channel, "marker");
  await marker;
  expect(heard).toEqual(["after", "marker"]);
  expect(handshakes).toBe(2);
  const [old] = connects;
  const first = connects.findIndex((clientId) => clientId !== old);
  expect(connects.slice(first)).not.toContain(old);
  closing(client);
});

test("[T31] a subscription made twice is counted once", async () => {
  const channel = freshChannel();
  const statistics = `/${appId}/meta/statistics`;
  const watcher = await Socket.connect(server);
  const auth = { auth: { token: token({ channel: statistics, sub: true }) } };
  const count = async (): Promise<number> => {
    watcher.received.length = 0;
    await watcher.event(statistics);
    // The second one was counted after this call began.
    const { data } = await watcher.event(statistics);
    return (data as { subscriptions: number }).subscriptions;
  };
  await watcher.subscribe(statistics, auth);
  const before = await count();
  await watcher.subscribe(channel);
  await watcher.subscribe(channel);
  expect(await count()).toBe(before + 1);
  await watcher.ask({ channel: "/meta/unsubscribe", subscription: channel });
  expect(await count()).toBe(before);
});

test("[T33] an acknowledgement has no data, and an event never another client's request id", async () => {
  const channel = freshChannel();
  adapt();
  const client = new CometD();
  client.configure({ url: server.pushUrl, logLevel: "warn" });
  client.unregisterTransport("long-polling");
  client.unregisterTransport("callback-polling");
  await new Promise((resolve) => client.handshake(resolve));
  const events: unknown[] = [];
  const heardLast = new Promise<void>((resolve) => {
    client.subscribe(channel, (message) => {
      events.push(message.data);
      if (message.data === 20) resolve();
    });
  });
  const answer = new Promise<{ successful?: boolean; data?: unknown }>((resolve) => {
    client.remoteCall("any", {}, 10_000, resolve);
  });
  const other = await Socket.open(server);
  const wildcard = `/${appId}/public/*`;
  await new Promise((resolve) => client.subscribe(wildcard, () => undefined, resolve));
  for (let id = 1; id <= 20; id++) {
    const acknowledged = other.next((message) => message.id === String(id));
    other.sendText(JSON.stringify({ channel, data: id, id: String(id), ext: keyAuth }));
    expect(await acknowledged).toEqual({ id: String(id), channel, successful: true });
  }
  await heardLast;
  expect(events).toEqual(Array.from({ length: 20 }, (_, index) => index + 1));
  const reply = await answer;
  expect(reply.successful).toBe(false);
  expect(reply.data).toBeUndefined();
  await new Promise((resolve) => client.disconnect(resolve));
});

test("[T42] JSONP calls nothing but a function's name, and is no other kind of file", async () => {
  const get = (query: string) => http(server, `/push?message=%5B%5D${query}`);
  for (const name of ["alert(1)", "a.", ".a", "a..b", "1a", "a;b", "a[0]", "a b", "é", "a-b"]) {
    const answer = await get(`&jsonp=${encodeURIComponent(name)}`);
    expect([name, answer.status]).toEqual([name, 400]);
    expect(answer.headers["content-type"]).toBe("text/plain; charset=utf-8");
  }
  for (const name of ["__jsonp1__", "_cometd_jsonp_0", "a.b.c", "$", "A9"]) {
    expect((await get(`&jsonp=${encodeURIComponent(name)}`)).body).toBe(`/**/${name}([]);`);
  }
  const answer = await get("&jsonp=");
  expect(answer.body).toBe("/**/jsonpcallback([]);");
  expect(answer.headers).toMatchObject({
    "content-type": "text/javascript; charset=utf-8",
    "content-disposition": "attachment; filename=f.txt",
    "x-content-type-options": "nosniff",
  });
  const message = encodeURIComponent('{"channel":"/meta/x","id":"<\u2028\u2029/"}');
  const escaped = await http(server, `/push?message=${message}`);
  expect(escaped.body).toContain('"id":"<\\u2028\\u2029/"');
});

test("[T43] a batch is answered as one, in one frame or body", async () => {
  const batch = JSON.stringify(
    ["a", "b", "c"].map((id) => ({ id, channel: freshChannel(), data: 1, ext: keyAuth })),
  );
  const replies = await postText(server, batch);
  expect(replies.map(({ id }) => id)).toEqual(["a", "b", "c"]);
  const socket = await Socket.open(server);
  socket.sendText(batch);
  await socket.next(({ id }) => id === "c");
  expect(socket.frames.length).toBe(1);
  expect((JSON.parse(socket.frames[0] ?? "") as Message[]).map(({ id }) => id)).toEqual([
    "a",
    "b",
    "c",
  ]);
});

test("[T44] an upgrade outside the mount is refused and closed", async () => {
  for (const path of ["/x", "/", "/pushfoo", "/channel/testapp/public/a"]) {
    expect(await raw(server, upgradeRequest(path))).toMatch(/^HTTP\/1\.1 404 /);
  }
});

test("[T46] Bayeux errors travel with status 200, only unreadable requests with 400", async () => {
  const headers = { "Content-Type": "application/json" };
  const post = async (body: string) =>
    (await http(server, "/push", { method: "POST", headers, body })).status;
  for (const message of [
    { channel: "/meta/handshake" },
    { channel: "/meta/connect", clientId: "x", connectionType: "long-polling" },
    { channel: "/meta/subscribe", clientId: "x", subscription: "/y" },
    { channel: "/meta/unsubscribe" },
    { channel: "/meta/disconnect", clientId: "x" },
    { channel: "/meta/x" },
    { channel: freshChannel(), data: 1 },
    { channel: "/x y", data: 1 },
    "x",
  ]) {
    expect(await post(JSON.stringify([message]))).toBe(200);
  }
  for (const body of ["", "{", "5", '"x"', "true"]) expect(await post(body)).toBe(400);
});

test("[T50] a client that keeps polling leaves a silent socket, which is closed in the end", async () => {
  const socket = await Socket.open(quick);
  const poller = await Poller.connect(quick);
  expect(await socket.closing()).toEqual({ code: 4009, reason: "Never connected" });
  const [reply] = await poller.poll();
  expect(reply).toMatchObject({ successful: true });
});

test("[T50] a Faye client that gets no socket subscribes, publishes and hears by polling", async () => {
  const channel = freshChannel();
  // Nobody listens for WebSockets there.
  const client = new Faye(server.pushUrl, {
    endpoints: { websocket: server.pushUrl.replace("/push", "/nowhere") },
  });
  const types = new Set<string | undefined>();
  client.addExtension({
    outgoing(message, pass) {
      if (message.channel === "/meta/connect") types.add(message.connectionType);
      if (message.data !== undefined) message.ext = keyAuth;
      pass(message);
    },
  });
  const heard: unknown[] = [];
  const last = new Promise<void>((resolve) => {
    client
      .subscribe(channel, (data) => {
        heard.push(data);
        if (data === 3) resolve();
      })
      .then(async () => {
        for (const data of [1, 2, 3]) await client.publish(channel, data);
      });
  });
  await last;
  expect(heard).toEqual([1, 2, 3]);
  expect([...types]).toEqual(["long-polling"]);
  closing(client);
});
