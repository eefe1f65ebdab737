import type { Client, ReceivedMessage } from "pandapush-client";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import { freshChannel, publish } from "../../e2e/deployment.js";
import { Inbox } from "../../e2e/waiting.js";
import { closeClients, failure, newClient, tap, tokenFor, transports } from "./clients.js";
import { type Server, startServer } from "./server.js";

let server: Server;
beforeAll(async () => {
  server = await startServer();
});
afterAll(() => server?.stop());
afterEach(closeClients);

/** The server has confirmed the subscription. */
async function isSubscribed(client: Client): Promise<void> {
  await tap(client).in.upTo(
    ({ channel, successful }) => channel === "/meta/subscribe" && successful === true,
  );
}

async function drain<T>(messages: AsyncIterable<ReceivedMessage<T>>): Promise<T[]> {
  const all: T[] = [];
  for await (const { data } of messages) all.push(data);
  return all;
}

describe.each(transports)("messages() over %s", (transport) => {
  const connect = () => newClient(server.push, transport);

  test("gives messages with their channels, and is left with `break`", async () => {
    const parent = freshChannel(server, "private");
    const client = connect();
    const { out } = tap(client);
    const messages = client.messages<number>(`${parent}/*`, {
      token: () => Promise.resolve(tokenFor(server, `${parent}/*`)),
    });
    await isSubscribed(client);
    for (const n of [1, 2, 3]) await publish(server, `${parent}/${n}`, n);
    const heard: unknown[] = [];
    for await (const message of messages) {
      heard.push(message);
      if (heard.length === 2) break;
    }
    expect(heard).toEqual([
      { channel: `${parent}/1`, data: 1 },
      { channel: `${parent}/2`, data: 2 },
    ]);
    await out.upTo(({ channel }) => channel === "/meta/unsubscribe");
    expect(await messages.next()).toEqual({ done: true, value: undefined });
  });

  test("ends when its signal is aborted, after what has come", async () => {
    const channel = freshChannel(server, "public");
    const client = connect();
    const stop = new AbortController();
    const [messages, heard] = [
      client.messages(channel, { signal: stop.signal }),
      new Inbox<unknown>("message"),
    ];
    await isSubscribed(client);
    await client.subscribe(channel, (data) => heard.push(data));
    await publish(server, channel, 1);
    await heard.next();
    stop.abort();
    expect(await drain(messages)).toEqual([1]);
    expect(await drain(client.messages(channel, { signal: AbortSignal.abort() }))).toEqual([]);
  });

  test("ends when the signal is aborted or the client disconnects while it is waited for", async () => {
    const channel = freshChannel(server, "public");
    const client = connect();
    const stop = new AbortController();
    const aborted = drain(client.messages(channel, { signal: stop.signal }));
    const disconnected = drain(client.messages(channel));
    await client.subscribe(channel);
    stop.abort();
    expect(await aborted).toEqual([]);
    await client.disconnect();
    expect(await disconnected).toEqual([]);
  });

  test("throws when the server refuses, at first or later", async () => {
    const account = await server.account();
    const channel = freshChannel(account, "private");
    const client = connect();
    expect((await failure(drain(client.messages(channel)))).message).toBe("No auth supplied");
    const token = tokenFor(account, channel);
    const refusal = failure(drain(client.messages(channel, { token })));
    await isSubscribed(client);
    await server.cli("key", "delete", account.appId, account.keyId);
    expect((await refusal).message).toBe("Revoked key");
  });

  test("throws when no token can be had", async () => {
    const client = connect();
    const token = () => {
      throw new Error("logged out");
    };
    const messages = client.messages(freshChannel(server, "private"), { token });
    expect((await failure(drain(messages))).message).toBe("There is no token: logged out");
  });

  test("throws when the client is disconnected already", async () => {
    const client = connect();
    await client.disconnect();
    const messages = client.messages(freshChannel(server, "public"));
    expect((await failure(drain(messages))).message).toBe("The client is disconnected");
  });

  test("throws when more messages wait than allowed, after those that could", async () => {
    const channel = freshChannel(server, "public");
    const client = connect();
    const heard = new Inbox<number>("message");
    const messages = client.messages<number>(channel, { maxWaiting: 2 });
    await client.subscribe<number>(channel, (data) => heard.push(data));
    for (const n of [1, 2, 3, 4]) await publish(server, channel, n);
    await heard.upTo((n) => n === 4);
    const got: number[] = [];
    const all = (async () => {
      for await (const { data } of messages) got.push(data);
    })();
    expect((await failure(all)).message).toBe("More than 2 messages wait to be read");
    expect(got).toEqual([1, 2]);
  });
});
