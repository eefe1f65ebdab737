/** The pages that are written from code: a test fails when they differ from what is here. */
import { writeFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import { describeUnused, describeVariables } from "./config.js";
import { catalogue, closeCodes, type ErrorCode, Refusal } from "./errors.js";

/** @returns paths from the repository's root, and what belongs there */
export function generateDocs(): { path: string; text: string }[] {
  return [
    { path: "docs/configuration.md", text: configurationPage() },
    { path: "docs/errors.md", text: errorsPage() },
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
