/** CON-11: the count by which a client knows whether it missed anything. */
import { afterAll, beforeAll, expect, test } from "vitest";
import {
  keyAuth,
  type Message,
  Poller,
  Socket,
  startTestServer,
  type TestServer,
} from "../harness.js";
import { freshChannel } from "./peers.js";

let server: TestServer;
beforeAll(async () => {
  server = await startTestServer();
});
afterAll(() => server.close());

const handshake = {
  channel: "/meta/handshake",
  version: "1.0",
  supportedConnectionTypes: ["websocket", "long-polling"],
};
const counting = { ...handshake, ext: { pandapush: { count: true } } };
const connect = { channel: "/meta/connect", connectionType: "websocket", advice: { timeout: 0 } };
const sentIn = (reply: Message | undefined): unknown =>
  (reply?.ext as { pandapush?: { sent?: unknown } } | undefined)?.pandapush?.sent;

async function publish(channel: string, count: number): Promise<void> {
  const poller = new Poller(server);
  const messages = Array.from({ length: count }, (_, data) => ({ channel, data, ext: keyAuth }));
  const replies = await poller.post(messages);
  expect(replies.every(({ successful }) => successful)).toBe(true);
}

test("[HS-6] who does not ask is told no count", async () => {
  const socket = await Socket.open(server);
  await socket.handshake();
  expect(await socket.ask(connect)).not.toHaveProperty("ext");
  socket.close();
});

test("[CON-11] over a WebSocket the count includes every event before the reply", async () => {
  const channel = freshChannel();
  const socket = await Socket.open(server);
  socket.clientId = (await socket.ask(counting)).clientId ?? "";
  await socket.subscribe(channel);
  // Queued from the subscribe on, they are written when the connect binds the socket.
  await publish(channel, 2);
  expect(sentIn(await socket.ask(connect))).toBe(2);
  await publish(channel, 3);
  for (let n = 0; n < 5; n++) await socket.event(channel);
  expect(sentIn(await socket.ask(connect))).toBe(5);
  socket.close();
});

test("[CON-11] a poll's count leaves out the events that follow it", async () => {
  const channel = freshChannel();
  const poller = new Poller(server);
  poller.clientId = (await poller.ask(counting)).clientId ?? "";
  await poller.subscribe(channel);
  await publish(channel, 3);
  const [first, ...events] = await poller.poll();
  expect(sentIn(first)).toBe(0);
  expect(events.map(({ data }) => data)).toEqual([0, 1, 2]);
  const [second] = await poller.poll({ advice: { timeout: 0 } });
  expect(sentIn(second)).toBe(3);
});

test("[CON-11] what an aborted poll did not deliver is not counted twice", async () => {
  const channel = freshChannel();
  const poller = new Poller(server);
  poller.clientId = (await poller.ask(counting)).clientId ?? "";
  await poller.subscribe(channel);
  const abort = new AbortController();
  const aborted = poller.poll({}, { signal: abort.signal }).catch(() => []);
  abort.abort();
  await aborted;
  await publish(channel, 2);
  let received = 0;
  let reply: Message | undefined;
  // The server may notice the abort only when it writes.
  while (received < 2) {
    const [head, ...events] = await poller.poll();
    reply = head;
    received += events.length;
  }
  expect(sentIn(reply)).toBe(0);
  expect(sentIn((await poller.poll({ advice: { timeout: 0 } }))[0])).toBe(2);
});

test("[CON-11] the end of a subscription counts, for no request asked for it", async () => {
  const socket = await Socket.open(server);
  socket.clientId = (await socket.ask(counting)).clientId ?? "";
  const app = await server.store.addApplication({ name: "short-lived", createdBy: "test" });
  await socket.subscribe(`/${app.id}/public/x`);
  socket.sendConnect();
  await server.store.removeApplication(app.id);
  await server.keys.changed();
  await socket.next(({ channel, successful }) => channel === "/meta/subscribe" && !successful);
  expect(sentIn(await socket.ask(connect))).toBe(1);
  socket.close();
});
