import { once } from "node:events";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { text } from "node:stream/consumers";
import type { Message, PresenceRoom } from "pandapush-client";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import { freshChannel, publish } from "../../e2e/deployment.js";
import { Inbox } from "../../e2e/waiting.js";
import {
  closeClients,
  comeBackSoon,
  failure,
  newClient,
  tap,
  tokenFor,
  transports,
} from "./clients.js";
import { type Server, startServer } from "./server.js";

interface Member {
  readonly id: string;
  readonly name?: string;
}

let server: Server;
beforeAll(async () => {
  comeBackSoon();
  server = await startServer();
});
afterAll(() => server?.stop());
afterEach(closeClients);

function eventsOf(room: PresenceRoom<Member>): Inbox<string> {
  const events = new Inbox<string>("event of the room");
  room.on("join", (id, member) => events.push(`join ${id} ${member.name}`));
  room.on("leave", (id, member) => events.push(`leave ${id} ${member.name}`));
  room.on("sync", (members) => events.push(`sync ${[...members.keys()].sort()}`));
  return events;
}

describe.each(transports)("presence over %s", (transport) => {
  const connect = () => newClient(server.push, transport);
  const tokenOf = (channel: string, id: string) =>
    tokenFor(server, channel, { id, name: id.toUpperCase() });

  test("`subscribeTo` hears who is there before its promise resolves, and who comes and goes", async () => {
    const channel = freshChannel(server, "presence");
    const heard = new Inbox<unknown>("message");
    const order: string[] = [];
    const first = { subscribe: { a: { id: "a", name: "A" } } };
    await connect().subscribeTo(channel, tokenOf(channel, "a"), (data) => {
      order.push("heard");
      heard.push(data);
    });
    order.push("resolved");
    expect(await heard.next()).toEqual(first);
    expect(order).toEqual(["heard", "resolved"]);
    const other = connect();
    await other.subscribeTo(channel, tokenOf(channel, "b"));
    expect(await heard.next()).toEqual({ subscribe: { b: { id: "b", name: "B" } } });
    await publish(server, channel, "message");
    expect(await heard.next()).toBe("message");
    await other.disconnect();
    expect(await heard.next()).toEqual({ unsubscribe: { b: null } });
  });

  test("a room knows its members, who joins and who leaves", async () => {
    const channel = freshChannel(server, "presence");
    const room = connect().presence<Member>(channel, tokenOf(channel, "a"));
    const events = eventsOf(room);
    expect(room.members.size).toBe(0);
    await room;
    expect(room.subscription.state).toBe("subscribed");
    expect([...room.members]).toEqual([["a", { id: "a", name: "A" }]]);
    expect(await events.next()).toBe("sync a");

    const other = connect().presence<Member>(channel, () => Promise.resolve(tokenOf(channel, "b")));
    await other;
    expect([...other.members.keys()].sort()).toEqual(["a", "b"]);
    expect(await events.next()).toBe("join b B");
    expect(room.members.get("b")).toEqual({ id: "b", name: "B" });
    await publish(server, channel, "what else is said is no matter of the room");
    other.cancel();
    expect(await events.next()).toBe("leave b B");
    expect([...room.members.keys()]).toEqual(["a"]);
  });

  test("a room listens on after a restart of the server, and tells what changed", async () => {
    const channel = freshChannel(server, "presence");
    const room = connect().presence<Member>(channel, tokenOf(channel, "a"));
    await room;
    const events = eventsOf(room);
    const leaver = connect();
    await leaver.presence(channel, tokenOf(channel, "b"));
    expect(await events.next()).toBe("join b B");

    await server.kill();
    await leaver.disconnect();
    await server.start();
    expect((await events.upTo((event) => event.startsWith("sync"))).at(-1)).toBe("sync a");
    expect([...room.members.keys()]).toEqual(["a"]);
    await connect().presence(channel, tokenOf(channel, "c"));
    expect(await events.next()).toBe("join c C");
  });

  test("a room that was cancelled is left, also when another of the channel is refused after it", async () => {
    const channel = freshChannel(server, "presence");
    const events = eventsOf(connect().presence<Member>(channel, tokenOf(channel, "a")));
    expect(await events.next()).toBe("sync a");
    const client = connect();
    for (const token of ["nonsense", () => Promise.reject(new Error("logged out"))]) {
      const room = client.presence(channel, tokenOf(channel, "b"));
      await room;
      expect(await events.next()).toBe("join b B");
      const other = client.presence(channel, token);
      room.cancel();
      await failure(other);
      expect(await events.next()).toBe("leave b B");
    }
  });

  test("a room asks who is there when a change may have been missed", async () => {
    const channel = freshChannel(server, "presence");
    const client = connect();
    let isMissing = false;
    client.addExtension({
      incoming(message, pass) {
        if (message.channel === "/meta/connect" && isMissing) {
          message.ext = { pandapush: { sent: 1_000_000 } };
        }
        // As if the server had sent more than came.
        else if (isMissing && message.data !== undefined) return;
        pass(message);
      },
    });
    const room = client.presence<Member>(channel, tokenOf(channel, "a"));
    await room;
    const events = eventsOf(room);
    const gaps = new Inbox<string>("gap");
    room.subscription.on("gap", () => gaps.push("gap"));
    isMissing = true;
    await connect().presence(channel, tokenOf(channel, "b"));
    expect((await events.upTo((event) => event.startsWith("sync"))).at(-1)).toBe("sync a,b");
    expect(await gaps.next()).toBe("gap");
  });

  test("two rooms of a client agree", async () => {
    const channel = freshChannel(server, "presence");
    const client = connect();
    const rooms = [1, 2].map(() => client.presence<Member>(channel, tokenOf(channel, "a")));
    await Promise.all(rooms);
    const events = rooms.map(eventsOf);
    await connect().presence(channel, tokenOf(channel, "b"));
    for (const each of events) expect((await each.upTo((e) => e === "join b B")).length).toBe(1);
    expect(rooms.map(({ members }) => [...members.keys()])).toEqual([
      ["a", "b"],
      ["a", "b"],
    ]);
  });

  test("what is no presence channel is rejected, and the server not asked", async () => {
    const client = connect();
    const { out } = tap(client);
    const token = tokenFor(server, `/${server.appId}/**`, { id: "a" });
    for (const path of ["public/x", "presence/*", "presence/x/**", "presencex/y"]) {
      const channel = `/${server.appId}/${path}`;
      const refused = new Inbox<string>("refusal");
      const room = client.presence(channel, token).on("refused", (e) => refused.push(e.message));
      const message = `${channel} is no presence channel; one is /APP_ID/presence/lobby`;
      expect(await failure(room)).toMatchObject({
        name: "PandapushError",
        reason: "refused",
        message,
      });
      expect(await refused.next()).toBe(message);
    }
    const channel = freshChannel(server, "presence");
    await client.presence(channel, token);
    const isSubscribe = ({ channel }: Message) => channel === "/meta/subscribe";
    expect((await out.upTo(isSubscribe)).at(-1)?.subscription).toBe(channel);
  });

  test("a room has `once` and `finally`", async () => {
    const channel = freshChannel(server, "presence");
    const room = connect().presence(channel, tokenOf(channel, "a"));
    const events: string[] = [];
    room.once("sync", () => events.push("sync"));
    await room.finally(() => events.push("finally"));
    expect(events).toEqual(["sync", "finally"]);
  });

  test("a room is refused without a presence id, and can be left by a signal", async () => {
    const channel = freshChannel(server, "presence");
    const client = connect();
    const refused = client.presence(channel, tokenFor(server, channel));
    expect((await failure(refused)).message).toBe(
      "No presence id specified in presence subscription",
    );
    expect(await refused.catch((error) => error.message)).toContain("No presence id");
    const stop = new AbortController();
    const room = client.presence(channel, tokenOf(channel, "a"), { signal: stop.signal });
    await room;
    stop.abort();
    expect(room.subscription.state).toBe("cancelled");
  });
});

test("who comes and goes before the list arrives, by another way, is right in the end", async () => {
  const channel = freshChannel(server, "presence");
  const tokenOf = (id: string) => tokenFor(server, channel, { id });
  // Between the client and the server: holds the list back.
  const isListed = new Inbox<string>("list");
  const changes = new Inbox<string>("answer to a connect");
  const release = new Inbox<string>("release");
  const pass = async (request: IncomingMessage, response: ServerResponse): Promise<void> => {
    const body = await text(request);
    const headers = { "Content-Type": "application/json" };
    const answer = await fetch(server.push, { method: "POST", headers, body });
    const reply = await answer.text();
    if (reply.includes('"presence":{"subscribe"')) {
      isListed.push(reply);
      await release.next();
    }
    response.writeHead(answer.status, headers).end(reply);
    if (reply.includes(`"channel":"${channel}"`)) changes.push(reply);
  };
  const between = createServer((request, response) => {
    pass(request, response).catch(() => response.destroy());
  });
  between.listen(0, "127.0.0.1");
  await once(between, "listening");
  try {
    const { port } = between.address() as AddressInfo;
    const [goes, comes] = [newClient(server.push), newClient(server.push)];
    await goes.presence(channel, tokenOf("goes"));
    const client = newClient(`http://127.0.0.1:${port}/push`, "long-polling");
    await client.subscribe(freshChannel(server, "public"));
    const room = client.presence<Member>(channel, tokenOf("me"));
    const events = eventsOf(room);
    expect(await isListed.next()).toContain('"goes"');
    const joining = comes.presence(channel, tokenOf("comes"));
    expect(await changes.next()).toContain('"comes"');
    await joining;
    await goes.disconnect();
    expect(await changes.next()).toContain('"goes"');
    release.push("now");
    await room;
    expect([...room.members.keys()].sort()).toEqual(["comes", "me"]);
    expect((await events.next()).slice(0, 4)).toBe("sync");
    await comes.disconnect();
    await events.upTo((event) => event.startsWith("leave comes"));
    expect([...room.members.keys()]).toEqual(["me"]);
  } finally {
    await closeClients();
    between.closeAllConnections();
    between.close();
  }
});
