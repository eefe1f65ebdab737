import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { freshChannel } from "../../e2e/deployment.js";
import { runNode, tokenFor, transports } from "./clients.js";
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
