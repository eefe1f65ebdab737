/** Clients that send as much as they can in one go: what they cost those beside them. */
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { appId, keyAuth, Socket } from "../harness.js";
import { type ChildServer, startChildServer } from "./child.js";
import { clientFrame, RawSocket } from "./raw.js";

let server: ChildServer;
beforeAll(async () => {
  server = await startChildServer();
});
afterAll(() => server.stop());

const channel = `/${appId}/public/flooded`;
const junk = Array.from({ length: 900 }, () => ({}));
/** Each costs the server some milliseconds, and shows when it was done. */
const batch = JSON.stringify([...junk, { channel, data: "of the flood", ext: keyAuth }]);

function post(body: string): Buffer {
  return Buffer.from(
    `POST /push HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: ${body.length}\r\n\r\n${body}`,
  );
}

const floods = {
  "WebSocket frames": { open: () => RawSocket.upgrade(server), sent: clientFrame(batch) },
  "pipelined polls": { open: () => RawSocket.open(server), sent: post(batch) },
};
const flooders = 8;
const batches = 600;

describe("thousands of messages in one write", () => {
  test.each(Object.entries(floods))(
    "%s: several such clients do not keep the others waiting",
    async (_what, { open, sent }) => {
      const listener = await Socket.connect(server);
      await listener.subscribe(channel);
      const flood = Buffer.concat(Array.from({ length: batches }, () => sent));
      const sockets: RawSocket[] = [];
      for (let i = 0; i < flooders; i++) sockets.push(await open());
      const socket = await Socket.connect(server);
      const poll = await RawSocket.open(server);
      // All in one go, the flood first: however busy the machine is, the server finds it so.
      for (const each of sockets) each.write(flood);
      poll.write(post(JSON.stringify([{ channel, data: "by a poll", ext: keyAuth }])));
      socket.send({ channel, data: "by a frame", ext: keyAuth });
      const waited = new Set(["by a poll", "by a frame"]);
      let before = 0;
      while (waited.size > 0) {
        const { data } = await listener.next((message) => message.channel === channel, 60_000);
        if (!waited.delete(String(data))) before++;
      }
      // Not even one of them was done with before, of eight.
      expect(before).toBeLessThan(batches / 2);
      for (const each of sockets) each.cut();
      socket.close();
      listener.close();
    },
    90_000,
  );

  test("are answered in their order, and do not overtake each other", async () => {
    const channel = `/${appId}/public/in-order`;
    const listener = await Socket.connect(server);
    await listener.subscribe(channel);
    const flooder = await RawSocket.upgrade(server);
    const frames = Array.from({ length: 60 }, (_, n) =>
      clientFrame(JSON.stringify([...junk, { channel, data: n, id: `${n}`, ext: keyAuth }])),
    );
    flooder.write(Buffer.concat(frames));
    for (let n = 0; n < 60; n++) {
      expect((await flooder.message(({ id }) => id !== undefined)).id).toBe(`${n}`);
    }
    for (let n = 0; n < 60; n++) expect((await listener.event(channel)).data).toBe(n);
    flooder.cut();
    listener.close();
  });
});
