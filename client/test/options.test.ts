import { once } from "node:events";
import { readFileSync } from "node:fs";
import http from "node:http";
import net from "node:net";
import {
  Client,
  type ClientOptions,
  type Extension,
  type FayeExtension,
  type Message,
  VERSION,
} from "pandapush-client";
import { afterAll, afterEach, beforeAll, describe, expect, test, vi } from "vitest";
import { freshChannel, publish } from "../../e2e/deployment.js";
import { Inbox } from "../../e2e/waiting.js";
import {
  closeClients,
  comeBackSoon,
  failure,
  newClient,
  runNode,
  tap,
  tokenFor,
  transports,
} from "./clients.js";
import { freePort, type Server, startServer } from "./server.js";
import { Wire } from "./wire.js";

const queueMicrotaskHere = queueMicrotask;

let server: Server;
const wires: Wire[] = [];
beforeAll(async () => {
  server = await startServer();
});
afterAll(() => server?.stop());
afterEach(async () => {
  await closeClients();
  await Promise.all(wires.splice(0).map((wire) => wire.close()));
});

async function newWire(): Promise<Wire> {
  const wire = await Wire.to(server.url);
  wires.push(wire);
  return wire;
}

test("the version is that of the package", () => {
  const manifest = readFileSync(new URL("../package.json", import.meta.url), "utf8");
  expect(VERSION).toBe((JSON.parse(manifest) as { version: string }).version);
});

test("unknown options throw", () => {
  const options = { timeout: 10, retrys: 1 } as ClientOptions;
  expect(() => new Client(server.push, options)).toThrow("Unrecognized option: retrys");
});

test.each(["push", "/push", "ws://127.0.0.1/push", "push.example.com/push", "", undefined])(
  "%j is no URL outside of a page, and throws at once",
  (url) => {
    expect(() => new Client(url as string)).toThrow(TypeError);
    expect(() => new Client(url as string)).toThrow(
      `${url ?? "/bayeux"} is no URL of a server; one is https://push.example.com/push`,
    );
  },
);

test("what is no channel, or no listener, throws and says what is one", () => {
  const client = newClient(server.push) as unknown as Record<
    string,
    (...args: unknown[]) => unknown
  >;
  for (const call of ["subscribe", "subscribeTo", "messages", "presence", "publish", "publishTo"]) {
    for (const channel of [undefined, null, 7, {}]) {
      expect(() => client[call]?.(channel)).toThrow(TypeError);
      expect(() => client[call]?.(channel)).toThrow(
        `${channel} is no channel; one is "/APP_ID/public/news"`,
      );
    }
  }
  expect(() => client.subscribe?.(["/a/public/x", undefined])).toThrow("undefined is no channel");
  expect(() => client.subscribe?.("/a/private/x", "token", () => {})).toThrow(
    "The listener is no function; a token goes with subscribeTo",
  );
});

test("what no header can be throws", () => {
  const client = newClient(server.push);
  expect(() => client.setHeader("X-Name", "two\nlines")).toThrow(TypeError);
  expect(() => client.setHeader("no name", "x")).toThrow(TypeError);
});

test("all options of Faye's client are taken", async () => {
  const client = newClient(server.push, "websocket", {
    timeout: 30,
    interval: 0,
    retry: 5,
    proxy: { headers: { "X-Nobody": "1" } },
    tls: { rejectUnauthorized: true },
    ca: "",
    websocketExtensions: [],
  });
  await client.subscribe(freshChannel(server, "public"));
});

describe.each(transports)("a client over %s", (transport) => {
  test("sends the headers of `setHeader`", async () => {
    const wire = await newWire();
    const client = newClient(`${wire.url}/push`, transport);
    client.setHeader("X-Tenant", "blue");
    await client.subscribe(freshChannel(server, "public"));
    const requests = wire.sent.match(/(?:GET|POST) \S+ HTTP/g) ?? [];
    expect(requests.length).toBeGreaterThan(0);
    expect(wire.sent.match(/^X-Tenant: blue\r$/gim)).toHaveLength(requests.length);
  });

  test("sends what a URL has before its @ as Basic authorization", async () => {
    const wire = await newWire();
    const url = `http://user:p%40ss@127.0.0.1:${wire.port}/push`;
    await newClient(url, transport).subscribe(freshChannel(server, "public"));
    const header = `Authorization: Basic ${Buffer.from("user:p@ss").toString("base64")}`;
    expect(wire.sent.toLowerCase()).toContain(header.toLowerCase());
    expect(wire.sent).not.toContain("p%40ss");
  });

  test("uses the endpoint that is given for its transport", async () => {
    const wire = await newWire();
    const absent = `http://127.0.0.1:${await freePort()}/push`;
    const endpoints = { [transport]: `${wire.url}/push/endpoint` };
    await newClient(absent, transport, { endpoints }).subscribe(freshChannel(server, "public"));
    expect(wire.sent).toContain("/push/endpoint ");
  });

  test("uses that transport only, when the other is disabled", async () => {
    const wire = await newWire();
    const client = newClient(`${wire.url}/push`, transport);
    const { out } = tap(client);
    await client.subscribe(freshChannel(server, "public"));
    const sent = await out.upTo(({ channel }) => channel === "/meta/connect");
    expect(sent.at(-1)?.connectionType).toBe(transport);
    const handshake = sent.find(({ channel }) => channel === "/meta/handshake");
    expect(handshake?.supportedConnectionTypes).toContain(transport);
    expect(/POST \S+ HTTP/.test(wire.sent)).toBe(transport === "long-polling");
    expect(/^Upgrade: websocket/im.test(wire.sent)).toBe(transport === "websocket");
  });

  test("goes through a proxy", async () => {
    const passed: string[] = [];
    const proxy = http.createServer((request, response) => {
      passed.push(`${request.method} ${request.headers["x-gate"]}`);
      const { headers, method } = request;
      const onward = http.request(request.url ?? "", { method, headers }, (answer) => {
        response.writeHead(answer.statusCode ?? 502, answer.headers);
        answer.pipe(response);
      });
      onward.on("error", () => response.destroy());
      request.pipe(onward);
    });
    proxy.on("connect", (request, client: net.Socket) => {
      passed.push(`CONNECT ${request.headers["x-gate"]}`);
      const { hostname, port } = new URL(`http://${request.url}`);
      const onward = net.connect(Number(port), hostname, () => {
        client.write("HTTP/1.1 200 Connected\r\n\r\n");
        client.pipe(onward).pipe(client);
      });
      for (const socket of [client, onward]) socket.on("error", () => client.destroy());
    });
    proxy.listen(0, "127.0.0.1");
    await once(proxy, "listening");
    const origin = `http://127.0.0.1:${(proxy.address() as net.AddressInfo).port}`;
    try {
      const options = { proxy: { origin, headers: { "X-Gate": "open" } } };
      await newClient(server.push, transport, options).subscribe(freshChannel(server, "public"));
      expect(passed[0]).toBe(transport === "websocket" ? "CONNECT open" : "POST open");
      passed.length = 0;
      vi.stubEnv("http_proxy", origin);
      await newClient(server.push, transport).subscribe(freshChannel(server, "public"));
      expect(passed.length).toBeGreaterThan(0);
    } finally {
      vi.unstubAllEnvs();
      await closeClients();
      proxy.closeAllConnections();
      proxy.close();
    }
  });
});

test("a client polls when WebSockets do not get through", async () => {
  const blocked = `http://127.0.0.1:${await freePort()}/push`;
  const client = new Client(server.push, { endpoints: { websocket: blocked } });
  try {
    const { out } = tap(client);
    await client.subscribe(freshChannel(server, "public"));
    const sent = await out.upTo(({ channel }) => channel === "/meta/connect");
    expect(sent.at(-1)?.connectionType).toBe("long-polling");
  } finally {
    await client.disconnect();
  }
});

describe("an extension", () => {
  test("sees and changes what goes out and comes in, in order", async () => {
    const channel = freshChannel(server, "private");
    const client = newClient(server.push);
    const calls: string[] = [];
    const first: Extension = {
      outgoing(message, pass) {
        if (message.channel === "/meta/subscribe") {
          calls.push("first out");
          message.ext = { auth: { token: tokenFor(server, channel) } };
        }
        pass(message);
      },
    };
    client.addExtension(first);
    client.addExtension({
      outgoing(message, pass) {
        if (message.channel === "/meta/subscribe") {
          calls.push(`second out ${message.ext?.auth === undefined}`);
        }
        // Later is fine as well.
        setTimeout(pass, 1, message);
      },
      incoming(message, pass) {
        pass(message.channel === channel ? { ...message, data: [message.data] } : message);
      },
    });
    const heard = new Inbox<unknown>("message");
    await client.subscribe(channel, (data) => heard.push(data));
    expect(calls).toEqual(["first out", "second out false"]);
    await publish(server, channel, 1);
    expect(await heard.next()).toEqual([1]);
  });

  test("with three parameters gets null in the middle", async () => {
    const channel = freshChannel(server, "public");
    const client = newClient(server.push);
    const calls: [string, unknown][] = [];
    const extension: FayeExtension = {
      outgoing(message, request, pass) {
        calls.push([message.channel, request]);
        pass(message);
      },
      incoming: (message, request, pass) => {
        calls.push([message.channel, request]);
        pass(message);
      },
    };
    client.addExtension(extension);
    await client.subscribe(channel);
    expect(calls.filter(([name]) => name === "/meta/subscribe")).toEqual([
      ["/meta/subscribe", null],
      ["/meta/subscribe", null],
    ]);
  });

  test("drops messages with null", async () => {
    const channel = freshChannel(server, "public");
    const client = newClient(server.push);
    const heard = new Inbox<unknown>("message");
    await client.subscribe(channel, (data) => heard.push(data));
    const token = tokenFor(server, channel);
    client.addExtension({
      outgoing: (message, pass) => pass(message.data === "not out" ? null : message),
      incoming: (message, pass) => pass(message.data === "not in" ? null : message),
    });
    client.publishTo(channel, token, "not out");
    await client.publishTo(channel, token, "not in");
    await client.publishTo(channel, token, "through");
    expect(await heard.next()).toBe("through");
  });

  test("that calls back twice has called once", async () => {
    const channel = freshChannel(server, "public");
    const client = newClient(server.push, "long-polling");
    client.addExtension({
      incoming(message, pass) {
        pass(message);
        pass(message);
      },
      outgoing(message, pass) {
        pass(message);
        pass(message);
      },
    });
    const taps = tap(client);
    const heard = new Inbox<unknown>("message");
    await client.subscribe(channel, (data) => heard.push(data));
    const token = tokenFor(server, channel);
    for (const data of [1, 2, "end"]) await client.publishTo(channel, token, data);
    expect(await heard.upTo((data) => data === "end")).toEqual([1, 2, "end"]);
    await client.disconnect();
    const connectsIn = async (messages: Inbox<Message>): Promise<number> => {
      const all = await messages.upTo((message) => message.channel === "/meta/disconnect");
      return all.filter((message) => message.channel === "/meta/connect").length;
    };
    const [sent, answered] = [await connectsIn(taps.out), await connectsIn(taps.in)];
    expect(answered).toBeGreaterThan(0);
    expect(sent - answered).toBeLessThanOrEqual(1);
  });

  test.each([
    ["outgoing", "/meta/handshake"],
    ["outgoing", "/meta/connect"],
    ["incoming", "/meta/handshake"],
    ["incoming", "/meta/connect"],
  ] as const)("that throws or drops when %s %s is tried again", async (stage, channel) => {
    const client = newClient(server.push, "long-polling");
    comeBackSoon();
    const reported = new Inbox<Error>("uncaught error");
    const failures = new Inbox<Error>("failure");
    client.on("failed", (error) => failures.push(error));
    // What is reported as uncaught is thrown from a microtask.
    vi.stubGlobal("queueMicrotask", (call: () => void) =>
      queueMicrotaskHere(() => {
        try {
          call();
        } catch (error) {
          reported.push(error as Error);
        }
      }),
    );
    try {
      let seen = 0;
      client.addExtension({
        [stage](message: Message, pass: (message: Message | null) => void) {
          if (message.channel !== channel) return pass(message);
          seen += 1;
          if (seen === 1) throw new Error("of the extension");
          pass(seen === 2 ? null : message);
        },
      });
      const name = freshChannel(server, "public");
      await client.subscribe(name);
      await publish(server, name, 1);
      expect((await reported.next()).message).toBe("of the extension");
      expect((await failures.next()).message).toBe("of the extension");
      expect((await failures.next()).message).toBe(`An extension dropped ${channel}`);
      await client.subscribe(freshChannel(server, "public"));
    } finally {
      vi.unstubAllGlobals();
      vi.restoreAllMocks();
    }
  });

  test("that throws rejects the publish or subscribe that it was called for, and no other", async () => {
    const channel = freshChannel(server, "public");
    const { code, out, err } = await runNode(
      `
        import { Client } from "pandapush-client";
        process.on("uncaughtException", (error) => console.log("uncaught", error.message));
        const { PUSH, CHANNEL, TOKEN } = process.env;
        const client = new Client(PUSH);
        client.addExtension({
          outgoing(message, pass) {
            if (message.data === "faulty") throw new Error("out");
            if (message.subscription === CHANNEL + "/x") message.ext = { big: 1n };
            pass(Object.freeze({ ...message }));
            if (message.data === "after") throw new Error("after");
          },
          incoming(message, pass) {
            if (message.subscription === CHANNEL + "/y") throw new Error("in");
            pass(Object.freeze(message));
          },
        });
        const tell = (name) => [() => console.log(name, "taken"), (error) => console.log(name, error.message)];
        await client.publishTo(CHANNEL, TOKEN, "faulty").then(...tell("faulty"));
        await client.publishTo(CHANNEL, TOKEN, "after").then(...tell("after"));
        const unwritable = client.subscribe(CHANNEL + "/x");
        unwritable.on("refused", ({ reason }) => console.log(reason));
        await unwritable.then(...tell("x"));
        await client.subscribe(CHANNEL + "/y").then(...tell("y"));
        await client.disconnect();
      `,
      "module",
      { PUSH: server.push, CHANNEL: channel, TOKEN: tokenFor(server, channel) },
    );
    expect({ code, err }).toEqual({ code: 0, err: "" });
    expect(out.trim().split("\n").sort()).toEqual([
      "after taken",
      "faulty out",
      "refused",
      "uncaught after",
      "uncaught in",
      "uncaught out",
      "x Do not know how to serialize a BigInt",
      "y in",
    ]);
  });

  test("is told when it is added and removed, and then sees nothing any more", async () => {
    const client = newClient(server.push);
    const calls: unknown[] = [];
    const extension = {
      outgoing(message: Message, pass: (message: Message) => void) {
        calls.push(message.channel);
        pass(message);
      },
      added: (to: unknown) => calls.push("added", to),
      removed: (from: unknown) => calls.push("removed", from),
    };
    client.addExtension(extension);
    client.removeExtension(extension);
    client.removeExtension(extension);
    await client.subscribe(freshChannel(server, "public"));
    expect(calls).toEqual(["added", client, "removed", client]);
  });

  test("makes the server refuse the client, which tells so and tries again", async () => {
    const client = newClient(server.push);
    const refusals = new Inbox<string>("refusal");
    let isFaulty = true;
    client.addExtension({
      outgoing(message, pass) {
        if (message.channel === "/meta/handshake" && isFaulty) message.version = "";
        pass(message);
      },
      incoming(message, pass) {
        // The server advises seconds.
        if (message.channel === "/meta/handshake" && isFaulty) message.advice = { interval: 1 };
        isFaulty = false;
        pass(message);
      },
    });
    client.on("refused", (error) => refusals.push(String(error)));
    await client.subscribe(freshChannel(server, "public"));
    expect(await refusals.next()).toBe("402:version:Missing required parameter");
  });

  test("that says `reconnect: none` for the server ends the client", async () => {
    const client = newClient(server.push);
    client.addExtension({
      outgoing(message, pass) {
        if (message.channel === "/meta/handshake") message.version = "";
        pass(message);
      },
      incoming(message, pass) {
        message.advice = { reconnect: "none" };
        pass(message);
      },
    });
    const error = await failure(client.subscribe(freshChannel(server, "public")));
    expect(error.message).toContain("Missing required parameter");
    expect(client.state).toBe("disconnected");
  });
});

describe("events of a client", () => {
  test("come to `on`, `bind` and `once`, with their context", () => {
    const client = newClient(server.push);
    const calls: unknown[] = [];
    const context = { name: "context" };
    function listener(this: unknown): void {
      calls.push(this);
    }
    client.on("transport:up", listener, context).bind("transport:up", listener);
    client.once("transport:up", listener, "once");
    client.emit("transport:up");
    client.trigger("transport:up");
    expect(calls).toEqual([context, undefined, "once", context, undefined]);
  });

  test("come no more after `off`, `unbind` and `removeListener`", () => {
    const client = newClient(server.push);
    const calls: string[] = [];
    const names = ["a", "b", "c", "d"] as const;
    const [a, b, c, d] = names.map((name) => () => calls.push(name));
    for (const listener of [a, b, c, d]) if (listener) client.on("transport:up", listener);
    if (a) client.off("transport:up", a);
    if (b) client.unbind("transport:up", b);
    if (c) client.removeListener("transport:up", c);
    client.emit("transport:up");
    expect(calls).toEqual(["d"]);
    client.off("transport:up");
    client.emit("transport:up");
    expect(calls).toEqual(["d"]);
  });

  test("come once to `once`, and on to the same listener of `on`", () => {
    const client = newClient(server.push);
    let calls = 0;
    const listener = () => {
      calls += 1;
    };
    client.on("transport:up", listener).once("transport:up", listener);
    for (let i = 0; i < 3; i++) client.emit("transport:up");
    expect(calls).toBe(4);
  });

  test("may be listened to and left while they come", () => {
    const client = newClient(server.push);
    const calls: string[] = [];
    client.once("transport:up", () => {
      calls.push("first");
      client.on("transport:up", () => calls.push("added"));
    });
    client.emit("transport:up");
    expect(calls).toEqual(["first"]);
    client.emit("transport:up");
    expect(calls).toEqual(["first", "added"]);
  });
});
