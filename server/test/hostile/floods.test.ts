/** Clients that send as much as they can in one go: what they cost those beside them. */
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { appId, keyAuth, Poller, Socket } from "../harness.js";
import { type ChildServer, startChildServer } from "./child.js";
import { clientFrame, RawSocket } from "./raw.js";

let server: ChildServer;
beforeAll(async () => {
  server = await startChildServer();
});
afterAll(() => server.stop());

/** Each costs the server some milliseconds. */
const batch = JSON.stringify(Array.from({ length: 900 }, () => ({})));
const request = `POST /push HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: ${batch.length}\r\n\r\n${batch}`;

const floods = {
  "WebSocket frames": { open: () => RawSocket.upgrade(server), sent: clientFrame(batch) },
  "pipelined polls": { open: () => RawSocket.open(server), sent: Buffer.from(request) },
};

describe("thousands of messages in one write", () => {
  test.each(Object.entries(floods))(
    "%s: several such clients do not keep the others waiting",
    async (_what, { open, sent }) => {
      const channel = `/${appId}/public/flooded`;
      const socket = await Socket.connect(server);
      await socket.subscribe(channel);
      const flood = Buffer.concat(Array.from({ length: 600 }, () => sent));
      const flooders: RawSocket[] = [];
      for (let i = 0; i < 8; i++) flooders.push(await open());
      for (const flooder of flooders) flooder.write(flood);
      await Promise.all(
        flooders.map((flooder) => flooder.until(() => flooder.received.length > 0)),
      );
      // Together they have sent work for many times the deadline of this test.
      const poller = await Poller.connect(server);
      await poller.publish(channel, "by a poll");
      await socket.publish(channel, "by a frame");
      expect((await socket.event(channel)).data).toBe("by a poll");
      expect((await socket.event(channel)).data).toBe("by a frame");
      for (const flooder of flooders) flooder.cut();
      socket.close();
    },
    8_000,
  );

  test("are answered in their order, and do not overtake each other", async () => {
    const channel = `/${appId}/public/in-order`;
    const listener = await Socket.connect(server);
    await listener.subscribe(channel);
    const flooder = await RawSocket.upgrade(server);
    const frames = Array.from({ length: 60 }, (_, n) =>
      clientFrame(
        JSON.stringify([...JSON.parse(batch), { channel, data: n, id: `${n}`, ext: keyAuth }]),
      ),
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
