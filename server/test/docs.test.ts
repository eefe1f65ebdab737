import { existsSync, readdirSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { posix } from "node:path";
import { describe, expect, test } from "vitest";
import { generateDocs, repositoryPath } from "../src/docs.js";

const read = (name: string): Promise<string> => readFile(repositoryPath(name), "utf8");

test.each(generateDocs())("$path is what `npm run docs` writes", async ({ path, text }) => {
  expect(await read(path)).toBe(text);
});

describe("links", () => {
  /** Of every document, from the root. */
  const names = readdirSync(repositoryPath("."), { recursive: true, encoding: "utf8" }).filter(
    (name) => name.endsWith(".md") && !/(^|\/)(node_modules|dist|localdata)\//.test(name),
  );
  const code = /^ *```[\s\S]*?^ *```$|`[^`\n]*`/gm;

  /** What GitHub calls the headings of a page. */
  const anchorsOf = (page: string): string[] =>
    Array.from(page.replaceAll(/^```[\s\S]*?^```$/gm, "").matchAll(/^#+ (.*)$/gm), ([, title]) =>
      (title ?? "")
        .toLowerCase()
        .replaceAll(/[^\p{L}\p{N} _-]/gu, "")
        .replaceAll(" ", "-"),
    );

  test.each(names)("of %s lead to files and headings that are there", async (name) => {
    const links = (await read(name))
      .replaceAll(code, "")
      .matchAll(/\]\((?!\w+:)([^)#]*)(?:#(.*?))?\)/g);
    for (const [link, target = "", anchor] of links) {
      const file = target === "" ? name : posix.join(posix.dirname(name), target);
      expect(existsSync(repositoryPath(file)), link).toBe(true);
      if (anchor !== undefined) expect(anchorsOf(await read(file)), link).toContain(anchor);
    }
  });

  test("of docs/README.md lead to every page beside it", async () => {
    const index = await read("docs/README.md");
    for (const name of readdirSync(repositoryPath("docs"))) {
      if (name.endsWith(".md") && name !== "README.md") expect(index).toContain(`(${name})`);
    }
  });
});

test("the help of every command fits a terminal of 80 characters, and names real commands", () => {
  const page = generateDocs().find(({ path }) => path === "docs/cli.md")?.text ?? "";
  const helps = [...page.matchAll(/^## (pandapush .*)\n\n```text\n([\s\S]*?)\n```$/gm)];
  expect(helps.length).toBeGreaterThan(20);
  const names = helps.map(([, name = ""]) => name);
  for (const [, , help = ""] of helps) {
    expect(help.split("\n").filter((line) => line.length > 80)).toEqual([]);
    for (const [example] of help.matchAll(/\bpandapush [a-z].*/gi)) {
      expect(names.some((name) => example.startsWith(name))).toBe(true);
    }
  }
});
