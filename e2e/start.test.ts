/** What a newcomer does: `npm start`, open the page it names, paste the curl line it prints. */
import { type ChildProcess, execFile, spawn } from "node:child_process";
import { createHmac } from "node:crypto";
import { once } from "node:events";
import { mkdtemp, rm, utimes } from "node:fs/promises";
import { type AddressInfo, createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { type Browser, chromium } from "playwright-core";
import { afterAll, beforeAll, expect, it } from "vitest";

const checkout = fileURLToPath(new URL("..", import.meta.url));
const shell = promisify(execFile);

let directory: string;
let browser: Browser;
let port: number;
const running = new Set<ChildProcess>();

beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), "pandapush-start-"));
  port = await freePort();
  browser = await chromium.launch({
    executablePath: process.env.CHROMIUM_PATH ?? "/usr/bin/chromium",
    args: ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"].concat([
      "--disable-background-networking",
      "--disable-component-update",
      "--disable-sync",
    ]),
  });
});

afterAll(async () => {
  for (const child of running) signalGroup(child, "SIGKILL");
  await browser?.close();
  await rm(directory, { recursive: true, force: true });
});

async function freePort(): Promise<number> {
  const server = createServer().listen(0);
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;
  server.close();
  await once(server, "close");
  return port;
}

interface Started {
  /** Everything printed up to the curl line. */
  readonly lines: readonly string[];
  readonly page: string;
  readonly curl: string;
  /** Done when it has started once more and printed another curl line. */
  again(): Promise<void>;
  /** Ends all of it as a terminal's Ctrl-C does. */
  interrupt(): Promise<unknown>;
  /** Ends the started process as a process manager does. @returns its exit code */
  terminate(): Promise<number | null>;
}

async function start(command: string, args: readonly string[]): Promise<Started> {
  const child = spawn(command, args, {
    cwd: checkout,
    env: { ...process.env, PORT: String(port), DATABASE_PATH: join(directory, "db.sqlite") },
    stdio: ["ignore", "pipe", "pipe"],
    // A group of its own, as a terminal gives to each command.
    detached: true,
  });
  running.add(child);
  const ended = once(child, "close").then(([code]: (number | null)[]) => {
    running.delete(child);
    return code ?? null;
  });
  let complaints = "";
  child.stderr.on("data", (text: Buffer) => {
    complaints += text.toString();
  });
  const lines: string[] = [];
  for await (const line of createInterface({ input: child.stdout })) {
    lines.push(line);
    if (!line.startsWith("curl ")) continue;
    const page = /\S+\/\?channel=\S+/.exec(lines.join("\n"))?.[0] ?? "";
    child.stdout.resume();
    return {
      lines,
      page,
      curl: line,
      again: () =>
        new Promise((resolve, reject) => {
          let text = "";
          child.stdout.on("data", (chunk: Buffer) => {
            text += chunk.toString();
            if (/^curl .*\n/m.test(text)) resolve();
          });
          void ended.then(() => reject(new Error(`it ended instead:\n${text}\n${complaints}`)));
        }),
      interrupt: () => {
        signalGroup(child, "SIGINT");
        return ended;
      },
      terminate: () => {
        child.kill("SIGTERM");
        return ended;
      },
    };
  }
  throw new Error(
    `${command} ${args.join(" ")} printed no curl line:\n${lines.join("\n")}\n${complaints}`,
  );
}

function npmStart(): Promise<Started> {
  return start("npm", ["start"]);
}

function tokenFor(channel: string, keyId: string, secret: string): string {
  const part = (value: object) => Buffer.from(JSON.stringify(value)).toString("base64url");
  const text = `${part({ alg: "HS256", typ: "JWT" })}.${part({ keyId, channel, sub: true })}`;
  return `${text}.${createHmac("sha256", secret).update(text).digest("base64url")}`;
}

function signalGroup(child: ChildProcess, signal: NodeJS.Signals): void {
  if (child.pid !== undefined) process.kill(-child.pid, signal);
}

it("npm start prints a page and a curl line that delivers to it", async () => {
  const server = await npmStart();
  expect(server.page).toMatch(
    new RegExp(`^http://localhost:${port}/\\?channel=/\\w+/public/hello$`),
  );
  const page = await browser.newPage();
  const faults: string[] = [];
  page.on("pageerror", (error) => faults.push(error.message));
  page.on("console", (message) => {
    if (message.type() === "error") faults.push(message.text());
  });
  await page.goto(server.page);
  await page.locator('#state[data-state="online"]').waitFor();
  await page.locator('#subscription[data-state="listening"]').waitFor();

  const { stdout } = await shell("sh", ["-c", server.curl]);
  expect(stdout).toBe("OK");
  await page.locator("#messages li").waitFor();
  expect(await page.locator("#messages li pre").allTextContents()).toEqual(['{"text":"hello"}']);

  const channel = new URL(server.page).searchParams.get("channel");
  expect(await page.locator("#curl").textContent()).toBe(
    server.curl.replace(/-u \S+/, "-u KEY_ID:KEY_SECRET"),
  );
  const snippet = await page.locator("#snippet").textContent();
  expect(snippet).toContain(`client.subscribe("${channel}"`);
  expect(snippet).toContain("(error) => console.error(error.message)");
  expect(faults).toEqual([]);
  await page.close();
  await server.interrupt();
});

it("npm start for the second time has nothing to prepare and shows the same key", async () => {
  const first = await npmStart();
  await first.interrupt();
  const second = await npmStart();
  expect(second.curl).toBe(first.curl);
  expect(second.lines.join("\n")).not.toMatch(/Installing|Building/);
  await second.interrupt();
});

it("what npm start runs ends with exit code 0 when a process manager asks it to", async () => {
  const server = await start(process.execPath, ["scripts/start.mjs"]);
  expect(await server.terminate()).toBe(0);
});

it("npm start ends when npm alone is asked to", async () => {
  const server = await npmStart();
  // Done when everything that writes to npm's output has ended.
  await server.terminate();
});

it("the page says why it cannot listen", async () => {
  const server = await npmStart();
  const page = await browser.newPage();
  await page.goto(`http://localhost:${port}/?channel=/nobody/public/hello`);
  const refused = page.locator('#subscription[data-state="refused"]');
  await refused.waitFor();
  expect(await refused.textContent()).toMatch(/^Not listening: Unknown application\./);
  await page.close();
  await server.interrupt();
});

/** What the server's first screen says, for pages that are to hear what its curl line publishes. */
function addressIn({ page }: Started): { url: string; channel: string } {
  const { origin, searchParams } = new URL(page);
  return { url: origin, channel: searchParams.get("channel") ?? "" };
}

it.each([
  [
    "written for Faye",
    "/push/client.js",
    `new Faye.Client("URL/push").subscribe("CHANNEL", function(message) { hear(message); });`,
  ],
  [
    "that subscribes with our client",
    "/client.js",
    `var client = new Pandapush.Client("URL/push");
    client.subscribe("CHANNEL", function(message) {
      hear(message);
    });`,
  ],
  [
    "that shows our client a token",
    "/client.js",
    `const CHANNEL = "CHANNEL_NAME"; // sent by server
    const TOKEN = "TOKEN_TEXT"; // sent by server
    client = new Pandapush.Client("URL/push");
    client.subscribeTo(CHANNEL, TOKEN, function(message) {
      hear(message);
    });`.replace("CHANNEL_NAME", "CHANNEL"),
  ],
])("a page %s hears what the curl line publishes", async (_, script, snippet) => {
  const server = await npmStart();
  const { url, channel: shown } = addressIn(server);
  const channel = snippet.includes("TOKEN_TEXT") ? shown.replace("/public/", "/private/") : shown;
  const [, keyId = "", secret = ""] = /-u (\w+):(\w+)/.exec(server.curl) ?? [];
  const page = await browser.newPage();
  const heard: unknown[] = [];
  await page.exposeFunction("hear", (message: unknown) => heard.push(message));
  await page.goto(`${url}/health_check.json`);
  const code = snippet
    .replace("URL", url)
    .replace('"CHANNEL"', JSON.stringify(channel))
    .replace("TOKEN_TEXT", tokenFor(channel, keyId, secret));
  await page.setContent(`<script src="${url}${script}"></script><script>${code}</script>`);

  // The page does not say when it listens: it is told until it hears.
  const curl = server.curl.replace(shown, channel);
  await expect
    .poll(async () => {
      expect((await shell("sh", ["-c", curl])).stdout).toBe("OK");
      return heard[0];
    })
    .toEqual({ text: "hello" });
  await page.close();
  await server.interrupt();
});

it("the page listens again after a restart, and says so only then", async () => {
  const server = await npmStart();
  const page = await browser.newPage();
  await page.goto(server.page);
  const subscription = page.locator("#subscription");
  const listening = page.locator('#subscription[data-state="listening"]');
  await listening.waitFor();
  await server.interrupt();
  await page.locator('#subscription[data-state="offline"]').waitFor();
  expect(await subscription.textContent()).toBe("Not connected; trying again…");
  const restarted = await npmStart();
  await listening.waitFor();
  expect(await subscription.textContent()).toMatch(/^Listening to /);
  // What was published while the server was away did not come.
  await page.locator("#messages li.note").waitFor();
  await shell("sh", ["-c", restarted.curl]);
  await page.locator("#messages li pre").waitFor();
  await page.close();
  await restarted.interrupt();
});

it("the page shows how to publish only to what can be published to", async () => {
  const server = await npmStart();
  const page = await browser.newPage();
  const curl = page.locator("#curl");
  const channels: [string, string?][] = [
    ["", "/APP_ID/public/hello"],
    ["/app/private/a", "/app/private/a"],
    ["/app/public/**", "/app/public/hello"],
    ["/app/meta/statistics"],
    ["app/public/hello"],
    ["/app/public/a b"],
    ["/app/*"],
  ];
  for (const [channel, target] of channels) {
    await page.goto(`http://localhost:${port}/?channel=${encodeURIComponent(channel)}`);
    await page.locator('#state[data-state="online"]').waitFor();
    const isShown = target !== undefined;
    expect([channel, await curl.isVisible()]).toEqual([channel, isShown]);
    expect(await page.locator("#snippet").isVisible()).toBe(isShown);
    if (isShown) {
      expect(await curl.textContent()).toMatch(
        new RegExp(` http://localhost:${port}/channel\\S+$`),
      );
      expect(await curl.textContent()).toContain(`/channel${target}`);
    }
  }
  await page.close();
  await server.interrupt();
});

it("npm run dev starts the server again when a file of its pages changes", async () => {
  const server = await start("npm", ["run", "dev"]);
  const again = server.again();
  await utimes(join(checkout, "server/public/style.css"), new Date(), new Date());
  await again;
  await server.interrupt();
});
