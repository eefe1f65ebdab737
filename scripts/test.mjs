/**
 * `npm test`: types, lint, format and every test, against real servers and clients. Arguments go
 * to vitest: `npm test -- server/test/rest.test.ts`.
 *
 * `npm run test:cluster`: the conformance suite against two nodes behind a balancer that sends
 * every request to the next one, with one Redis host and with two. Arguments instead of its files
 * are possible: `npm run test:cluster -- e2e/faye.test.ts`.
 *
 * `npm run test:chaos -- --minutes 10 --seed 7`: the chaos test of `npm test` for longer; with a seed
 * of its own choice unless one is given.
 */
import { spawnSync } from "node:child_process";
import {
  accessSync,
  constants,
  existsSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { delimiter, join } from "node:path";
import { npm, prepare, root, run, runScript, Stop, say } from "./prepare.mjs";

/** What every client can rely on, whatever it is that serves it. */
const conformance = [
  ...["faye", "browser", "pandapush-client", "cometd", "ruby", "client"],
  ...["faults-websocket", "faults-polling"],
].map((name) => `e2e/${name}.test.ts`);

/**
 * What tests use beyond npm. Each is the program in its environment variable, else the first of
 * `commands` on PATH or in `folders`, and must pass `check`. Tests find it in that same variable.
 */
const needs = [
  {
    what: "Chromium",
    variable: "CHROMIUM_PATH",
    commands: ["chromium", "chromium-browser", "google-chrome"],
    check: ["--version"],
    debian: ["chromium", "fonts-liberation"],
  },
  {
    what: "Ruby with the gems faye, jwt and httparty",
    variable: "RUBY_PATH",
    commands: ["ruby"],
    check: ["-e", 'require "faye"; require "jwt"; require "httparty"'],
    debian: ["ruby", "ruby-faye", "ruby-jwt", "ruby-httparty"],
  },
  {
    what: "Redis 6.2 or later, or Valkey",
    variable: "REDIS_SERVER_PATH",
    commands: ["redis-server", "valkey-server"],
    check: ["--version"],
    debian: ["redis-server"],
  },
  {
    what: "PostgreSQL's server",
    variable: "POSTGRES_PATH",
    commands: ["postgres"],
    // Debian keeps several versions, and none on PATH.
    folders: "/usr/lib/postgresql/*/bin",
    check: ["--version"],
    debian: ["postgresql"],
  },
  {
    what: "nginx",
    variable: "NGINX_PATH",
    commands: ["nginx"],
    folders: "/usr/*",
    check: ["-v"],
    debian: ["nginx"],
  },
  {
    what: "OpenSSL",
    variable: "OPENSSL_PATH",
    commands: ["openssl"],
    check: ["version"],
    debian: ["openssl"],
  },
  {
    what: "Python 3",
    variable: "PYTHON_PATH",
    commands: ["python3"],
    check: ["-c", "import sys; sys.exit(sys.version_info < (3, 8))"],
    debian: ["python3"],
  },
  {
    what: "curl",
    variable: "CURL_PATH",
    commands: ["curl"],
    check: ["--version"],
    debian: ["curl"],
  },
];

await runScript(async () => {
  await prepare();
  const env = { ...process.env, ...(await findNeeds()) };
  say("Checking types, lint and format …");
  const check = npm(["run", "--silent", "check"]);
  if ((await run(check.command, check.args, { env })) !== 0) {
    throw new Stop("npm run check failed; no test was run.");
  }
  if (process.argv.includes("--chaos")) {
    const variables = { PANDAPUSH_CHAOS_MINUTES: numberBehind("--minutes") ?? "10" };
    const seed = numberBehind("--seed");
    if (seed !== undefined) variables.PANDAPUSH_CHAOS_SEED = seed;
    await runTests({ ...env, ...variables }, ["e2e/cluster/chaos.test.ts"]);
    return;
  }
  const given = process.argv.slice(2).filter((argument) => argument !== "--cluster");
  if (!process.argv.includes("--cluster")) {
    await runTests(env, given);
    return;
  }
  for (const shape of ["cluster", "cluster-2-redis"]) {
    say(`Conformance, PANDAPUSH_TEST_DEPLOYMENT=${shape} …`);
    const files = given.length > 0 ? given : conformance;
    await runTests({ ...env, PANDAPUSH_TEST_DEPLOYMENT: shape }, files);
  }
});

/** What follows an option of ours; a number. */
function numberBehind(option) {
  const index = process.argv.indexOf(option);
  if (index === -1) return undefined;
  const value = process.argv[index + 1];
  if (!(Number(value) > 0)) throw new Stop(`${option} takes a number above 0, as in ${option} 7.`);
  return value;
}

/** @returns the variables under which tests find each program */
async function findNeeds() {
  // Where somebody named a program that does not work, another one would only hide that.
  const missing = needs.filter((need) => !process.env[need.variable] && find(need) === undefined);
  if (missing.length > 0) await installOnDebian(missing);
  const lacking = needs.filter((need) => find(need) === undefined);
  if (lacking.length > 0) throw new Stop(describe(lacking));
  return Object.fromEntries(needs.map((need) => [need.variable, find(need)]));
}

function find({ variable, commands, folders, check }) {
  const named = process.env[variable];
  const directories = [...onPath(), ...matching(folders)];
  const candidates = commands.flatMap((command) =>
    directories.map((directory) => join(directory, command)).filter(isExecutable),
  );
  return (named ? [named] : candidates).find(
    (path) => spawnSync(path, check, { stdio: "ignore" }).status === 0,
  );
}

function onPath() {
  return (process.env.PATH ?? "").split(delimiter).filter((each) => each !== "");
}

/** @param pattern a path with one `*`, which stands for any name; the highest comes first */
function matching(pattern = "") {
  const [above, below] = pattern.split("*");
  if (below === undefined || !existsSync(above)) return [];
  const names = readdirSync(above).sort((a, b) => b.localeCompare(a, "en", { numeric: true }));
  return names.map((name) => join(above, name, below));
}

function isExecutable(path) {
  try {
    accessSync(path, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}

async function installOnDebian(missing) {
  if (process.getuid?.() !== 0 || !existsSync("/etc/debian_version")) return;
  const packages = missing.flatMap((need) => need.debian);
  say(`Installing what tests need with apt-get: ${packages.join(" ")} …`);
  const env = { ...process.env, DEBIAN_FRONTEND: "noninteractive" };
  await run("apt-get", ["-qq", "update"], { env });
  await run("apt-get", ["-qq", "-y", "--no-install-recommends", "install", ...packages], { env });
}

function describe(lacking) {
  const lines = lacking.map(({ what, variable, commands, folders }) => {
    const named = process.env[variable];
    const places = folders === undefined ? "on PATH" : `on PATH and in ${folders}`;
    const looked = named
      ? `${variable}=${named} does not work`
      : `${commands.join(", ")} ${places}`;
    return `  ${what} (looked for: ${looked}; or set ${variable})`;
  });
  return [
    "Tests need programs that are missing here:",
    ...lines,
    "On Debian and Ubuntu this gets them:",
    `  sudo apt-get install ${lacking.flatMap((need) => need.debian).join(" ")}`,
  ].join("\n");
}

/** @param given arguments of vitest */
async function runTests(env, given) {
  const directory = mkdtempSync(join(tmpdir(), "pandapush-test-"));
  const report = join(directory, "report.json");
  try {
    const code = await run(
      process.execPath,
      [
        join(root, "node_modules/vitest/vitest.mjs"),
        "run",
        ...["unit", "server", "client", "sdk", "e2e"].flatMap((project) => ["--project", project]),
        "--reporter=default",
        "--reporter=json",
        `--outputFile.json=${report}`,
        ...given,
      ],
      { env },
    );
    if (code !== 0) process.exitCode = code;
    if (!existsSync(report)) throw new Stop("vitest ended without a report.");
    printTotals(JSON.parse(readFileSync(report, "utf8")), code);
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}

/** The last line, for programs: `12 passed, 0 failed`. */
function printTotals({ numPassedTests, numFailedTests, numPendingTests, testResults }, code) {
  // A file that does not even load has failed, though it holds no failed test.
  const brokenFiles = testResults.filter(
    ({ status, assertionResults }) =>
      status === "failed" && assertionResults.every((test) => test.status !== "failed"),
  ).length;
  const failed = numFailedTests + brokenFiles;
  const skipped = numPendingTests > 0 ? `, ${numPendingTests} skipped` : "";
  // vitest also fails for errors outside of any test.
  console.log(
    `${numPassedTests} passed, ${failed === 0 && code !== 0 ? 1 : failed} failed${skipped}`,
  );
}
