import { afterEach, describe, expect, test } from "vitest";
import {
  appId,
  keyAuth,
  type Message,
  Poller,
  Socket,
  startTestServer,
  type TestServer,
  token,
} from "../harness.js";
import { basicAuth, expectServes, RawSocket } from "./raw.js";

let server: TestServer | undefined;

async function start(environment: Record<string, string>): Promise<TestServer> {
  server = await startTestServer(environment);
  return server;
}

afterEach(async () => {
  if (server !== undefined) await expectServes(server);
  await server?.close();
  server = undefined;
});

const channel = `/${appId}/public/limits`;

const publishByRest = async ({ port }: TestServer, data: string, to = channel): Promise<Response> =>
  fetch(`http://127.0.0.1:${port}/channel${to}`, {
    method: "POST",
    headers: { Authorization: basicAuth, "Content-Type": "application/json" },
    body: data,
  });

async function eventually(isTrue: () => boolean | Promise<boolean>): Promise<void> {
  await expect.poll(isTrue, { timeout: 8_000, interval: 5 }).toBe(true);
}

describe("MAX_MESSAGE_BYTES", () => {
  test("what is just as large is delivered on every way; one byte more is refused and named", async () => {
    const limit = 2_048;
    const running = await start({ MAX_MESSAGE_BYTES: `${limit}` });
    const listener = await Socket.connect(running);
    await listener.subscribe(channel);
    const messageOf = (length: number): string => {
      const empty = JSON.stringify([{ channel, data: "", ext: keyAuth, id: "1" }]);
      return empty.replace('"data":""', `"data":"${"x".repeat(length - empty.length)}"`);
    };
    const post = async (type: string, body: string): Promise<[number, string]> => {
      const headers = { "Content-Type": type };
      const response = await fetch(running.pushUrl, { method: "POST", headers, body });
      return [response.status, await response.text()];
    };
    const jsonp = async (text: string): Promise<[number, string]> => {
      const response = await fetch(`${running.pushUrl}?message=${encodeURIComponent(text)}`);
      return [response.status, await response.text()];
    };
    const refused = [413, `Message too large\nA request may have ${limit} bytes.\n`];

    const socket = await Socket.open(running);
    socket.sendText(messageOf(limit));
    await socket.next(({ id }) => id === "1");
    await listener.event(channel);
    for (const send of [
      (text: string) => post("application/json", text),
      (text: string) => post("text/plain", `message=${encodeURIComponent(text)}`),
      jsonp,
    ]) {
      expect((await send(messageOf(limit)))[0]).toBe(200);
      await listener.event(channel);
      expect(await send(messageOf(limit + 1))).toEqual(refused);
    }
    expect((await publishByRest(running, `"${"x".repeat(limit - 2)}"`)).status).toBe(200);
    await listener.event(channel);
    const response = await publishByRest(running, `"${"x".repeat(limit - 1)}"`);
    expect([response.status, ((await response.json()) as { message: string }).message]).toEqual([
      413,
      "Message too large",
    ]);
    socket.sendText(messageOf(limit + 1));
    expect((await socket.closing()).code).toBe(1009);
    expect(listener.received.filter(({ channel: name }) => name === channel)).toEqual([]);
    listener.close();
  });
});

describe("MAX_BATCH_MESSAGES", () => {
  test("a longer batch is refused as a whole, with the number that is allowed", async () => {
    const running = await start({ MAX_BATCH_MESSAGES: "10" });
    const batch = (count: number): string =>
      JSON.stringify(
        Array.from({ length: count }, (_, id) => ({ channel, data: id, ext: keyAuth, id })),
      );
    const listener = await Socket.connect(running);
    await listener.subscribe(channel);
    const socket = await Socket.open(running);
    socket.sendText(batch(11));
    const refusal = await socket.next(({ successful }) => successful === false);
    expect(refusal.ext?.detail).toContain("at most 10");
    const headers = { "Content-Type": "application/json" };
    const response = await fetch(running.pushUrl, { method: "POST", headers, body: batch(11) });
    expect([400, 413]).toContain(response.status);
    expect(await response.text()).toContain("at most 10");
    socket.sendText(batch(10));
    await socket.next(({ id }) => id === 9);
    for (let id = 0; id < 10; id++) expect((await listener.event(channel)).data).toBe(id);
    const names = Array.from({ length: 11 }, (_, index) => `${channel}/${index}`);
    expect((await listener.subscribe(names)).error).toBe("Too many messages in one request");
    listener.close();
  });
});

describe("the outbox", () => {
  test.each([
    { name: "MAX_OUTBOX_MESSAGES", value: "10", count: 11, size: 1 },
    { name: "MAX_OUTBOX_BYTES", value: "4096", count: 5, size: 1_000 },
  ])(
    "$name: a session for which more waits ends, and its client is told so",
    async ({ name, value, count, size }) => {
      const running = await start({ [name]: value });
      const [full, fine] = [await Poller.connect(running), await Poller.connect(running)];
      const data = JSON.stringify("x".repeat(size));
      const few = Math.floor(count / 2);
      for (const poller of [full, fine]) await poller.subscribe(channel);
      for (let i = 0; i < few; i++) await publishByRest(running, data);
      const seen: Message[] = [];
      while (seen.length < few) seen.push(...(await fine.poll()).slice(1));
      for (let i = few; i < count; i++) await publishByRest(running, data);
      // Whoever asks before all was delivered takes what waits.
      while (seen.length < count) seen.push(...(await fine.poll()).slice(1));
      await eventually(
        async () => (await full.poll({ advice: { timeout: 0 } }))[0]?.successful === false,
      );
      const [refusal] = await full.poll({ advice: { timeout: 0 } });
      expect(refusal).toMatchObject({
        error: `401:${full.clientId}:Unknown client`,
        advice: { reconnect: "handshake" },
      });
      expect((await fine.publish(channel, "more")).successful).toBe(true);
      expect((await fine.poll()).at(-1)?.data).toBe("more");
      expect(running.logged.join("")).toContain("overflow");
    },
  );
});

describe("MAX_SUBSCRIPTIONS_PER_SESSION", () => {
  test("one more is refused; the others, and repeating one, work on; leaving one makes room", async () => {
    const running = await start({ MAX_SUBSCRIPTIONS_PER_SESSION: "5" });
    const socket = await Socket.connect(running);
    const names = Array.from({ length: 5 }, (_, index) => `${channel}/${index}`);
    expect((await socket.subscribe(names)).successful).toBe(true);
    const refused = await socket.subscribe(`${channel}/more`);
    expect(refused).toMatchObject({
      successful: false,
      error: "Too many subscriptions in this session",
    });
    expect(refused.ext?.detail).toContain("5 subscriptions");
    expect((await socket.subscribe(`${channel}/4`)).successful).toBe(true);
    await publishByRest(running, "1", `${channel}/more`);
    await publishByRest(running, "2", `${channel}/4`);
    expect((await socket.event()).data).toBe(2);
    await socket.ask({ channel: "/meta/unsubscribe", subscription: `${channel}/0` });
    expect((await socket.subscribe(`${channel}/more`)).successful).toBe(true);
    socket.close();
  });
});

describe("limits of one address", () => {
  const from = (address: string): Record<string, string> => ({ "X-Forwarded-For": address });

  async function handshakeFrom(running: TestServer, address: string): Promise<Message> {
    const response = await fetch(running.pushUrl, {
      method: "POST",
      headers: { "Content-Type": "application/json", ...from(address) },
      body: '[{"channel":"/meta/handshake","version":"1.0","supportedConnectionTypes":["long-polling"]}]',
    });
    return ((await response.json()) as Message[])[0] as Message;
  }

  test("MAX_SESSIONS_PER_ADDRESS: one more is refused with a pause; others are not; an end makes room", async () => {
    const running = await start({
      TRUST_PROXY: "loopback",
      MAX_SESSIONS_PER_ADDRESS: "3",
      BAYEUX_TIMEOUT_MS: "60000",
    });
    const clientIds: (string | undefined)[] = [];
    for (let i = 0; i < 3; i++)
      clientIds.push((await handshakeFrom(running, "192.0.2.1")).clientId);
    const refused = await handshakeFrom(running, "192.0.2.1");
    expect(refused).toMatchObject({
      successful: false,
      error: "Too many sessions from this address",
      advice: { reconnect: "handshake" },
    });
    expect(refused.advice?.interval).toBeGreaterThanOrEqual(1_000);
    const socket = await Socket.open(running, [], from("192.0.2.1"));
    expect(await socket.handshake()).toBe("");
    expect((await handshakeFrom(running, "192.0.2.2")).successful).toBe(true);
    const poller = new Poller(running);
    poller.clientId = clientIds[0] ?? "";
    await poller.ask({ channel: "/meta/disconnect" });
    expect((await handshakeFrom(running, "192.0.2.1")).successful).toBe(true);
    expect((await handshakeFrom(running, "192.0.2.1")).successful).toBe(false);
    socket.close();
  });

  test("MAX_UNBOUND_SOCKETS_PER_ADDRESS: one more is refused with 429; bound and closed ones do not count", async () => {
    const running = await start({ TRUST_PROXY: "loopback", MAX_UNBOUND_SOCKETS_PER_ADDRESS: "3" });
    const address = from("192.0.2.1");
    const sockets: Socket[] = [];
    for (let i = 0; i < 3; i++) sockets.push(await Socket.open(running, [], address));
    const refusedStatus = async (): Promise<number> => {
      const raw = await RawSocket.upgrade(running, address).catch((error: Error) => error.message);
      if (typeof raw === "string") return Number(/\d+/.exec(raw)?.[0]);
      raw.cut();
      return 101;
    };
    expect(await refusedStatus()).toBe(429);
    (await Socket.open(running, [], from("192.0.2.2"))).close();
    const [first, second] = sockets;
    await first?.handshake();
    const held = first?.sendConnect({ advice: { timeout: 0 } });
    await first?.next(({ id }) => id === held);
    sockets.push(await Socket.open(running, [], address));
    expect(await refusedStatus()).toBe(429);
    second?.close();
    await second?.closing();
    await eventually(async () => (await refusedStatus()) === 101);
    // A socket that was bound once stays so, also when its session ends.
    for (const socket of sockets) socket.cut();
    await eventually(async () => {
      const opened = await Promise.allSettled(
        Array.from({ length: 3 }, () => Socket.open(running, [], address)),
      );
      for (const each of opened) if (each.status === "fulfilled") each.value.cut();
      return opened.every(({ status }) => status === "fulfilled");
    });
  });

  test("MAX_UNBOUND_SOCKETS_PER_ADDRESS: a socket whose session moves to another one counts again", async () => {
    const running = await start({ TRUST_PROXY: "loopback", MAX_UNBOUND_SOCKETS_PER_ADDRESS: "3" });
    const address = from("192.0.2.1");
    const poller = await Poller.connect(running);
    const sockets: Socket[] = [];
    for (let i = 0; i < 4; i++) {
      const socket = await Socket.open(running, [], address);
      socket.clientId = poller.clientId;
      const id = socket.sendConnect({ advice: { timeout: 0 } });
      await socket.next((reply) => reply.id === id);
      sockets.push(socket);
    }
    // The last one carries the session, the three before it carry none.
    await expect(Socket.open(running, [], address)).rejects.toThrow("429");
    // Back to the first: the last one counts in its place.
    const [first, , , last] = sockets;
    const back = first?.sendConnect({ advice: { timeout: 0 } });
    await first?.next(({ id }) => id === back);
    await expect(Socket.open(running, [], address)).rejects.toThrow("429");
    last?.cut();
    await eventually(async () => {
      const socket = await Socket.open(running, [], address).catch(() => undefined);
      if (socket !== undefined) sockets.push(socket);
      return socket !== undefined;
    });
    for (const socket of sockets) socket.cut();
  });

  test("refused and broken upgrades do not use up the sockets of an address", async () => {
    const running = await start({ TRUST_PROXY: "loopback", MAX_UNBOUND_SOCKETS_PER_ADDRESS: "2" });
    for (let i = 0; i < 10; i++) {
      const broken = RawSocket.upgrade(running, { ...from("192.0.2.1"), "Sec-WebSocket-Key": "x" });
      await expect(broken).rejects.toThrow("400");
    }
    await eventually(async () => {
      const socket = await Socket.open(running, [], from("192.0.2.1")).catch(() => undefined);
      socket?.cut();
      return socket !== undefined;
    });
  });

  test("an address is what the nearest proxy that is not trusted says: nobody speaks for another", async () => {
    const running = await start({ MAX_SESSIONS_PER_ADDRESS: "1", TRUST_PROXY: "loopback" });
    expect((await handshakeFrom(running, "203.0.113.7, 192.0.2.1")).successful).toBe(true);
    expect((await handshakeFrom(running, "203.0.113.8, 192.0.2.1")).successful).toBe(false);
    for (const odd of ["garbage", "::1, 127.0.0.1", ",,,", "1.2.3.4.5", "é"]) {
      const encoded = Buffer.from(odd).toString("latin1");
      expect(typeof (await handshakeFrom(running, encoded)).successful).toBe("boolean");
    }
  });
});

describe("UNBOUND_SOCKET_MS", () => {
  test("a socket that never carries a session is closed with 4009; one that does stays", async () => {
    const running = await start({ UNBOUND_SOCKET_MS: "50", PING_INTERVAL_MS: "100" });
    const bound = await Socket.connect(running);
    const silent = await Socket.open(running);
    expect(await silent.closing()).toEqual({ code: 4009, reason: "Never connected" });
    await bound.subscribe(channel);
    await bound.publish(channel, "still here");
    expect((await bound.event(channel)).data).toBe("still here");
    bound.close();
  });

  test("a socket whose session moved to another one is closed too", async () => {
    const running = await start({ UNBOUND_SOCKET_MS: "50", PING_INTERVAL_MS: "100" });
    const old = await Socket.connect(running);
    const next = await Socket.open(running);
    next.clientId = old.clientId;
    next.sendConnect();
    expect((await old.closing()).code).toBe(4009);
    await next.subscribe(channel);
    await next.publish(channel, "still here");
    expect((await next.event(channel)).data).toBe("still here");
    next.close();
  });
});

describe("presence", () => {
  const room = `/${appId}/presence/limits`;
  const join = (socket: Socket, presence: object): Promise<Message> =>
    socket.subscribe(room, { auth: { token: token({ channel: room, sub: true, presence }) } });

  test("MAX_PRESENCE_BYTES: a larger object is refused and its owner is not present", async () => {
    const running = await start({ MAX_PRESENCE_BYTES: "64" });
    const [first, second] = [await Socket.connect(running), await Socket.connect(running)];
    expect((await join(first, { id: "1" })).successful).toBe(true);
    const refused = await join(second, { id: "2", name: "x".repeat(64) });
    expect(refused).toMatchObject({ successful: false, error: "Presence object too large" });
    expect(refused.ext?.detail).toContain("64 bytes");
    expect((await join(second, { id: "3" })).ext?.presence).toMatchObject({
      subscribe: { 1: { id: "1" }, 3: { id: "3" } },
    });
    expect((await first.event(room)).data).toMatchObject({ subscribe: { 3: {} } });
    for (const socket of [first, second]) socket.close();
  });

  test("MAX_PRESENCE_MEMBERS: one more is refused; a second connection of a member is not", async () => {
    const running = await start({ MAX_PRESENCE_MEMBERS: "2" });
    const sockets = await Promise.all(Array.from({ length: 4 }, () => Socket.connect(running)));
    const [first, second, third, fourth] = sockets as [Socket, Socket, Socket, Socket];
    expect((await join(first, { id: "1" })).successful).toBe(true);
    expect((await join(second, { id: "2" })).successful).toBe(true);
    const refused = await join(third, { id: "3" });
    expect(refused).toMatchObject({ successful: false, error: "Presence channel is full" });
    expect(refused.ext?.detail).toContain("2 members");
    expect((await join(fourth, { id: "2" })).successful).toBe(true);
    await first.ask({ channel: "/meta/disconnect" });
    expect((await join(third, { id: "3" })).successful).toBe(true);
    for (const socket of sockets) socket.close();
  });
});

describe("MAX_BACKLOG_MESSAGES", () => {
  test("what would wait too long is refused as busy, everywhere; what was taken arrives", async () => {
    const running = await start({ MAX_BACKLOG_MESSAGES: "3" });
    const listener = await Socket.connect(running);
    await listener.subscribe(channel);
    const socket = await Socket.open(running);
    // One frame is handled in one turn, and delivered at its end.
    const messages = Array.from({ length: 6 }, (_, id) => ({
      channel,
      data: id,
      ext: keyAuth,
      id: `${id}`,
    }));
    socket.sendText(JSON.stringify(messages));
    await socket.next(({ id }) => id === "5");
    const replies = JSON.parse(socket.frames.at(-1) ?? "[]") as Message[];
    expect(replies.map(({ successful }) => successful)).toEqual([
      true,
      true,
      true,
      false,
      false,
      false,
    ]);
    expect(replies[3]?.error).toBe(`503:${channel}:Application is busy`);
    await socket.publish(channel, "afterwards");
    const heard = [];
    while (heard.at(-1) !== "afterwards") heard.push((await listener.event(channel)).data);
    expect(heard).toEqual([0, 1, 2, "afterwards"]);
    for (const each of [listener, socket]) each.close();
  });
});

describe("channel names", () => {
  const segments = (count: number): string => `/${appId}/public${"/a".repeat(count - 2)}`;
  const long = (length: number): string => `/${appId}/public/`.padEnd(length, "a");

  test("32 segments and 512 characters are accepted, one more is refused everywhere", async () => {
    const running = await start({});
    const socket = await Socket.connect(running);
    for (const name of [segments(32), long(512)]) {
      expect((await socket.subscribe(name)).successful).toBe(true);
      expect((await socket.publish(name, "Bayeux")).successful).toBe(true);
      expect((await publishByRest(running, '"REST"', name)).status).toBe(200);
      expect([(await socket.event(name)).data, (await socket.event(name)).data]).toEqual([
        "Bayeux",
        "REST",
      ]);
    }
    for (const name of [segments(33), long(513)]) {
      expect((await socket.subscribe(name)).error).toBe("Invalid channel name");
      expect((await socket.publish(name, 1)).error).toBe("Invalid channel name");
      expect((await publishByRest(running, "1", name)).status).toBe(404);
    }
    socket.close();
  });
});
