import { runInNewContext } from "node:vm";
import type { Subscription, TokenSource } from "pandapush-client";
import { afterAll, afterEach, beforeAll, describe, expect, expectTypeOf, test } from "vitest";
import { disconnectUser, freshChannel, publish, signToken } from "../../e2e/deployment.js";
import { Inbox } from "../../e2e/waiting.js";
import {
  closeClients,
  expiredTokenFor,
  failure,
  newClient,
  runNode,
  tap,
  tokenFor,
  transports,
} from "./clients.js";
import { type Server, startServer } from "./server.js";

interface Statistics {
  readonly subscriptions: number;
  readonly channels: number;
}

let server: Server;
beforeAll(async () => {
  server = await startServer({ STATISTICS_INTERVAL_MS: "50" });
});
afterAll(() => server?.stop());
afterEach(closeClients);

describe.each(transports)("a subscription over %s", (transport) => {
  const connect = () => newClient(server.push, transport);

  test("T36 `client.unsubscribe` removes all listeners of the channel", async () => {
    const [channel, other] = [freshChannel(server, "public"), freshChannel(server, "public")];
    const client = connect();
    const heard = new Inbox<string>("message");
    const removed = [
      client.subscribe<string>(channel, () => heard.push("first")),
      client.subscribe<string>(channel, () => heard.push("second")),
    ];
    const kept = client.subscribe<string>(other, (data) => heard.push(data));
    await Promise.all([...removed, kept]);
    client.unsubscribe(channel);
    expect(removed.map(({ state }) => state)).toEqual(["cancelled", "cancelled"]);
    await publish(server, channel, "removed");
    await publish(server, other, "kept");
    expect(await heard.next()).toBe("kept");
  });

  test("T36 `cancel` removes its own listener only, and is harmless twice", async () => {
    const channel = freshChannel(server, "public");
    const client = connect();
    const heard = new Inbox<string>("message");
    const first = client.subscribe(channel, () => heard.push("first"));
    const second = client.subscribe(channel, () => heard.push("second"));
    await Promise.all([first, second]);
    const events: string[] = [];
    first.on("cancelled", () => events.push("cancelled"));
    first.cancel();
    first.cancel();
    expect(events).toEqual(["cancelled"]);
    expect([first.state, second.state]).toEqual(["cancelled", "subscribed"]);
    await publish(server, channel, 1);
    expect(await heard.next()).toBe("second");
    await publish(server, channel, 2);
    expect(await heard.next()).toBe("second");
  });

  test("T36 the last listener to go ends the subscription at the server", async () => {
    const account = await server.account();
    const statistics = new Inbox<Statistics>("statistics");
    const meta = `/${account.appId}/meta/statistics`;
    const channel = freshChannel(account, "public");
    const watcher = connect();
    await watcher.subscribeTo<Statistics>(meta, tokenFor(account, meta), (numbers) =>
      statistics.push(numbers),
    );
    const client = connect();
    const { out } = tap(client);
    const subscriptions = [client.subscribe(channel), client.subscribe(channel)];
    await Promise.all(subscriptions);
    await statistics.upTo(({ channels }) => channels === 2);
    for (const subscription of subscriptions) subscription.unsubscribe();
    await statistics.upTo(({ channels }) => channels === 1);
    const sent = await out.upTo((message) => message.channel === "/meta/unsubscribe");
    const about = sent.filter((message) => message.subscription === channel);
    expect(about.map((message) => message.channel)).toEqual([
      "/meta/subscribe",
      "/meta/subscribe",
      "/meta/unsubscribe",
    ]);
  });

  test("`unsubscribe` ends the one that is named, or those of several channels", async () => {
    const channels = [freshChannel(server, "public"), freshChannel(server, "public")];
    const [first = "", second = ""] = channels;
    const client = connect();
    const heard = new Inbox<string>("message");
    const named = client.subscribe(first, () => heard.push("named"));
    const others = client.subscribe(channels, (_data, channel) => heard.push(channel));
    await Promise.all([named, ...others]);
    client.unsubscribe(first, named);
    expect([named, ...others].map(({ state }) => state)).toEqual([
      "cancelled",
      "subscribed",
      "subscribed",
    ]);
    await publish(server, first, 1);
    expect(await heard.next()).toBe(first);
    client.unsubscribe(channels);
    expect(others.map(({ state }) => state)).toEqual(["cancelled", "cancelled"]);
    const again = client.subscribe(second, () => heard.push("again"));
    await again;
    await publish(server, second, 2);
    expect(await heard.next()).toBe("again");
  });

  test("of an array gives one for each channel, each with its own answer", async () => {
    const channels = [freshChannel(server, "public"), freshChannel(server, "private")];
    const subscriptions = connect().subscribe(channels, () => {});
    expect(subscriptions.map(({ channel }) => channel)).toEqual(channels);
    await subscriptions[0];
    expect((await failure(subscriptions[1] ?? Promise.resolve())).message).toBe("No auth supplied");
  });

  test("calls its listener with data and channel, and with its context as `this`", async () => {
    const parent = freshChannel(server, "public");
    const context = { name: "context" };
    const heard = new Inbox<unknown[]>("call");
    const client = connect();
    await client.subscribe(
      `${parent}/*`,
      function (this: unknown, ...call) {
        heard.push([this, ...call]);
      },
      context,
    );
    await publish(server, `${parent}/child`, { n: 1 });
    expect(await heard.next()).toEqual([context, { n: 1 }, `${parent}/child`]);
  });

  test("`withChannel` gets channel and data, beside the listener or alone", async () => {
    const parent = freshChannel(server, "public");
    const context = { name: "context" };
    const heard = new Inbox<unknown[]>("call");
    const client = connect();
    await client
      .subscribe<string>(`${parent}/**`, (data) => heard.push(["listener", data]))
      .withChannel(function (this: unknown, channel, data) {
        heard.push([this, channel, data]);
      }, context);
    await publish(server, `${parent}/a/b`, "x");
    expect(await heard.next()).toEqual(["listener", "x"]);
    expect(await heard.next()).toEqual([context, `${parent}/a/b`, "x"]);
  });

  test("is made with a token, with what gives one, and with a promise of one", async () => {
    const client = connect();
    const heard = new Inbox<unknown>("message");
    for (const wrap of [
      (token: string) => token,
      (token: string) => () => token,
      (token: string) => () => Promise.resolve(token),
    ]) {
      const channel = freshChannel(server, "private");
      const source = wrap(tokenFor(server, channel));
      await client.subscribeTo(channel, source, (data) => heard.push(data));
      await publish(server, channel, channel);
      expect(await heard.next()).toBe(channel);
    }
  });

  test("is made with what can be awaited, and not with what is no string", async () => {
    const client = connect();
    const channel = freshChannel(server, "private");
    // biome-ignore lint/suspicious/noThenProperty: other libraries' promises are such objects
    const thenable = { then: (ok: (token: string) => void) => ok(tokenFor(server, channel)) };
    const foreign = runInNewContext("(token) => Promise.resolve(token)");
    await client.subscribeTo(channel, () => thenable as Promise<string>);
    await client.subscribeTo(channel, () => foreign(tokenFor(server, channel)));
    for (const token of [7, { token: "x" }, () => () => "x", () => Promise.resolve([])]) {
      const source = token as unknown as TokenSource;
      for (const refused of [
        client.subscribeTo(channel, source),
        client.publishTo(channel, source, 1),
      ]) {
        const error = await failure(refused);
        expect(error).toBeInstanceOf(TypeError);
        expect(error.message).toMatch(
          /^A token is a string, not of type (number|object|function)$/,
        );
      }
    }
  });

  test("is refused when there is no token, or none can be had", async () => {
    const channel = freshChannel(server, "private");
    const client = connect();
    const refusal = async (give: () => string | null | Promise<string>) =>
      (await failure(client.subscribeTo(channel, give))).message;
    expect(await refusal(() => null)).toBe("No auth supplied");
    expect(await refusal(() => "nonsense")).toBe("Invalid token");
    expect(await refusal(() => Promise.reject(new Error("HTTP 403")))).toBe(
      "There is no token: HTTP 403",
    );
    expect(
      await refusal(() => {
        throw new Error("logged out");
      }),
    ).toBe("There is no token: logged out");
  });

  test("says by `reason` what a program can do about its refusal", async () => {
    const channel = freshChannel(server, "private");
    const client = connect();
    const reasonOf = async (token: TokenSource) =>
      (await failure(client.subscribeTo(channel, token))).reason;
    expect(await reasonOf(null)).toBe("unauthenticated");
    expect(await reasonOf(expiredTokenFor(server, channel))).toBe("unauthenticated");
    expect(await reasonOf(tokenFor(server, freshChannel(server, "private")))).toBe("forbidden");
    expect(await reasonOf(() => Promise.reject(new Error("HTTP 403")))).toBe("no-token");
    expect((await failure(client.subscribe("/a b"))).reason).toBe("refused");
    const cancelled = client.subscribe(freshChannel(server, "public"));
    cancelled.cancel();
    expect((await failure(cancelled)).reason).toBe("cancelled");
    await client.disconnect();
    expect(await reasonOf(null)).toBe("disconnected");
  });

  test("tells its events to `once` a single time", async () => {
    const client = connect();
    const subscription = client.subscribe(freshChannel(server, "private"));
    const calls: string[] = [];
    subscription.once("refused", ({ message }) => calls.push(message));
    subscription.once("cancelled", () => calls.push("cancelled"));
    await failure(subscription);
    subscription.cancel();
    expect(calls).toEqual(["No auth supplied", "cancelled"]);
  });

  test("that was refused can be made again, and then hears once", async () => {
    const channel = freshChannel(server, "private");
    const client = connect();
    const heard = new Inbox<unknown>("message");
    await failure(client.subscribe(channel, () => heard.push("refused")));
    await client.subscribeTo(channel, tokenFor(server, channel), (data) => heard.push(data));
    await publish(server, channel, 1);
    await publish(server, channel, 2);
    expect([await heard.next(), await heard.next()]).toEqual([1, 2]);
  });

  test("is cancelled by the signal in its context, and then rejects if it was pending", async () => {
    const channel = freshChannel(server, "public");
    const client = connect();
    const heard = new Inbox<unknown>("message");
    const [stop, early] = [new AbortController(), new AbortController()];
    const subscription = client.subscribe(channel, () => heard.push("aborted"), {
      signal: stop.signal,
    });
    const pending = client.subscribe(channel, undefined, { signal: early.signal });
    const reason = new Error("not wanted");
    early.abort(reason);
    expect(await failure(pending)).toBe(reason);
    await subscription;
    stop.abort();
    expect([pending.state, subscription.state]).toEqual(["cancelled", "cancelled"]);
    await client.subscribe(channel, (data) => heard.push(data));
    await publish(server, channel, 1);
    expect(await heard.next()).toBe(1);
  });

  test("is cancelled by a signal of another make; what is no signal has no effect", async () => {
    const client = connect();
    const signal = Object.assign(new EventTarget(), { aborted: false });
    const channel = freshChannel(server, "public");
    const subscription = client.subscribe(channel, undefined, { signal });
    const other = client.subscribe(channel, undefined, { signal: { value: 1 } });
    signal.dispatchEvent(new Event("abort"));
    expect((await failure(subscription)).reason).toBe("cancelled");
    await other;
  });

  test("that a listener cancels is not called for the same message", async () => {
    const channel = freshChannel(server, "public");
    const client = connect();
    const heard = new Inbox<string>("message");
    const first = client
      .subscribe(channel, () => {
        heard.push("first");
        client.unsubscribe([channel, pattern]);
      })
      .withChannel(() => heard.push("beside the first"));
    const pattern = `/${server.appId}/public/**`;
    const others = client.subscribe([channel, pattern], () => heard.push("other"));
    const last = client.subscribe(`${channel}/*`, () => heard.push("marker"));
    await Promise.all([first, ...others, last]);
    await publish(server, channel, 1);
    await publish(server, `${channel}/marker`, 1);
    expect([await heard.next(), await heard.next()]).toEqual(["first", "marker"]);
  });

  test("with a signal that is aborted already is cancelled, and nothing is sent", async () => {
    const client = connect();
    const { out } = tap(client);
    const [channel, other] = [freshChannel(server, "public"), freshChannel(server, "public")];
    const aborted = client.subscribe(channel, undefined, { signal: AbortSignal.abort() });
    expect(aborted.state).toBe("cancelled");
    expect((await failure(aborted)).name).toBe("AbortError");
    expect(client.state).toBe("unconnected");
    await client.subscribe(other);
    const sent = await out.upTo((message) => message.subscription === other);
    expect(sent.map(({ subscription }) => subscription)).not.toContain(channel);
  });

  test("that is cancelled before its answer rejects", async () => {
    const subscription = connect().subscribe(freshChannel(server, "public"));
    subscription.cancel();
    expect((await failure(subscription)).message).toBe("The subscription was cancelled");
  });

  test("is told to the other subscribers as well: each hears each message", async () => {
    const channel = freshChannel(server, "public");
    const client = connect();
    const heard = new Inbox<string>("message");
    await client.subscribe<number>(channel, (n) => heard.push(`a${n}`));
    await client.subscribe<number>(channel, (n) => heard.push(`b${n}`));
    await client.subscribe<number>(`/${server.appId}/public/**`, (n) => heard.push(`**${n}`));
    await publish(server, channel, 1);
    expect([await heard.next(), await heard.next(), await heard.next()]).toEqual([
      "a1",
      "b1",
      "**1",
    ]);
  });

  test("a subscription that the server ends is refused, and the others go on", async () => {
    const account = await server.account();
    const client = connect();
    const channel = freshChannel(account, "private");
    const refusals = new Inbox<[string, string]>("refusal");
    const token = tokenFor(account, channel);
    const first = client.subscribeTo(channel, token);
    const second = client.subscribeTo(channel, token);
    const open = client.subscribe(freshChannel(account, "public"));
    for (const [name, subscription] of Object.entries({ first, second, open })) {
      subscription.on("refused", (error) => refusals.push([name, error.message]));
    }
    await Promise.all([first, second, open]);
    await server.cli("key", "delete", account.appId, account.keyId);
    expect(await refusals.next()).toEqual(["first", "Revoked key"]);
    expect(await refusals.next()).toEqual(["second", "Revoked key"]);
    expect([first.state, open.state]).toEqual(["refused", "subscribed"]);
    await server.cli("app", "delete", account.appId);
    expect(await refusals.next()).toEqual(["open", "Unknown application"]);
    first.cancel();
    expect(first.state).toBe("cancelled");
  });

  test("[SUB-8] what a back end disconnects is refused, and can be subscribed to again", async () => {
    const client = connect();
    const [room, news] = [freshChannel(server, "presence"), freshChannel(server, "public")];
    const id = `user of ${room}`;
    const token = signToken(server, { channel: room, sub: true, presence: { id } });
    const refusals = new Inbox<[string, string]>("refusal");
    const lobby = client.presence(room, token);
    const subscription = client.subscribe(news);
    lobby.on("refused", (error) => refusals.push(["lobby", error.message]));
    subscription.on("refused", (error) => refusals.push(["news", error.message]));
    await Promise.all([lobby, subscription]);
    expect(await disconnectUser(server, id)).toBe(1);
    expect(await refusals.next()).toEqual(["lobby", "Disconnected"]);
    expect(await refusals.next()).toEqual(["news", "Disconnected"]);
    expect([subscription.state, client.state]).toEqual(["refused", "connected"]);
    const heard = new Inbox<string>("message");
    await client.subscribe<string>(news, (data) => heard.push(data));
    await publish(server, news, "heard again");
    expect(await heard.next()).toBe("heard again");
  });
});

test("what listeners throw is reported as uncaught, and the others hear the message", async () => {
  const channel = freshChannel(server, "public");
  const { code, out, err } = await runNode(
    `
      import { Client } from "pandapush-client";
      const { PUSH, CHANNEL, TOKEN } = process.env;
      process.on("uncaughtException", (error) => console.log("uncaught", error.message));
      const client = new Client(PUSH);
      await client
        .subscribe(CHANNEL, () => { throw new Error("of the first"); })
        .withChannel(() => console.log("beside the first"));
      await client.subscribe(CHANNEL, async (data) => {
        console.log("second", data);
        if (data === 2) await client.disconnect();
      });
      client.on("state", () => { throw new Error("of an event"); });
      await client.publishTo(CHANNEL, TOKEN, 1);
      await client.publishTo(CHANNEL, TOKEN, 2);
    `,
    "module",
    { PUSH: server.push, CHANNEL: channel, TOKEN: tokenFor(server, channel) },
  );
  expect({ code, err }).toEqual({ code: 0, err: "" });
  const lines = out.trim().split("\n");
  for (const n of [1, 2]) expect(lines).toContain(`second ${n}`);
  expect(lines.filter((line) => line === "beside the first")).toHaveLength(2);
  expect(lines.filter((line) => line === "uncaught of the first")).toHaveLength(2);
  expect(lines).toContain("uncaught of an event");
});

test("payloads have the types that were named", () => {
  const client = newClient(server.push);
  interface News {
    readonly title: string;
  }
  const typed = (): void => {
    const news = client.subscribe<News>("/a/public/news", (data, channel) => {
      expectTypeOf(data).toEqualTypeOf<News>();
      expectTypeOf(channel).toEqualTypeOf<string>();
    });
    news.withChannel((channel, data) => {
      expectTypeOf(channel).toEqualTypeOf<string>();
      expectTypeOf(data).toEqualTypeOf<News>();
    });
    client.subscribe("/a/public/news", (data) => expectTypeOf(data).toBeUnknown());
    client.subscribe<News>(["/a/public/news"], (data) => expectTypeOf(data).toEqualTypeOf<News>());
    const either = ["/a/public/news"] as string | string[];
    expectTypeOf(client.subscribe<News>(either)).toEqualTypeOf<
      Subscription<News> | Subscription<News>[]
    >();
    client.subscribe("/a/public/news", undefined, { signal: AbortSignal.timeout(1) });
    client.messages("/a/public/news", { signal: AbortSignal.timeout(1) });
    client
      .presence<{ id: string; name: string }>("/a/presence/x", "token")
      .on("join", (id, who) => {
        expectTypeOf(id).toEqualTypeOf<string>();
        expectTypeOf(who.name).toEqualTypeOf<string>();
      });
    expectTypeOf(client.messages<News>("/a/public/news").next).returns.resolves.toHaveProperty(
      "value",
    );
    client.publish<News>("/a/public/news", { title: "x" });
    // @ts-expect-error it has no title
    client.publish<News>("/a/public/news", {});
    // @ts-expect-error there is no such event
    client.on("nonsense", () => {});
    // @ts-expect-error there is no such option
    client.publish("/a/public/news", 1, { retries: 1 });
  };
  expect(typed).toBeTypeOf("function");
});
