/** Small requests must not cost much: neither in what is answered nor in what is kept of them. */
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { appId, keyAuth, type Message, Poller, Socket, token } from "../harness.js";
import { http } from "../protocol/peers.js";
import { type ChildServer, startChildServer } from "./child.js";
import { basicAuth, expectServes } from "./raw.js";

let server: ChildServer;
beforeAll(async () => {
  server = await startChildServer();
});
afterAll(async () => {
  await expectServes(server);
  await server.stop();
});

const megabyte = 1_000_000;

describe("a presence channel with a long list of members", () => {
  const about = "x".repeat(4_000);
  const join = (channel: string, id: string, more: object = {}): object => ({
    auth: { token: token({ channel, sub: true, presence: { id, ...more } }) },
  });
  const fill = async (channel: string, members: number): Promise<void> => {
    const socket = await Socket.open(server);
    for (let n = 0; n < members; n++) {
      socket.clientId = "";
      await socket.handshake();
      const { successful } = await socket.subscribe(channel, join(channel, `m${n}`, { about }));
      expect(successful).toBe(true);
    }
    socket.close();
  };
  const membersIn = ({ ext }: Message): string[] =>
    Object.keys((ext?.presence as { subscribe?: object } | undefined)?.subscribe ?? {});

  test("[SUB-3] is listed once, however often an array names it", async () => {
    const channel = `/${appId}/presence/often`;
    await fill(channel, 5);
    const socket = await Socket.connect(server);
    const names = Array.from({ length: 1_000 }, () => channel);
    const reply = await socket.subscribe(names, join(channel, "me"));
    expect(membersIn(reply).length).toBe(6);
    expect(reply.subscription).toEqual(names);
    // The names themselves, and the list once.
    const frame = socket.frames.find((text) => text.includes("presence"));
    expect(frame?.match(/"me":/g)).toHaveLength(1);
    expect(frame?.length).toBeLessThan(100_000);
    socket.close();
  });

  test("[LIM-7] is listed in the replies to one request only as often as these may hold", async () => {
    const channel = `/${appId}/presence/long`;
    await fill(channel, 100);
    const poller = await Poller.connect(server);
    const ext = join(channel, "me");
    const subscribe = { channel: "/meta/subscribe", subscription: channel, ext };
    const replies = await poller.post(Array.from({ length: 500 }, () => subscribe));
    const successes = replies.filter(({ successful }) => successful);
    // 400 kB each.
    expect(successes.length).toBe(7);
    expect(membersIn(successes[0] as Message).length).toBe(101);
    const refusals = replies.slice(7);
    expect(refusals.length).toBe(493);
    for (const { error, ext: more } of refusals) {
      expect(error).toBe("Too many messages in one request");
      expect(more?.detail).toContain("lists of members");
    }
    // Another request has its own measure.
    expect(membersIn(await poller.ask(subscribe)).length).toBe(101);
  });

  test("[LIM-7] does not keep who was refused as a member", async () => {
    const base = `/${appId}/presence/refused`;
    const channels = Array.from({ length: 9 }, (_, n) => `${base}/${n}`);
    for (const channel of channels) await fill(channel, 100);
    const poller = await Poller.connect(server);
    const reply = await poller.subscribe(channels, join(`${base}/*`, "me"));
    expect(reply.error).toBe("Too many messages in one request");
    const other = await Poller.connect(server);
    const last = await other.subscribe(`${base}/8`, join(`${base}/*`, "other"));
    expect(membersIn(last)).not.toContain("me");
    const first = await other.subscribe(`${base}/0`, join(`${base}/*`, "other"));
    expect(membersIn(first)).toContain("me");
  });
});

describe("what waits for a client", () => {
  const count = 300;
  const grown = async (publish: (channel: string) => Promise<void>): Promise<number> => {
    const channel = `/${appId}/public/kept`;
    const away = await Poller.connect(server);
    await away.subscribe(channel);
    // Once before, so that what the first requests leave behind is not counted.
    await publish(channel);
    const before = await server.measure();
    for (let n = 0; n < count; n++) await publish(channel);
    const after = await server.measure();
    const events = (await away.poll()).filter((message) => message.channel === channel);
    expect(events.length).toBe(count + 1);
    for (const { data } of events) expect(data).toBe("twenty characters...");
    await away.ask({ channel: "/meta/disconnect" });
    return after.heapUsed + after.external - before.heapUsed - before.external;
  };

  test("[LIM-3] keeps no more of a message than what is sent to it", async () => {
    const junk = "x".repeat(200_000);
    const socket = await Socket.open(server);
    const growth = await grown(async (channel) => {
      const ext = { ...keyAuth, mine: "twenty characters..." };
      await socket.ask({ channel, data: "twenty characters...", ext, junk });
    });
    socket.close();
    // 60 MB went through it.
    expect(growth).toBeLessThan(5 * megabyte);
  });

  test("[LIM-3] nor of what was wrapped in spaces or had a long query, over REST", async () => {
    const body = `${" ".repeat(200_000)}"twenty characters..."`;
    const headers = { Authorization: basicAuth, "Content-Type": "application/json" };
    const url = `http://127.0.0.1:${server.port}`;
    const query = `?x=${"x".repeat(8_000)}`;
    const growth = await grown(async (channel) => {
      const path = `/channel${channel}${query}`;
      const { status } = await http({ url }, path, { method: "POST", headers, body });
      expect(status).toBe(200);
    });
    expect(growth).toBeLessThan(5 * megabyte);
  });
});
