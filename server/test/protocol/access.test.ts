/** AUTH: what a client may do, and what it is told when it may not. */
import type { AppId, KeyId } from "@pandapush/protocol";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import {
  appId,
  keyAuth,
  keyId,
  Socket,
  secret,
  startTestServer,
  type TestServer,
  token,
} from "../harness.js";
import { freshChannel, http, type Peer, postText, transports } from "./peers.js";

let server: TestServer;
beforeAll(async () => {
  server = await startTestServer();
  const { store } = server;
  await store.addApplication({ id: "other" as AppId, name: "other", createdBy: "test" });
  const key = { createdBy: "test", purpose: null, expires: null };
  await store.addKey({ ...key, id: "PSIDother" as KeyId, secret, appId: "other" as AppId });
  const appKey = { ...key, appId: appId as AppId };
  await store.addKey({ ...appKey, id: "PSIDover" as KeyId, secret, expires: new Date(0) });
  await server.keys.changed();
});
afterAll(() => server.close());

const year2000 = 946_684_800;
const room = `/${appId}/private/room`;
const withToken = (claims: object, key = secret, algorithm = "HS256") => ({
  token: token({ channel: room, sub: true, pub: true, ...claims }, key, algorithm),
});

type Row = readonly [
  rule: string,
  what: string,
  channel: string,
  auth: unknown,
  subscribe: string,
  publish: string,
];
const ok = "allowed";
/** Both actions with the same credentials. */
const rows: readonly Row[] = [
  [
    "AUTH-1",
    "a kind that does not exist",
    `/${appId}/secret/x`,
    keyAuth.auth,
    "Invalid channel name",
    "Invalid channel name",
  ],
  [
    "AUTH-1",
    "an application alone",
    "/other",
    keyAuth.auth,
    "Invalid channel name",
    "Invalid channel name",
  ],
  [
    "AUTH-1",
    "the public channel of an unknown application",
    "/nobody/public/x",
    undefined,
    "Unknown application",
    "Unknown application",
  ],
  [
    "AUTH-1",
    "the private channel of an unknown application",
    "/nobody/private/x",
    keyAuth.auth,
    "Unknown application",
    "Unknown application",
  ],
  [
    "AUTH-2",
    "a public channel without credentials",
    `/${appId}/public/x`,
    undefined,
    ok,
    "No auth supplied",
  ],
  [
    "AUTH-2",
    "a public channel with nonsense",
    `/${appId}/public/x`,
    { token: "nonsense" },
    ok,
    "Invalid token",
  ],
  ["AUTH-3", "no credentials", room, undefined, "No auth supplied", "No auth supplied"],
  ["AUTH-3", "null as credentials", room, null, "No auth supplied", "No auth supplied"],
  ["AUTH-4", "a token that is no JWT", room, { token: "a.b.c" }, "Invalid token", "Invalid token"],
  [
    "AUTH-4",
    "a token without a keyId",
    room,
    withToken({ keyId: undefined }),
    "Invalid token",
    "Invalid token",
  ],
  [
    "AUTH-5",
    "neither token nor key",
    room,
    {},
    "Auth information does not include token or key",
    "Auth information does not include token or key",
  ],
  [
    "AUTH-6",
    "an unknown key",
    room,
    { key: "nobody", secret },
    "Could not find key",
    "Could not find key",
  ],
  [
    "AUTH-6",
    "a token of an unknown key",
    room,
    withToken({ keyId: "nobody" }),
    "Could not find key",
    "Could not find key",
  ],
  [
    "AUTH-6",
    "a key of another application",
    room,
    { key: "PSIDother", secret },
    "Could not find key",
    "Could not find key",
  ],
  [
    "AUTH-7",
    "a wrong secret",
    room,
    { key: keyId, secret: "wrong" },
    "Invalid secret",
    "Invalid secret",
  ],
  [
    "AUTH-7",
    "a wrong secret of an expired key",
    room,
    { key: "PSIDover", secret: "wrong" },
    "Invalid secret",
    "Invalid secret",
  ],
  [
    "AUTH-7",
    "a token beside a key, with the token's key's secret",
    room,
    { key: "x", ...withToken({}), secret },
    ok,
    ok,
  ],
  [
    "AUTH-7",
    "a token beside a key, without a secret",
    room,
    { key: "x", ...withToken({}) },
    "Invalid secret",
    "Invalid secret",
  ],
  ["AUTH-8", "an expired key", room, { key: "PSIDover", secret }, "Expired key", "Expired key"],
  [
    "AUTH-10",
    "a token signed with another secret",
    room,
    withToken({}, "wrong"),
    "Invalid token provided",
    "Invalid token provided",
  ],
  [
    "AUTH-10",
    "an expired token",
    room,
    withToken({ exp: year2000 }),
    "Invalid token provided",
    "Invalid token provided",
  ],
  [
    "AUTH-10",
    "a token that is not valid yet",
    room,
    withToken({ nbf: 4e9 }),
    "Invalid token provided",
    "Invalid token provided",
  ],
  [
    "AUTH-10",
    "a token without a signature",
    room,
    withToken({}, secret, "none"),
    "Invalid token provided",
    "Invalid token provided",
  ],
  ["AUTH-10", "a token signed with HS512", room, withToken({}, secret, "HS512"), ok, ok],
  [
    "AUTH-11",
    "a token of an expired key",
    room,
    withToken({ keyId: "PSIDover" }),
    "Expired key",
    "Expired key",
  ],
  [
    "AUTH-12",
    "a token for a channel below",
    room,
    withToken({ channel: `${room}/a` }),
    "Token does not match channel",
    "Token does not match channel",
  ],
  [
    "AUTH-12",
    "a token without a channel",
    room,
    withToken({ channel: undefined, sub: false }),
    "Token does not match channel",
    "Token does not match channel",
  ],
  ["AUTH-12", "a token for a pattern", room, withToken({ channel: `/${appId}/private/*` }), ok, ok],
  [
    "AUTH-13",
    "a token without sub",
    room,
    withToken({ sub: false }),
    "Token does not allow subscribing",
    ok,
  ],
  [
    "AUTH-13",
    "a token whose sub is a text",
    room,
    withToken({ sub: "true" }),
    "Token does not allow subscribing",
    ok,
  ],
  [
    "AUTH-14",
    "a token without pub",
    room,
    withToken({ pub: undefined }),
    ok,
    "Token does not allow publishing",
  ],
  [
    "AUTH-14",
    "a token whose pub is a number",
    room,
    withToken({ pub: 1 }),
    ok,
    "Token does not allow publishing",
  ],
  ["AUTH-14", "a key with its secret", room, keyAuth.auth, ok, ok],
];

describe.each(transports)("over %s", (_name, connect) => {
  test.each(rows)("[%s] %s", async (_rule, _what, channel, auth, ...expected) => {
    const peer = await connect(server);
    const ext = { auth };
    const subscribed = await peer.subscribe(channel, ext);
    const published = await peer.publish(channel, 1, ext);
    const results = [subscribed, published].map(({ successful, error }) => error ?? successful);
    expect(results).toEqual(expected.map((text) => (text === ok ? true : text)));
    for (const reply of [subscribed, published]) {
      expect(JSON.stringify(reply)).not.toContain(secret);
      expect(JSON.stringify(reply)).not.toContain("eyJ");
      expect(reply).not.toHaveProperty("advice");
    }
    if (expected[1] === ok) {
      // Over REST the same credentials do the same.
      const { token: jwt, key } = auth as { token?: string; key?: string };
      const headers = {
        "Content-Type": "application/json",
        Authorization: `Token ${jwt}`,
      };
      if (key !== undefined) return;
      const answer = await http(server, `/channel${channel}`, {
        method: "POST",
        headers,
        body: "1",
      });
      expect(answer.status).toBe(200);
    }
  });

  test("[AUTH-15] a publish takes ext.auth first, then data.__auth; a subscribe ext.auth only", async () => {
    const peer = await connect(server);
    const good = keyAuth.auth;
    const bad = { key: keyId, secret: "wrong" };
    const publish = async (data: object, ext?: object) =>
      (await peer.ask({ channel: room, data, ...(ext === undefined ? {} : { ext }) })).error;
    expect(await publish({ __auth: good })).toBeUndefined();
    expect(await publish({ __auth: bad })).toBe("Invalid secret");
    expect(await publish({ __auth: bad }, { auth: good })).toBeUndefined();
    expect(await publish({ __auth: good }, { auth: bad })).toBe("Invalid secret");
    const reply = await peer.ask({
      channel: "/meta/subscribe",
      subscription: room,
      data: { __auth: good },
    });
    expect(reply.error).toBe("No auth supplied");
  });

  test("[AUTH-15] no field of a message opens a door", async () => {
    const peer = await connect(server);
    const message = {
      channel: "/meta/subscribe",
      subscription: room,
      __internal: { applicationId: appId },
      ext: { internalToken: "x", __internal: true },
    };
    expect((await peer.ask(message)).error).toBe("No auth supplied");
  });

  test("[AUTH-18] a revoked key ends its subscriptions, and no others, and says so", async () => {
    const peer = await connect(server);
    const id = `PSIDrevoked${peer.clientId}` as KeyId;
    const key = { id, secret, appId: appId as AppId, createdBy: "test", purpose: null };
    await server.store.addKey({ ...key, expires: null });
    const [byKey, byToken, open, other] = [
      freshChannel("private"),
      freshChannel("private"),
      freshChannel(),
      freshChannel("private"),
    ];
    const auth = { key: id, secret };
    expect((await peer.subscribe(byKey, { auth })).successful).toBe(true);
    const jwt = token({ keyId: id, channel: byToken, sub: true });
    expect((await peer.subscribe(byToken, { auth: { token: jwt } })).successful).toBe(true);
    await peer.subscribe(open, { auth });
    await peer.subscribe(other, keyAuth);
    await server.store.removeKey(appId as AppId, id);
    await server.keys.changed();
    const ended = [await peer.event(), await peer.event()];
    expect(ended).toEqual(
      [byKey, byToken].map((subscription) => ({
        channel: "/meta/subscribe",
        clientId: peer.clientId,
        subscription,
        successful: false,
        error: "Revoked key",
      })),
    );
    for (const channel of [byKey, byToken]) await peer.publish(channel, "not heard");
    await peer.publish(open, "heard");
    await peer.publish(other, "heard too");
    expect([(await peer.event()).data, (await peer.event()).data]).toEqual(["heard", "heard too"]);
    expect((await peer.publish(open, 1, { auth })).error).toBe("Could not find key");
    expect((await peer.subscribe(byKey, { auth })).error).toBe("Could not find key");
  });

  test("[SUB-3] a subscription rests on the key that permitted it last", async () => {
    const peer = await connect(server);
    const id = `PSIDfirst${peer.clientId}` as KeyId;
    const key = { id, secret, appId: appId as AppId, createdBy: "test", purpose: null };
    await server.store.addKey({ ...key, expires: null });
    const channel = freshChannel("private");
    await peer.subscribe(channel, { auth: { key: id, secret } });
    await peer.subscribe(channel, keyAuth);
    await server.store.removeKey(appId as AppId, id);
    await server.keys.changed();
    await peer.publish(channel, "still heard");
    expect((await peer.event()).data).toBe("still heard");
  });

  test("[AUTH-18] a deleted application ends all subscriptions in it, the public ones too", async () => {
    const peer: Peer = await connect(server);
    const id = `gone${Math.random().toString(36).slice(2)}` as AppId;
    await server.store.addApplication({ id, name: "gone", createdBy: "test" });
    const subscription = `/${id}/public/a`;
    expect((await peer.subscribe(subscription)).successful).toBe(true);
    await server.store.removeApplication(id);
    await server.keys.changed();
    expect(await peer.event()).toEqual({
      channel: "/meta/subscribe",
      clientId: peer.clientId,
      subscription,
      successful: false,
      error: "Unknown application",
    });
    expect((await peer.subscribe(subscription)).error).toBe("Unknown application");
  });

  test("[AUTH-18] a key that expires refuses from that moment on", async () => {
    const peer = await connect(server);
    const id = `PSIDshort${peer.clientId}` as KeyId;
    await server.store.addKey({
      id,
      secret,
      appId: appId as AppId,
      createdBy: "test",
      purpose: null,
      expires: new Date(Date.now() + 1_500),
    });
    const auth = { key: id, secret };
    const channel = freshChannel();
    let reply = await peer.publish(channel, 1, { auth });
    expect(reply.successful).toBe(true);
    while (reply.successful === true) reply = await peer.publish(channel, 1, { auth });
    expect(reply.error).toBe("Expired key");
  });

  test("[AUTH-16] a key works as soon as it exists", async () => {
    const peer = await connect(server);
    const id = `PSIDnew${peer.clientId}` as KeyId;
    await server.store.addKey({
      id,
      secret,
      appId: appId as AppId,
      createdBy: "test",
      purpose: null,
      expires: null,
    });
    const reply = await peer.publish(freshChannel(), 1, { auth: { key: id, secret } });
    expect(reply.successful).toBe(true);
  });
});

test("[AUTH-17] tenants are separate: a key opens its own application only", async () => {
  const socket = await Socket.connect(server);
  const otherAuth = { auth: { key: "PSIDother", secret } };
  expect((await socket.publish("/other/public/a", 1, otherAuth)).successful).toBe(true);
  expect((await socket.publish("/other/public/a", 1)).error).toBe("Could not find key");
  const wide = { auth: { token: token({ channel: "/other/private/a", sub: true }) } };
  expect((await socket.subscribe("/other/private/a", wide)).error).toBe("Could not find key");
  const own = freshChannel();
  await socket.subscribe([own, "/other/public/a"]);
  const batch = [
    { channel: "/other/public/a", data: "theirs", ext: otherAuth },
    { channel: own, data: "ours", ext: keyAuth },
  ];
  await postText(server, JSON.stringify(batch));
  const heard = [await socket.event(), await socket.event()].map(({ channel, data }) => [
    channel,
    data,
  ]);
  expect(heard.sort()).toEqual(
    [
      ["/other/public/a", "theirs"],
      [own, "ours"],
    ].sort(),
  );
});
