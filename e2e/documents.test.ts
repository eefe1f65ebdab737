/**
 * Every command and every program in the documents, run as a reader would: in a folder like a
 * checkout, beside a server that keeps its database there, with an application and a key for each
 * page. Blocks of a page continue each other: they share the folder and the shell's variables.
 *
 * A comment in the line before a block says what becomes of it:
 *
 *   <!-- run -->                       it ends well
 *   <!-- run; prints OK; heard hi -->  and writes "OK"; what was left open before then writes "hi"
 *   <!-- run; stays; prints ready -->  it does not end, and is left open (as all pages are)
 *   <!-- not run: needs Docker -->     or another `reason`
 *
 * `<!-- run by server/test/live.test.ts -->` stands for all blocks of a page. In the blocks, `APP_ID`
 * and the like stand for what is real, and `TOKEN` for the token that was printed last.
 */
import { type ChildProcess, type ChildProcessWithoutNullStreams, spawn } from "node:child_process";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { mkdir, mkdtemp, readdir, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { createInterface } from "node:readline";
import { text } from "node:stream/consumers";
import { fileURLToPath } from "node:url";
import type { Page } from "playwright-core";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { reap } from "../server/test/reaper.js";
import { Chromium } from "./clients/chromium.js";
import { freePort, ServerProcess } from "./server-process.js";
import { Inbox } from "./waiting.js";

const root = fileURLToPath(new URL("..", import.meta.url));
/** Of all documents, from the root. */
const names = readdirSync(root, { recursive: true, encoding: "utf8" }).filter((name) =>
  /^(README|(docs|client|examples|sdk)\/(?!.*node_modules).*)\.md$/.test(name),
);
const read = (name: string): string => readFileSync(path.join(root, name), "utf8");

/** What may keep a block from being run here. */
const reason =
  /^not run: (needs (Docker|Kubernetes|a registry)|starts the server itself, as (?<test>\S+) does)$/;
const runnable = ["sh", "js", "html", "ruby", "python", "ini", "sql"];
/** Blocks in these show something; nobody can run them. */
const shown = ["", "json", "text", "yaml"];

interface Block {
  /** `<page>:<line>` */
  readonly place: string;
  readonly language: string;
  readonly code: string;
  /** What its comment says, split at `;`. */
  readonly comment: readonly string[];
}

function blocksOf(name: string): Block[] {
  const fence = /(?:^ *<!-- ((?:not )?run\b.*?) -->\n)?^( *)```(\S*).*\n([\s\S]*?)^ *```$/gm;
  const page = read(name);
  return Array.from(page.matchAll(fence), ({ index, 1: how, 2: indent, 3: language, 4: code }) => ({
    place: `${name}:${page.slice(0, index).split("\n").length}`,
    language: language ?? "",
    code: (code ?? "").replaceAll(new RegExp(`^${indent}`, "gm"), ""),
    comment: how?.split("; ") ?? [],
  }));
}

const adminPassword = "documents";
let folder: string;
let url: string;
let server: ServerProcess;
let chromium: Chromium;
const children = new Set<ChildProcess>();

beforeAll(async () => {
  folder = await mkdtemp(path.join(tmpdir(), "pandapush-documents-"));
  for (const entry of await readdir(root)) {
    if ([".env", ".git", "localdata"].includes(entry)) continue;
    await symlink(path.join(root, entry), path.join(folder, entry));
  }
  await mkdir(path.join(folder, "bin"));
  for (const command of ["curl", "openssl", "python3", "ruby"]) {
    const given = process.env[`${command.replace("3", "").toUpperCase()}_PATH`];
    if (given !== undefined) await symlink(given, path.join(folder, "bin", command));
  }
  url = `http://localhost:${await freePort()}`;
  server = ServerProcess.pandapush({
    directory: folder,
    healthUrl: `${url}/health_check.json`,
    environment: {
      NODE_ENV: "production",
      PORT: new URL(url).port,
      ADMIN_PASSWORD: adminPassword,
      STATISTICS_INTERVAL_MS: "100",
    },
  });
  [chromium] = await Promise.all([Chromium.launch(), server.start()]);
});
afterAll(async () => {
  for (const { pid } of children) if (pid !== undefined) process.kill(-pid, "SIGKILL");
  await chromium?.close();
  await server?.end("SIGKILL");
  await rm(folder, { recursive: true, force: true });
});

async function admin<Answer>(route: string, body: object): Promise<Answer> {
  const authorization = `Basic ${Buffer.from(`admin:${adminPassword}`).toString("base64")}`;
  const headers = { authorization, "content-type": "application/json" };
  const request = { method: "POST", headers, body: JSON.stringify(body) };
  return (await (await fetch(`${url}/admin/api${route}`, request)).json()) as Answer;
}

/** Runs the blocks of a page in their order. */
class Reader {
  readonly #values: Readonly<Record<string, string>>;
  #token = "TOKEN";
  #page: { readonly page: Page; readonly lines: Inbox<string> } | undefined;
  /** What is written by what was left open, or spoken to, last. */
  #open = new Inbox<string>("line");
  readonly #faults: string[] = [];

  static async start(): Promise<Reader> {
    const { id } = await admin<{ id: string }>("/applications", { name: "Documents" });
    const key = await admin<{ id: string; secret: string }>(`/application/${id}/keys`, {});
    await writeFile(path.join(folder, `.variables-${id}`), "");
    const values = { APP_ID: id, KEY_ID: key.id, KEY_SECRET: key.secret };
    return new Reader({ ...values, PASSWORD: adminPassword });
  }

  private constructor(values: Readonly<Record<string, string>>) {
    this.#values = values;
  }

  async run({ language, code, comment }: Block): Promise<void> {
    const own = this.#real(code);
    const before = this.#open;
    const expected = (word: string): string[] =>
      comment.flatMap((each) => (each.startsWith(word) ? this.#real(each.slice(word.length)) : []));
    const prints = expected("prints ");
    const isModule = language === "js" && /^import /m.test(code);
    if (language === "html" || (language === "js" && !isModule)) await this.#inPage(language, own);
    else if (comment.includes("stays")) this.#leaveOpen(isModule ? "node" : language, own);
    else {
      const output = await this.#toItsEnd(isModule ? "node" : language, own);
      this.#token = output.match(/eyJ\w+\.[\w-]+\.[\w-]+/g)?.at(-1) ?? this.#token;
      for (const words of prints.splice(0)) expect(output).toContain(words);
    }
    for (const words of prints) await this.#open.upTo((line) => line.includes(words));
    for (const words of expected("heard ")) await before.upTo((line) => line.includes(words));
    expect(this.#faults).toEqual([]);
  }

  #real(code: string): string {
    const values: Readonly<Record<string, string>> = { ...this.#values, TOKEN: this.#token };
    const word = new RegExp(`(?<![$.\\w])(${Object.keys(values).join("|")})(?![\\w=])`, "g");
    return code
      .replaceAll("localhost:3000", new URL(url).host)
      .replaceAll(word, (name) => values[name] ?? name);
  }

  /** HTML in a page of its own; a script in the last one, or in one that has a `client`. */
  async #inPage(language: string, code: string): Promise<void> {
    if (language === "html" || this.#page === undefined) {
      const page = await chromium.page(url, "other");
      const lines = new Inbox<string>("line of the page's console");
      page.on("console", (message) => lines.push(message.text()));
      page.on("pageerror", (error) => this.#faults.push(error.message));
      this.#page = { page, lines };
      const client = `<script src="${url}/client.js"></script>
        <script>const client = new Pandapush.Client("${url}/push");</script>`;
      await page.setContent(language === "html" ? code : client);
    }
    this.#open = this.#page.lines;
    if (language === "js") await this.#page.page.addScriptTag({ content: code });
  }

  #leaveOpen(language: string, code: string): void {
    const { stdout, stderr } = this.#spawn(language, code);
    const lines = new Inbox<string>("line of output");
    for (const input of [stdout, stderr]) {
      createInterface({ input }).on("line", (line) => lines.push(line));
    }
    this.#open = lines;
  }

  async #toItsEnd(language: string, code: string): Promise<string> {
    const child = this.#spawn(language, code);
    const ended = new Promise((resolve) => child.once("close", resolve));
    const [stdout, stderr] = await Promise.all([text(child.stdout), text(child.stderr)]);
    expect([await ended, stderr], `${code}\n${stdout}`).toEqual([0, expect.any(String)]);
    return stdout + stderr;
  }

  #spawn(language: string, code: string): ChildProcessWithoutNullStreams {
    const variables = `.variables-${this.#values.APP_ID}`;
    const script = "import sqlite3, sys; sqlite3.connect(sys.argv[1]).executescript(sys.argv[2])";
    const scripts: Readonly<Record<string, readonly string[]>> = {
      node: [process.execPath, "--input-type=module", "-e", code],
      ruby: ["ruby", "-w", "-I", "sdk/ruby/lib", "-e", code],
      python: ["python3", "-W", "error", "-c", code],
      // What a .env file holds is read, with its faults, by every command.
      ini: [
        "bash",
        "-ec",
        `cd $(mktemp -d -p .); echo "$1" > .env; npx pandapush migrate`,
        "-",
        code,
      ],
      sql: ["python3", "-c", script, "localdata/db.sqlite", code],
      sh: ["bash", "-c", `set -ea; . ./${variables}\n${code}\nexport -p > ${variables}`],
    };
    const [command = "", ...args] = scripts[language] ?? [];
    const PATH = `${path.join(folder, "bin")}:${process.env.PATH}`;
    // Detached: a group of its own, so that what a shell has started ends with it.
    const child = spawn(command, args, {
      cwd: folder,
      env: { ...process.env, PATH },
      detached: true,
    });
    reap(child);
    children.add(child.once("close", () => children.delete(child)));
    return child;
  }
}

describe("every block", () => {
  test.each(names)("of %s is run, or says why not", (name) => {
    const [, test] = /^<!-- run by (\S+) -->$/m.exec(read(name)) ?? [];
    if (test !== undefined) expect(read(test)).toContain(path.basename(name));
    for (const { place, language, code, comment } of test === undefined ? blocksOf(name) : []) {
      const [how = ""] = comment;
      if (shown.includes(language)) expect(code, place).not.toMatch(/^(\$|np[mx]|curl|docker) /m);
      else if (how === "run") expect(runnable, place).toContain(language);
      else expect(how, place).toMatch(reason);
      const named = reason.exec(how)?.groups?.test;
      if (named !== undefined) expect(existsSync(path.join(root, named)), place).toBe(true);
    }
  });

  const pages = names.map(
    (name) => [name, blocksOf(name).filter(({ comment: [how] }) => how === "run")] as const,
  );
  test.each(pages.filter(([, blocks]) => blocks.length > 0))("of %s works", async (_, blocks) => {
    const reader = await Reader.start();
    for (const block of blocks) {
      await reader.run(block).catch((error: Error) => {
        error.message = `${block.place}: ${error.message}`;
        throw error;
      });
    }
  });
});
