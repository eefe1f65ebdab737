import { Scheduler } from "pandapush-client";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import { freshChannel } from "../../e2e/deployment.js";
import { Inbox } from "../../e2e/waiting.js";
import { closeClients, failure, newClient, tap, tokenFor, transports } from "./clients.js";
import { freePort, type Server, startServer } from "./server.js";
import { Wire } from "./wire.js";

let server: Server;
let wire: Wire;
beforeAll(async () => {
  server = await startServer();
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

/** What a client of its own hears on the channel. */
async function listen(channel: string): Promise<Inbox<unknown>> {
  const heard = new Inbox<unknown>("message");
  await newClient(server.push).subscribe(channel, (data) => heard.push(data));
  return heard;
}

describe.each(transports)("a publish over %s", (transport) => {
  const connect = () => newClient(server.push, transport);

  test.each([0, "", false, null, [], {}, "ä€😀\u2028", 1.5, [null]])(
    "takes %j as it is",
    async (data) => {
      const channel = freshChannel(server, "public");
      const client = connect();
      const heard = new Inbox<unknown>("message");
      await client.subscribe(channel, (message) => heard.push(message));
      await client.publishTo(channel, tokenFor(server, channel), data);
      expect(await heard.next()).toEqual(data);
    },
  );

  test("shows the token that is given, or what gives one, or none", async () => {
    const channel = freshChannel(server, "public");
    const client = connect();
    const token = tokenFor(server, channel);
    await client.publishTo(channel, token, 1);
    await client.publishTo(channel, () => token, 1);
    await client.publishTo(channel, () => Promise.resolve(token), 1);
    const refusal = async (give: () => Promise<string>) =>
      (await failure(client.publishTo(channel, give, 1))).message;
    expect(await refusal(() => Promise.resolve("nonsense"))).toBe("Invalid token");
    expect(await refusal(() => Promise.reject(new Error("HTTP 403")))).toBe(
      "There is no token: HTTP 403",
    );
    expect((await failure(client.publish(channel, 1))).message).toBe("No auth supplied");
  });

  test("without a token shows that of `subscribeTo`, until the subscription is cancelled", async () => {
    const channel = freshChannel(server, "private");
    const client = connect();
    let asked = 0;
    const heard = new Inbox<unknown>("message");
    const giveToken = () => {
      asked += 1;
      return tokenFor(server, channel);
    };
    const subscription = client.subscribeTo(channel, giveToken, (data) => heard.push(data));
    await client.publish(channel, "remembered");
    expect(await heard.next()).toBe("remembered");
    expect(asked).toBe(2);
    subscription.cancel();
    expect((await failure(client.publish(channel, 1))).message).toBe("No auth supplied");
  });

  test("T25 may be longer than a URL or an old proxy's limit", async () => {
    const channel = freshChannel(server, "public");
    const heard = await listen(channel);
    const client = connect();
    for (const length of [2_049, 100_000]) {
      await client.publishTo(channel, tokenFor(server, channel), "x".repeat(length));
      expect(await heard.next()).toBe("x".repeat(length));
    }
  });

  test("of 500 messages in one turn keeps their order", async () => {
    const channel = freshChannel(server, "public");
    const heard = await listen(channel);
    const client = connect();
    const token = tokenFor(server, channel);
    const all = Array.from({ length: 500 }, (_, n) => n);
    const acknowledged: number[] = [];
    await Promise.all(
      all.map((n) => client.publishTo(channel, token, n).then(() => acknowledged.push(n))),
    );
    const arrived: unknown[] = [];
    for (const _ of all) arrived.push(await heard.next());
    expect(arrived).toEqual(all);
    expect(acknowledged).toEqual(all);
  });

  test("that is too long for the server is refused, and no other is lost", async () => {
    const channel = freshChannel(server, "public");
    const heard = await listen(channel);
    const client = connect();
    const token = tokenFor(server, channel);
    await client.publishTo(channel, token, "first");
    const before = client.publishTo(channel, token, "before");
    const long = client.publishTo(channel, token, "x".repeat(300_000));
    const after = client.publishTo(channel, token, "after");
    expect((await failure(long)).name).toBe("PandapushError");
    await Promise.all([before, after]);
    await client.publishTo(channel, token, "last");
    const arrived = await heard.upTo((data) => data === "last");
    // One whose acknowledgement was lost with the connection came twice.
    expect([...new Set(arrived)]).toEqual(["first", "before", "after", "last"]);
  });

  test("that is too long in bytes is refused, and not a longer text that was taken", async () => {
    const channel = freshChannel(server, "public");
    const client = connect();
    const token = tokenFor(server, channel);
    const [taken, long] = ["x".repeat(200_000), "€".repeat(100_000)].map((data) =>
      client.publishTo(channel, token, data),
    );
    expect((await failure(long ?? Promise.resolve())).name).toBe("PandapushError");
    await taken;
  });

  test("T37 is rejected when its attempts are used up and there is no server", async () => {
    const client = newClient(`http://127.0.0.1:${await freePort()}/push`, transport);
    const error = await failure(client.publish("/app/public/x", 1, { attempts: 1 }));
    expect(error).toMatchObject({ name: "PandapushError", code: null });
    expect(error.message).toMatch(/^The message was not delivered: /);
  });

  test("T37 is rejected when its deadline is over and there is no server", async () => {
    const client = newClient(`http://127.0.0.1:${await freePort()}/push`, transport);
    const error = await failure(client.publish("/app/public/x", 1, { deadline: 0.1 }));
    expect(error.message).toMatch(/^The message was not delivered: /);
  });

  test("T37 is rejected when the connection was cut and its attempts are used up", async () => {
    const channel = freshChannel(server, "public");
    const heard = await listen(channel);
    const client = newClient(`${wire.url}/push`, transport);
    const token = tokenFor(server, channel);
    await client.publishTo(channel, token, "first");
    wire.mute();
    const once = client.publishTo(channel, token, "once", { attempts: 1 });
    const often = client.publishTo(channel, token, "often");
    expect(await heard.next()).toBe("first");
    expect(await heard.next()).toBe("once");
    wire.cut();
    expect((await failure(once)).message).toMatch(/^The message was not delivered: /);
    wire.mend();
    await often;
  });

  test("whose acknowledgement was lost is sent again", async () => {
    const channel = freshChannel(server, "public");
    const heard = await listen(channel);
    const client = newClient(`${wire.url}/push`, transport);
    const token = tokenFor(server, channel);
    await client.publishTo(channel, token, "first");
    wire.mute();
    const again = client.publishTo(channel, token, "again");
    await heard.upTo((data) => data === "again");
    wire.cut();
    wire.mend();
    await again;
    expect(await heard.next()).toBe("again");
  });

  test("waits for the server, and then goes in order", async () => {
    const port = await freePort();
    const client = newClient(`http://127.0.0.1:${port}/push`, transport);
    const refused = Promise.all(
      [1, 2].map((n) => failure(client.publish(`/nothing/public/${n}`, n))),
    );
    const late = await startServer({ PORT: String(port) });
    try {
      expect((await refused).map(({ message }) => message)).toEqual([
        "Unknown application",
        "Unknown application",
      ]);
    } finally {
      await closeClients();
      await late.stop();
    }
  });

  test("T37 is rejected when its deadline is over and the server says nothing", async () => {
    const channel = freshChannel(server, "public");
    const client = newClient(`${wire.url}/push`, transport);
    const token = tokenFor(server, channel);
    await client.publishTo(channel, token, "first");
    wire.mute();
    const error = await failure(client.publishTo(channel, token, "second", { deadline: 0.1 }));
    expect(error.reason).toBe("undelivered");
    expect(client.state).toBe("connected");
  });

  test("T37 is rejected when its deadline is over and no token has come", async () => {
    const never = () => new Promise<string>(() => {});
    const late = connect().publishTo("/a/public/x", never, 1, { deadline: 0.1 });
    expect((await failure(late)).reason).toBe("undelivered");
  });

  test("has a deadline beyond what timers count to", async () => {
    const channel = freshChannel(server, "public");
    await connect().publishTo(channel, tokenFor(server, channel), 1, { deadline: 1e9 });
  });

  test("is rejected by `disconnect` when no token has come", async () => {
    const client = connect();
    await client.subscribe(freshChannel(server, "public"));
    const waiting = client.publishTo("/a/public/x", () => new Promise<string>(() => {}), 1);
    await client.disconnect();
    expect((await failure(waiting)).reason).toBe("disconnected");
  });

  test("of what JSON cannot hold is rejected, and no other is", async () => {
    const channel = freshChannel(server, "public");
    const client = connect();
    const heard = new Inbox<unknown>("message");
    const token = tokenFor(server, channel);
    await client.subscribe(channel, (data) => heard.push(data));
    const circle: { self?: unknown } = {};
    circle.self = circle;
    const publish = (data: unknown) => client.publishTo(channel, token, data);
    const before = publish("before");
    const faulty = [{ id: 1n }, circle].map(publish);
    const after = publish("after");
    for (const publication of faulty) expect(await failure(publication)).toBeInstanceOf(TypeError);
    await Promise.all([before, after]);
    expect([await heard.next(), await heard.next()]).toEqual(["before", "after"]);
    expect(client.state).toBe("connected");
  });

  test("is sent as it was when it was published", async () => {
    const channel = freshChannel(server, "public");
    const client = connect();
    const heard = await listen(channel);
    const data = { version: 1 };
    const publication = client.publishTo(channel, tokenFor(server, channel), data);
    data.version = 2;
    await publication;
    expect(await heard.next()).toEqual({ version: 1 });
  });

  test("is taken back by its signal while it has not been sent", async () => {
    const channel = freshChannel(server, "public");
    const heard = await listen(channel);
    const client = connect();
    const token = tokenFor(server, channel);
    const stop = new AbortController();
    const { signal } = stop;
    const reason = new Error("not wanted");
    const taken = [
      client.publishTo(channel, token, "aborted", { signal }),
      client.publishTo(channel, () => Promise.resolve(token), "aborted", { signal }),
    ];
    stop.abort(reason);
    taken.push(client.publishTo(channel, token, "aborted", { signal }));
    for (const publication of taken) expect(await failure(publication)).toBe(reason);
    await client.publishTo(channel, token, "kept", { signal: new AbortController().signal });
    expect(await heard.next()).toBe("kept");
  });
});

describe("a server with small limits", () => {
  const limits = [{ MAX_MESSAGE_BYTES: "4096" }, { MAX_BATCH_MESSAGES: "10" }];
  const cases = limits.flatMap((limit) => transports.map((name) => [limit, name] as const));

  test.each(cases)("%j takes what it can of many messages, over %s", async (limit, transport) => {
    const small = await startServer(limit);
    try {
      const channel = freshChannel(small, "public");
      const token = tokenFor(small, channel);
      const heard = new Inbox<unknown>("message");
      await newClient(small.push).subscribe(channel, (data) => heard.push(data));
      const client = newClient(small.push, transport);
      const all = Array.from({ length: 50 }, (_, n) => n);
      const publications = all.map((n) => client.publishTo(channel, token, n));
      const long = client.publishTo(channel, token, "x".repeat(5_000));
      if ("MAX_MESSAGE_BYTES" in limit) await failure(long);
      await Promise.all(publications);
      await client.publishTo(channel, token, "end");
      const arrived = await heard.upTo((data) => data === "end");
      expect([...new Set(arrived)].filter((data) => typeof data === "number")).toEqual(all);
    } finally {
      await closeClients();
      await small.stop();
    }
  });
});

test("a publish with an unknown option throws", () => {
  const options = { retries: 1 } as { attempts?: number };
  expect(() => newClient(server.push).publish("/a/public/x", 1, options)).toThrow(
    "Unrecognized option: retries",
  );
});

test("a scheduler decides when a message is given up, and is told what becomes of it", async () => {
  const calls: string[] = [];
  class Twice extends Scheduler {
    override isDeliverable(): boolean {
      return this.attempts < 2;
    }
    override getInterval(): number {
      calls.push("getInterval");
      return 0;
    }
    override send(): void {
      super.send();
      calls.push(`send ${this.attempts}`);
    }
    override succeed(): void {
      calls.push("succeed");
    }
    override fail(): void {
      calls.push("fail");
    }
    override abort(): void {
      calls.push("abort");
    }
  }
  const absent = `http://127.0.0.1:${await freePort()}/push`;
  const lost = newClient(absent, "websocket", { scheduler: Twice }).publish("/a/public/x", 1);
  await failure(lost);
  expect(calls).toEqual([
    "send 1",
    "fail",
    "getInterval",
    "send 2",
    "fail",
    "getInterval",
    "abort",
  ]);

  calls.length = 0;
  const channel = freshChannel(server, "public");
  const client = newClient(server.push, "websocket", { scheduler: Twice });
  const { out } = tap(client);
  await client.publishTo(channel, tokenFor(server, channel), 1);
  expect(calls).toEqual(["send 1", "succeed"]);
  const sent = await out.upTo((message) => message.channel === channel);
  expect(sent.at(-1)).toMatchObject({ channel, data: 1 });
});
