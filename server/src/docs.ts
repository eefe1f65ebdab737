/** The pages that are written from code: a test fails when they differ from what is here. */
import { writeFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import type { Command } from "commander";
import { program } from "./cli/all.js";
import { describeUnused, describeVariables } from "./config.js";
import { catalogue, closeCodes, type ErrorCode, Refusal } from "./errors.js";
import { type Metric, table } from "./metrics/table.js";

/** Of a run by hand. */
const loadSample = `CONNECTS    5000 of 5000      0 failed, in 3.41 s
RECONNECTS  0                 0 with a new session
PUBLISHES   6030              0 failed, 200.9/s
DELIVERIES  156000 of 156000  0 lost, 0 duplicated

LATENCY                                 p50      p90      p99       max
connect and subscribe                   54.4 ms  97.9 ms  206.3 ms  221.2 ms
publish until OK                        0.6 ms   4.59 ms  22.1 ms   70.4 ms
publish until received, own channel     0.47 ms  3.49 ms  94.1 ms   218.9 ms
publish until received, shared channel  46.5 ms  94.1 ms  156.7 ms  218.8 ms

COUNTED BY   this command  the server
connections  5000          5000
published    6030          6030
delivered    156000        156000

Every user was connected, every push was taken, and every message came once.`;

/** @returns paths from the repository's root, and what belongs there */
export function generateDocs(): { path: string; text: string }[] {
  return [
    { path: "docs/configuration.md", text: configurationPage() },
    { path: "docs/errors.md", text: errorsPage() },
    { path: "docs/metrics.md", text: metricsPage() },
    { path: "docs/cli.md", text: commandPage() },
    { path: ".env.example", text: envExample() },
  ];
}

/** @returns the paths that were written */
export async function writeDocs(): Promise<string[]> {
  const docs = generateDocs();
  for (const { path, text } of docs) await writeFile(repositoryPath(path), text);
  return docs.map(({ path }) => path);
}

/** The same from `src` as from `dist`. */
export function repositoryPath(path: string): string {
  return fileURLToPath(new URL(`../../${path}`, import.meta.url));
}

function configurationPage(): string {
  return `# Configuration

<!-- Generated from server/src/config.ts by \`npm run docs\`. -->

The server is configured by environment variables, and by a \`.env\` file in its working directory for those that the
environment does not set (\`.env.example\` is one). All have a default. An empty variable counts as not set. Times are
milliseconds, sizes are bytes, both as plain integers.

A value that is not allowed stops the start, with the complete list of faults. Variables that look like ours and are
not known only give a warning.
${groups()
  .map(
    ([group, variables]) => `
## ${group}

| variable | default | allowed | meaning |
|---|---|---|---|
${variables
  .map(
    ({ name, default: fallback, allowed, doc }) =>
      `| \`${name}\` | ${fallback === undefined ? "–" : `\`${fallback}\``} | ${cell(allowed)} | ${cell(doc)} |`,
  )
  .join("\n")}
`,
  )
  .join("")}
## Not used by this version

These are known from Pandapush 2.2. Setting one gives a warning and has no effect:
${describeUnused()
  .map((name) => `\`${name}\``)
  .join(", ")}.
`;
}

function errorsPage(): string {
  return `# Errors

<!-- Generated from server/src/errors.ts by \`npm run docs\`. -->

In Bayeux, the field \`error\` of an unsuccessful reply has the text of the second column, where \`…\` stands for what
the error is about, such as a channel; \`ext.detail\` says what can be done about it. Over REST, the same is a JSON body
\`{"code", "params", "message", "details"}\` with the HTTP status of the third column; below \`/api\`, what is wrong with a key is a 403. Two are plain texts instead:
\`unauthorized\` (no credentials at all), just that word, as old clients know it, and \`notFound\`.

| code | \`error\` | HTTP | again? | help |
|---|---|---|---|---|
${(Object.keys(catalogue) as ErrorCode[])
  .map((code) => {
    const refusal = new Refusal(code, ["…"]);
    return `| ${code} | \`${cell(refusal.toBayeux())}\` | ${refusal.http} | ${catalogue[code].retry} | ${cell(refusal.help)} |`;
  })
  .join("\n")}

## Close codes of WebSocket connections

| code | reason | name |
|---|---|---|
${Object.entries(closeCodes)
  .map(
    ([name, { code, reason }]) => `| ${code} | ${reason === "" ? "–" : cell(reason)} | ${name} |`,
  )
  .join("\n")}
`;
}

function metricsPage(): string {
  const metrics = Object.values<Metric>(table);
  return `# Metrics

<!-- Generated from server/src/metrics/table.ts by \`npm run docs\`. -->

What they tell, and which to look at first, is in [operating.md](operating.md#metrics). All are a node's own: add them up over
nodes. Counters begin at 0 when a node starts. Labels never hold a channel's name, a client's id or anything secret.

## Prometheus

\`GET /metrics\` gives them in Prometheus' text format:

| set | who gets them |
|---|---|
| neither \`METRICS_PORT\` nor \`METRICS_TOKEN\` | nobody: 404 |
| \`METRICS_TOKEN\` (16 to 1024 characters) | on \`PORT\`, with \`Authorization: Bearer <token>\`; 401 without |
| \`METRICS_PORT\` | on that port, whoever reaches it; keep it from the world. 404 on \`PORT\` |
| both | on that port, with the token; 401 without. 404 on \`PORT\` |

| metric | type | labels | meaning |
|---|---|---|---|
${metrics
  .map(({ name, type, labels = {}, help }) => {
    const names = Object.keys(labels).map((label) => `\`${label}\``);
    return `| \`${name}\` | ${type} | ${names.join(", ") || "–"} | ${cell(help)} |`;
  })
  .join("\n")}

| label | values |
|---|---|
${distinctLabels(metrics)
  .map(([label, values]) => `| \`${label}\` | ${cell(values)} |`)
  .join("\n")}

An application's counters go on from where they were when it is among the largest again; what happens meanwhile counts as
\`other\`. So sums over \`app\` are right at any time.

## statsd

With \`STATSD_HOST\`, the same names as in Pandapush 2.2, over UDP, behind \`STATSD_PREFIX\` and a dot. Counts are sent every
\`STATSD_INTERVAL_MS\` if they are above zero; times of answers as packets fill, and then too. Requests to \`/push\` are no part of
\`responses\` and \`duration\`. Presence and statistics, which the server publishes itself, are no part of \`publish\`.

| name | type | meaning | in Prometheus |
|---|---|---|---|
${metrics
  .flatMap(({ name: prometheus, statsd = [] }) =>
    statsd.map(
      ({ name, type, help }) => `| \`${name}\` | \`${type}\` | ${cell(help)} | \`${prometheus}\` |`,
    ),
  )
  .join("\n")}
`;
}

/** Each name and meaning once. */
function distinctLabels(metrics: readonly Metric[]): [string, string][] {
  const labels = metrics.flatMap(({ labels = {} }) => Object.entries(labels));
  const distinct = new Map(labels.map(([name, values]) => [`${name} ${values}`, [name, values]]));
  return [...distinct.values()] as [string, string][];
}

function commandPage(): string {
  return `# The command line

<!-- Generated from server/src/cli/ by \`npm run docs\`. -->

\`npx pandapush\` in a checkout, \`pandapush\` where the package is installed. What follows is what \`--help\` says of each
command.

Commands of two kinds:

- \`start\`, \`migrate\`, \`check\`, \`app\`, \`key\`, \`admin\` and \`token\` work on the database, whether a server runs or not: run
  them where it runs, with its environment or in the folder with its \`.env\`. A running server takes changes within a second.
- \`publish\`, \`subscribe\`, \`presence\` and \`load\` speak with a running server, from anywhere, as a back end or client does.

With \`--json\` each prints its result as JSON, with the names of the REST API; \`subscribe\` always does, a line for each message.

| exit code | |
|---|---|
| 0 | done; of \`check\`: no fault; of \`load\`: every user was connected, every push was taken, and every message came once |
| 1 | it could not be done, and standard error says why; of \`check\` and \`load\`: not well |
| 2 | wrong usage: standard error says what is wrong, and where the help is |

## Before the first line

With the server running (\`npm start\`), in a second terminal and in the same folder, make an application and a key:

<!-- run; prints secret -->
\`\`\`sh
npx pandapush app add "My app"
npx pandapush key add APP_ID
\`\`\`

Then put what they print here, once:

<!-- run -->
\`\`\`sh
export PANDAPUSH_URL=http://localhost:3000
export PANDAPUSH_APP_ID=APP_ID
export PANDAPUSH_KEY_ID=KEY_ID
export PANDAPUSH_KEY_SECRET=KEY_SECRET
\`\`\`

Now one terminal hears

<!-- run; stays; prints listening -->
\`\`\`sh
npx pandapush subscribe public/news
\`\`\`

what another one publishes:

<!-- run; heard hello -->
\`\`\`sh
npx pandapush publish public/news '{"text":"hello"}'
\`\`\`

The secret is taken from the environment, from a file or from standard input (\`--secret-file\`), never from an option: whoever is
on the same machine can read command lines.

## How much a server holds

\`pandapush load --users 5000 --rate 200 --shared-rate 1\`, on a machine with two processors that did other work, too, and ran
the server (one process, SQLite, no Redis) beside the test's own two processes:

\`\`\`text
${loadSample}
\`\`\`

What is pushed to the shared channel goes to 5000 users at once, so the last of them waits for the writes to all others: that is
its latency, and that of a push to a user's own channel that comes in the middle of it. *connections*, *published* and
*delivered* by the server are those of the application's statistics ([META-1](protocol.md#meta-statistics)), without the
command's own subscription to them.
${leaves(program)
  .map(
    (command) => `
## ${nameOf(command)}

\`\`\`text
${helpOf(command)}
\`\`\`
`,
  )
  .join("")}`;
}

function leaves(command: Command): Command[] {
  const visible = command.createHelp().visibleCommands(command);
  const subs = visible.filter((sub) => sub.name() !== "help");
  return subs.length === 0 ? [command] : subs.flatMap(leaves);
}

function nameOf(command: Command): string {
  const { parent } = command;
  return parent === null ? command.name() : `${nameOf(parent)} ${command.name()}`;
}

/** As in a terminal of 80 characters. */
function helpOf(command: Command): string {
  let text = "";
  command.configureOutput({
    writeOut: (part) => {
      text += part;
    },
    getOutHelpWidth: () => 80,
    getOutHasColors: () => false,
  });
  command.outputHelp();
  return text.trim();
}

function envExample(): string {
  return `# Generated from server/src/config.ts by \`npm run docs\`. Copy it to .env and change what you need;
# docs/configuration.md has the same as a table.
${groups()
  .map(
    ([group, variables]) => `
# ${group}
${variables
  .map(
    ({ name, default: fallback, allowed, doc }) =>
      `\n${comment(`${doc} (${allowed})`)}\n#${name}=${fallback ?? ""}\n`,
  )
  .join("")}`,
  )
  .join("")}`;
}

function groups() {
  const groups = new Map<string, ReturnType<typeof describeVariables>>();
  for (const variable of describeVariables()) {
    const members = groups.get(variable.group);
    if (members === undefined) groups.set(variable.group, [variable]);
    else members.push(variable);
  }
  return Array.from(groups);
}

/** A bar ends a cell of a table, also within code. `<` begins a tag, but within code. */
function cell(text: string): string {
  return text
    .replaceAll("|", "\\|")
    .split("`")
    .map((part, i) => (i % 2 === 0 ? part.replaceAll("<", "&lt;") : part))
    .join("`");
}

const commentWidth = 98;

function comment(text: string): string {
  const lines: string[] = [];
  let line = "#";
  for (const word of text.replaceAll("`", "").split(" ")) {
    if (line.length + 1 + word.length > commentWidth) {
      lines.push(line);
      line = "#";
    }
    line += ` ${word}`;
  }
  return [...lines, line].join("\n");
}
