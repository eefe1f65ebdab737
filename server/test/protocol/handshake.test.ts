/** HS: how a client gets its session. */
import { afterAll, beforeAll, expect, test } from "vitest";
import { type Message, startTestServer, type TestServer } from "../harness.js";
import { postText } from "./peers.js";

let server: TestServer;
beforeAll(async () => {
  server = await startTestServer();
});
afterAll(() => server.close());

const allTypes = [
  "long-polling",
  "cross-origin-long-polling",
  "callback-polling",
  "websocket",
  "eventsource",
  "in-process",
];

async function handshake(fields: object): Promise<Message> {
  const request = { channel: "/meta/handshake", id: "1", ...fields };
  const [reply] = await postText(server, JSON.stringify([request]));
  return reply as Message;
}

test("[HS-1] version and one known connection type are enough", async () => {
  for (const fields of [
    { version: "1.0", supportedConnectionTypes: ["long-polling"] },
    { version: "2.0", supportedConnectionTypes: ["telepathy", "websocket"] },
    { version: 1, supportedConnectionTypes: allTypes, minimumVersion: "9" },
  ]) {
    expect(await handshake(fields)).toMatchObject({ successful: true });
  }
});

test("[HS-2] a success names the new client, all types and the timing", async () => {
  const request = { version: "1.0", supportedConnectionTypes: ["websocket"], clientId: "mine" };
  const reply = await handshake(request);
  expect(reply).toEqual({
    id: "1",
    channel: "/meta/handshake",
    successful: true,
    version: "1.0",
    supportedConnectionTypes: allTypes,
    clientId: expect.stringMatching(/^[a-z0-9]{32,}$/),
    advice: { reconnect: "retry", interval: 0, timeout: 30_000 },
  });
});

test("[HS-2] the advice tells the configured hold and interval", async () => {
  const own = await startTestServer({ BAYEUX_TIMEOUT_MS: "7000", BAYEUX_INTERVAL_MS: "250" });
  const request = {
    channel: "/meta/handshake",
    version: "1.0",
    supportedConnectionTypes: ["websocket"],
  };
  const [reply] = await postText(own, JSON.stringify(request));
  expect(reply?.advice).toEqual({ reconnect: "retry", interval: 250, timeout: 7_000 });
  await own.close();
});

test("[HS-3] every handshake makes another client, also in one batch", async () => {
  const request = {
    channel: "/meta/handshake",
    version: "1.0",
    supportedConnectionTypes: ["websocket"],
  };
  const replies = await postText(server, JSON.stringify([request, request]));
  const [first, second] = replies;
  expect(first?.clientId).not.toBe(second?.clientId);
  const messages = replies.map(({ clientId }) => ({ channel: "/meta/disconnect", clientId }));
  const ended = await postText(server, JSON.stringify(messages));
  expect(ended.map(({ successful }) => successful)).toEqual([true, true]);
});

test.each([
  [{}, "402:supportedConnectionTypes:Missing required parameter"],
  [{ version: "1.0" }, "402:supportedConnectionTypes:Missing required parameter"],
  [{ version: "1.0", supportedConnectionTypes: [] }, "301::Connection types not supported"],
  [
    { version: "1.0", supportedConnectionTypes: ["a", "b"] },
    "301:a,b:Connection types not supported",
  ],
  [{ supportedConnectionTypes: ["a"] }, "301:a:Connection types not supported"],
  [{ supportedConnectionTypes: ["websocket"] }, "402:version:Missing required parameter"],
  [
    { version: "", supportedConnectionTypes: ["websocket"] },
    "402:version:Missing required parameter",
  ],
])("[HS-4] %j is refused with %s", async (fields, error) => {
  expect(await handshake(fields)).toMatchObject({ id: "1", successful: false, error });
});

test("[HS-5] a refused client is told to wait for seconds, each another while", async () => {
  const replies = await Promise.all(
    Array.from({ length: 20 }, () => handshake({ clientId: "mine" })),
  );
  const intervals = replies.map(({ advice }) => advice?.interval ?? 0);
  for (const reply of replies) {
    expect(reply).toEqual({
      id: "1",
      clientId: "mine",
      channel: "/meta/handshake",
      successful: false,
      version: "1.0",
      supportedConnectionTypes: allTypes,
      error: "402:supportedConnectionTypes:Missing required parameter",
      advice: { reconnect: "handshake", interval: expect.any(Number) },
      ext: { detail: expect.any(String) },
    });
  }
  expect(Math.min(...intervals)).toBeGreaterThanOrEqual(1_000);
  expect(new Set(intervals).size).toBeGreaterThan(1);
});
