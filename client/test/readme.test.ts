import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { mkdir, rm, writeFile } from "node:fs/promises";
import http from "node:http";
import type { AddressInfo } from "node:net";
import { createInterface } from "node:readline";
import { text } from "node:stream/consumers";
import { fileURLToPath } from "node:url";
import { transformSync } from "rolldown/utils";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import { Chromium } from "../../e2e/clients/chromium.js";
import { publish } from "../../e2e/deployment.js";
import { Inbox } from "../../e2e/waiting.js";
import { bundleForPages } from "./bundle.js";
import { closeClients, newClient, runNode, tokenFor } from "./clients.js";
import { type Server, startServer } from "./server.js";

const read = (path: string) => readFileSync(new URL(path, import.meta.url), "utf8");
/** By the word behind the language of each code block. */
const snippets = new Map(
  [...read("../README.md").matchAll(/^```(\w+) ?(\S*)\n([\s\S]*?)^```$/gm)].map(
    ([, language = "", name = "", code = ""]) => [name, { language, code }] as const,
  ),
);

let server: Server;
let chromium: Chromium;
/** The user's own back end, which signs tokens and knows prices. */
let backEnd: http.Server;
beforeAll(async () => {
  backEnd = http.createServer((request, response) => {
    const { pathname, searchParams } = new URL(request.url ?? "", "http://localhost");
    const channel = searchParams.get("channel") ?? "";
    response.end(pathname === "/token" ? tokenFor(server, channel) : '{"apples":2}');
  });
  backEnd.listen(0, "127.0.0.1");
  [server, chromium] = await Promise.all([
    startServer(),
    Chromium.launch(),
    once(backEnd, "listening"),
  ]);
});
afterAll(async () => {
  await chromium?.close();
  backEnd.closeAllConnections();
  backEnd.close();
  await server?.stop();
});

const children = new Set<ChildProcess>();
afterEach(async () => {
  for (const child of children) child.kill("SIGKILL");
  children.clear();
  await closeClients();
});

/** A snippet for this test's own server; what is TypeScript, as JavaScript. */
function snippet(name: string): string {
  const found = snippets.get(name);
  if (found === undefined) throw new Error(`README.md has no snippet ${name}`);
  const code = localized(found.code);
  return found.language === "ts" ? transformSync(`${name}.ts`, code).code : code;
}

function localized(code: string): string {
  return code
    .replaceAll("https://push.example.com", server.url)
    .replaceAll(
      "https://app.example.com",
      `http://127.0.0.1:${(backEnd.address() as AddressInfo).port}`,
    )
    .replaceAll("APP_ID", server.appId);
}

const channelOf = (name: string) => `/${server.appId}/${name}`;

/** Runs a snippet that uses `client` and goes on for ever. @returns the lines it writes */
async function run(name: string, before = ""): Promise<Inbox<string>> {
  const program = `
    import { Client } from "pandapush-client";
    const client = new Client(${JSON.stringify(server.push)}, { retry: 0.001 });
    ${before}
    client.connect(() => console.log("connected"));
    ${snippet(name)}
    await client.subscribe(${JSON.stringify(channelOf("public/ready"))});
    console.log("ready");
  `;
  const child = spawn(process.execPath, ["--input-type=module", "-e", program], {
    cwd: fileURLToPath(new URL("..", import.meta.url)),
    stdio: ["ignore", "pipe", "pipe"],
  });
  children.add(child);
  const lines = new Inbox<string>("line of output");
  for (const stream of [child.stdout, child.stderr]) {
    createInterface({ input: stream }).on("line", (line) => lines.push(line));
  }
  expect(await lines.next()).toBe("connected");
  return lines;
}

/** A token for orders can be used, with the application's key that the server knows. */
async function expectToken(token: string): Promise<void> {
  const client = newClient(server.push);
  const heard = new Inbox<unknown>("message");
  await client.subscribeTo(channelOf("private/orders"), token, (order) => heard.push(order));
  await client.publish(channelOf("private/orders"), { id: 1 });
  expect(await heard.next()).toEqual({ id: 1 });
}

const tested = new Set<string>();
/** A test of one snippet. */
function snippetTest(name: string, title: string, body: () => Promise<void>): void {
  tested.add(name);
  test(`${name}: ${title}`, body);
}

describe("the README's snippet", () => {
  snippetTest("page", "a page hears what is published", async () => {
    const page = await chromium.page(server.url, "other");
    const heard = new Inbox<string>("line of the console");
    page.on("console", (message) => heard.push(message.text()));
    await page.setContent(snippet("page"));
    await page.evaluate(`client.subscribe(${JSON.stringify(channelOf("public/news"))}).then()`);
    await publish(server, channelOf("public/news"), "hello");
    expect(await heard.next()).toBe("hello");
    await page.context().close();
  });

  snippetTest("bundler", "a bundle for browsers has nothing of Node, and hears", async () => {
    const entry = fileURLToPath(new URL("readme-snippet.js", import.meta.url));
    const code = await bundleForPages(entry, `${snippet("bundler")}\nwindow.client = client;`);
    expect(code).not.toMatch(/node:|require\(/);
    const page = await chromium.page(server.url, "other");
    const heard = new Inbox<string>("line of the console");
    page.on("console", (message) => heard.push(message.text()));
    await page.evaluate(code);
    await page.evaluate(`client.subscribe(${JSON.stringify(channelOf("public/news"))}).then()`);
    await publish(server, channelOf("public/news"), "hello");
    expect(await heard.next()).toBe("hello");
    await page.context().close();
  });

  snippetTest("node", "a process publishes, hears and ends", async () => {
    const TOKEN = tokenFor(server, channelOf("public/news"));
    expect(await runNode(snippet("node"), "module", { TOKEN })).toEqual({
      code: 0,
      out: "{ text: 'hello' }\n",
      err: "",
    });
  });

  snippetTest("react", "a component shows news as they come, the same ones too", async () => {
    expect(snippets.get("react")?.code).toBe(read("../../examples/react/news.tsx"));
    const entry = fileURLToPath(new URL("../../examples/react/news.tsx", import.meta.url));
    const mount = `
      import { createRoot } from "react-dom/client";
      client.addExtension({
        incoming(message, pass) {
          if (message.channel === "/meta/subscribe") console.log("subscribed");
          pass(message);
        },
      });
      createRoot(document.body).render(<NewsList />);
    `;
    const code = await bundleForPages(entry, `${snippet("react")}${mount}`);
    const page = await chromium.page(server.url, "other");
    const heard = new Inbox<string>("line of the console");
    const complaints: string[] = [];
    page.on("console", (message) => {
      heard.push(message.text());
      if (["error", "warning"].includes(message.type())) complaints.push(message.text());
    });
    await page.evaluate(code);
    await heard.upTo((line) => line === "subscribed");
    for (const count of [1, 2]) {
      await publish(server, channelOf("public/news"), { text: "hello" });
      await page.locator(`ul[title=connected]:has(li:nth-child(${count}))`).waitFor();
    }
    expect(await page.locator("li").allTextContents()).toEqual(["hello", "hello"]);
    await page.context().close();
    expect(complaints).toEqual([]);
  });

  snippetTest("token", "the command makes a token that may subscribe and publish", async () => {
    const [npx, command, ...words] = snippet("token").trim().split(" ");
    expect([npx, command]).toEqual(["npx", "pandapush"]);
    const args = words.map((word) => (word === "KEY_ID" ? server.keyId : word));
    const { token } = (await server.cli(...args)) as { token: string };
    await expectToken(token);
  });

  snippetTest("back-end", "the back end's tokens may subscribe and publish", async () => {
    const program = `${snippet("back-end")}; process.stdout.write(tokenFor(process.env.CHANNEL))`;
    const { out, err } = await runNode(program, "module", {
      KEY_ID: server.keyId,
      KEY_SECRET: server.secret,
      CHANNEL: channelOf("private/orders"),
    });
    expect(err).toBe("");
    await expectToken(out);
  });

  snippetTest("subscribe", "it subscribes, and ends it", async () => {
    const lines = await run("subscribe");
    expect(await lines.next()).toBe("ready");
  });

  snippetTest("messages", "the loop ends with `break`", async () => {
    // The token's answer comes after that of the loop's subscribe.
    const lines = await run(
      "messages",
      `setTimeout(() => client.subscribe(${JSON.stringify(channelOf("public/x"))}).then(() => console.log("listening")));`,
    );
    expect(await lines.next()).toBe("listening");
    await publish(server, channelOf("public/news/a"), "first");
    await publish(server, channelOf("public/news/b"), "the end");
    expect(await lines.next()).toBe(`${channelOf("public/news/a")} first`);
    expect(await lines.next()).toBe(`${channelOf("public/news/b")} the end`);
    expect(await lines.next()).toBe("ready");
  });

  snippetTest("tokens", "orders can be heard and published", async () => {
    const lines = await run("tokens");
    expect((await lines.upTo((line) => line === "ready")).sort()).toEqual(["Order 1", "ready"]);
  });

  snippetTest("presence", "it tells who is here, who comes and goes", async () => {
    const channel = channelOf("presence/lobby");
    const tokenOf = (id: string, name: string) => tokenFor(server, channel, { id, name });
    const lines = await run(
      "presence",
      `const fetchToken = () => ${JSON.stringify(tokenOf("1", "Ann"))};`,
    );
    expect(await lines.next()).toBe("Now here: 1");
    expect(await lines.next()).toBe("ready");
    const other = newClient(server.push);
    await other.presence(channel, tokenOf("2", "Bob"));
    expect(await lines.next()).toBe("Bob came");
    await other.disconnect();
    expect(await lines.next()).toBe("Bob left");
  });

  snippetTest("gap", "prices are loaded again after a restart of the server", async () => {
    const lines = await run("gap");
    expect(await lines.next()).toBe("Prices { apples: 2 }");
    expect(await lines.next()).toBe("ready");
    await publish(server, channelOf("public/prices"), "apples 3");
    expect(await lines.next()).toBe("Price apples 3");
    await server.restart("SIGKILL");
    expect(await lines.next()).toBe("Prices { apples: 2 }");
  });

  snippetTest("errors", "a refusal says what is wrong and what can be done", async () => {
    const lines = await run("errors");
    expect(await lines.next()).toBe("unauthenticated");
    expect(await lines.next()).toBe("No auth supplied");
    expect(await lines.next()).toBe("null");
    expect(await lines.next()).toMatch(/^Send a token/);
    expect(await lines.next()).toBe("ready");
  });

  snippetTest("giving-up", "a publish has its reply", async () => {
    const channel = channelOf("public/news");
    const lines = await run(
      "giving-up",
      `await client.subscribeTo(${JSON.stringify(channel)}, ${JSON.stringify(tokenFor(server, channel))}, ({ text }) => console.log(text));`,
    );
    expect((await lines.upTo((line) => line === "ready")).sort()).toEqual(["hello", "ready"]);
  });

  snippetTest("failed", "a lost connection is told, and why", async () => {
    const lines = await run("failed");
    expect(await lines.next()).toBe("ready");
    await server.restart("SIGKILL");
    expect(await lines.next()).toMatch(/^No connection: .*(1006|ECONNREFUSED)/);
  });

  test("is always run by a test here", () => {
    expect([...tested].sort()).toEqual([...snippets.keys()].sort());
  });
});

/** @returns what the compiler says of modules by their names */
async function compile(
  name: string,
  modules: ReadonlyMap<string, string>,
  options: object,
): Promise<string> {
  const folder = new URL(`../../node_modules/.cache/types/${name}/`, import.meta.url);
  await rm(folder, { recursive: true, force: true });
  await mkdir(folder, { recursive: true });
  const write = (file: string, code: string) => writeFile(new URL(file, folder), code);
  const compilerOptions = {
    target: "ES2022",
    module: "NodeNext",
    strict: true,
    noEmit: true,
    ...options,
  };
  await write("tsconfig.json", JSON.stringify({ compilerOptions }));
  for (const [module, code] of modules) await write(`${module}.mts`, code);
  const tsc = fileURLToPath(new URL("../../node_modules/.bin/tsc", import.meta.url));
  const child = spawn(tsc, ["-p", fileURLToPath(folder)]);
  const [output] = await Promise.all([text(child.stdout), once(child, "exit")]);
  return child.exitCode === 0 ? output : `${output}\nexit ${child.exitCode}`;
}

test("what the README and the comments show compiles under strict TypeScript", async () => {
  const modules = new Map<string, string>();
  for (const [name, { language, code }] of snippets) {
    if (["js", "ts"].includes(language)) modules.set(name, withDeclarations(code));
  }
  const comments = [
    ...read("../src/client.ts").matchAll(/^ *\* ```(?:js|ts)\n((?: *\* .*\n)*?) *\* ```$/gm),
  ];
  expect(comments.length).toBeGreaterThan(2);
  for (const [index, [, comment = ""]] of comments.entries()) {
    const code = comment.replace(/^ *\* /gm, "");
    expect(read("../docs/api.md")).toContain(code);
    modules.set(`comment-${index}`, withDeclarations(code));
  }
  const options = { lib: ["ES2023", "DOM"], types: ["node"], skipLibCheck: true };
  expect(await compile("client-snippets", modules, options)).toBe("");
});

test("the types need neither those of pages nor those of Node", async () => {
  const code = 'import { Client } from "pandapush-client";\nnew Client("x").publish("/a", 1);\n';
  const options = { lib: ["ES2022"], types: [] };
  expect(await compile("client-alone", new Map([["program", code]]), options)).toBe("");
});

/** What is around a snippet in a reader's program. */
function withDeclarations(code: string): string {
  const declarations: Record<string, string> = {
    Client: 'import { Client } from "pandapush-client";',
    client: 'declare const client: import("pandapush-client").Client;',
    token: "declare const token: string;",
    fetchToken: "declare function fetchToken(): Promise<string>;",
    Member: "interface Member { id: string; name: string }",
  };
  const missing = Object.entries(declarations).filter(
    ([name]) => !new RegExp(`(const|function|interface|import \\{) ${name}\\b`).test(code),
  );
  return [...missing.map(([, declaration]) => declaration), code].join("\n");
}

test("the reference, docs/api.md, fits the code", async () => {
  const script = fileURLToPath(new URL("../docs.mjs", import.meta.url));
  const child = spawn(process.execPath, [script, "--check"], { stdio: "inherit" });
  expect(await once(child, "exit")).toEqual([0, null]);
});
