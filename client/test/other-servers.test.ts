/** What a client makes of servers that do what Pandapush does not. */
import type { Message } from "pandapush-client";
import { afterEach, describe, expect, test } from "vitest";
import { Inbox } from "../../e2e/waiting.js";
import { closeClients, comeBackSoon, failure, newClient, tap, transports } from "./clients.js";
import { type Answer, FakeServer } from "./fake-server.js";

comeBackSoon();

let server: FakeServer | undefined;
afterEach(async () => {
  await closeClients();
  await server?.stop();
  server = undefined;
});

async function start(answer?: Answer): Promise<FakeServer> {
  server = await FakeServer.start(answer);
  return server;
}

const isHandshake = ({ channel }: Message) => channel === "/meta/handshake";
const refusedWith = (usual: Message, error: string, advice?: Message["advice"]): Message => ({
  ...usual,
  successful: false,
  error,
  ...(advice && { advice }),
});

describe.each(transports)("over %s", (transport) => {
  test("a refusal that begins with 401 is a refusal, and the session goes on", async () => {
    const { log, url } = await start(({ channel, subscription }, usual) =>
      channel === "/secret" || subscription === "/secret"
        ? refusedWith(usual, "401::Log in first")
        : undefined,
    );
    const client = newClient(url, transport);
    await client.subscribe("/open");
    for (const refused of [client.subscribe("/secret"), client.publish("/secret", 1)]) {
      expect(await failure(refused)).toMatchObject({ code: 401, message: "Log in first" });
    }
    await client.publish("/open", 1);
    expect(log.filter(isHandshake)).toHaveLength(1);
  });

  test("a connect that is refused for the moment is sent again, and the session goes on", async () => {
    let refused = 0;
    const { log, url } = await start(({ channel }, usual) =>
      channel === "/meta/connect" && refused++ < 3
        ? refusedWith(usual, "503:session1:Service unavailable", {
            reconnect: "retry",
            interval: 10,
          })
        : undefined,
    );
    const client = newClient(url, transport);
    await client.subscribe("/a");
    await expect.poll(() => refused, { timeout: 10_000 }).toBeGreaterThan(3);
    await client.publish("/a", 1);
    expect(log.filter(isHandshake)).toHaveLength(1);
  });

  test.each([
    ["Faye's", "401:session1:Unknown client", undefined],
    ["CometD's", "402::session_unknown", { reconnect: "handshake" }],
  ])("%s word for a session that is unknown begins a new one", async (_, error, advice) => {
    const { log, url } = await start(({ channel, clientId }, usual) =>
      clientId === "session1" && (channel === "/late" || usual.subscription === "/late")
        ? refusedWith(usual, error, advice)
        : undefined,
    );
    const client = newClient(url, transport);
    const events = new Inbox<string>("event");
    await client.subscribe("/early").on("resubscribed", () => events.push("resubscribed"));
    await client.publish("/late", 1);
    await client.subscribe("/late");
    expect(await events.next()).toBe("resubscribed");
    expect(log.filter(isHandshake)).toHaveLength(2);
  });

  test("connects that are answered at once, with nothing, come about once a second", async () => {
    const { received, url } = await start(({ channel }, usual) =>
      channel === "/meta/connect" ? usual : undefined,
    );
    newClient(url, transport).connect();
    const isConnect = ({ channel }: Message) => channel === "/meta/connect";
    await received.upTo(isConnect);
    const startedAt = performance.now();
    await received.upTo(isConnect);
    await received.upTo(isConnect);
    expect(performance.now() - startedAt).toBeGreaterThan(1_500);
  });

  test("advice of a connect that succeeds is obeyed: a handshake", async () => {
    const { received, url } = await start(({ channel, clientId }, usual) =>
      channel === "/meta/connect" && clientId === "session1"
        ? { ...usual, advice: { reconnect: "handshake" } }
        : undefined,
    );
    const client = newClient(url, transport);
    const { in: incoming } = tap(client);
    client.connect();
    await received.upTo(isHandshake);
    await received.upTo(isHandshake);
    await incoming.upTo(({ clientId }) => clientId === "session2");
    await client.subscribe("/a");
  });

  test("advice of a connect that succeeds is obeyed: to stay away", async () => {
    const { url } = await start(({ channel }, usual) =>
      channel === "/meta/connect" ? { ...usual, advice: { reconnect: "none" } } : undefined,
    );
    const client = newClient(url, transport);
    const states = new Inbox<string>("state");
    client.on("state", (state) => states.push(state));
    client.connect();
    await states.upTo((state) => state === "disconnected");
    expect((await failure(client.publish("/a", 1))).reason).toBe("disconnected");
  });

  test('a handshake whose success is "false" is refused', async () => {
    let isFaulty = true;
    const { url } = await start(({ channel }, usual) => {
      const wasFaulty = isFaulty && channel === "/meta/handshake";
      if (wasFaulty) isFaulty = false;
      return wasFaulty ? ({ ...usual, successful: "false" } as unknown as Message) : undefined;
    });
    const client = newClient(url, transport);
    const refusals = new Inbox<Error>("refusal");
    client.on("refused", (error) => refusals.push(error));
    await client.subscribe("/a");
    expect((await refusals.next()).message).toBe("The server gave no reason");
  });

  test("events whose publisher gives all of them the same id are all heard", async () => {
    const event = (data: number): Message => ({ channel: "/a", data, id: "price-ticker" });
    let connects = 0;
    const { url } = await start(({ channel, advice }, usual) =>
      channel === "/meta/connect" && advice?.timeout !== 0 && ++connects <= 3
        ? [usual, event(connects)]
        : undefined,
    );
    const heard = new Inbox<unknown>("message");
    const client = newClient(url, transport);
    client.subscribe("/a", (data) => heard.push(data));
    for (const n of [1, 2, 3]) expect(await heard.next()).toBe(n);
  });

  test.each([[null], ["text"], [{ subscribe: null }], [[]]])(
    "%j for who is present is nobody",
    async (presence) => {
      const { url } = await start(({ channel }, usual) =>
        channel === "/meta/subscribe"
          ? ({ ...usual, ext: { presence } } as unknown as Message)
          : undefined,
      );
      const room = newClient(url, transport).presence("/app/presence/x", "token");
      await room;
      expect(room.members.size).toBe(0);
    },
  );

  test("what became of a subscribe before a short loss of the connection is asked in order", async () => {
    let isFirst = true;
    const fake = await start(({ subscription }) => {
      if (subscription !== "/a" || !isFirst) return undefined;
      isFirst = false;
      // The answer gets lost.
      return null;
    });
    const client = newClient(fake.url, transport);
    await client.subscribe("/ready");
    const first = client.subscribe("/a");
    await fake.received.upTo(({ subscription }) => subscription === "/a");
    const down = new Promise<void>((resolve) => client.once("transport:down", resolve));
    fake.cut();
    await down;
    first.cancel();
    await client.subscribe("/a");
    expect(fake.names.filter((name) => name.endsWith("/a"))).toEqual([
      "/meta/subscribe of /a",
      "/meta/subscribe of /a",
      "/meta/unsubscribe of /a",
      "/meta/subscribe of /a",
    ]);
    expect(fake.log.filter(isHandshake)).toHaveLength(1);
  });

  test("a subscription that was ended hears nothing, though another of the channel does", async () => {
    const ended = { channel: "/meta/subscribe", subscription: "/a", successful: false };
    const { url } = await start(({ data }, usual) => {
      if (data === "end") return [usual, ended];
      // As if somebody had published it.
      return data === "marker" ? [usual, { channel: "/a", data }] : undefined;
    });
    const client = newClient(url, transport);
    const heard = new Inbox<string>("message or event");
    const first = client.subscribe("/a", () => heard.push("first"));
    first.on("refused", () => heard.push("refused"));
    await first;
    await client.publish("/b", "end");
    expect(await heard.next()).toBe("refused");
    await client.subscribe("/a", () => heard.push("second"));
    await client.publish("/b", "marker");
    expect(await heard.next()).toBe("second");
  });
});
