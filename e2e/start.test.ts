/** What a newcomer does: `npm start`, open the page it names, paste the curl line it prints. */
import { type ChildProcess, execFile, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm } from "node:fs/promises";
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
  expect(await page.locator("#snippet").textContent()).toContain(`client.subscribe("${channel}"`);
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
  expect(await refused.textContent()).toBe("Not listening: Unknown application");
  await page.close();
  await server.interrupt();
});
