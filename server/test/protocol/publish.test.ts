/** PUB, EV, REST: what goes into a channel and what comes out of it. */
import { afterAll, beforeAll, describe, expect, test } from "vitest";
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
} from "../harness.js";
import { eventsBefore, freshChannel, http, type Peer, postText, transports } from "./peers.js";

let server: TestServer;
beforeAll(async () => {
  server = await startTestServer({ MAX_MESSAGE_BYTES: "65536", MAX_BATCH_MESSAGES: "100" });
});
afterAll(() => server.close());

const authText = `"auth":{"key":"${keyId}","secret":"${secret}"}`;

async function rest(channel: string, body: string): Promise<string> {
  const answer = await http(server, `/channel${channel}`, {
    method: "POST",
    auth: `${keyId}:${secret}`,
    headers: { "Content-Type": "application/json" },
    body,
  });
  return `${answer.status} ${answer.body}`;
}

/** A client that shows the text in which its events came. */
async function listener(...channels: string[]): Promise<Socket> {
  const socket = await Socket.connect(server);
  await socket.subscribe(channels);
  return socket;
}

const payloads = [
  "null",
  "true",
  "0",
  "-0",
  '""',
  "[]",
  "{}",
  "1.50",
  "1e400",
  "12345678901234567890",
  "0.1000000000000000055511151231257827",
  '"é☃\u2028\u2029\u0080"',
  '"\\u00e9\\ud83d\\ude00\\/\\b\\""',
  '"😀"',
  '"\\ud800"',
  '{"b":1,"a":2,"b":3}',
  '{"__proto__":{"a":1},"constructor":1}',
  '{ "spaced" : [ 1 ,\t2 ] }',
  '{"advice":{"reconnect":"none"},"successful":false,"data":{"__auth":1}}',
  '["]","}","\\"","\\\\",{"a":"[{"}]',
  `[${"[".repeat(500)}${"]".repeat(500)}]`,
];

describe.each(transports)("over %s", (_name, connect) => {
  test.each([
    [{}, "402:data:Missing required parameter"],
    [{ channel: "/a b" }, "402:data:Missing required parameter"],
    [{ channel: "/a b", data: 1 }, "405:/a b:Invalid channel"],
    [{ data: 1 }, "405::Invalid channel"],
    [{ channel: "", data: 1 }, "405::Invalid channel"],
    [{ channel: "/a/", data: 1 }, "405:/a/:Invalid channel"],
    [{ channel: "a", data: 1 }, "405:a:Invalid channel"],
    [{ channel: `/${appId}/public/*`, data: 1 }, `405:/${appId}/public/*:Invalid channel`],
    [{ channel: `/${appId}/public/a/**`, data: 1 }, `405:/${appId}/public/a/**:Invalid channel`],
    [{ channel: "/a", data: 1 }, "Invalid channel name"],
    [{ channel: "/a", data: 1, ext: keyAuth }, "Invalid channel name"],
    [{ channel: `/${appId}/public/a`, data: 1 }, "No auth supplied"],
    [{ channel: `/${appId}/meta/statistics`, data: 1 }, "Cannot publish to a meta channel"],
  ])("[PUB-2] %j is refused with %s", async (message, error) => {
    const peer = await connect(server);
    const reply = await peer.ask(message);
    expect(reply).toEqual({
      id: reply.id,
      clientId: peer.clientId,
      ...("channel" in message && message.channel !== "" ? { channel: message.channel } : {}),
      successful: false,
      error,
      ext: { detail: expect.any(String) },
    });
  });

  test("[PUB-1] [PUB-3] any data is taken, and the acknowledgement has none", async () => {
    const channel = freshChannel();
    const peer = await connect(server);
    await peer.subscribe(channel);
    for (const data of [null, false, 0, "", [], {}, "x"]) {
      const reply = await peer.publish(channel, data);
      expect(reply).toEqual({ id: reply.id, clientId: peer.clientId, channel, successful: true });
      expect(await peer.event()).toEqual({ channel, data, id: expect.any(String) });
    }
  });

  test("[EV-1] an event has channel, data, id and the publisher's ext, and nothing else", async () => {
    const channel = freshChannel();
    const peer = await connect(server);
    await peer.subscribe(channel);
    const message = {
      id: "mine",
      channel,
      clientId: "me",
      data: 1,
      ext: { ...keyAuth, tag: "x" },
      advice: { reconnect: "none" },
      successful: true,
      subscription: channel,
      connectionType: "websocket",
      timestamp: "now",
      extra: 1,
    };
    await postText(server, JSON.stringify(message));
    expect(await peer.event()).toEqual({
      channel,
      data: 1,
      id: expect.stringMatching(/^[a-z0-9]+-[a-z0-9]+$/),
      ext: { tag: "x" },
    });
    await postText(server, JSON.stringify({ channel, data: 2, ext: keyAuth }));
    expect(await peer.event()).not.toHaveProperty("ext");
  });

  test("[EV-2] every publication has another id, the same for all who hear it", async () => {
    const channel = freshChannel();
    const peers = [await connect(server), await connect(server), await Socket.connect(server)];
    for (const peer of peers) await peer.subscribe(channel);
    for (let data = 0; data < 10; data++) await rest(channel, `${data}`);
    const ids: unknown[][] = [];
    for (const peer of peers) {
      const events: Message[] = [];
      while (events.length < 10) events.push(await peer.event(channel));
      ids.push(events.map(({ id }) => id));
    }
    expect(new Set(ids[0]).size).toBe(10);
    expect(ids[1]).toEqual(ids[0]);
    expect(ids[2]).toEqual(ids[0]);
  });

  test("[EV-5] one copy reaches a client however many of its subscriptions fit", async () => {
    const base = freshChannel();
    const marker = freshChannel();
    const peer = await connect(server);
    const other = await connect(server);
    const names = [
      base,
      `${base}/a`,
      `${base}/*`,
      `${base}/**`,
      `${base}/a/*`,
      `${base}/a/**`,
      `/${appId}/public/**`,
    ];
    await peer.subscribe([...names, marker]);
    await other.subscribe([`${base}/a`, marker]);
    const channels = [base, `${base}/a`, `${base}/a/b`, `${base}/b`, `${base}/a`, base];
    // One batch, so one turn of the server.
    const batch = channels.map((channel, data) => ({ channel, data, ext: keyAuth }));
    await new Poller(server).post([...batch, { channel: marker, data: 0, ext: keyAuth }]);
    const heard = await eventsBefore(peer, marker);
    expect(heard.map(({ channel, data }) => [channel, data])).toEqual(
      channels.map((channel, data) => [channel, data]),
    );
    expect((await eventsBefore(other, marker)).map(({ data }) => data)).toEqual([1, 4]);
  });

  test("[EV-6] what one connection publishes in order is heard in order, across channels", async () => {
    const base = freshChannel();
    const peers = [await connect(server), await connect(server), await connect(server)];
    const subscriptions = [
      [`${base}/**`],
      [`${base}/0`, `${base}/1`, `${base}/2`],
      [`${base}/*`, `${base}/1`, `${base}/marker`],
    ];
    for (const [index, peer] of peers.entries()) {
      await peer.subscribe([...(subscriptions[index] ?? []), `${base}/marker`]);
    }
    const publisher = await Socket.open(server);
    const count = 300;
    for (let data = 0; data < count; data++) {
      publisher.sendText(
        JSON.stringify({ channel: `${base}/${data % 3}`, data, ext: keyAuth, id: data + 1 }),
      );
    }
    await publisher.next(({ id }) => id === count);
    await publisher.publish(`${base}/marker`, "end");
    const expected = Array.from({ length: count }, (_, data) => data);
    for (const peer of peers) {
      const heard = await eventsBefore(peer, `${base}/marker`);
      expect(heard.map(({ data }) => data)).toEqual(expected);
    }
  });

  test("[EV-6] all clients hear what several publish to a channel in the same order", async () => {
    const channel = freshChannel();
    const marker = freshChannel();
    const peers: Peer[] = [];
    for (const [, open] of [...transports, ...transports]) peers.push(await open(server));
    for (const peer of peers) await peer.subscribe([channel, marker]);
    const publishers = await Promise.all([1, 2, 3, 4].map(() => connect(server)));
    await Promise.all(
      publishers.map(async (publisher, who) => {
        for (let n = 0; n < 25; n++) await publisher.publish(channel, `${who}:${n}`);
      }),
    );
    await publishers[0]?.publish(marker, 0);
    const orders = await Promise.all(
      peers.map(async (peer) => (await eventsBefore(peer, marker)).map(({ data }) => data)),
    );
    const [first = []] = orders;
    expect(first.length).toBe(100);
    for (const order of orders) expect(order).toEqual(first);
    for (const who of [0, 1, 2, 3]) {
      const own = first.filter((data) => String(data).startsWith(`${who}:`));
      expect(own).toEqual(Array.from({ length: 25 }, (_, n) => `${who}:${n}`));
    }
  });

  test("[EV-7] a publisher hears itself when it is subscribed", async () => {
    const channel = freshChannel();
    const peer = await connect(server);
    await peer.subscribe(channel);
    await peer.publish(channel, "echo");
    expect((await peer.event()).data).toBe("echo");
  });
});

test.each(payloads)("[EV-3] the payload %s arrives as the text that was sent", async (payload) => {
  const channel = freshChannel();
  const socket = await listener(channel);
  const poller = await Poller.connect(server);
  await poller.subscribe(channel);
  const sender = await Socket.open(server);
  const text = `[ { "channel":"${channel}", "data" : ${payload} , "ext":{${authText}}, "id":"p"} ]`;
  sender.sendText(text);
  await sender.next(({ id }) => id === "p");
  await socket.event();
  expect(socket.frames.at(-1)).toContain(`"channel":"${channel}","data":${payload},"id":`);

  await postText(server, text);
  await socket.event();
  expect(socket.frames.at(-1)).toContain(`"data":${payload},"id":`);

  expect(await rest(channel, payload)).toBe("200 OK");
  await socket.event();
  expect(socket.frames.at(-1)).toContain(`"data":${payload},"id":`);

  const { body } = await http(server, "/push", {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({
      channel: "/meta/connect",
      connectionType: "long-polling",
      clientId: poller.clientId,
    }),
  });
  expect(body.split(`"data":${payload},"id":`).length).toBe(4);
});

test.each([
  ['{"a":1,"__auth":AUTH}', '{"a":1}'],
  ['{"__auth":AUTH}', "{}"],
  ['{"\\u005f\\u005fauth":AUTH,"a":"\\u0041"}', '{"a":"\\u0041"}'],
  ['{"__auth":AUTH,"a":{"__auth":1},"__auth":AUTH}', '{"a":{"__auth":1}}'],
])("[PUB-8] credentials in %s are used and cut out", async (data, expected) => {
  const channel = freshChannel();
  const socket = await listener(channel);
  const credentials = `{"key":"${keyId}","secret":"${secret}"}`;
  const text = `{"channel":"${channel}","data":${data.replaceAll("AUTH", credentials)}}`;
  expect(await postText(server, text)).toEqual([{ channel, successful: true }]);
  await socket.event();
  expect(socket.frames.at(-1)).toContain(`"data":${expected},"id":`);
});

test("[PUB-8] the last of several members called data or ext counts, however it is spelled", async () => {
  const channel = freshChannel();
  const socket = await listener(channel);
  const text = `{"data":1,"channel":"${channel}","ext":{"tag":1},"d\\u0061ta":[2],"ext":{${authText},"tag":2.0}}`;
  expect(await postText(server, text)).toMatchObject([{ successful: true }]);
  await socket.event();
  expect(socket.frames.at(-1)).toContain(`"data":[2],"id":`);
  expect(socket.frames.at(-1)).toContain('"ext":{"tag":2.0}');
});

test("[EV-3] newlines in a payload reach an EventSource as lines of one event", async () => {
  const channel = freshChannel();
  const payload = '{\n"a":\r\n1,\r"b":2}';
  const socket = await listener(channel);
  await rest(channel, payload);
  expect((await socket.event()).data).toEqual({ a: 1, b: 2 });
  expect(socket.frames.at(-1)).toContain(payload);
});

test("[LIM-1] a message above the limit is refused on every transport", async () => {
  const channel = freshChannel();
  const socket = await Socket.open(server);
  const message = (length: number) =>
    JSON.stringify({ channel, data: "x".repeat(length), ext: keyAuth });
  const { length } = message(0);
  const fits = message(65_536 - length);
  expect(await postText(server, fits)).toMatchObject([{ successful: true }]);
  socket.sendText(fits);
  await socket.next(({ successful }) => successful === true);
  const headers = { "Content-Type": "application/json" };
  const answer = await http(server, "/push", { method: "POST", headers, body: `${fits} ` });
  expect([answer.status, answer.headers["content-type"]]).toEqual([
    413,
    "text/plain; charset=utf-8",
  ]);
  expect(answer.body).toContain("65536");
  const form = await http(server, "/push", {
    method: "POST",
    body: `message=${encodeURIComponent(`${fits} `)}`,
  });
  expect(form.status).toBe(413);
  socket.sendText(`${fits} `);
  expect((await socket.closing()).code).toBe(1009);
});

test("[LIM-2] a batch of too many messages is refused as a whole", async () => {
  const batch = (length: number) => JSON.stringify(Array.from({ length }, () => ({ data: 1 })));
  expect((await postText(server, batch(100))).length).toBe(100);
  const headers = { "Content-Type": "application/json" };
  const answer = await http(server, "/push", { method: "POST", headers, body: batch(101) });
  expect(answer.status).toBe(400);
  expect(answer.body).toContain("at most 100");
  const socket = await Socket.open(server);
  socket.sendText(batch(101));
  const reply = await socket.next(() => true);
  expect(reply).toMatchObject({ successful: false, error: "400::Bad request" });
  expect((reply.ext as { detail: string }).detail).toContain("at most 100");
});

test("[REST-1] what is published over REST is heard by all, once it is acknowledged", async () => {
  const channel = freshChannel("private");
  const socket = await Socket.connect(server);
  const poller = await Poller.connect(server);
  const auth = { auth: { key: keyId, secret } };
  await socket.subscribe(channel, auth);
  await poller.subscribe(channel, auth);
  expect(await rest(channel, '{"text":"hello"}')).toBe("200 OK");
  expect((await socket.event()).data).toEqual({ text: "hello" });
  expect((await poller.poll())[1]?.data).toEqual({ text: "hello" });
});

test("[REST-9] refusals over REST have the texts of Bayeux", async () => {
  const post = async (path: string, headers: Record<string, string>) => {
    const type = { "Content-Type": "application/json" };
    const answer = await http(server, `/channel${path}`, {
      method: "POST",
      headers: { ...type, ...headers },
      body: "1",
    });
    return [answer.status, answer.body] as const;
  };
  const path = freshChannel();
  const basic = (text: string) => ({
    Authorization: `Basic ${Buffer.from(text).toString("base64")}`,
  });
  expect(await post(path, {})).toEqual([403, "Unauthorized"]);
  for (const [where, headers, message] of [
    [path, basic(`${keyId}:wrong`), "Invalid secret"],
    [path, basic("nobody:wrong"), "Could not find key"],
    [path, { Authorization: "Token x" }, "Invalid token"],
    ["/nobody/public/a", basic(`${keyId}:${secret}`), "Unknown application"],
    [`/${appId}/meta/a`, basic(`${keyId}:${secret}`), "Cannot publish to a meta channel"],
  ] as const) {
    const [status, body] = await post(where, headers);
    expect([status, JSON.parse(body)]).toEqual([
      400,
      { code: null, params: [], message, details: expect.any(String) },
    ]);
  }
});
