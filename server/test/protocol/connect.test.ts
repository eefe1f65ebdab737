/** CON and DIS: holding, binding, expiry and the end of a session. */
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { appId, Poller, Socket, startTestServer, type TestServer } from "../harness.js";
import { eventsBefore, freshChannel, member, transports } from "./peers.js";

let server: TestServer;
/** Holds connects for a moment only, so sessions end soon too. */
let quick: TestServer;
const quickMs = 600;
beforeAll(async () => {
  server = await startTestServer();
  quick = await startTestServer({ BAYEUX_TIMEOUT_MS: String(quickMs) });
});
afterAll(async () => {
  await server.close();
  await quick.close();
});

const publisher = (to: TestServer = server): Poller => new Poller(to);
const connectMessage = { channel: "/meta/connect", connectionType: "long-polling" };

describe.each(transports)("over %s", (name, connect) => {
  test.each([
    [{}, "402:connectionType:Missing required parameter"],
    [{ clientId: "" }, "402:connectionType:Missing required parameter"],
    [{ connectionType: "" }, "402:connectionType:Missing required parameter"],
    [{ connectionType: "telepathy" }, "301:telepathy:Connection types not supported"],
    [{ connectionType: "telepathy", clientId: "" }, "301:telepathy:Connection types not supported"],
    [{ connectionType: "websocket", clientId: "" }, "402:clientId:Missing required parameter"],
    [{ connectionType: "websocket", clientId: null }, "402:clientId:Missing required parameter"],
    [{ connectionType: "websocket", clientId: "nobody" }, "401:nobody:Unknown client"],
    [{ connectionType: "websocket", clientId: 5 }, "401:5:Unknown client"],
  ])("[CON-1] a connect with %j is refused with %s", async (fields, error) => {
    const peer = await connect(server);
    const reply = await peer.ask({ channel: "/meta/connect", clientId: "nobody", ...fields });
    expect(reply).toEqual({
      id: reply.id,
      channel: "/meta/connect",
      successful: false,
      error,
      advice: expect.objectContaining({ reconnect: "handshake" }),
      ext: { detail: expect.any(String) },
    });
  });

  test.each([
    "long-polling",
    "cross-origin-long-polling",
    "callback-polling",
    "websocket",
    "in-process",
  ])("[CON-2] the connection type %s is taken whatever the transport", async (connectionType) => {
    const peer = await connect(server);
    const message = { channel: "/meta/connect", connectionType, advice: { timeout: 0 } };
    const reply = await peer.ask(message);
    expect(reply).toEqual({
      id: reply.id,
      clientId: peer.clientId,
      channel: "/meta/connect",
      successful: true,
      advice: { reconnect: "retry", interval: 0, timeout: 30_000 },
    });
  });

  test("[CON-2] an eventsource client is answered at once, to come back after the timeout", async () => {
    const peer = await connect(server);
    const reply = await peer.ask({ channel: "/meta/connect", connectionType: "eventsource" });
    expect(reply.advice).toEqual({ reconnect: "retry", interval: 30_000, timeout: 0 });
  });

  test.each([0, -1, null, "abc", "", {}, [], "0"])(
    "[CON-3] a connect that asks for a hold of %j is answered at once",
    async (timeout) => {
      const peer = await connect(server);
      const reply = await peer.ask({ ...connectMessage, advice: { timeout } });
      expect(reply.successful).toBe(true);
    },
  );

  test.each([
    [quickMs * 100, quickMs],
    [quickMs / 2, quickMs / 2],
    [undefined, quickMs],
  ])("[CON-3] asked for %j ms, a connect is held for %i ms", async (timeout, expected) => {
    const peer = await connect(quick);
    const start = performance.now();
    await peer.ask({
      ...connectMessage,
      ...(timeout === undefined ? {} : { advice: { timeout } }),
    });
    expect(performance.now() - start).toBeGreaterThan(expected - 20);
    expect(performance.now() - start).toBeLessThan(expected * 4);
  });

  test("[CON-7] a session ends when two timeouts have passed since its last connect", async () => {
    const peer = await connect(quick);
    const reply = await peer.ask({ ...connectMessage, advice: { timeout: 0 } });
    expect(reply.successful).toBe(true);
    const start = performance.now();
    // By a socket that the session's end does not close.
    const socket = await Socket.open(quick);
    socket.clientId = peer.clientId;
    let error: string | undefined;
    while (error === undefined) {
      error = (await socket.ask({ channel: "/meta/unsubscribe", subscription: "/a" })).error;
    }
    expect(error).toBe(`401:${peer.clientId}:Unknown client`);
    expect(performance.now() - start).toBeGreaterThan(2 * quickMs - 50);
    expect(performance.now() - start).toBeLessThan(6 * quickMs);
  });

  test("[CON-9] a held connect is answered when its client disconnects elsewhere", async () => {
    const clientId = await new Poller(server).handshake();
    const message = { ...connectMessage, clientId };
    const end = { channel: "/meta/disconnect", clientId };
    if (name === "WebSocket") {
      const socket = await Socket.open(server);
      const held = socket.send(message);
      await socket.ask({ channel: "/meta/x" });
      await publisher().ask(end);
      expect(await socket.next(({ id }) => id === held)).toMatchObject({ successful: true });
      expect(await socket.closing()).toEqual({ code: 1000, reason: "" });
    } else {
      const held = new Poller(server).ask(message);
      // Whether the connect or the disconnect comes first is the network's choice.
      const [reply] = await Promise.all([held, publisher().ask(end)]);
      if (reply.successful !== true) expect(reply.error).toBe(`401:${clientId}:Unknown client`);
    }
  });

  test.each([
    [{ clientId: "" }, "402:clientId:Missing required parameter"],
    [{ clientId: "nobody" }, "401:nobody:Unknown client"],
  ])("[DIS-3] a disconnect with %j is refused with %s", async (fields, error) => {
    const peer = await connect(server);
    const reply = await peer.ask({ channel: "/meta/disconnect", ...fields });
    expect(reply).toEqual({
      id: reply.id,
      channel: "/meta/disconnect",
      successful: false,
      error,
      ext: { detail: expect.any(String) },
    });
  });

  test("[DIS-1] after its disconnect a client is unknown", async () => {
    const peer = await connect(server);
    const { clientId } = peer;
    await peer.subscribe(freshChannel());
    await peer.disconnect();
    const [ended] = [await publisher().ask({ ...connectMessage, clientId })];
    expect(ended?.error).toBe(`401:${clientId}:Unknown client`);
  });
});

describe("a polling client", () => {
  test("[CON-4] is answered when something is published, with all that came with it", async () => {
    const channel = freshChannel("presence");
    const watcher = await Socket.connect(server);
    await watcher.subscribe(channel, member(channel, { id: "watcher" }));
    const poller = await Poller.connect(server);
    const held = poller.post([
      {
        channel: "/meta/subscribe",
        subscription: channel,
        ext: member(channel, { id: "poller" }),
      },
      connectMessage,
    ]);
    await watcher.event(channel);
    const ext = member(channel, { id: "publisher" });
    await publisher().post([1, 2, 3].map((data) => ({ channel, data, ext })));
    const [subscribed, connected, ...events] = await held;
    expect([subscribed?.successful, connected?.successful]).toEqual([true, true]);
    expect(events.map(({ data }) => data)).toEqual([1, 2, 3]);
  });

  test("[CON-4] is answered at once with what was queued, behind the reply itself", async () => {
    const channel = freshChannel();
    const poller = await Poller.connect(server);
    await poller.subscribe(channel);
    await publisher().publish(channel, 1);
    await publisher().publish(channel, 2);
    const [reply, ...events] = await poller.poll();
    expect(reply).toMatchObject({ channel: "/meta/connect", successful: true });
    expect(events).toEqual([
      { channel, data: 1, id: expect.any(String) },
      { channel, data: 2, id: expect.any(String) },
    ]);
  });

  test("[CON-4] that does not want to wait gets what was queued too", async () => {
    const channel = freshChannel();
    const poller = await Poller.connect(server);
    await poller.subscribe(channel);
    await publisher().publish(channel, 1);
    const [, event] = await poller.poll({ advice: { timeout: 0 } });
    expect(event?.data).toBe(1);
  });

  test("[CON-7] is held no longer than it lives, and lives on by its connects", async () => {
    const poller = await Poller.connect(quick);
    const start = performance.now();
    // Four holds are longer than a life without connects.
    for (let round = 0; round < 4; round++) {
      const [reply] = await poller.poll();
      expect(reply).toMatchObject({ successful: true });
    }
    expect(performance.now() - start).toBeGreaterThan(2 * quickMs);
  });
});

describe("a WebSocket client", () => {
  test("[CON-5] that sends a second connect has the first one answered, without events", async () => {
    const channel = freshChannel();
    const socket = await Socket.open(server);
    await socket.handshake();
    await socket.subscribe(channel);
    const first = socket.sendConnect();
    const second = socket.sendConnect();
    expect(await socket.next(({ id }) => id === first)).toMatchObject({ successful: true });
    await socket.publish(channel, 1);
    expect((await socket.event()).data).toBe(1);
    expect(socket.received.map(({ id }) => id)).not.toContain(second);
  });

  test("[CON-6] is pushed its events at once while its connect stays held", async () => {
    const channel = freshChannel();
    const socket = await Socket.connect(server);
    await socket.subscribe(channel);
    for (const data of [1, 2, 3]) {
      await socket.publish(channel, data);
      expect((await socket.event()).data).toBe(data);
    }
    expect(socket.received).toEqual([]);
    expect(socket.frames.every((frame) => frame.startsWith("["))).toBe(true);
  });

  test("[CON-6] is pushed nothing before its first connect", async () => {
    const channel = freshChannel();
    const socket = await Socket.open(server);
    await socket.handshake();
    await socket.subscribe(channel);
    await socket.publish(channel, 1);
    await publisher().publish(channel, 2);
    await socket.ask({ channel: "/meta/x" });
    expect(socket.received).toEqual([]);
    socket.sendConnect();
    expect([(await socket.event()).data, (await socket.event()).data]).toEqual([1, 2]);
  });

  test("[CON-7] that sends no connect in time is closed with 1000", async () => {
    const socket = await Socket.connect(quick);
    expect(await socket.next(({ channel }) => channel === "/meta/connect")).toMatchObject({
      successful: true,
    });
    expect(await socket.closing()).toEqual({ code: 1000, reason: "" });
    const late = await publisher(quick).ask({ ...connectMessage, clientId: socket.clientId });
    expect(late.error).toBe(`401:${socket.clientId}:Unknown client`);
  });

  test("[DIS-2] gets the reply to its disconnect, then its held connect's, then the close", async () => {
    const socket = await Socket.open(server);
    await socket.handshake();
    const connect = socket.sendConnect();
    const disconnect = socket.send({ channel: "/meta/disconnect" });
    expect(await socket.closing()).toEqual({ code: 1000, reason: "" });
    expect(socket.received).toEqual([
      {
        id: disconnect,
        clientId: socket.clientId,
        channel: "/meta/disconnect",
        successful: true,
      },
      expect.objectContaining({ id: connect, channel: "/meta/connect", successful: true }),
    ]);
  });

  test("[TR-WS-4] only a connect binds: others may use a socket that is bound", async () => {
    const [own, foreign] = [freshChannel(), freshChannel()];
    const socket = await Socket.connect(server);
    await socket.subscribe(own);
    const other = await Poller.connect(server);
    await socket.ask({
      channel: "/meta/subscribe",
      subscription: foreign,
      clientId: other.clientId,
    });
    await socket.publish(foreign, "for the other");
    await socket.publish(own, "own");
    expect((await socket.event()).data).toBe("own");
    const [, event] = await other.poll();
    expect(event?.data).toBe("for the other");
  });

  test("[TR-WS-4] a connect for another client answers and releases the first", async () => {
    const channel = freshChannel();
    const socket = await Socket.open(server);
    const first = await socket.handshake();
    await socket.subscribe(channel);
    const held = socket.sendConnect();
    await socket.handshake();
    const own = freshChannel();
    await socket.subscribe(own);
    socket.sendConnect();
    expect(await socket.next(({ id }) => id === held)).toMatchObject({
      clientId: first,
      successful: true,
    });
    await publisher().publish(channel, "queued");
    await publisher().publish(own, "pushed");
    expect((await socket.event()).data).toBe("pushed");
    socket.clientId = first;
    socket.sendConnect();
    expect((await socket.event()).data).toBe("queued");
  });

  test("[TR-WS-4] a connect for nobody changes no binding", async () => {
    const channel = freshChannel();
    const socket = await Socket.connect(server);
    await socket.subscribe(channel);
    await socket.ask({ ...connectMessage, clientId: "nobody" });
    await publisher().publish(channel, 1);
    expect((await socket.event()).data).toBe(1);
    expect(socket.received).toEqual([]);
  });

  test("[TR-WS-5] a client moves to the socket it last connected by; the old one stays open", async () => {
    const channel = freshChannel();
    const old = await Socket.connect(server);
    await old.subscribe(channel);
    const current = await Socket.open(server);
    current.clientId = old.clientId;
    current.sendConnect();
    await old.next((message) => message.channel === "/meta/connect");
    await publisher().publish(channel, 1);
    expect((await current.event()).data).toBe(1);
    await old.ask({ channel: "/meta/x" });
    expect(old.received).toEqual([]);
    expect(old.closed).toBeUndefined();
    old.sendConnect();
    await current.next((message) => message.channel === "/meta/connect");
    await publisher().publish(channel, 2);
    expect((await old.event()).data).toBe(2);
  });

  test("[TR-WS-6] whose socket closes is answered a poll that it holds elsewhere", async () => {
    const channel = freshChannel();
    const socket = await Socket.connect(server);
    await socket.subscribe(channel);
    const poller = new Poller(server);
    poller.clientId = socket.clientId;
    const held = poller.poll();
    // The poll supersedes the socket's connect, so it has arrived.
    await socket.next((message) => message.channel === "/meta/connect");
    await publisher().publish(channel, 1);
    expect((await socket.event()).data).toBe(1);
    socket.close();
    expect(await held).toMatchObject([{ channel: "/meta/connect", successful: true }]);
  });

  test("[TR-WS-6] whose socket is lost keeps its subscriptions and its order", async () => {
    const [channel, marker] = [freshChannel(), freshChannel()];
    let peer: Socket = await Socket.connect(server);
    await peer.subscribe([channel, marker]);
    const heard: unknown[] = [];
    for (let round = 0; round < 10; round++) {
      await publisher().publish(channel, 2 * round);
      peer.cut();
      await publisher().publish(channel, 2 * round + 1);
      await peer.closing();
      heard.push(...peer.received.filter((m) => m.channel === channel).map(({ data }) => data));
      const next = await Socket.open(server);
      next.clientId = peer.clientId;
      next.sendConnect();
      peer = next;
    }
    await publisher().publish(marker, "end");
    heard.push(...(await eventsBefore(peer, marker)).map(({ data }) => data));
    // What the kernel took before the cut may be lost on the way; nothing comes twice or late.
    expect(heard).toEqual([...heard].sort((a, b) => Number(a) - Number(b)));
    expect(new Set(heard).size).toBe(heard.length);
  });
});

describe("[CON-8] a connection that is lost while its batch waits for the database", () => {
  let keys = 0;
  /** No key has this id, but only the database knows that; it is remembered, so each is another. */
  const unknownKey = () => ({
    channel: `/${appId}/public/x`,
    data: 1,
    ext: { auth: { key: `nobody${++keys}` } },
  });

  /** Runs `during` while the database does not answer, and has its end noticed by the server. */
  const whileWaiting = async (start: () => void, during: () => Promise<unknown>): Promise<void> => {
    const { store } = server;
    const findKey = store.findKey.bind(store);
    const roundTrips = async (): Promise<void> => {
      for (let count = 0; count < 10; count++) await publisher().ask({ channel: "/meta/x" });
    };
    let open = (): void => undefined;
    const opened = new Promise<void>((resolve) => {
      open = resolve;
    });
    const asked = new Promise<void>((resolve) => {
      store.findKey = async (app, id) => {
        resolve();
        await opened;
        return findKey(app, id);
      };
    });
    start();
    await asked;
    await during();
    await roundTrips();
    open();
    store.findKey = findKey;
    await roundTrips();
  };

  /** What comes within one poll of a client whose last connection was lost. */
  const finds = async (channel: string, clientId: string, data: unknown): Promise<void> => {
    await publisher().publish(channel, data);
    const poller = new Poller(server);
    poller.clientId = clientId;
    const [, event] = await poller.poll({ advice: { timeout: 2_000 } });
    expect(event?.data).toBe(data);
  };

  test.each(["close", "cut"] as const)(
    "[CON-8] binds nothing to a socket that is gone (%s)",
    async (leave) => {
      const channel = freshChannel();
      const socket = await Socket.open(server);
      const clientId = await socket.handshake();
      await socket.subscribe(channel);
      const connect = { channel: "/meta/connect", connectionType: "websocket", clientId };
      await whileWaiting(
        () => socket.sendText(JSON.stringify([unknownKey(), connect])),
        async () => socket[leave](),
      );
      await finds(channel, clientId, 1);
    },
  );

  test("[CON-8] answers no request that is gone", async () => {
    const channel = freshChannel();
    const poller = await Poller.connect(server);
    await poller.subscribe(channel);
    const abort = new AbortController();
    const sent: { poll?: Promise<unknown> } = {};
    await whileWaiting(
      () => {
        sent.poll = poller.post([unknownKey(), connectMessage], { signal: abort.signal });
      },
      async () => {
        abort.abort();
        await expect(sent.poll).rejects.toThrow();
      },
    );
    await finds(channel, poller.clientId, 1);
  });
});
