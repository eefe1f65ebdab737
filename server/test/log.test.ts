/** What operators find in the log file of a real server. */
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test, vi } from "vitest";
import { readConfig } from "../src/config.js";
import { createLog, type Log } from "../src/observe.js";
import { type RunningServer, startServer } from "../src/server.js";
import { hashOf } from "../src/session.js";
import { appId, keyAuth, keyId, Poller, secret } from "./harness.js";
import { http } from "./protocol/peers.js";

type Line = Readonly<Record<string, unknown>>;

let directory: string;
let log: Log;
let server: RunningServer;
let at: { url: string; pushUrl: string };
const basic = `Basic ${Buffer.from(`${keyId}:${secret}`).toString("base64")}`;
const news = `/${appId}/public/news`;

beforeAll(async () => {
  directory = mkdtempSync(join(tmpdir(), "pandapush-log-"));
  const { config } = readConfig({
    PORT: "0",
    HOST: "127.0.0.1",
    DATABASE_PATH: join(directory, "db.sqlite"),
    LOG_PATH: join(directory, "logs", "pandapush.log"),
    LOG_LEVEL: "debug",
    DEV_APPLICATION_ID: appId,
    DEV_KEY_ID: keyId,
    DEV_KEY_SECRET: secret,
  });
  log = createLog(config.log);
  server = await startServer(config, log, { version: "test", rev: "dev", built: "dev" });
  const url = `http://127.0.0.1:${server.port}`;
  at = { url, pushUrl: `${url}/push` };
});
afterAll(async () => {
  await server.close();
  rmSync(directory, { recursive: true });
});

function lines(): Line[] {
  log.flush();
  const text = readFileSync(join(directory, "logs", "pandapush.log"), "utf8");
  return text
    .split("\n")
    .slice(0, -1)
    .map((line) => JSON.parse(line) as Line);
}

async function line(fields: Line): Promise<Line> {
  const fits = (each: Line): boolean =>
    Object.entries(fields).every(([name, value]) => each[name] === value);
  return vi.waitFor(() => {
    const found = lines().find(fits);
    if (found === undefined) throw new Error(`no line has ${JSON.stringify(fields)}`);
    return found;
  });
}

function publish(path: string, headers: Record<string, string>) {
  const type = { "content-type": "application/json" };
  return http(at, path, { method: "POST", headers: { ...type, ...headers }, body: '"x"' });
}

describe("a line says", () => {
  test("which request published what, and how long it took", async () => {
    await publish(`/channel${news}`, { authorization: basic, "x-request-id": "from-proxy.1" });
    expect(await line({ request: "from-proxy.1" })).toMatchObject({
      level: 20,
      msg: "answered",
      method: "POST",
      route: "/channel/*",
      app: appId,
      status: 200,
      ms: expect.any(Number),
    });
    const published = { app: appId, channel: news, key: keyId, length: 3 };
    expect(await line({ msg: "published" })).toMatchObject(published);
  });

  test("why a request was refused, under the id that its answer has", async () => {
    const { status, headers } = await publish(`/channel${news}?token=rubbish`, {});
    expect(status).toBe(400);
    const id = headers["x-request-id"];
    expect(id).toMatch(/^\w+-\w+$/);
    const refused = await line({ request: id });
    expect(refused).toMatchObject({ level: 30, app: appId, status: 400, reason: "invalidToken" });
    expect(JSON.stringify(refused)).not.toContain("rubbish");
  });

  test("nothing of what strangers write into paths and ids", async () => {
    await publish("/channel/nobody/public/a?token=x", { "x-request-id": "no id\tat all" });
    const refused = await vi.waitFor(() => {
      const found = lines().find(({ reason }) => reason === "unknownApplication");
      if (found === undefined) throw new Error("not refused yet");
      return found;
    });
    expect(refused).not.toHaveProperty("app");
    expect(refused.request).toMatch(/^\w+-\w+$/);
  });

  test("what a client did, by the hash of its id", async () => {
    const client = await Poller.connect(at);
    const hash = hashOf(client.clientId);
    await client.subscribe(news, keyAuth);
    await client.subscribe("/nobody/public/a");
    await client.ask({ channel: "/meta/disconnect" });
    const own = { client: hash };
    await line({ ...own, msg: "session began" });
    await line({ ...own, msg: "subscribed", app: appId, channel: news });
    await line({ ...own, msg: "message refused", kind: "subscribe", reason: "unknownApplication" });
    await line({ ...own, msg: "unsubscribed", channel: news });
    await line({ ...own, msg: "session ended", reason: "disconnect" });
    expect(
      lines()
        .map((each) => JSON.stringify(each))
        .join(),
    ).not.toContain(client.clientId);
  });
});
