/**
 * What `npm start`, `npm run dev` and `npm test` have in common: a Node that is new enough, the
 * packages of the lockfile, and a fresh build. Needs nothing but Node and npm, and does nothing
 * where nothing changed.
 */
import { spawn } from "node:child_process";
import { existsSync, readdirSync, readFileSync, statSync } from "node:fs";
import { constants } from "node:os";
import { basename, join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { fileURLToPath } from "node:url";

export const root = fileURLToPath(new URL("..", import.meta.url));
export const tsc = join(root, "node_modules/typescript/bin/tsc");
export const vite = join(root, "node_modules/vite/bin/vite.js");
const bundle = join(root, "client/dist/pandapush.min.js");
export const cli = join(root, "server/dist/cli.js");

const oldestNode = [20, 19];

/** A fault that is told in one message, without a stack. */
export class Stop extends Error {}

/** Installs and builds the server if needed, saying so. @throws Stop */
export async function prepare() {
  requireNode();
  await install();
  await build();
}

/** How often to look whether another process has prepared everything, in ms. */
const preparedPollMs = 500;

/** Waits until `prepare` is done in another process: packages and builds are there. */
export async function prepared() {
  requireNode();
  const isThere = () => isInstalled() && existsSync(cli) && existsSync(bundle) && isConsoleBuilt();
  if (!isThere()) say("Waiting until packages are installed and the server is built …");
  while (!isThere()) await delay(preparedPollMs);
}

/** Runs `main`; a Stop becomes its message and exit code 1. */
export async function runScript(main) {
  try {
    await main();
  } catch (error) {
    if (!(error instanceof Stop)) throw error;
    console.error(`\n${error.message}\n`);
    process.exitCode = 1;
  }
}

export function say(text) {
  console.log(`• ${text}`);
}

/**
 * Runs a command with its output shown, and ends it when this process is asked to end.
 * @returns its exit code; 128 + n when a signal ended it, as shells say
 */
export async function run(command, args, options = {}) {
  const { child, ended } = launch(command, args, options);
  const release = endWithUs([child]);
  try {
    return await ended;
  } finally {
    release();
  }
}

/** Each command leads a process group, so that what it starts itself can be ended with it. */
const hasGroups = process.platform !== "win32";

/** Starts a command with its output shown. `ended` gives its exit code, as `run` does. */
export function launch(command, args, options = {}) {
  const child = spawn(command, args, {
    cwd: root,
    stdio: ["ignore", "inherit", "inherit"],
    detached: hasGroups,
    ...options,
  });
  const ended = new Promise((resolve, reject) => {
    child.once("error", reject);
    child.once("close", (code, signal) => resolve(code ?? 128 + constants.signals[signal]));
  });
  return { child, ended };
}

/** Sends a signal to a launched command and all that it started. */
export function signal(child, name) {
  if (!hasGroups) {
    child.kill(name);
    return;
  }
  try {
    process.kill(-child.pid, name);
  } catch (error) {
    // The whole group has ended already.
    if (error.code !== "ESRCH") throw error;
  }
}

/**
 * Hands SIGINT and SIGTERM on to `children` instead of dying before them.
 * @returns a function that ends this
 */
function endWithUs(children) {
  const pass = (name) => {
    for (const child of children) signal(child, name);
  };
  process.on("SIGINT", pass).on("SIGTERM", pass);
  return () => process.off("SIGINT", pass).off("SIGTERM", pass);
}

function requireNode() {
  const [major, minor] = process.versions.node.split(".").map(Number);
  if (major > oldestNode[0] || (major === oldestNode[0] && minor >= oldestNode[1])) return;
  throw new Stop(
    `Pandapush needs Node ${oldestNode.join(".")} or newer; this is Node ${process.versions.node}.\n` +
      "Install a current one from https://nodejs.org and try again.",
  );
}

async function install() {
  if (isInstalled()) return;
  say("Installing packages from package-lock.json (npm ci) …");
  const { command, args } = npm(["ci", "--include=dev", "--no-audit", "--no-fund"]);
  const code = await run(command, args);
  if (code !== 0) throw new Stop(`npm ci failed (exit code ${code}); its output above says why.`);
}

/**
 * Whether node_modules holds what package-lock.json asks for. npm writes down what it installed
 * as its last step, so an installation that was broken off counts as none.
 */
function isInstalled() {
  const record = join(root, "node_modules/.package-lock.json");
  if (!existsSync(record)) return false;
  const installed = packagesOf(record);
  return Object.entries(packagesOf(join(root, "package-lock.json"))).every(([path, wanted]) => {
    if (!path.includes("node_modules/") || wanted.link) return true;
    const found = installed[path];
    // Optional packages for other platforms are not installed.
    if (found === undefined) return wanted.optional === true;
    return found.version === wanted.version && found.integrity === wanted.integrity;
  });
}

function packagesOf(lockfile) {
  return JSON.parse(readFileSync(lockfile, "utf8")).packages;
}

/** npm as it called us, so that no other version meddles; else the one on PATH. */
export function npm(args) {
  const script = process.env.npm_execpath;
  const isNpm = script !== undefined && basename(script).startsWith("npm");
  return isNpm ? { command: process.execPath, args: [script, ...args] } : { command: "npm", args };
}

async function build() {
  if (!existsSync(cli)) say("Building …");
  for (const command of [
    [tsc, "-b", "server", "client", "console", "sdk/node"],
    [join(root, "client/build.mjs")],
    [join(root, "sdk/node/build.mjs")],
    ...(isConsoleBuilt() ? [] : [[vite, "build", "console", "--logLevel", "warn"]]),
  ]) {
    const code = await run(process.execPath, command);
    if (code !== 0) throw new Stop("The build failed; the messages above say where.");
  }
}

/** Whether nothing that the console is built from is younger than what was built. */
function isConsoleBuilt() {
  const built = join(root, "console/dist/index.html");
  if (!existsSync(built)) return false;
  const { mtimeMs } = statSync(built);
  const sources = ["console/src", "protocol/src", "client/src"].flatMap((directory) =>
    readdirSync(join(root, directory), { recursive: true }).map((name) =>
      join(root, directory, name),
    ),
  );
  return [
    ...sources,
    ...["console/index.html", "console/vite.config.ts", "package-lock.json"].map((name) =>
      join(root, name),
    ),
  ].every((file) => statSync(file).mtimeMs <= mtimeMs);
}
