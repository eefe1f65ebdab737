/**
 * Writes docs/api.md from the declarations in dist/, from which `tsc` has left out what is
 * `@internal`. With `--check` it writes nothing, and fails when docs/api.md is out of date.
 */
import { readFileSync, writeFileSync } from "node:fs";

const dist = new URL("dist/", import.meta.url);
const target = new URL("docs/api.md", import.meta.url);
const read = (name) => readFileSync(new URL(name, dist), "utf8");

/** The names in the order of their importance to a reader; the others follow. */
const order = ["Client", "ClientOptions", "ClientEvents", "PublishOptions", "Publication"];

const declarations = new Map();
for (const name of exportedNames()) declarations.set(name, undefined);
const files = [...filesOf("shared.d.ts"), "index.d.ts", "promise.d.ts", "emitter.d.ts"];
for (const file of files) {
  for (const declaration of declarationsIn(read(file))) {
    // What Client inherits from the class of the same name is its own to a reader.
    const earlier = declarations.get(declaration.name);
    declarations.set(declaration.name, earlier ? merged(declaration, earlier) : declaration);
  }
}

const text = render();
if (!process.argv.includes("--check")) {
  writeFileSync(target, text);
} else if (readFileSync(target, "utf8") !== text) {
  console.error(
    "client/docs/api.md is out of date: run `node client/docs.mjs` and keep the result",
  );
  process.exitCode = 1;
}

function exportedNames() {
  const lists = [...read("shared.d.ts").matchAll(/\{([^}]*)\}/g)].flatMap(([, list]) =>
    list.split(",").map((name) => name.replace(/\btype\b/, "").trim()),
  );
  // What others extend: subscriptions and publications, and whatever has events.
  const names = ["Client", ...lists.filter((name) => name !== ""), "Deferred", "Emitter"];
  return [...order, ...names.filter((name) => !order.includes(name))];
}

function filesOf(index) {
  const files = [...read(index).matchAll(/from "\.\/(.*)\.js"/g)].map(([, name]) => `${name}.d.ts`);
  return [...new Set(files)];
}

/** Relies on tsc's layout: top-level declarations begin and end at the margin. */
function declarationsIn(source) {
  const found = [];
  let doc = [];
  const lines = source.split("\n");
  for (let i = 0; i < lines.length; i++) {
    if (lines[i].startsWith("/**")) {
      const end = endOfComment(lines, i);
      doc = commentText(lines.slice(i, end + 1));
      i = end;
      continue;
    }
    const match = /^export (?:declare )?(?:class|interface|type|const) (\w+)/.exec(lines[i]);
    if (match !== null) {
      const start = i;
      if (lines[i].endsWith("{")) while (lines[i] !== "}" && lines[i] !== "};") i++;
      else while (!lines[i].endsWith(";")) i++;
      const [head, ...rest] = lines.slice(start, i + 1);
      const isBlock = head.endsWith("{");
      found.push({
        name: match[1],
        head: (isBlock ? head.replace(/ \{$/, "") : [head, ...rest].join("\n"))
          .replace(/^export (?:declare )?/, "")
          // It extends what the class of the same name, whose members it has here, extends.
          .replace("AnyClient", "Emitter<ClientEvents>"),
        doc,
        isClass: / class /.test(lines[start]),
        all: [head, ...rest].join("\n").replace(/^export (?:declare )?/, ""),
        members: isBlock ? membersIn(rest.slice(0, -1)) : [],
      });
    }
    doc = [];
  }
  return found;
}

/** Members are indented by four blanks and end with a semicolon. */
function membersIn(lines) {
  const members = [];
  let doc = [];
  for (let i = 0; i < lines.length; i++) {
    if (lines[i].startsWith("    /**")) {
      const end = endOfComment(lines, i);
      doc = commentText(lines.slice(i, end + 1));
      i = end;
      continue;
    }
    const start = i;
    while (!/^ {4}\S.*;$|^ {4}\}.*;$/.test(lines[i])) i++;
    const code = lines
      .slice(start, i + 1)
      .map((line) => line.slice(4))
      .join("\n");
    const isHidden = /^(?:private |#|static #)/.test(code);
    const name = /^(?:readonly |override |get |static )*(?:"([^"]+)"|\[?([\w.]+))/.exec(code);
    if (!isHidden && name !== null) members.push({ name: name[1] ?? name[2], code, doc });
    doc = [];
  }
  return members;
}

function merged(declaration, inherited) {
  return {
    ...declaration,
    doc: declaration.doc.length > 0 ? declaration.doc : inherited.doc,
    members: [...declaration.members, ...inherited.members],
  };
}

function endOfComment(lines, start) {
  let end = start;
  while (!lines[end].includes("*/")) end++;
  return end;
}

function commentText(lines) {
  return lines
    .join("\n")
    .replace(/^\s*\/\*\*\s?/, "")
    .replace(/\s*\*\/\s*$/, "")
    .split("\n")
    .map((line) => line.replace(/^\s*\* ?/, ""));
}

/** The text of a comment as Markdown: its tags become a list. */
function prose(doc) {
  const lines = [];
  for (const line of doc) {
    const param = /^@param (\w+) (.*)$/.exec(line);
    const other = /^@(returns|throws) (.*)$/.exec(line);
    if (param !== null || other !== null) {
      if (!lines.at(-1)?.startsWith("- ") && lines.length > 0) lines.push("");
      lines.push(param ? `- \`${param[1]}\`: ${param[2]}` : `- ${other[1]} ${other[2]}`);
    } else {
      lines.push(line);
    }
  }
  return lines.join("\n").trim();
}

function render() {
  const known = [...declarations.values()].filter((declaration) => declaration !== undefined);
  const missing = [...declarations].filter(([, declaration]) => declaration === undefined);
  if (missing.length > 0) throw new Error(`No declaration of ${missing.map(([name]) => name)}`);
  const exported = new Set(exportedNames());
  const shown = known.filter(({ name }) => exported.has(name));
  const parts = [
    "# pandapush-client: reference",
    "<!-- Generated from the comments in client/src by `node client/docs.mjs`. -->",
    // Which compiles what the comments show.
    "<!-- run by client/test/readme.test.ts -->",
    "How to use it is told in the [README](../README.md).",
    shown.map(({ name }) => `[${name}](#${name.toLowerCase()})`).join(" · "),
  ];
  for (const { name, head, doc, members, isClass, all } of shown) {
    parts.push(`## ${name}`, prose(doc), code(isClass ? head : all));
    // Of interfaces the code says it all, with its comments.
    if (!isClass) continue;
    for (const group of groups(members)) {
      parts.push(`### ${title(name, group.name)}`);
      parts.push(code(group.members.map((member) => member.code).join("\n")));
      for (const member of group.members) parts.push(prose(member.doc));
    }
  }
  return `${parts.filter((part) => part !== "").join("\n\n")}\n`;
}

function code(source) {
  return `\`\`\`ts\n${source}\n\`\`\``;
}

function title(owner, name) {
  return name === "constructor" ? `new ${owner}` : `${owner}: ${name}`;
}

/** Members of one name, such as the overloads of a function, stand together. */
function groups(members) {
  const byName = new Map();
  for (const member of members) {
    const group = byName.get(member.name) ?? { name: member.name, members: [] };
    group.members.push(member);
    byName.set(member.name, group);
  }
  return byName.values();
}
