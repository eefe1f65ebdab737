import { Publication, Subscription } from "pandapush-client";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import { freshChannel } from "../../e2e/deployment.js";
import { closeClients, failure, newClient, runNode, tokenFor, transports } from "./clients.js";
import { freePort, type Server, startServer } from "./server.js";

let server: Server;
beforeAll(async () => {
  server = await startServer();
});
afterAll(() => server?.stop());
afterEach(closeClients);

describe.each(transports)("a promise of a client over %s", (transport) => {
  test("T35 refusals that nobody listens to are no unhandled rejections", async () => {
    const channel = freshChannel(server, "private");
    const { code, out, err } = await runNode(`
      import { Client } from "pandapush-client";
      const client = new Client(${JSON.stringify(server.push)});
      client.disable(${JSON.stringify(transport === "websocket" ? "long-polling" : "websocket")});
      client.publish(${JSON.stringify(channel)}, 1);
      client.publish(${JSON.stringify(channel)}, 2).then(() => {});
      client.publish(${JSON.stringify(channel)}, 3).finally(() => {});
      client.publish(${JSON.stringify(channel)}, 4).callback(() => {});
      client.publish(${JSON.stringify(channel)}, 5, { signal: AbortSignal.abort() });
      client.subscribe(${JSON.stringify(channel)});
      client.subscribe([${JSON.stringify(channel)}], () => {})[0].then(() => {});
      client.subscribeTo(${JSON.stringify(freshChannel(server, "private"))}, () => Promise.reject(new Error("no")));
      client.presence(${JSON.stringify(freshChannel(server, "presence"))}, "nonsense");
      // Answers come in order: the others' are there with the last one.
      await client.publish(${JSON.stringify(channel)}, 6).catch((error) => console.log(error.message));
      await client.disconnect();
      client.publish(${JSON.stringify(channel)}, 7);
      client.subscribe(${JSON.stringify(channel)});
    `);
    expect({ code, out, err }).toEqual({ code: 0, out: "No auth supplied\n", err: "" });
  });

  test("what its handlers throw is an unhandled rejection, unless somebody handles it", async () => {
    const channel = freshChannel(server, "public");
    const { code, out, err } = await runNode(`
      import { Client } from "pandapush-client";
      process.on("unhandledRejection", (error) => console.log(error.message));
      const client = new Client(${JSON.stringify(server.push)});
      client.disable(${JSON.stringify(transport === "websocket" ? "long-polling" : "websocket")});
      const fail = (name) => () => { throw new Error(name); };
      const taken = client.subscribe(${JSON.stringify(channel)});
      taken.then(fail("then"));
      taken.callback(fail("callback"));
      taken.finally(fail("finally"));
      taken.then(fail("handled")).catch(() => {});
      const refused = client.publish(${JSON.stringify(channel)}, 1);
      refused.catch(fail("catch"));
      refused.errback(fail("errback"));
      refused.finally(fail("finally of a refusal"));
      refused.then(fail("never"), fail("second of then"));
      refused.catch(fail("handled")).catch(() => {});
      await taken;
      await refused.catch(() => {});
      await client.disconnect();
    `);
    expect({ code, err }).toEqual({ code: 0, err: "" });
    expect(out.trim().split("\n").sort()).toEqual(
      "callback,catch,errback,finally,finally of a refusal,second of then,then".split(","),
    );
  });

  test("T35 `then` of a refusal goes on with what its second function gives", async () => {
    const publication = newClient(server.push, transport).publish(
      freshChannel(server, "private"),
      1,
    );
    expect(
      await publication.then(
        () => "taken",
        (error) => error.message,
      ),
    ).toBe("No auth supplied");
    expect(await publication.then(() => "taken").catch(() => "refused")).toBe("refused");
  });

  test("`then`, `await`, `finally` and `callback` tell of success", async () => {
    const channel = freshChannel(server, "public");
    const client = newClient(server.push, transport);
    const subscription = client.subscribe(channel);
    expect(subscription).toBeInstanceOf(Subscription);
    expect(await subscription).toBeUndefined();
    expect(subscription.state).toBe("subscribed");

    const publication = client.publishTo(channel, tokenFor(server, channel), 1);
    expect(publication).toBeInstanceOf(Publication);
    const heard: unknown[] = [];
    const context = { name: "context" };
    await publication.callback(function (this: unknown) {
      heard.push(this);
    }, context);
    await publication.finally(() => heard.push("finally"));
    expect(await publication.then(() => "then").then((text) => [text])).toEqual(["then"]);
    expect(heard).toEqual([context, "finally"]);
  });

  test("`catch`, `await`, `finally` and `errback` tell of refusal", async () => {
    const client = newClient(server.push, transport);
    const subscription = client.subscribe(freshChannel(server, "private"));
    const heard: unknown[] = [];
    const context = { name: "context" };
    await subscription.errback(function (this: unknown, error) {
      heard.push(this, error.message);
    }, context);
    expect(await subscription.catch((error) => error.message)).toBe("No auth supplied");
    expect((await failure(subscription.finally(() => heard.push("finally")))).message).toBe(
      "No auth supplied",
    );
    await expect((async () => await subscription)()).rejects.toThrow("No auth supplied");
    expect(heard).toEqual([context, "No auth supplied", "finally"]);
    expect(subscription.state).toBe("refused");
  });

  test("a refusal has code, parameters, message, detail, and the server's text", async () => {
    const client = newClient(server.push, transport);
    const channel = `/${server.appId}/public/*`;
    const bayeux = await failure(client.publish(channel, 1));
    expect(bayeux).toMatchObject({
      name: "PandapushError",
      code: 405,
      params: [channel],
      message: "Invalid channel",
    });
    expect(String(bayeux)).toBe(`405:${channel}:Invalid channel`);
    expect(bayeux.detail).toContain("A wildcard can only be subscribed to");

    const ours = await failure(client.subscribe(freshChannel(server, "private")));
    expect(ours).toMatchObject({ code: null, params: [], message: "No auth supplied" });
    expect(String(ours)).toBe("No auth supplied");
    expect(ours.detail).toContain("ext.auth");
  });
});

describe("`timeout`", () => {
  test("fails with the reason when nothing came in time", async () => {
    const publication = newClient(`http://127.0.0.1:${await freePort()}/push`).publish("/a/b", 1);
    const reason = new Error("too late");
    publication.timeout(0.05, reason);
    expect(await failure(publication)).toBe(reason);
  });

  test("does nothing after an answer, and does not keep a process", async () => {
    const { code, out, err } = await runNode(`
      import { Client } from "pandapush-client";
      const client = new Client(${JSON.stringify(server.push)});
      const subscription = client.subscribe(${JSON.stringify(freshChannel(server, "public"))});
      subscription.timeout(600, new Error("too late"));
      await subscription;
      await client.disconnect();
      console.log("over");
    `);
    expect({ code, out, err }).toEqual({ code: 0, out: "over\n", err: "" });
  });
});
