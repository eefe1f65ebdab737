import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import { appId, keyAuth, Socket, startTestServer, type TestServer } from "../harness.js";
import { clientFrame, expectServes, type FrameOptions, RawSocket, upgradeRequest } from "./raw.js";

let server: TestServer;
beforeAll(async () => {
  server = await startTestServer();
});
afterAll(() => server.close());
afterEach(() => expectServes(server));

const handshake = {
  channel: "/meta/handshake",
  version: "1.0",
  supportedConnectionTypes: ["websocket"],
  id: "h",
};
const text = JSON.stringify([handshake]);

async function handshaken(): Promise<{ socket: RawSocket; clientId: string }> {
  const socket = await RawSocket.upgrade(server);
  socket.send([handshake]);
  const { clientId = "" } = await socket.message(({ id }) => id === "h");
  return { socket, clientId };
}

describe("frames that break RFC 6455 close the connection with the code it names", () => {
  const broken: {
    what: string;
    payload?: string | Buffer;
    options?: FrameOptions;
    code: number;
  }[] = [
    { what: "unmasked", options: { isMasked: false }, code: 1002 },
    { what: "with reserved bit 1", options: { reserved: 4 }, code: 1002 },
    { what: "with reserved bit 2", options: { reserved: 2 }, code: 1002 },
    { what: "with reserved bit 3", options: { reserved: 1 }, code: 1002 },
    ...[3, 4, 5, 6, 7, 11, 12, 13, 14, 15].map((opcode) => ({
      what: `with the reserved opcode ${opcode}`,
      options: { opcode },
      code: 1002,
    })),
    { what: "that continue nothing", options: { opcode: 0 }, code: 1002 },
    { what: "of a fragmented ping", options: { opcode: 9, isFinal: false }, code: 1002 },
    {
      what: "of a ping above 125 bytes",
      payload: "x".repeat(126),
      options: { opcode: 9 },
      code: 1002,
    },
    {
      what: "of a pong above 125 bytes",
      payload: "x".repeat(126),
      options: { opcode: 10 },
      code: 1002,
    },
    { what: "of a close with one byte", payload: "x", options: { opcode: 8 }, code: 1002 },
    {
      what: "of a close with an unused code",
      payload: Buffer.from([0, 1]),
      options: { opcode: 8 },
      code: 1002,
    },
    {
      what: "of a close with the code 1005",
      payload: Buffer.from([3, 0xed]),
      options: { opcode: 8 },
      code: 1002,
    },
    {
      what: "of a close whose reason is no UTF-8",
      payload: Buffer.from([3, 0xe8, 0xff, 0xfe]),
      options: { opcode: 8 },
      code: 1007,
    },
    { what: "of no UTF-8", payload: Buffer.from([0x22, 0xc3, 0x28, 0x22]), code: 1007 },
    {
      what: "of binary data that is no UTF-8",
      payload: Buffer.from([0x22, 0xff, 0xfe, 0x22]),
      options: { opcode: 2 },
      code: 1007,
    },
    {
      what: "of UTF-8 surrogates",
      payload: Buffer.from([0x22, 0xed, 0xa0, 0x80, 0x22]),
      code: 1007,
    },
    { what: "of overlong UTF-8", payload: Buffer.from([0xc0, 0xaf]), code: 1007 },
    {
      what: "one byte above the limit by its header",
      payload: "",
      options: { declaredLength: 262_145 },
      code: 1009,
    },
    {
      what: "of 4 GiB by its header",
      payload: "",
      options: { declaredLength: 2n ** 32n },
      code: 1009,
    },
    {
      what: "of 2^53 bytes by its header",
      payload: "",
      options: { declaredLength: 2n ** 53n },
      code: 1009,
    },
    {
      what: "of 2^64 - 1 bytes by its header",
      payload: "",
      options: { declaredLength: 2n ** 64n - 1n },
      code: 1009,
    },
    { what: "one byte above the limit", payload: "x".repeat(262_145), code: 1009 },
  ];

  test.each(broken)("$what", async ({ payload = text, options, code }) => {
    const socket = await RawSocket.upgrade(server);
    socket.write(clientFrame(payload, options));
    expect(await socket.closeCode()).toBe(code);
    // The client's side of the closing handshake; then the server ends the connection.
    socket.write(clientFrame(Buffer.from([code >> 8, code & 0xff]), { opcode: 8 }));
    await socket.closing();
  });

  test("a fragment above the limit in sum, and a text inside of another", async () => {
    const sum = await RawSocket.upgrade(server);
    sum.write(clientFrame("x".repeat(200_000), { isFinal: false }));
    sum.write(clientFrame("x".repeat(62_145), { opcode: 0, isFinal: false }));
    expect(await sum.closeCode()).toBe(1009);
    sum.cut();
    const nested = await RawSocket.upgrade(server);
    nested.write(clientFrame("[", { isFinal: false }));
    nested.write(clientFrame("[]"));
    expect(await nested.closeCode()).toBe(1002);
    nested.cut();
  });
});

describe("frames that are unusual but right are answered", () => {
  test("binary frames, empty frames, and a message in hundreds of fragments with pings between", async () => {
    const socket = await RawSocket.upgrade(server);
    socket.write(clientFrame(text, { opcode: 2 }));
    expect((await socket.message(({ id }) => id === "h")).successful).toBe(true);
    socket.write(clientFrame(""));
    expect((await socket.message(() => true)).successful).toBe(false);
    const bytes = Buffer.from(text);
    for (const [index, byte] of bytes.entries()) {
      const opcode = index === 0 ? 1 : 0;
      socket.write(
        clientFrame(Buffer.from([byte]), { opcode, isFinal: index === bytes.length - 1 }),
      );
      if (index % 10 === 0) socket.write(clientFrame("ping", { opcode: 9 }));
    }
    expect((await socket.message(({ id }) => id === "h")).successful).toBe(true);
    socket.cut();
  });

  test("a frame that arrives byte by byte, and many in one write", async () => {
    const socket = await RawSocket.upgrade(server);
    for (const byte of clientFrame(text)) socket.write(Buffer.from([byte]));
    expect((await socket.message(({ id }) => id === "h")).successful).toBe(true);
    socket.write(Buffer.concat(Array.from({ length: 500 }, () => clientFrame("[]"))));
    const answers: string[] = [];
    await socket.until(() => {
      answers.push(...socket.takeFrames().map(({ payload }) => payload.toString()));
      return answers.length === 500;
    });
    expect(new Set(answers)).toEqual(new Set(["[]"]));
    socket.cut();
  });

  test("a client's ping gets a pong with its payload; an unasked pong is nothing", async () => {
    const socket = await RawSocket.upgrade(server);
    socket.write(clientFrame("unasked", { opcode: 10 }));
    socket.write(clientFrame("are you there", { opcode: 9 }));
    const { opcode, payload } = await socket.frame();
    expect([opcode, payload.toString()]).toEqual([10, "are you there"]);
    socket.cut();
  });

  test("hundreds of a client's pings in one write do no harm, and the last of them is answered", async () => {
    const socket = await RawSocket.upgrade(server);
    const pings = Array.from({ length: 500 }, (_, n) => clientFrame(`${n}`, { opcode: 9 }));
    socket.write(Buffer.concat(pings));
    let answered = "";
    while (answered !== "499") {
      const { opcode, payload } = await socket.frame();
      expect(opcode).toBe(10);
      answered = payload.toString();
    }
    socket.send([handshake]);
    expect((await socket.message(({ id }) => id === "h")).successful).toBe(true);
    socket.cut();
  });

  test("a client's close is answered with its code, after the replies to what came before", async () => {
    const socket = await RawSocket.upgrade(server);
    socket.write(
      Buffer.concat([clientFrame(text), clientFrame(Buffer.from([0x03, 0xe8]), { opcode: 8 })]),
    );
    const reply = await socket.frame();
    expect(JSON.parse(reply.payload.toString())).toMatchObject([{ id: "h", successful: true }]);
    expect(await socket.closeCode()).toBe(1000);
    await socket.closing();
  });
});

describe("clients that vanish", () => {
  test("in the middle of a frame, of an upgrade, or of a held connect: hundreds of them", async () => {
    const whole = clientFrame(text);
    for (let round = 0; round < 150; round++) {
      const kind = round % 3;
      if (kind === 0) {
        const socket = await RawSocket.open(server);
        socket.write(upgradeRequest().slice(0, 20 + round));
        socket.cut();
      } else if (kind === 1) {
        const socket = await RawSocket.upgrade(server);
        socket.write(whole.subarray(0, round % whole.length));
        socket.cut();
      } else {
        const { socket, clientId } = await handshaken();
        socket.send([
          { channel: "/meta/connect", clientId, connectionType: "websocket" },
          { channel: "/meta/subscribe", clientId, subscription: `/${appId}/public/gone` },
        ]);
        socket.cut();
      }
    }
  });

  test("right after they sent something: what they sent is done", async () => {
    const channel = `/${appId}/public/last-words`;
    const listener = await Socket.connect(server);
    await listener.subscribe(channel);
    const socket = await RawSocket.upgrade(server);
    socket.send([{ channel, data: "last words", ext: keyAuth }]);
    socket.tcp.end();
    expect((await listener.event(channel)).data).toBe("last words");
    listener.close();
    await socket.closing();
  });
});

describe("upgrades", () => {
  const upgrades: {
    what: string;
    headers: Record<string, string>;
    path?: string;
    status: number;
  }[] = [
    { what: "without a key", headers: { "Sec-WebSocket-Key": "" }, status: 400 },
    { what: "with a key that is none", headers: { "Sec-WebSocket-Key": "short" }, status: 400 },
    { what: "of version 0", headers: { "Sec-WebSocket-Version": "0" }, status: 400 },
    {
      what: "of version 99999999999",
      headers: { "Sec-WebSocket-Version": "99999999999" },
      status: 400,
    },
    { what: "outside of the mount", headers: {}, path: "/elsewhere", status: 404 },
    {
      what: "to a path that only begins like the mount",
      headers: {},
      path: "/pushfoo",
      status: 404,
    },
    {
      what: "with a malformed list of protocols",
      headers: { "Sec-WebSocket-Protocol": ',,"' },
      status: 400,
    },
  ];

  test.each(upgrades)(
    "$what is refused with $status and closed",
    async ({ headers, path, status }) => {
      const socket = await RawSocket.open(server);
      socket.write(upgradeRequest(headers, path));
      expect((await socket.response()).status).toBe(status);
      await socket.closing();
    },
  );

  test("with another method is refused and closed", async () => {
    const socket = await RawSocket.open(server);
    socket.write(upgradeRequest().replace("GET", "PUT"));
    expect((await socket.response()).status).toBe(400);
    await socket.closing();
  });

  test("with the first frame in the same packet are answered like others", async () => {
    const socket = await RawSocket.open(server);
    socket.write(Buffer.concat([Buffer.from(upgradeRequest()), clientFrame(text)]));
    expect((await socket.response()).status).toBe(101);
    expect((await socket.message(({ id }) => id === "h")).successful).toBe(true);
    socket.cut();
  });

  test("with an extension or a subprotocol that nobody speaks get neither", async () => {
    const socket = await RawSocket.open(server);
    socket.write(
      upgradeRequest({
        "Sec-WebSocket-Extensions": "permessage-deflate; client_max_window_bits=15, x-garbage",
        "Sec-WebSocket-Protocol": "bayeux, soap",
      }),
    );
    const { status, head } = await socket.response();
    expect(status).toBe(101);
    expect(head).not.toMatch(/sec-websocket-(extensions|protocol)/i);
    socket.cut();
  });
});
