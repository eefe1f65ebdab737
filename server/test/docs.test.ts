import { readFile } from "node:fs/promises";
import { expect, test } from "vitest";
import { generateDocs, repositoryPath } from "../src/docs.js";

test.each(generateDocs())("$path is what `npm run docs` writes", async ({ path, text }) => {
  expect(await readFile(repositoryPath(path), "utf8")).toBe(text);
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
