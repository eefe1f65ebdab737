/** SUB, UNSUB, CH: who hears what. */
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import {
  appId,
  keyAuth,
  Poller,
  Socket,
  startTestServer,
  type TestServer,
  token,
} from "../harness.js";
import { eventsBefore, freshChannel, transports } from "./peers.js";

let server: TestServer;
beforeAll(async () => {
  server = await startTestServer({ MAX_SUBSCRIPTIONS_PER_SESSION: "1000" });
});
afterAll(() => server.close());

describe.each(transports)("over %s", (_name, connect) => {
  test.each([
    [{}, "402:subscription:Missing required parameter"],
    [{ subscription: "" }, "402:subscription:Missing required parameter"],
    [{ subscription: null }, "402:subscription:Missing required parameter"],
    [{ subscription: "", clientId: "nobody" }, "402:subscription:Missing required parameter"],
    [{ subscription: "/x y", clientId: "" }, "402:clientId:Missing required parameter"],
    [{ subscription: "/x y", clientId: "nobody" }, "401:nobody:Unknown client"],
  ])("[SUB-1] [UNSUB-1] %j is refused with %s", async (fields, error) => {
    const peer = await connect(server);
    for (const channel of ["/meta/subscribe", "/meta/unsubscribe"]) {
      const reply = await peer.ask({ channel, ...fields });
      const clientId = "clientId" in fields ? fields.clientId : peer.clientId;
      expect(reply).toEqual({
        id: reply.id,
        ...(clientId ? { clientId } : {}),
        channel,
        successful: false,
        error,
        subscription: ("subscription" in fields && fields.subscription) || [],
        ext: { detail: expect.any(String) },
      });
    }
  });

  test("[SUB-1] the subscription is repeated as it was sent", async () => {
    const peer = await connect(server);
    for (const subscription of [
      freshChannel(),
      [freshChannel()],
      [],
      [freshChannel(), freshChannel()],
    ]) {
      for (const channel of ["/meta/subscribe", "/meta/unsubscribe"]) {
        const reply = await peer.ask({ channel, subscription });
        expect(reply).toEqual({
          id: reply.id,
          clientId: peer.clientId,
          channel,
          successful: true,
          subscription,
        });
      }
    }
  });

  test.each([
    "/x",
    "/",
    "x",
    "/x/public/a b",
    `/${appId}`,
    `/${appId}/`,
    `/${appId}/*`,
    `/${appId}/**`,
    `/${appId}/other/a`,
    `/${appId}/public/`,
    `/${appId}/public//a`,
    `/${appId}/public/a/`,
    `/${appId}/public/*/a`,
    `/${appId}/public/**/a`,
    `/${appId}/public/a*`,
    `/${appId}/public/***`,
    `/${appId}/public/a!b`,
    `/${appId}/public/a.b`,
    `/${appId}/public/é`,
    `/${appId}/public/%41`,
    `/${appId}/public/a\n`,
    "/**",
    "/*",
    "/service/x",
    "/meta/subscribe",
  ])("[SUB-5] subscribing to %j is refused by name, without advice", async (subscription) => {
    const peer = await connect(server);
    const reply = await peer.subscribe(subscription, keyAuth);
    expect(reply).toEqual({
      id: reply.id,
      clientId: peer.clientId,
      channel: "/meta/subscribe",
      successful: false,
      error: "Invalid channel name",
      subscription,
      ext: { detail: expect.any(String) },
    });
  });

  test("[SUB-2] what is published after the reply is heard", async () => {
    const publisher = await Socket.open(server);
    const peer = await connect(server);
    for (let round = 0; round < 20; round++) {
      const channel = freshChannel();
      await peer.subscribe(channel);
      await publisher.publish(channel, round);
      expect((await peer.event(channel)).data).toBe(round);
    }
  });

  test("[SUB-4] an array is worked from left to right until the first refusal", async () => {
    const peer = await connect(server);
    const [first, second] = [freshChannel(), freshChannel()];
    for (const [bad, error] of [
      ["/bad*", "Invalid channel name"],
      [5, "Invalid channel name"],
      [null, "Invalid channel name"],
      [freshChannel("private"), "No auth supplied"],
    ]) {
      const subscription = [first, bad, second];
      const reply = await peer.ask({ channel: "/meta/subscribe", subscription });
      expect(reply).toMatchObject({ successful: false, error, subscription });
      await peer.publish(second, "not heard");
      await peer.publish(first, "heard");
      expect((await peer.event()).data).toBe("heard");
      await peer.ask({ channel: "/meta/unsubscribe", subscription: first });
    }
  });

  test("[SUB-4] an array may be authorised by one token for all", async () => {
    const peer = await connect(server);
    const base = freshChannel("private");
    const auth = { token: token({ channel: `${base}/*`, sub: true }) };
    expect((await peer.subscribe([`${base}/a`, `${base}/b`], { auth })).successful).toBe(true);
    const reply = await peer.subscribe([`${base}/c`, freshChannel("private")], { auth });
    expect(reply.error).toBe("Token does not match channel");
    await peer.publish(`${base}/c`, 1);
    expect((await peer.event()).data).toBe(1);
  });

  test("[SUB-6] a client without any connect yet may subscribe", async () => {
    const poller = await Poller.connect(server);
    expect((await poller.subscribe(freshChannel())).successful).toBe(true);
  });

  test("[CH-3] [CH-4] * hears one segment more, ** any number, neither the path itself", async () => {
    const base = freshChannel();
    const marker = freshChannel();
    const publisher = await Socket.open(server);
    const heard = async (pattern: string): Promise<unknown[]> => {
      const peer = await connect(server);
      await peer.subscribe([pattern, marker]);
      for (const path of ["", "/foo", "/foo/bar", "/foo/bar/baz"]) {
        await publisher.publish(`${base}${path}`, path);
      }
      await publisher.publish(`${base}yz/foo`, "a neighbour's");
      await publisher.publish(marker, 0);
      return (await eventsBefore(peer, marker)).map(({ data }) => data);
    };
    expect(await heard(`${base}/*`)).toEqual(["/foo"]);
    expect(await heard(`${base}/**`)).toEqual(["/foo", "/foo/bar", "/foo/bar/baz"]);
    expect(await heard(base)).toEqual([""]);
    expect(await heard(`${base}/foo/*`)).toEqual(["/foo/bar"]);
    expect(await heard(`${base}/foo/**`)).toEqual(["/foo/bar", "/foo/bar/baz"]);
    expect(await heard(`/${appId}/public/**`)).toEqual([
      "",
      "/foo",
      "/foo/bar",
      "/foo/bar/baz",
      "a neighbour's",
    ]);
    expect(await heard(`/${appId}/public/*`)).toEqual([""]);
  });

  test("[CH-5] a name may have 512 characters and 32 segments, no more", async () => {
    const peer = await connect(server);
    const long = (length: number) => `/${appId}/public/`.padEnd(length, "x");
    const deep = (segments: number) => `/${appId}/public${"/x".repeat(segments - 2)}`;
    expect((await peer.subscribe(long(512))).successful).toBe(true);
    expect((await peer.subscribe(long(513))).error).toBe("Invalid channel name");
    expect((await peer.subscribe(deep(32))).successful).toBe(true);
    expect((await peer.subscribe(deep(33))).error).toBe("Invalid channel name");
    expect((await peer.publish(deep(32), 1)).successful).toBe(true);
    expect((await peer.publish(deep(33), 1)).error).toBe("Invalid channel name");
    expect((await peer.event()).channel).toBe(deep(32));
  });

  test("[UNSUB-2] unsubscribing ends delivery, and is a success when there was nothing to end", async () => {
    const peer = await connect(server);
    const [channel, marker] = [freshChannel(), freshChannel()];
    const unsubscribe = (subscription: unknown) =>
      peer.ask({ channel: "/meta/unsubscribe", subscription });
    await peer.subscribe([channel, marker]);
    await peer.publish(channel, 1);
    expect((await peer.event()).data).toBe(1);
    expect((await unsubscribe(channel)).successful).toBe(true);
    await peer.publish(channel, 2);
    await peer.publish(marker, 3);
    expect((await peer.event()).data).toBe(3);
    for (const nothing of [channel, freshChannel("private"), "/x", "/**", []]) {
      expect(await unsubscribe(nothing)).toMatchObject({ successful: true, subscription: nothing });
    }
    await peer.subscribe(channel);
    await peer.publish(channel, 4);
    expect((await peer.event()).data).toBe(4);
  });

  test("[UNSUB-2] a pattern is a subscription of its own", async () => {
    const peer = await connect(server);
    const base = freshChannel();
    await peer.subscribe([`${base}/**`, `${base}/a`]);
    await peer.ask({ channel: "/meta/unsubscribe", subscription: `${base}/**` });
    await peer.publish(`${base}/b`, "not heard");
    await peer.publish(`${base}/a`, "heard");
    expect((await peer.event()).data).toBe("heard");
  });

  test.each([
    ["x", "405:x:Invalid channel"],
    ["/", "405:/:Invalid channel"],
    ["/a*", "405:/a*:Invalid channel"],
    ["/a/**/b", "405:/a/**/b:Invalid channel"],
    ["/a b", "405:/a b:Invalid channel"],
    ["/meta/connect/", "405:/meta/connect/:Invalid channel"],
    ["/meta/connect", "403:/meta/connect:Forbidden channel"],
    ["/meta/**", "403:/meta/**:Forbidden channel"],
    ["/service/a", "403:/service/a:Forbidden channel"],
    ["/service/*", "403:/service/*:Forbidden channel"],
  ])("[UNSUB-3] unsubscribing from %j is refused with %s", async (subscription, error) => {
    const peer = await connect(server);
    const reply = await peer.ask({ channel: "/meta/unsubscribe", subscription });
    expect(reply).toMatchObject({ successful: false, error, subscription });
    expect(reply).not.toHaveProperty("advice");
  });
});

test("[LIM-5] a session has a limited number of subscriptions, known ones may be repeated", async () => {
  const socket = await Socket.connect(server);
  const names = Array.from({ length: 1_000 }, (_, index) => `/${appId}/public/many/${index}`);
  expect((await socket.subscribe(names)).successful).toBe(true);
  const [first = ""] = names;
  expect((await socket.subscribe(first)).successful).toBe(true);
  const refused = await socket.subscribe(`/${appId}/public/many/more`);
  expect(refused.error).toBe("Too many subscriptions in this session");
  expect((refused.ext as { detail: string }).detail).toContain("1000");
  await socket.ask({ channel: "/meta/unsubscribe", subscription: first });
  expect((await socket.subscribe(`/${appId}/public/many/more`)).successful).toBe(true);
});
