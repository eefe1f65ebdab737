import { Client, type ClientState } from "pandapush-client";
import { afterAll, afterEach, beforeAll, describe, expect, test, vi } from "vitest";
import { freshChannel, publish } from "../../e2e/deployment.js";
import { Inbox } from "../../e2e/waiting.js";
import {
  closeClients,
  comeBackSoon,
  expiredTokenFor,
  failure,
  newClient,
  tap,
  tokenFor,
  transports,
} from "./clients.js";
import { freePort, type Server, startServer } from "./server.js";
import { Wire } from "./wire.js";

let server: Server;
let wire: Wire;
beforeAll(async () => {
  comeBackSoon();
  server = await startServer({ STATISTICS_INTERVAL_MS: "50" });
  wire = await Wire.to(server.url);
});
afterAll(async () => {
  await wire?.close();
  await server?.stop();
});
afterEach(async () => {
  wire.mend();
  await closeClients();
});

/** A client's own events in order. */
function eventsOf(client: Client): Inbox<string> {
  const events = new Inbox<string>("event of the client");
  client.on("transport:up", () => events.push("up"));
  client.on("transport:down", () => events.push("down"));
  client.on("state", (state) => events.push(state));
  return events;
}

describe.each(transports)("a session over %s", (transport) => {
  test("T49 a subscription whose new token is refused says so, and asks again with the next session", async () => {
    const channel = freshChannel(server, "private");
    const client = newClient(server.push, transport);
    const [events, heard] = [new Inbox<string>("event"), new Inbox<unknown>("message")];
    const tokens = [
      tokenFor(server, channel),
      expiredTokenFor(server, channel),
      tokenFor(server, channel),
    ];
    let asked = 0;
    const subscription = client
      .subscribeTo(
        channel,
        () => tokens[asked++],
        (data) => heard.push(data),
      )
      .on("subscribed", () => events.push("subscribed"))
      .on("resubscribed", () => events.push("resubscribed"))
      .on("refused", (error) => events.push(`refused: ${error.message}`));
    await subscription;
    expect(await events.next()).toBe("subscribed");
    await server.restart("SIGKILL");
    expect(await events.next()).toBe("refused: Invalid token provided");
    expect(subscription.state).toBe("refused");
    expect(asked).toBe(2);
    await server.restart("SIGTERM");
    expect(await events.next()).toBe("resubscribed");
    expect(subscription.state).toBe("subscribed");
    expect(asked).toBe(3);
    await publish(server, channel, 1);
    expect(await heard.next()).toBe(1);
    // The promise told of the first answer only.
    expect(await subscription).toBeUndefined();
  });

  test("a subscription made while there is no connection shows a token of the moment when there is", async () => {
    const channel = freshChannel(server, "private");
    const client = newClient(`${wire.url}/push`, transport);
    const events = eventsOf(client);
    await client.subscribe(freshChannel(server, "public"));
    await events.upTo((event) => event === "up");
    await wire.cut();
    await events.upTo((event) => event === "down");
    let now = expiredTokenFor(server, channel);
    const subscription = client.subscribeTo(channel, () => now);
    now = tokenFor(server, channel);
    wire.mend();
    await subscription;
    expect(subscription.state).toBe("subscribed");
  });

  test("a channel that is left and subscribed to again while there is no connection is heard", async () => {
    const channel = freshChannel(server, "public");
    const client = newClient(`${wire.url}/push`, transport);
    const events = eventsOf(client);
    const heard = new Inbox<unknown>("message");
    const first = client.subscribe(channel);
    await first;
    await events.upTo((event) => event === "up");
    wire.cut();
    await events.upTo((event) => event === "down");
    first.cancel();
    const second = client.subscribe(channel, (data) => heard.push(data));
    wire.mend();
    await second;
    await publish(server, channel, 1);
    expect(await heard.next()).toBe(1);
  });

  test("a subscription made as the client tells that it is connected is asked for once", async () => {
    const channels = [freshChannel(server, "private"), freshChannel(server, "private")];
    const client = newClient(server.push, transport);
    const { out } = tap(client);
    const asked: string[] = [];
    const subscribed = new Inbox<string>("subscription");
    const listen = (channel = ""): void => {
      const subscription = client.subscribeTo(channel, () => {
        asked.push(channel);
        return tokenFor(server, channel);
      });
      subscription.on("subscribed", () => subscribed.push(channel));
    };
    client.once("state", () => client.once("state", () => listen(channels[0])));
    client.once("transport:up", () => listen(channels[1]));
    client.connect();
    for (const _ of channels) await subscribed.next();
    await client.subscribe(freshChannel(server, "public"));
    expect(asked).toEqual(channels);
    await client.disconnect();
    const sent = await out.upTo(({ channel }) => channel === "/meta/disconnect");
    expect(sent.filter(({ channel }) => channel === "/meta/subscribe")).toHaveLength(3);
  });

  test("T49 a subscription whose token is still valid is made again, with a gap", async () => {
    const channel = freshChannel(server, "private");
    const client = newClient(server.push, transport);
    const events = new Inbox<string>("event");
    const subscription = client
      .subscribeTo(channel, () => Promise.resolve(tokenFor(server, channel)))
      .on("resubscribed", () => events.push("resubscribed"))
      .on("gap", () => events.push("gap"));
    await subscription;
    await server.restart("SIGKILL");
    expect(await events.next()).toBe("resubscribed");
    expect(await events.next()).toBe("gap");
  });

  test("T30 a new session hears everything once", async () => {
    const channel = freshChannel(server, "public");
    const client = newClient(server.push, transport);
    const [heard, again] = [new Inbox<unknown>("message"), new Inbox<string>("event")];
    const subscriptions = [
      client.subscribe(channel, (data) => heard.push(data)),
      client.subscribe(channel),
    ];
    for (const each of subscriptions) each.on("resubscribed", () => again.push("resubscribed"));
    await Promise.all(subscriptions);
    for (const round of [1, 2]) {
      await server.restart("SIGKILL");
      await again.next();
      await again.next();
      const sent = Array.from({ length: 20 }, (_, n) => `${round}.${n}`);
      for (const data of sent) await publish(server, channel, data);
      const arrived: unknown[] = [];
      for (const _ of sent) arrived.push(await heard.next());
      expect(arrived).toEqual(sent);
    }
    await publish(server, channel, "end");
    expect(await heard.next()).toBe("end");
  });

  test("T30 a session that expired while the wire was cut is begun anew, and tells of the gap", async () => {
    const account = await server.account();
    const meta = `/${account.appId}/meta/statistics`;
    const channel = freshChannel(account, "public");
    const statistics = new Inbox<{ connections: number }>("statistics");
    const watcher = newClient(server.push);
    await watcher.subscribeTo<{ connections: number }>(meta, tokenFor(account, meta), (numbers) =>
      statistics.push(numbers),
    );
    const client = newClient(`${wire.url}/push`, transport);
    const { out } = tap(client);
    const heard = new Inbox<unknown>("message or event");
    await client
      .subscribe(channel, (data) => heard.push(data))
      .on("gap", () => heard.push("gap"))
      .on("resubscribed", () => heard.push("resubscribed"));
    await statistics.upTo(({ connections }) => connections === 2);
    wire.cut();
    await statistics.upTo(({ connections }) => connections === 1);
    await publish(account, channel, "missed");
    wire.mend();
    expect(await heard.next()).toBe("resubscribed");
    expect(await heard.next()).toBe("gap");
    await publish(account, channel, "afterwards");
    expect(await heard.next()).toBe("afterwards");
    const isHandshake = (message: { channel: string }) => message.channel === "/meta/handshake";
    await out.upTo(isHandshake);
    await out.upTo(isHandshake);
  });

  test("a session outlives a short cut: nothing is missed, and there is no gap", async () => {
    const channel = freshChannel(server, "public");
    const client = newClient(`${wire.url}/push`, transport);
    const events = eventsOf(client);
    const heard = new Inbox<unknown>("message or event");
    await client
      .subscribe(channel, (data) => heard.push(data))
      .on("gap", () => heard.push("gap"))
      .on("resubscribed", () => heard.push("resubscribed"));
    wire.cut();
    await events.upTo((event) => event === "down");
    await publish(server, channel, "meanwhile");
    wire.mend();
    await events.upTo((event) => event === "up");
    await publish(server, channel, "afterwards");
    expect(await heard.next()).toBe("meanwhile");
    expect(await heard.next()).toBe("afterwards");
  });

  test("tells when it is up, down and up again, and in which state it is", async () => {
    const client = newClient(`${wire.url}/push`, transport);
    const events = eventsOf(client);
    expect(client.state).toBe("unconnected");
    client.connect();
    expect(client.state).toBe("connecting");
    expect(await events.upTo((event) => event === "up")).toEqual(["connecting", "connected", "up"]);
    expect(client.state).toBe("connected");
    wire.cut();
    expect(await events.upTo((event) => event === "down")).toEqual(["connecting", "down"]);
    wire.mend();
    expect(await events.upTo((event) => event === "up")).toEqual(["connected", "up"]);
    await client.disconnect();
    expect(await events.upTo((event) => event === "down")).toEqual(["disconnected", "down"]);
    expect(client.state).toBe("disconnected");
  });

  test("says why there is no connection: a wrong path", async () => {
    const client = newClient(`${server.url}/wrong`, transport);
    const failures = new Inbox<Error>("failure");
    client.on("failed", (error) => failures.push(error));
    expect(client.lastError).toBeUndefined();
    client.connect();
    const error = await failures.next();
    expect(error.message).toMatch(/^(http|ws):\/\/127\.0\.0\.1:\d+\/wrong\b.* 404$/);
    if (transport === "long-polling") expect(error).toMatchObject({ code: 404 });
    expect(client.lastError).toBe(error);
    expect(client.state).toBe("connecting");
    // It tries again by itself, for the server may be about to be configured.
    await failures.next();
  });

  test("says why there is no connection: nobody there, no TLS, no Bayeux, no password in it", async () => {
    const { port } = new URL(server.url);
    for (const [url, expected] of [
      [`http://user:secret@localhost:${await freePort()}/push`, "ECONNREFUSED"],
      [`https://127.0.0.1:${port}/push`, /SSL|TLS|socket hang up/],
      ...(transport === "long-polling" ? ([[server.url, /JSON|HTTP/]] as const) : []),
    ] as const) {
      const client = newClient(url, transport);
      const failures = new Inbox<Error>("failure");
      client.on("failed", (error) => failures.push(error));
      client.connect();
      const { message } = await failures.next();
      expect(message).toMatch(expected);
      expect(message).toMatch(/^(https?|wss?):\/\/(localhost|127)/);
      expect(message).not.toContain("secret");
    }
  });

  test("says why a connection was lost", async () => {
    const client = newClient(`${wire.url}/push`, transport);
    const events = new Inbox<string>("event");
    await client.subscribe(freshChannel(server, "public"));
    client.on("failed", ({ message }) => events.push(message));
    client.on("transport:down", () => events.push(`down: ${client.lastError?.message}`));
    wire.cut();
    const down = await events.next();
    expect(down).toMatch(/^down: .*127\.0\.0\.1.*|^down: The WebSocket was closed/);
    expect(`down: ${await events.next()}`).toBe(down);
  });

  test("`connect` and `handshake` call back when there is a connection, also afterwards", async () => {
    const client = newClient(server.push, transport);
    const called = new Inbox<[string, unknown, ClientState]>("call");
    const context = { name: "context" };
    client.connect(function (this: unknown) {
      called.push(["connect", this, client.state]);
    }, context);
    expect(await called.next()).toEqual(["connect", context, "connected"]);
    client.handshake(() => called.push(["handshake", undefined, client.state]));
    expect(await called.next()).toEqual(["handshake", undefined, "connected"]);
  });

  test("`disconnect` says goodbye, and all that comes later is rejected", async () => {
    const channel = freshChannel(server, "public");
    const client = newClient(server.push, transport);
    const { out } = tap(client);
    const subscription = client.subscribe(channel);
    await subscription;
    const last = client.publishTo(channel, tokenFor(server, channel), "last");
    await client.disconnect();
    await last;
    expect(client.state).toBe("disconnected");
    expect(subscription.state).toBe("cancelled");
    const sent = await out.upTo((message) => message.channel === "/meta/disconnect");
    expect(sent.map((message) => message.channel)).not.toContain("/meta/unsubscribe");
    for (const late of [
      client.publish(channel, 1),
      client.subscribe(channel),
      client.subscribeTo(channel, "token"),
      client.presence(freshChannel(server, "presence"), "token"),
    ]) {
      expect((await failure(late)).message).toBe("The client is disconnected");
    }
    await client.disconnect();
  });

  test("`disconnect` rejects what waits when there is no server", async () => {
    wire.cut();
    const client = newClient(`${wire.url}/push`, transport);
    const [publication, subscription] = [
      client.publish("/a/public/x", 1),
      client.subscribe("/a/public/x"),
    ];
    await client.disconnect();
    expect((await failure(publication)).message).toMatch(/disconnected/);
    expect((await failure(subscription)).message).toMatch(/cancelled/);
  });
});

test("a client whose WebSockets were blocked moves over from polling, and nothing is missed", async () => {
  const realSetTimeout = setTimeout;
  const upgradeMs = 30_000;
  vi.stubGlobal("setTimeout", (call: () => void, ms?: number) =>
    realSetTimeout(call, ms === upgradeMs ? 300 : ms),
  );
  try {
    wire.cut();
    const channel = freshChannel(server, "public");
    const client = new Client(server.push, { endpoints: { websocket: `${wire.url}/push` } });
    const { out } = tap(client);
    const heard = new Inbox<unknown>("message or event");
    await client
      .subscribe(channel, (data) => heard.push(data))
      .on("gap", () => heard.push("gap"))
      .on("resubscribed", () => heard.push("resubscribed"));
    wire.mend();
    let isOver = false;
    const moved = out
      .upTo(({ connectionType }) => connectionType === "websocket")
      .finally(() => {
        isOver = true;
      });
    // A failure is looked at below.
    moved.catch(() => {});
    // Polls are answered all the while, also while the WebSocket is being opened.
    let last = 0;
    while (!isOver) await publish(server, channel, ++last);
    await moved;
    for (let more = 0; more < 20; more++) await publish(server, channel, ++last);
    for (let n = 1; n <= last; n++) expect(await heard.next()).toBe(n);
    expect(client.state).toBe("connected");
    await client.disconnect();
  } finally {
    vi.unstubAllGlobals();
  }
});
