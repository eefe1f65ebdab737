/** The pages that are written from code: a test fails when they differ from what is here. */
import { writeFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import { describeUnused, describeVariables } from "./config.js";
import { catalogue, closeCodes, type ErrorCode, Refusal } from "./errors.js";
import { type Metric, table } from "./metrics/table.js";

/** @returns paths from the repository's root, and what belongs there */
export function generateDocs(): { path: string; text: string }[] {
  return [
    { path: "docs/configuration.md", text: configurationPage() },
    { path: "docs/errors.md", text: errorsPage() },
    { path: "docs/metrics.md", text: metricsPage() },
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
| \`METRICS_TOKEN\` | on \`PORT\`, with \`Authorization: Bearer <token>\`; 401 without |
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
