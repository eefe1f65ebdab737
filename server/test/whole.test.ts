import { afterAll, beforeAll, expect, test } from "vitest";
import {
  appId,
  keyId,
  Poller,
  Socket,
  secret,
  startTestServer,
  type TestServer,
} from "./harness.js";

let server: TestServer;
beforeAll(async () => {
  server = await startTestServer();
});
afterAll(() => server.close());

test("what curl publishes reaches a WebSocket and a long-polling subscriber, unchanged", async () => {
  const channel = `/${appId}/public/orders`;
  const socket = await Socket.connect(server);
  const poller = await Poller.connect(server);
  expect((await socket.subscribe(channel)).successful).toBe(true);
  expect((await poller.subscribe(channel)).successful).toBe(true);
  const poll = poller.poll();
  const body = '{"b":1.50,"a":"\\u00e9\u2028☃","big":12345678901234567890}';
  const response = await fetch(`${server.url}/channel${channel}`, {
    method: "POST",
    headers: {
      Authorization: `Basic ${Buffer.from(`${keyId}:${secret}`).toString("base64")}`,
      "Content-Type": "application/json",
    },
    body,
  });
  expect([response.status, await response.text()]).toEqual([200, "OK"]);
  const event = await socket.event(channel);
  expect(socket.frames.at(-1)).toContain(`"data":${body}`);
  const [reply, polled] = await poll;
  expect(reply).toMatchObject({ channel: "/meta/connect", successful: true });
  expect(polled).toEqual(event);
  expect(server.logged).toEqual([]);
});
