/** The documents of both SDKs and the examples, run as they are. */
import { execFile } from "node:child_process";
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { Client } from "pandapush-client";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { type Account, type Server, startServer } from "../../client/test/server.js";
import { publish, signToken } from "../../e2e/deployment.js";
import { Inbox } from "../../e2e/waiting.js";

const run = promisify(execFile);
const root = fileURLToPath(new URL("../..", import.meta.url));

let server: Server;
beforeAll(async () => {
  server = await startServer();
});
afterAll(() => server?.stop());

const clients: Client[] = [];
afterEach(async () => {
  await Promise.all(clients.splice(0).map((client) => client.disconnect()));
});
function newClient(): Client {
  const client = new Client(server.push);
  clients.push(client);
  return client;
}

/** What is delivered on all private and public channels of an application. */
async function listen(account: Account): Promise<Inbox<unknown>> {
  const heard = new Inbox<unknown>("message");
  const client = newClient();
  for (const kind of ["private", "public"]) {
    const channel = `/${account.appId}/${kind}/**`;
    const token = signToken(account, { channel, sub: true });
    await client.subscribeTo(channel, token, (data) => heard.push(data));
  }
  return heard;
}

interface Printed {
  readonly stdout: string;
  readonly stderr: string;
}

const languages = {
  node: {
    print: (name: string) => `console.log(${name});`,
    tokens: { token: "token", "presence-token": "lobbyToken" },
    failed: "RequestError 400 Cannot publish presence membership:",
    run: (program: string): Promise<Printed> =>
      run(process.execPath, ["--input-type=module", "-e", program], { cwd: `${root}/sdk/node` }),
  },
  ruby: {
    print: (name: string) => `puts ${name}`,
    tokens: { token: "token", "presence-token": "lobby_token" },
    failed: "Pandapush::RequestError 400 Cannot publish presence membership:",
    run: (program: string): Promise<Printed> =>
      run(process.env.RUBY_PATH ?? "ruby", ["-w", "-I", `${root}/sdk/ruby/lib`, "-e", program]),
  },
} as const;

describe.each(["node", "ruby"] as const)("the README of sdk/%s", (language) => {
  const own = languages[language];
  const text = readFileSync(`${root}/sdk/${language}/README.md`, "utf8");
  const snippets = new Map(
    [...text.matchAll(/^```\w+ ?(\S*)\n([\s\S]*?)^```$/gm)].map(
      ([, name = "", code = ""]) => [name, code] as const,
    ),
  );
  const tested = new Set(["create"]);

  let account: Account;
  beforeAll(async () => {
    account = await server.account();
  });
  let heard: Inbox<unknown>;
  beforeEach(async () => {
    heard = await listen(account);
  });

  /** Runs a snippet behind the first one. */
  function snippet(name: string, after = ""): Promise<Printed> {
    tested.add(name);
    const program = [snippets.get("create"), snippets.get(name), after]
      .join("\n")
      .replaceAll("https://push.example.com", server.url)
      .replaceAll("APP_ID", account.appId)
      .replaceAll("KEY_ID", account.keyId)
      .replaceAll("KEY_SECRET", account.secret);
    if (!snippets.has(name)) throw new Error(`The README has no snippet ${name}`);
    return own.run(program);
  }

  async function tokenOf(name: keyof typeof own.tokens): Promise<string> {
    return (await snippet(name, own.print(own.tokens[name]))).stdout.trim();
  }

  const order = { id: 7, paid: true };

  test("publish: is delivered", async () => {
    await snippet("publish");
    expect(await heard.next()).toEqual(order);
    if (language === "ruby") expect(await heard.next()).toBe("hello");
  });

  test("batch: prints a result for each channel", async () => {
    const { stdout } = await snippet("batch");
    const names = [
      "private/orders",
      "public/news",
      ...(language === "node" ? ["public/stock"] : []),
    ];
    expect(stdout).toBe(names.map((name) => `/${account.appId}/${name} true\n`).join(""));
    expect(await heard.next()).toEqual({ id: 8 });
    expect(await heard.next()).toBe("Sold out");
  });

  test("once: is delivered once, run twice", async () => {
    await snippet("once");
    expect(await heard.next()).toEqual({ id: 7, sent: true });
    await snippet("once");
    await snippet("limits");
    expect(await heard.next()).toBe("hello");
  });

  test("token: subscribes below its channel", async () => {
    const subscriber = newClient();
    const channel = `/${account.appId}/private/users/7/messages`;
    await subscriber.subscribeTo(channel, await tokenOf("token"), () => undefined);
  });

  test("presence-token, ask, disconnect: who is present is seen, and disconnected", async () => {
    const subscriber = newClient();
    const lobby = `/${account.appId}/presence/lobby`;
    const ended = new Inbox<string>("refusal");
    const subscription = subscriber.subscribeTo(lobby, await tokenOf("presence-token"), () => {});
    subscription.on("refused", ({ message }) => ended.push(message));
    await subscription;
    const { stdout } = await snippet("ask");
    expect(stdout).toMatch(/^\[ ?['"]user7['"] ?\] 1 1 1\n1 \d+\n$/);
    expect((await snippet("disconnect")).stdout).toBe("1\n");
    expect(await ended.next()).toBe("Disconnected");
  });

  test("errors: says what went wrong", async () => {
    expect((await snippet("errors")).stderr).toContain(own.failed);
  });

  test("every snippet is tested", () => {
    expect([...tested].sort()).toEqual([...snippets.keys()].sort());
  });
});

test.each([
  ["publish.mjs", process.execPath, []],
  ["publish.rb", process.env.RUBY_PATH ?? "ruby", ["-w", "-I", "sdk/ruby/lib"]],
  ["publish.py", process.env.PYTHON_PATH ?? "python3", ["-W", "error"]],
  ["publish.sh", "sh", []],
])("examples/back-end/%s publishes once, and prints a token", async (file, command, args) => {
  const account = await server.account();
  const heard = await listen(account);
  const path = `examples/back-end/${file}`;
  const { appId, keyId, secret, url } = account;
  const variables = { PANDAPUSH_URL: url, APP_ID: appId, KEY_ID: keyId, KEY_SECRET: secret };
  const env = { ...process.env, ...variables };
  for (const _again of [1, 2]) {
    const { stdout } = await run(command, [...args, path], { cwd: root, env });
    const channel = `/${appId}/private/orders`;
    await newClient().subscribeTo(channel, stdout.trim(), () => undefined);
  }
  await publish(account, `/${appId}/public/end`, "the end");
  expect([await heard.next(), await heard.next()]).toEqual([{ id: 7 }, "the end"]);
  expect(readFileSync(`${root}/examples/back-end/README.md`, "utf8")).toContain(path);
});
