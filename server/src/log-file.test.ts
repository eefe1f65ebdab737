import { mkdtempSync, readdirSync, readFileSync, rmSync, utimesSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pino } from "pino";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { type Destination, openLogFile } from "./log-file.js";

let directory: string;
let file: Destination | undefined;
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), "pandapush-log-"));
});
afterEach(() => {
  file?.end();
  file = undefined;
  rmSync(directory, { recursive: true });
  vi.restoreAllMocks();
});

const never = { everyMs: 0, maxBytes: 1e9, kept: 24 };
const written = (destination: Destination, text: string): Promise<unknown> =>
  new Promise((resolve) => {
    destination.once("write", resolve);
    destination.write(text);
    destination.flush();
  });
const reopened = (destination: Destination): Promise<unknown> =>
  new Promise((resolve) => destination.once("ready", resolve));
const texts = (): Record<string, string> =>
  Object.fromEntries(
    readdirSync(directory).map((name) => [name, readFileSync(join(directory, name), "utf8")]),
  );

test("lines are appended, and folders made", async () => {
  const path = join(directory, "logs", "deep", "log");
  file = openLogFile({ path, ...never });
  await written(file, "one\n");
  file.end();
  file = openLogFile({ path, ...never });
  await written(file, "two\n");
  expect(readFileSync(path, "utf8")).toBe("one\ntwo\n");
});

test("a file that is full is set aside between two lines, and the oldest goes", async () => {
  file = openLogFile({ path: join(directory, "log"), everyMs: 0, maxBytes: 10, kept: 2 });
  for (const text of ["1", "2", "3", "4"]) {
    const isOpen = reopened(file);
    await written(file, `${text.repeat(11)}\n`);
    await isOpen;
  }
  await written(file, "5\n");
  expect(texts()).toEqual({
    "log.1": `${"3".repeat(11)}\n`,
    "log.0": `${"4".repeat(11)}\n`,
    log: "5\n",
  });
});

test("a file of an earlier hour is set aside when the server starts, and when the hour is over", async () => {
  const hour = 3_600_000;
  const path = join(directory, "log");
  writeFileSync(path, "old\n");
  utimesSync(path, new Date(Date.now() - hour), new Date(Date.now() - hour));
  file = openLogFile({ path, ...never, everyMs: hour });
  await written(file, "new\n");
  expect(texts()).toEqual({ "log.0": "old\n", log: "new\n" });
  const later = Date.now() + hour;
  vi.spyOn(Date, "now").mockReturnValue(later);
  const isOpen = reopened(file);
  // It is noticed by the line that comes then.
  await written(file, "last\n");
  await isOpen;
  await written(file, "newest\n");
  expect(texts()).toEqual({ "log.1": "old\n", "log.0": "new\nlast\n", log: "newest\n" });
});

test("a disk that takes nothing is complained about once, and nobody else notices", async () => {
  const complaints: string[] = [];
  vi.spyOn(process.stderr, "write").mockImplementation((text) => {
    complaints.push(String(text));
    return true;
  });
  file = openLogFile({ path: "/dev/full", ...never });
  const log = pino(file);
  const failed = new Promise((resolve) => file?.on("error", resolve));
  for (let n = 0; n < 5; n++) log.info("line");
  file.flush();
  await failed;
  expect(complaints).toEqual([
    expect.stringMatching(/^Log file \/dev\/full: ENOSPC.*; lines wait\n$/),
  ]);
});

test("a file that cannot be opened stops the start", () => {
  writeFileSync(join(directory, "file"), "");
  expect(() => openLogFile({ path: join(directory, "file", "log"), ...never })).toThrow();
});
