import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { command, type Result, runCommand } from "./command.js";
import {
  appId,
  keyAuth,
  keyId,
  Socket,
  secret,
  startTestServer,
  type TestServer,
  token,
} from "./harness.js";
import { reap } from "./reaper.js";

let folder: string;
let server: TestServer;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "pandapush-cli-"));
  await writeFile(join(folder, "secret"), `${secret}\n`);
  server = await startTestServer();
});

afterAll(async () => {
  await server.close();
  await rm(folder, { recursive: true });
});

function environment(): NodeJS.ProcessEnv {
  return {
    PATH: process.env.PATH,
    PANDAPUSH_URL: server.url,
    PANDAPUSH_APP_ID: appId,
    PANDAPUSH_KEY_ID: keyId,
    PANDAPUSH_KEY_SECRET: secret,
  };
}

const run = (args: readonly string[], env: NodeJS.ProcessEnv = {}, input = ""): Promise<Result> =>
  runCommand(folder, args, { ...environment(), ...env }, input);

/** `subscribe`, while it runs. */
class Listener {
  out = "";
  err = "";
  private readonly child: ChildProcess;
  readonly ended: Promise<unknown[]>;

  constructor(args: readonly string[], env: NodeJS.ProcessEnv = {}) {
    const options = { cwd: folder, env: { ...environment(), ...env } };
    this.child = spawn(process.execPath, [command, "subscribe", ...args], options);
    reap(this.child);
    this.ended = once(this.child, "close");
    this.child.stdout?.on("data", (chunk: Buffer) => {
      this.out += chunk.toString();
    });
    this.child.stderr?.on("data", (chunk: Buffer) => {
      this.err += chunk.toString();
    });
  }

  get lines(): { channel: string; data: unknown; at: string }[] {
    return this.out
      .split("\n")
      .slice(0, -1)
      .map((line) => JSON.parse(line));
  }

  /** Resolves when it has said so on standard error. */
  said(text: string): Promise<void> {
    return expect.poll(() => this.err, { timeout: 15_000 }).toContain(text);
  }

  interrupt(): void {
    this.child.kill("SIGINT");
  }

  /** Nobody reads its output any more. */
  stopReading(): void {
    this.child.stdout?.destroy();
  }
}

describe("pandapush publish", () => {
  async function hearing(): Promise<Socket> {
    const socket = await Socket.connect(server);
    await socket.subscribe(`/${appId}/private/orders`, keyAuth);
    return socket;
  }

  test.each([
    [["private/orders", '{"n":1}'], "", { n: 1 }],
    [[`/${appId}/private/orders`, "--text", "hello"], "", "hello"],
    [["private/orders"], '{"from":"input"}', { from: "input" }],
    [["private/orders", "-", "--text"], "two\nlines", "two\nlines"],
  ])("%j arrives", async (args, input, data) => {
    const socket = await hearing();
    expect(await run(["publish", ...args], {}, input)).toEqual({
      code: 0,
      out: `Published to /${appId}/private/orders.\n`,
      err: "",
    });
    expect((await socket.event()).data).toEqual(data);
    socket.close();
  });

  test("publishes once under one --idempotency-key", async () => {
    const socket = await hearing();
    const args = ["publish", "private/orders", '"once"', "--idempotency-key", "order-7", "--json"];
    for (const { code, out } of [await run(args), await run(args)]) {
      expect({ code, json: JSON.parse(out) }).toEqual({
        code: 0,
        json: { channel: `/${appId}/private/orders`, successful: true },
      });
    }
    await run(["publish", "private/orders", '"last"']);
    const heard = [];
    for (let data: unknown; data !== "last"; heard.push(data)) {
      data = (await socket.event()).data;
    }
    expect(heard).toEqual(["once", "last"]);
    socket.close();
  });

  test("takes the key from options, and its secret from a file or standard input", async () => {
    const none = { PANDAPUSH_APP_ID: "", PANDAPUSH_KEY_ID: "", PANDAPUSH_KEY_SECRET: "" };
    const args = ["publish", "private/orders", "1", "--app", appId, "--key", keyId];
    expect(await run([...args, "--secret-file", "secret"], none)).toMatchObject({ code: 0 });
    expect(await run([...args, "--secret-file", "-"], none, secret)).toMatchObject({ code: 0 });
    expect(await run([...args, "--secret-file", "nothing"], none)).toMatchObject({
      code: 1,
      err: expect.stringMatching(/^Cannot read nothing: ENOENT/),
    });
  });

  test.each([
    [
      ["private/orders", "{n:1}"],
      {},
      /^error: the data are no JSON: .*\nText goes with --text; .*\n/,
    ],
    [["fun/orders", "1"], {}, /^error: \/testapp\/fun\/orders|^error: fun\/orders is no channel; /],
    [["private/*", "1"], {}, /^error: private\/\* is a pattern; name one of its channels\n/],
    [
      ["/other/private/a", "1"],
      {},
      /^error: \/other\/private\/a is not in the application testapp\n/,
    ],
    [["private/a", "1"], { PANDAPUSH_URL: "push.example.com" }, /must be an http or https URL/],
    [
      ["private/a", "1"],
      { PANDAPUSH_KEY_ID: "", PANDAPUSH_KEY_SECRET: "" },
      /^error: not known: PANDAPUSH_KEY_ID or --key; PANDAPUSH_KEY_SECRET or --secret-file\n/,
    ],
    [["private/a", "-", "--secret-file", "-"], {}, /cannot both come from standard input/],
  ])("%j is wrong usage", async (args, env, fault) => {
    const { code, out, err } = await run(["publish", ...args], env);
    expect({ code, out }).toEqual({ code: 2, out: "" });
    expect(err).toMatch(fault);
    expect(err).toMatch(/\nSee: node \S+cli\.js publish --help\n$/);
    expect(err).not.toContain(secret);
  });

  test("says what the server refuses, and fails", async () => {
    const wrong = await run(["publish", "private/a", "1"], { PANDAPUSH_KEY_SECRET: "wrong" });
    expect(wrong).toMatchObject({
      code: 1,
      out: "",
      err: expect.stringMatching(/^Invalid secret/),
    });
    const nobody = await run(["publish", "private/a", "1"], {
      PANDAPUSH_URL: "http://127.0.0.1:9",
    });
    expect(nobody).toMatchObject({ code: 1, out: "" });
    expect(nobody.err).toMatch(/127\.0\.0\.1:9/);
  });
});

describe("pandapush subscribe", () => {
  test("prints a line for each message of channels and patterns, until Ctrl-C", async () => {
    const listener = new Listener(["public/news", "private/**"]);
    await listener.said(`listening to /${appId}/private/**\n`);
    await listener.said(`listening to /${appId}/public/news\n`);
    await run(["publish", "public/news", '{"n":1}']);
    await run(["publish", "private/a/b", "[2]"]);
    await expect.poll(() => listener.lines.length).toBe(2);
    listener.interrupt();
    expect(await listener.ended).toEqual([0, null]);
    expect(listener.lines).toEqual([
      {
        at: expect.stringMatching(/^\d{4}-.*Z$/),
        channel: `/${appId}/public/news`,
        data: { n: 1 },
      },
      { at: expect.any(String), channel: `/${appId}/private/a/b`, data: [2] },
    ]);
  });

  test("hears public channels without a key", async () => {
    const none = { PANDAPUSH_APP_ID: "", PANDAPUSH_KEY_ID: "", PANDAPUSH_KEY_SECRET: "" };
    const listener = new Listener([`/${appId}/public/open`, "--count", "1"], none);
    await listener.said("listening");
    await run(["publish", "public/open", '"a"']);
    await run(["publish", "public/open", '"b"']);
    expect(await listener.ended).toEqual([0, null]);
    expect(listener.lines).toMatchObject([{ data: "a" }]);
  });

  test("is present with --presence, and tells who else is", async () => {
    const listener = new Listener(["presence/room", "--presence", '{"id":"u1","name":"Joe"}']);
    await listener.said("listening");
    expect(listener.lines).toMatchObject([{ data: { subscribe: { u1: { name: "Joe" } } } }]);
    const shown = await run(["presence", "presence/room"]);
    expect(shown).toEqual({
      code: 0,
      out: 'ID  MEMBER\nu1  {"id":"u1","name":"Joe"}\n',
      err: "",
    });
    listener.interrupt();
    await listener.ended;
    expect(await run(["presence", "presence/room"])).toMatchObject({
      code: 0,
      out: `Nobody is present on /${appId}/presence/room.\n`,
    });
  });

  test("comes back with a new token when the server was away", async () => {
    const other = await startTestServer();
    const env = { PANDAPUSH_URL: other.url };
    const listener = new Listener(["private/a", "--count", "1"], env);
    await listener.said("listening to");
    await other.close();
    await listener.said("not connected, trying again: ");
    const again = await startTestServer({ PORT: String(other.port) });
    await listener.said(`listening to /${appId}/private/a again\n`);
    await run(["publish", "private/a", "1"], env);
    expect(await listener.ended).toEqual([0, null]);
    expect(listener.lines).toMatchObject([{ data: 1 }]);
    await again.close();
  });

  test("ends when nobody reads its output any more", async () => {
    const listener = new Listener(["public/news"]);
    await listener.said("listening");
    listener.stopReading();
    let hasEnded = false;
    void listener.ended.then(() => {
      hasEnded = true;
    });
    while (!hasEnded) await run(["publish", "public/news", "1"]);
    expect(await listener.ended).toEqual([0, null]);
  });

  test("fails when the server refuses it, or too few messages came in time", async () => {
    const refused = await run(["subscribe", "private/a"], { PANDAPUSH_KEY_SECRET: "wrong" });
    expect(refused).toMatchObject({ code: 1, out: "" });
    expect(refused.err).toMatch(/The server refused \/testapp\/private\/a: Invalid token provided/);
    const late = await run(["subscribe", "public/quiet", "--count", "2", "--timeout", "1"]);
    expect(late).toMatchObject({ code: 1, out: "" });
    expect(late.err).toContain("Only 0 of 2 messages came.\n");
  });

  test.each([
    [["presence/room"], /needs --presence, who to be there/],
    [["public/a", "--count", "0"], /'--count <n>' argument '0' is invalid/],
    [["public/a", "--timeout", "soon"], /'--timeout <seconds>' argument 'soon' is invalid/],
    [[], /missing required argument 'channel'/],
  ])("%j is wrong usage", async (args, fault) => {
    const { code, out, err } = await run(["subscribe", ...args]);
    expect({ code, out }).toEqual({ code: 2, out: "" });
    expect(err).toMatch(fault);
  });
});

describe("pandapush presence", () => {
  test("shows the members as JSON, and knows what is no presence channel", async () => {
    const socket = await Socket.connect(server);
    const auth = {
      token: token({ channel: `/${appId}/presence/hall`, sub: true, presence: { id: 7 } }),
    };
    await socket.subscribe(`/${appId}/presence/hall`, { auth });
    const { code, out } = await run(["presence", `/${appId}/presence/hall`, "--json"]);
    expect({ code, json: JSON.parse(out) }).toEqual({
      code: 0,
      json: { channel: `/${appId}/presence/hall`, members: { 7: { id: 7 } } },
    });
    socket.close();
    expect(await run(["presence", "private/a"])).toMatchObject({
      code: 2,
      err: expect.stringContaining("nobody is present on private/a"),
    });
  });
});
