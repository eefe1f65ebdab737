import { once } from "node:events";
import { readFileSync } from "node:fs";
import { isBuiltin } from "node:module";
import net from "node:net";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { freshChannel } from "../../e2e/deployment.js";
import { runNode, tokenFor, transports } from "./clients.js";
import { FakeServer } from "./fake-server.js";
import { freePort, type Server, startServer } from "./server.js";

let server: Server;
beforeAll(async () => {
  server = await startServer();
});
afterAll(() => server?.stop());

describe.each(transports)("a Node process with a client over %s", (transport) => {
  const other = transport === "websocket" ? "long-polling" : "websocket";

  test("ends by itself after `disconnect`", async () => {
    const channel = freshChannel(server, "public");
    const run = await runNode(
      `
        import { Client } from "pandapush-client";
        const { PUSH, CHANNEL, TOKEN, OTHER } = process.env;
        const client = new Client(PUSH);
        client.disable(OTHER);
        await client.subscribe(CHANNEL, async (data) => {
          console.log(data);
          await client.disconnect();
          console.log(client.state);
        });
        await client.publishTo(CHANNEL, TOKEN, "hello");
      `,
      "module",
      { PUSH: server.push, CHANNEL: channel, TOKEN: tokenFor(server, channel), OTHER: other },
    );
    expect(run).toEqual({ code: 0, out: "hello\ndisconnected\n", err: "" });
  });

  test("ends by itself after `disconnect` when there is no server", async () => {
    const run = await runNode(
      `
        const { Client } = require("pandapush-client");
        const client = new Client(process.env.PUSH);
        client.disable(process.env.OTHER);
        client.subscribe("/app/public/x");
        client.publish("/app/public/x", 1, { attempts: 2 }).catch(async (error) => {
          console.log(error.name, error.code);
          await client.disconnect();
        });
      `,
      "commonjs",
      { PUSH: `http://127.0.0.1:${await freePort()}/push`, OTHER: other },
    );
    expect(run).toEqual({ code: 0, out: "PandapushError null\n", err: "" });
  });

  test("ends by itself when the client was never used", async () => {
    const run = await runNode(
      `
        const { Client, PandapushError, PresenceRoom, Publication, Scheduler, Subscription, VERSION } =
          require("pandapush-client");
        const client = new Client(process.env.PUSH);
        client.addExtension({});
        console.log(client.state, typeof VERSION);
      `,
      "commonjs",
      { PUSH: server.push },
    );
    expect(run).toEqual({ code: 0, out: "unconnected string\n", err: "" });
  });
});

test("a Node process ends soon after `disconnect` from a server that says nothing any more", async () => {
  const silent = await FakeServer.start(({ channel }) => {
    if (channel !== "/meta/disconnect") return undefined;
    silent.deafen();
    return null;
  });
  try {
    const run = await runNode(
      `
        import { Client } from "pandapush-client";
        const client = new Client(process.env.PUSH);
        await client.subscribe("/a");
        await client.disconnect();
        console.log(client.state);
      `,
      "module",
      { PUSH: silent.url },
    );
    expect(run).toEqual({ code: 0, out: "disconnected\n", err: "" });
  } finally {
    await silent.stop();
  }
});

test("a Node process ends at once after `disconnect` when its WebSocket is still being opened", async () => {
  const mute = net.createServer((socket) => socket.on("error", () => {}).resume());
  mute.listen(0, "127.0.0.1");
  await once(mute, "listening");
  try {
    const run = await runNode(
      `
        import { Client } from "pandapush-client";
        const client = new Client(process.env.PUSH);
        client.connect();
        await client.disconnect();
        const startedAt = performance.now();
        process.on("exit", () => console.log(performance.now() - startedAt < 2_000));
      `,
      "module",
      { PUSH: `http://127.0.0.1:${(mute.address() as net.AddressInfo).port}/push` },
    );
    expect(run).toEqual({ code: 0, out: "true\n", err: "" });
  } finally {
    mute.close();
  }
});

test("a Node process is not warned when many things wait for one signal", async () => {
  const run = await runNode(
    `
      import { Client } from "pandapush-client";
      const client = new Client(process.env.PUSH);
      const { signal } = new AbortController();
      const channels = Array.from({ length: 20 }, (_, n) => process.env.CHANNEL + n);
      await Promise.all(client.subscribe(channels, undefined, { signal }));
      await Promise.allSettled(channels.map((each) => client.publish(each, 1, { signal })));
      await client.disconnect();
    `,
    "module",
    { PUSH: server.push, CHANNEL: freshChannel(server, "public") },
  );
  expect(run).toEqual({ code: 0, out: "", err: "" });
});

describe("the package for Node", () => {
  const read = (name: string) =>
    readFileSync(new URL(`../dist/${name}`, import.meta.url), "utf8").replace(/^\s*\/?\*.*$/gm, "");

  test("can be bundled into one ESM file: it imports modules of Node only, and requires none", () => {
    for (const name of ["pandapush.node.js", "pandapush.proxy.js"]) {
      const code = read(name);
      const imported = [...code.matchAll(/^import .* from "([^"]+)";$/gm)].map(
        ([, id]) => id ?? "",
      );
      expect(imported.length).toBeGreaterThan(0);
      expect(imported.filter((id) => !isBuiltin(id))).toEqual([]);
      expect(code).not.toMatch(/\brequire\(|createRequire/);
    }
  });

  test("loads what speaks with proxies only when it is needed", () => {
    expect(read("pandapush.node.js").match(/import\(.*\)/g)).toEqual([
      'import("./pandapush.proxy.js")',
    ]);
    expect(read("pandapush.node.cjs")).not.toMatch(/require\("\.\/pandapush\.proxy/);
  });

  test("names the licenses of what it contains", () => {
    expect(
      read("licenses.txt")
        .match(/^[\w-]+ \d\S+$/gm)
        ?.map((line) => line.split(" ")[0]),
    ).toEqual(
      expect.arrayContaining(["ws", "http-proxy-agent", "https-proxy-agent", "debug", "ms"]),
    );
  });
});
