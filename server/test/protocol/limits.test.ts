/** LIM: what a client cannot make the server keep. */
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { Poller, Socket, startTestServer, type TestServer } from "../harness.js";
import { freshChannel } from "./peers.js";

let server: TestServer;
beforeAll(async () => {
  server = await startTestServer({
    MAX_OUTBOX_MESSAGES: "5",
    MAX_OUTBOX_BYTES: "2000",
    MAX_BATCH_MESSAGES: "10",
  });
});
afterAll(() => server.close());

const connectMessage = { channel: "/meta/connect", connectionType: "long-polling" };

describe("[LIM-3] what waits for a session", () => {
  test("[LIM-3] is kept up to the limit", async () => {
    const channel = freshChannel();
    const poller = await Poller.connect(server);
    await poller.subscribe(channel);
    for (let count = 0; count < 5; count++) await new Poller(server).publish(channel, count);
    const [reply, ...events] = await poller.poll();
    expect(reply?.successful).toBe(true);
    expect(events.map(({ data }) => data)).toEqual([0, 1, 2, 3, 4]);
  });

  test.each([
    ["messages", Array.from({ length: 6 }, () => 1)],
    ["bytes", ["x".repeat(1_500), "x".repeat(1_500)]],
  ])("[LIM-3] ends it when there are too many %s", async (_what, payloads) => {
    const channel = freshChannel();
    const poller = await Poller.connect(server);
    const socket = await Socket.connect(server);
    await poller.subscribe(channel);
    await socket.subscribe(channel);
    for (const data of payloads) await new Poller(server).publish(channel, data);
    // Whoever has heard them all knows that the other one was given them too.
    for (const _ of payloads) await socket.event(channel);
    const reply = await poller.ask(connectMessage);
    expect(reply).toMatchObject({
      error: `401:${poller.clientId}:Unknown client`,
      advice: { reconnect: "handshake" },
    });
  });
});

test("[LIM-2] an array of subscriptions is as long as a batch at most", async () => {
  const poller = await Poller.connect(server);
  const names = (length: number) => Array.from({ length }, () => freshChannel());
  expect((await poller.subscribe(names(10))).successful).toBe(true);
  expect((await poller.subscribe(names(11))).error).toBe("Too many messages in one request");
});
