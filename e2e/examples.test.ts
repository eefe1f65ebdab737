import { execFile } from "node:child_process";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { StockClient } from "./clients/client.js";
import { fayeInNode } from "./clients/node.js";
import { type Deployment, freshChannel, signToken, startServer } from "./deployment.js";

const run = promisify(execFile);
const publishScript = fileURLToPath(new URL("ruby/publish.rb", import.meta.url));

let deployment: Deployment;
let client: StockClient;
beforeAll(async () => {
  deployment = await startServer();
  client = await fayeInNode("1.4.3", "websocket").open(deployment.url);
});
afterAll(async () => {
  await client?.close();
  await deployment?.stop();
});

const tokenFor = (channel: string, rights: { sub?: boolean; pub?: boolean }) =>
  signToken(deployment, { channel, ...rights });

const curl = async (channel: string, ...options: string[]) => {
  const status = ["--silent", "--show-error", "--write-out", "\n%{http_code}"];
  const { stdout } = await run("curl", [
    ...status,
    ...options,
    `${deployment.url}/channel${channel}`,
  ]);
  return stdout;
};

describe("the documentation's Ruby examples", () => {
  it.concurrent("push with HTTParty, whose body is a form", async () => {
    const channel = freshChannel(deployment, "public");
    const subscription = await client.subscribe(channel);
    expect(await runPublishScript(channel)).toMatchObject({ status: 200, body: "OK" });
    expect(await subscription.next()).toEqual({ foo: "bar" });
  });

  it.concurrent("make a token with the jwt gem that publishes", async () => {
    const channel = freshChannel(deployment, "public");
    const subscription = await client.subscribe(channel);
    const { token } = await runPublishScript(channel);
    await subscription.next();
    await client.publish(channel, "with a token from Ruby", { token });
    expect(await subscription.next()).toBe("with a token from Ruby");
  });

  async function runPublishScript(channel: string) {
    const { stdout } = await run("ruby", [publishScript], {
      env: {
        ...process.env,
        PUBLISH_URL: `${deployment.url}/channel${channel}`,
        CHANNEL: channel,
        KEY_ID: deployment.keyId,
        KEY_SECRET: deployment.secret,
      },
    });
    return JSON.parse(stdout) as { status: number; body: string; token: string };
  }
});

describe("curl", () => {
  const json = ["--header", "Content-Type: application/json"];

  it.concurrent("publishes with key and secret", async () => {
    const channel = freshChannel(deployment, "private");
    const subscription = await client.subscribe(channel, {
      token: tokenFor(channel, { sub: true }),
    });
    const user = `${deployment.keyId}:${deployment.secret}`;
    expect(await curl(channel, "-u", user, ...json, "-d", `{"text":"hello"}`)).toBe("OK\n200");
    expect(await subscription.next()).toEqual({ text: "hello" });
  });

  it.concurrent("publishes with a token, in the header or in the query", async () => {
    const channel = freshChannel(deployment, "private");
    const subscription = await client.subscribe(channel, {
      token: tokenFor(channel, { sub: true }),
    });
    const token = tokenFor(channel, { pub: true });
    const inHeader = ["--header", `Authorization: Token ${token}`];
    expect(await curl(channel, ...inHeader, ...json, "-d", "1")).toBe("OK\n200");
    expect(await curl(`${channel}?token=${token}`, ...json, "-d", "2")).toBe("OK\n200");
    expect([await subscription.next(), await subscription.next()]).toEqual([1, 2]);
  });

  it.concurrent("is refused without credentials", async () => {
    const channel = freshChannel(deployment, "public");
    expect(await curl(channel, ...json, "-d", "1")).toBe("Unauthorized\n403");
  });

  it.concurrent("is told within a second that a secret is wrong", async () => {
    const channel = freshChannel(deployment, "public");
    const answer = await curl(
      channel,
      ...["--max-time", "1", "-u", `${deployment.keyId}:wrong`, ...json, "-d", "1"],
    );
    expect(answer).toMatch(/\n400$/);
    expect(JSON.parse(answer.slice(0, -4))).toMatchObject({
      code: null,
      params: [],
      message: "Invalid secret",
    });
  });

  it.concurrent("is told to quote the names of an object that is not JSON", async () => {
    const channel = freshChannel(deployment, "public");
    const user = `${deployment.keyId}:${deployment.secret}`;
    const answer = await curl(channel, "-u", user, ...json, "-d", '{text:"hello"}');
    expect(answer).toMatch(/quote/i);
    expect(answer).toMatch(/\n400$/);
  });

  it.concurrent("publishes over Bayeux without a handshake", async () => {
    const channel = freshChannel(deployment, "public");
    const subscription = await client.subscribe(channel);
    const token = tokenFor(channel, { pub: true });
    const message = JSON.stringify([{ channel, data: "from curl", ext: { auth: { token } } }]);
    const { stdout } = await run("curl", [
      ...["--silent", "--show-error", ...json, "-d", message, `${deployment.url}/push`],
    ]);
    expect(JSON.parse(stdout)).toEqual([{ channel, successful: true }]);
    expect(await subscription.next()).toBe("from curl");
  });
});
