import { readFile } from "node:fs/promises";
import { expect, test } from "vitest";
import { generateDocs, repositoryPath } from "../src/docs.js";

test.each(generateDocs())("$path is what `npm run docs` writes", async ({ path, text }) => {
  expect(await readFile(repositoryPath(path), "utf8")).toBe(text);
});
