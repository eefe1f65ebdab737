import { execFile } from "node:child_process";
import { existsSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join, relative } from "node:path";
import { promisify } from "node:util";
import Database from "libsql";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { knexConfig } from "../knexfile.js";
import { repositoryPath } from "../src/docs.js";
import { openStore } from "../src/storage/sql.js";
import { storeSuite } from "../src/storage/store.suite.js";
import { addRotatedKey, migratedUpTo } from "./migrated.js";
import { knexCommand } from "./postgres.js";

let folder: string;
let files = 0;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "pandapush-storage-"));
});

afterAll(() => rm(folder, { recursive: true }));

function freshPath(): string {
  files++;
  return join(folder, `${files}`, "db.sqlite");
}

describe("a store on SQLite", () => {
  storeSuite(async () => {
    const path = freshPath();
    return { store: await openStore({ path }), other: await openStore({ path }) };
  });

  test("its version changes with what another process writes, and with nothing else", async () => {
    const path = freshPath();
    const [store, other] = [await openStore({ path }), await openStore({ path })];
    const atFirst = await store.version();
    await store.addApplication({ name: "mine", createdBy: "ann" });
    await other.applications();
    expect(await store.version()).toBe(atFirst);
    await other.addApplication({ name: "theirs", createdBy: "ben" });
    expect(await store.version()).not.toBe(atFirst);
    await Promise.all([store.close(), other.close()]);
  });

  test("several processes may open it at once for the first time", async () => {
    const path = freshPath();
    const stores = await Promise.all(Array.from({ length: 5 }, () => openStore({ path })));
    for (const store of stores) expect(await store.keys()).toEqual([]);
    await Promise.all(stores.map((store) => store.close()));
  });

  test("while another process writes, a call waits and the event loop goes on", async () => {
    const path = freshPath();
    const store = await openStore({ path });
    const writer = new Database(path);
    writer.exec("BEGIN IMMEDIATE");
    const adding = store.addApplication({ name: "late", createdBy: "ann" });
    for (let turn = 0; turn < 20; turn++) await new Promise(setImmediate);
    writer.exec("COMMIT");
    writer.close();
    expect(await adding).toMatchObject({ name: "late" });
    await store.close();
  });

  test("the knex command makes its tables, with a path relative to the checkout", async () => {
    const path = freshPath();
    const root = repositoryPath("");
    await promisify(execFile)(
      process.execPath,
      [knexCommand, "--knexfile", "server/knexfile.js", "migrate:latest"],
      { cwd: root, env: { ...process.env, DATABASE_PATH: relative(root, path) } },
    );
    expect(existsSync(path)).toBe(true);
    const store = await openStore({ path });
    expect(await store.keys()).toEqual([]);
    await store.close();
  });

  test("a former secret that was kept before there could be several goes on", async () => {
    const path = freshPath();
    const until = new Date(Date.now() + 60_000);
    const knex = await migratedUpTo(knexConfig({ path }), "20261122230000_postgres.js");
    await addRotatedKey(knex, until);
    await knex.destroy();
    const store = await openStore({ path });
    const keys = await store.keys();
    expect(keys.map(({ id, previous }) => [id, previous])).toEqual([
      ["key", [{ secret: "old", until }]],
      ["other", []],
    ]);
    await store.close();
  });

  test("a file that is no database is refused by its name", async () => {
    await expect(openStore({ path: folder })).rejects.toThrow(`Cannot open the database ${folder}`);
  });

  test("an expiry that cannot be read is over, not absent", async () => {
    const path = freshPath();
    const store = await openStore({ path });
    const app = await store.addApplication({ name: null, createdBy: "ann" });
    const key = await store.addKey({
      appId: app.id,
      createdBy: "ann",
      expires: null,
      purpose: null,
    });
    execute(path, "UPDATE keys SET expires = 'soon', last_used = 'lately'");
    expect(await store.findKey(app.id, key.id)).toMatchObject({
      expires: new Date(0),
      lastUsed: null,
    });
    await store.close();
  });
});

function execute(path: string, sql: string): void {
  const database = new Database(path);
  database.exec(sql);
  database.close();
}
