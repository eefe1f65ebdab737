import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import { appId, Poller, Socket, startTestServer, type TestServer } from "../harness.js";
import { basicAuth, eachInParallel, expectServes, RawSocket } from "./raw.js";

let server: TestServer;
beforeAll(async () => {
  server = await startTestServer();
});
afterAll(() => server.close());
afterEach(() => expectServes(server));

const channelPath = `/channel/${appId}/public/raw`;

describe("requests that cannot be read are refused and their connection closed", () => {
  const body = '[{"channel":"/meta/handshake"}]';
  const broken: Record<string, string> = {
    garbage: "\u0016\u0003\u0001\u0002\u0000garbage\r\n\r\n",
    "an empty method": " /push HTTP/1.1\r\nHost: a\r\n\r\n",
    "an unknown version": "GET /push HTTP/9.9\r\nHost: a\r\n\r\n",
    "a header without a name": "GET /push HTTP/1.1\r\nHost: a\r\n: b\r\n\r\n",
    "a space before the colon": "GET /push HTTP/1.1\r\nHost : a\r\n\r\n",
    "two content lengths": `POST /push HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: ${body.length}\r\n\r\n${body}`,
    "a length and chunks": `POST /push HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n`,
    "two transfer encodings": `POST ${channelPath} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n`,
    "a negative length": "POST /push HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
    "a length that is no number": "POST /push HTTP/1.1\r\nHost: a\r\nContent-Length: 0x10\r\n\r\n",
    "chunks that are garbage":
      "POST /push HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\nZZZ\r\nnonsense\r\n",
    "a chunk of endless length": `POST ${channelPath} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffffffffff\r\n`,
    "headers of a megabyte": `GET /push HTTP/1.1\r\nHost: a\r\nX: ${"x".repeat(1_000_000)}\r\n\r\n`,
    "an address of 100 kilobytes": `GET /push?message=${"x".repeat(100_000)} HTTP/1.1\r\nHost: a\r\n\r\n`,
    "no host": "GET /push HTTP/1.1\r\n\r\n",
  };

  test.each(Object.keys(broken))("%s", async (what) => {
    const socket = await RawSocket.open(server);
    socket.write(broken[what] ?? "");
    const { status } = await socket.response();
    expect([400, 431]).toContain(status);
    await socket.closing();
    // Nothing behind it was taken for a second request.
    expect(socket.received.toString("latin1")).not.toContain("HTTP/1.1 200");
  });
});

describe("an offer of another protocol is no part of a request", () => {
  const offer =
    "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n";
  const json = `Content-Type: application/json\r\n${offer}`;
  const publish = (body: string): string =>
    `POST ${channelPath} HTTP/1.1\r\nHost: a\r\nAuthorization: ${basicAuth}\r\nContent-Length: ${body.length}\r\n${json}\r\n${body}`;

  test("[TR-8] requests with one are answered like others, again and again on one connection", async () => {
    const listener = await Socket.connect(server);
    await listener.subscribe(`/${appId}/public/raw`);
    const socket = await RawSocket.open(server);
    for (let n = 0; n < 20; n++) {
      socket.write(publish(`${n}`));
      expect((await socket.response()).body).toBe("OK");
      expect((await listener.event()).data).toBe(n);
      socket.write(`POST /push HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n${json}\r\n[]`);
      expect((await socket.response()).body).toBe("[]");
    }
    socket.write(`GET /health_check.json HTTP/1.1\r\nHost: a\r\n${offer}\r\n`);
    expect((await socket.response()).status).toBe(200);
    socket.cut();
    listener.close();
  });

  test("[TR-8] so are bodies that come in several packets or in chunks, and requests that are pipelined behind one", async () => {
    const listener = await Socket.connect(server);
    await listener.subscribe(`/${appId}/public/raw`);
    const socket = await RawSocket.open(server);
    const large = JSON.stringify("x".repeat(200_000));
    const request = publish(large);
    socket.write(request.slice(0, -100_000));
    // By now the server has seen the beginning.
    await listener.publish(`/${appId}/public/elsewhere`, 1);
    socket.write(request.slice(-100_000));
    expect((await socket.response()).body).toBe("OK");
    expect((await listener.event()).data).toHaveLength(200_000);
    socket.write(
      `POST /push HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n${json}\r\n1\r\n[\r\n1\r\n]\r\n0\r\n\r\n`,
    );
    expect((await socket.response()).body).toBe("[]");
    const plain = "POST /push HTTP/1.1\r\nHost: a\r\nContent-Length: 12\r\n\r\nmessage=null";
    socket.write(publish("1") + plain);
    for (const body of ["OK", "[]"]) expect((await socket.response()).body).toBe(body);
    socket.cut();
    listener.close();
  });
});

test("[TR-9] requests that name the whole address, as for a proxy, are answered like others", async () => {
  const socket = await RawSocket.open(server);
  const ask = async (start: string, head: string, body = ""): Promise<[number, string]> => {
    const length = body === "" ? "" : `Content-Length: ${body.length}\r\n`;
    socket.write(`${start} HTTP/1.1\r\nHost: a\r\n${head}${length}\r\n${body}`);
    const response = await socket.response();
    return [response.status, response.body];
  };
  const json = "Content-Type: application/json\r\n";
  const auth = `Authorization: ${basicAuth}\r\n`;
  expect(await ask("POST http://pandapush.example/push", json, "[]")).toEqual([200, "[]"]);
  expect(await ask("POST HTTPS://a:8080/push/x?y=z", json, "[]")).toEqual([200, "[]"]);
  const channelUrl = `http://a${channelPath}?token=`;
  expect(await ask(`POST ${channelUrl}`, json + auth, "1")).toEqual([200, "OK"]);
  expect(await ask("GET http://a/health_check.json", "")).toEqual([200, expect.any(String)]);
  expect((await ask("GET http://a", ""))[0]).toBe(200);
  expect((await ask("POST http://a/pushfoo", json, "[]"))[0]).toBe(404);
  socket.cut();
});

test("as much white space in Accept as headers may have costs nobody any time", async () => {
  const socket = await RawSocket.open(server);
  const head = `GET /push/x HTTP/1.1\r\nHost: a\r\nAccept: a${" ".repeat(15_500)}b\r\n`;
  socket.write(`${`${head}\r\n`.repeat(300)}${head}Connection: close\r\n\r\n`);
  await socket.closing();
  expect(socket.received.toString().match(/"message" is missing/g)).toHaveLength(301);
});

describe("requests that never end", () => {
  test("hold nobody up: hundreds of them, half a header or half a body each", async () => {
    const starts = [
      "",
      "G",
      "POST /push HTTP/1.1\r\nHost: a\r\nContent-Le",
      'POST /push HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n[{"channel"',
      "POST /push HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\nmessage=%5B",
      "POST /push HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n100\r\nmessage",
      `POST ${channelPath} HTTP/1.1\r\nHost: a\r\nAuthorization: ${basicAuth}\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{"a"`,
      "GET /push HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n",
    ];
    const sockets: RawSocket[] = [];
    for (let round = 0; round < 200; round++) {
      const socket = await RawSocket.open(server);
      socket.write(starts[round % starts.length] ?? "");
      sockets.push(socket);
    }
    await expectServes(server);
    // Some are cut, some end their side only.
    for (const [index, socket] of sockets.entries()) {
      if (index % 2 === 0) socket.cut();
      else socket.tcp.end();
    }
    await eachInParallel(sockets, sockets.length, (socket) => socket.closing());
  });

  test("headers that drip in byte by byte are one request", async () => {
    const socket = await RawSocket.open(server);
    const body = '[{"channel":"/meta/nothing","id":"1"}]';
    const request = `POST /push HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: ${body.length}\r\n\r\n${body}`;
    for (const character of request) socket.write(character);
    const { status, body: reply } = await socket.response();
    expect([status, reply]).toEqual([200, expect.stringContaining("403:/meta/nothing")]);
    socket.cut();
  });
});

describe("polls", () => {
  test("aborted by the hundred cost nothing, and what comes meanwhile arrives once", async () => {
    const poller = await Poller.connect(server);
    const channel = `/${appId}/public/aborted`;
    await poller.subscribe(channel);
    for (let round = 0; round < 200; round++) {
      const abort = new AbortController();
      const poll = poller.poll({}, { signal: abort.signal }).catch((error: Error) => error.name);
      if (round % 2 === 0) await new Promise((resolve) => setImmediate(resolve));
      abort.abort();
      expect(await poll).toBe("AbortError");
    }
    await poller.publish(channel, "after");
    // An aborted poll may have been on its way when the message came.
    const [, ...events] = await poller.poll();
    expect(events.map(({ data }) => data)).toEqual(["after"]);
  });

  test("of hundreds of clients that are gone at once do not disturb those that stay", async () => {
    const channel = `/${appId}/public/crowd`;
    const pollers = await Promise.all(Array.from({ length: 100 }, () => Poller.connect(server)));
    await eachInParallel(pollers, 20, async (poller) => {
      await poller.subscribe(channel);
    });
    const aborts = pollers.map(() => new AbortController());
    const polls = pollers.map((poller, index) =>
      poller.poll({}, { signal: aborts[index]?.signal as AbortSignal }).catch(() => []),
    );
    for (const [index, abort] of aborts.entries()) if (index % 2 === 0) abort.abort();
    await Promise.all(polls.filter((_, index) => index % 2 === 0));
    await pollers[0]?.publish(channel, "to those who stay");
    for (const [index, poll] of polls.entries()) {
      if (index % 2 === 1) expect((await poll).at(-1)?.data).toBe("to those who stay");
    }
    // And those who left find it when they come back.
    for (const [index, poller] of pollers.entries()) {
      if (index % 2 === 0) expect((await poller.poll()).at(-1)?.data).toBe("to those who stay");
    }
  });

  test("pipelined on one connection are answered in order", async () => {
    const socket = await RawSocket.open(server);
    const ids = ["1", "2", "3", "4", "5"];
    for (const id of ids) {
      const body = JSON.stringify([{ channel: "/meta/nothing", id }]);
      socket.write(
        `POST /push HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: ${body.length}\r\n\r\n${body}`,
      );
    }
    for (const id of ids) {
      const [reply] = JSON.parse((await socket.response()).body) as { id: string }[];
      expect(reply?.id).toBe(id);
    }
    socket.cut();
  });
});

describe("event streams", () => {
  test("that are asked for behind a held poll begin when that was answered", async () => {
    const channel = `/${appId}/public/behind`;
    const [held, streaming] = [await Poller.connect(server), await Poller.connect(server)];
    await streaming.subscribe(channel);
    const body = JSON.stringify({
      channel: "/meta/connect",
      clientId: held.clientId,
      connectionType: "long-polling",
    });
    const socket = await RawSocket.open(server);
    socket.write(
      `POST /push HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: ${body.length}\r\n\r\n${body}` +
        `GET /push/${streaming.clientId} HTTP/1.1\r\nHost: a\r\nAccept: text/event-stream\r\n\r\n`,
    );
    // Not before the poll is held; the newer one has it answered.
    for (let n = 0; n < 5; n++) await streaming.publish(channel, n);
    await held.poll({ advice: { timeout: 0 } });
    const { status, body: reply } = await socket.response();
    expect([status, JSON.parse(reply)]).toEqual([
      200,
      [expect.objectContaining({ channel: "/meta/connect", successful: true })],
    ]);
    await streaming.publish(channel, "live");
    await socket.until(() => socket.received.includes('"live"'));
    const stream = socket.received.toString();
    expect(stream).toMatch(/^HTTP\/1.1 200 OK\r\nContent-Type: text\/event-stream\r\n/);
    const events = [...stream.matchAll(/^data: (.*)\r$/gm)].flatMap(
      ([, text]) => JSON.parse(text ?? "") as { data: unknown }[],
    );
    expect(events.map(({ data }) => data)).toEqual([0, 1, 2, 3, 4, "live"]);
    socket.cut();
  });

  test("of unknown and impossible clients stay open and silent until they are cut", async () => {
    const paths = [
      "nobody",
      "",
      "%00",
      "__proto__",
      "constructor",
      "x".repeat(8_000),
      "a?b=c",
      "%",
    ];
    const sockets = await Promise.all(
      Array.from({ length: 80 }, async (_, index) => {
        const socket = await RawSocket.open(server);
        socket.write(
          `GET /push/${paths[index % paths.length]} HTTP/1.1\r\nHost: a\r\nAccept: text/event-stream\r\n\r\n`,
        );
        return socket;
      }),
    );
    for (const socket of sockets) {
      await socket.until(() => socket.received.includes("retry: 5000\r\n\r\n"));
      expect(socket.received.toString()).toMatch(/^HTTP\/1.1 200 OK/);
      expect(socket.isClosed).toBe(false);
      socket.cut();
    }
  });
});
