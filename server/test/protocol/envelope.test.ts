/** MSG: what a request is, and what every reply looks like. */
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import {
  keyAuth,
  type Message,
  Poller,
  Socket,
  startTestServer,
  type TestServer,
} from "../harness.js";
import { freshChannel, http, member, type Peer, postText, transports } from "./peers.js";

let server: TestServer;
beforeAll(async () => {
  server = await startTestServer();
});
afterAll(() => server.close());

/** Sends text by the named transport; resolves with the text of the reply, or the HTTP status. */
async function sendText(name: string, text: string): Promise<string> {
  if (name === "WebSocket") {
    const socket = await Socket.open(server);
    socket.sendText(text);
    socket.sendText('{"channel":"/meta/marker"}');
    await socket.next(({ channel }) => channel === "/meta/marker");
    socket.close();
    return socket.frames[0] ?? "";
  }
  const headers = { "Content-Type": "application/json" };
  const { status, body } = await http(server, "/push", { method: "POST", headers, body: text });
  return status === 200 ? body : `${status} ${body}`;
}

describe.each(transports)("over %s", (name, connect) => {
  const send = async (value: unknown): Promise<Message[]> =>
    JSON.parse(await sendText(name, JSON.stringify(value))) as Message[];

  test("[MSG-1] one message or an array of messages is answered with an array", async () => {
    const message = { channel: "/meta/x", id: "1" };
    const reply = {
      id: "1",
      channel: "/meta/x",
      successful: false,
      error: "403:/meta/x:Forbidden channel",
      ext: { detail: expect.any(String) },
    };
    expect(await send(message)).toEqual([reply]);
    expect(await send([message])).toEqual([reply]);
    expect(await send([message, message])).toEqual([reply, reply]);
    expect(JSON.parse(await sendText(name, ` \n[ ${JSON.stringify(message)}\t] `))).toEqual([
      reply,
    ]);
  });

  test("[MSG-2] nothing is answered with nothing, and what is no message is refused", async () => {
    expect(await send([])).toEqual([]);
    expect(await send(null)).toEqual([]);
    expect(await send([null, null])).toEqual([]);
    const refused = {
      successful: false,
      error: "402:data:Missing required parameter",
      ext: { detail: expect.any(String) },
    };
    expect(await send(["x"])).toEqual([refused]);
    expect(await send([[]])).toEqual([refused]);
    expect(await send([[{ channel: "/meta/x" }], 7, true])).toEqual([refused, refused, refused]);
    expect(await send({})).toEqual([refused]);
  });

  test("[MSG-3] a reply repeats id, clientId and channel when they are truthy, and no more", async () => {
    const request = {
      id: { a: [1] },
      clientId: "c",
      channel: "/meta/x",
      ext: { x: 1 },
      advice: { reconnect: "none" },
      data: 1,
      timestamp: "now",
      minimumVersion: "1.0",
      version: "1.0",
    };
    const [reply] = await send(request);
    expect(Object.keys(reply ?? {}).sort()).toEqual([
      "channel",
      "clientId",
      "error",
      "ext",
      "id",
      "successful",
    ]);
    expect(reply).toMatchObject({ id: { a: [1] }, clientId: "c", channel: "/meta/x" });
    const [bare] = await send({ id: 0, clientId: "", channel: "", data: 1 });
    expect(Object.keys(bare ?? {}).sort()).toEqual(["error", "ext", "successful"]);
    expect(bare?.error).toBe("405::Invalid channel");
  });

  test("[MSG-4] replies come in the order of the requests, a held connect's last", async () => {
    const peer = await connect(server);
    const { clientId } = peer;
    const channel = freshChannel();
    const replies = await send([
      {
        id: 1,
        channel: "/meta/connect",
        clientId,
        connectionType: "long-polling",
        advice: { timeout: 0 },
      },
      { id: 2, channel: "/meta/subscribe", clientId, subscription: channel },
      { id: 3, channel, data: 1, ext: keyAuth },
      { id: 4, channel: "/meta/connect", clientId },
      { id: 5, channel: "/meta/unsubscribe", clientId, subscription: channel },
    ]);
    const answered = replies.filter(({ successful }) => successful !== undefined);
    expect(answered.map(({ id, successful }) => [id, successful])).toEqual([
      [2, true],
      [3, true],
      [4, false],
      [5, true],
      [1, true],
    ]);
  });

  test("[MSG-5] a message that carries an error is refused with it", async () => {
    const channel = freshChannel();
    for (const message of [
      { channel, data: 1, ext: keyAuth },
      { channel: "/meta/handshake", version: "1.0", supportedConnectionTypes: ["websocket"] },
    ]) {
      const [reply] = await send({ ...message, error: "my own words", id: "1" });
      expect(reply).toMatchObject({ id: "1", successful: false, error: "my own words" });
      expect(reply).not.toHaveProperty("clientId");
    }
  });

  test("[MSG-5] an error of the protocol counts more than one that the message carries", async () => {
    const own = { error: "my own words" };
    const errors = [
      { channel: "/meta/handshake", version: "1.0" },
      { channel: "/meta/connect", connectionType: "websocket" },
      { channel: "/meta/disconnect", clientId: "nobody" },
      { channel: "/meta/subscribe" },
      { channel: freshChannel() },
      { channel: "/a b", data: 1 },
    ].map(async (message) => (await send({ ...message, ...own }))[0]?.error);
    expect(await Promise.all(errors)).toEqual([
      "402:supportedConnectionTypes:Missing required parameter",
      "402:clientId:Missing required parameter",
      "401:nobody:Unknown client",
      "402:subscription:Missing required parameter",
      "402:data:Missing required parameter",
      "405:/a b:Invalid channel",
    ]);
  });

  test("[MSG-6] text that is no batch is refused, and the connection goes on", async () => {
    for (const text of [
      "",
      " ",
      "{",
      '{"channel":}',
      "5",
      '"x"',
      "true",
      "undefined",
      "[1,]",
      "{}{}",
    ]) {
      const answer = await sendText(name, text);
      if (name === "WebSocket") {
        expect([text, JSON.parse(answer)]).toEqual([
          text,
          [{ successful: false, error: "400::Bad request", ext: { detail: expect.any(String) } }],
        ]);
      } else {
        expect([text, answer.slice(0, 15)]).toEqual([text, "400 Bad request"]);
      }
    }
  });

  test("[MSG-7] a message sent twice is done twice", async () => {
    const channel = freshChannel();
    const peer: Peer = await connect(server);
    await peer.subscribe(channel);
    const message = { id: "same", channel, data: 1, ext: keyAuth };
    expect(await send([message, message])).toMatchObject([{ id: "same" }, { id: "same" }]);
    const [first, second] = [await peer.event(channel), await peer.event(channel)];
    expect([first.data, second.data]).toEqual([1, 1]);
    expect(first.id).not.toBe(second.id);
  });

  test("[MSG-8] each refusal says beside its text what can be done", async () => {
    const [reply] = await send({ channel: freshChannel("private"), data: 1 });
    expect(reply).toMatchObject({ error: "No auth supplied" });
    expect(reply?.ext?.detail).toMatch(/ext\.auth/);
  });

  test("[MSG-9] channels under /meta other than the five are forbidden", async () => {
    for (const channel of ["/meta/x", "/meta", "/meta/*", "/meta/**", "/meta/handshake/x"]) {
      const [reply] = await send({ channel, id: "1" });
      expect(reply).toMatchObject({ channel, error: `403:${channel}:Forbidden channel` });
    }
    // Neither name nor pattern, so no channel under /meta: refused as publishes.
    const [reply] = await send({ channel: "/meta/connect/", connectionType: "websocket" });
    expect(reply?.error).toBe("402:data:Missing required parameter");
  });

  test("[MSG-10] a batch runs in order: nothing is done for a client after its disconnect", async () => {
    const peer = await connect(server);
    const { clientId } = peer;
    const replies = await send([
      { id: 1, channel: "/meta/disconnect", clientId },
      { id: 2, channel: "/meta/subscribe", clientId, subscription: freshChannel() },
      { id: 3, channel: "/meta/disconnect", clientId },
    ]);
    expect(replies.map(({ id, error }) => [id, error])).toEqual([
      [1, undefined],
      [2, `401:${clientId}:Unknown client`],
      [3, `401:${clientId}:Unknown client`],
    ]);
  });

  test("[MSG-10] a slow message is not overtaken by what its connection sends after it", async () => {
    // An unknown key is looked up in the database, a known one is not.
    const channel = freshChannel();
    const peer = await connect(server);
    await peer.subscribe(channel);
    const unknown = { auth: { key: `nobody${name}`, secret: "x" } };
    const batch = [
      { id: 1, channel, data: "refused", ext: unknown },
      { id: 2, channel, data: "first", ext: keyAuth },
    ];
    if (name === "WebSocket") {
      const socket = await Socket.open(server);
      for (const message of batch) socket.sendText(JSON.stringify(message));
      await socket.next(({ id }) => id === 2);
      expect(socket.frames.map((frame) => (JSON.parse(frame) as Message[])[0]?.id)).toEqual([1, 2]);
    } else {
      expect((await postText(server, JSON.stringify(batch))).map(({ id }) => id)).toEqual([1, 2]);
    }
    expect((await peer.event()).data).toBe("first");
  });
});

test("[MSG-10] a batch that holds a connect is answered when the connect is", async () => {
  const channel = freshChannel("presence");
  const watcher = await Socket.connect(server);
  await watcher.subscribe(channel, member(channel, { id: "watcher" }));
  const poller = await Poller.connect(server);
  const held = poller.post([
    {
      id: "s",
      channel: "/meta/subscribe",
      subscription: channel,
      ext: member(channel, { id: "poller" }),
    },
    { id: "c", channel: "/meta/connect", connectionType: "long-polling" },
  ]);
  // The batch has run, so whatever is published now ends the wait.
  await watcher.event(channel);
  await watcher.publish(channel, "now");
  const [subscribed, connected, event] = await held;
  expect([subscribed?.id, connected?.id, event?.data]).toEqual(["s", "c", "now"]);
});

test("[MSG-11] unknown fields and ext keys change nothing", async () => {
  const [reply] = await postText(
    server,
    JSON.stringify({
      channel: "/meta/handshake",
      version: "1.0",
      minimumVersion: "1.0beta",
      supportedConnectionTypes: ["long-polling"],
      advice: { timeout: 60_000, interval: 0 },
      ext: { ack: true, timesync: { tc: 1, l: 0, o: 0 } },
      hobby: "chess",
    }),
  );
  expect(reply?.successful).toBe(true);
  expect(reply).not.toHaveProperty("ext");
});

describe("[MSG-12] values of the wrong kind", () => {
  const deep = `${"[".repeat(100_000)}${"]".repeat(100_000)}`;
  const textless = '{"toString":1,"valueOf":1}';

  test.each([
    ["connectionType", '"channel":"/meta/connect","connectionType":VALUE', /^301:/],
    ["clientId", '"channel":"/meta/disconnect","clientId":VALUE', /^401:/],
    [
      "supportedConnectionTypes",
      '"channel":"/meta/handshake","version":1,"supportedConnectionTypes":[VALUE]',
      /^301:/,
    ],
    ["channel", '"channel":VALUE,"data":1', /^405:/],
    [
      "advice.timeout",
      '"channel":"/meta/connect","connectionType":"websocket","clientId":"x","advice":{"timeout":VALUE}',
      /^401:x:/,
    ],
    [
      "subscription",
      '"channel":"/meta/unsubscribe","clientId":"CLIENT","subscription":[VALUE]',
      /^405:/,
    ],
    [
      "subscription",
      '"channel":"/meta/subscribe","clientId":"CLIENT","subscription":[VALUE]',
      /^Invalid/,
    ],
  ])("[MSG-12] as %s are the client's fault, not the server's", async (_field, members, error) => {
    server.logged.length = 0;
    const { clientId } = await Poller.connect(server);
    const good = '{"id":"good","channel":"/meta/x"}';
    for (const value of ["{}", "[]", "[[1]]", textless, deep]) {
      const bad = `{"id":"bad",${members.replace("VALUE", value).replace("CLIENT", clientId)}}`;
      const body = `[${good},${bad}]`;
      const headers = { "Content-Type": "application/json" };
      const answer = await http(server, "/push", { method: "POST", headers, body });
      if (value === deep && answer.status === 400) continue;
      expect(answer.status, value.slice(0, 50)).toBe(200);
      const replies = JSON.parse(answer.body) as Message[];
      expect(replies.map(({ id }) => id)).toEqual(["good", "bad"]);
      expect(replies[1]?.error?.slice(0, 60)).toMatch(error);
    }
    expect(server.logged).toEqual([]);
  });
});
