import { existsSync, readFileSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import Database from "libsql";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { openStore } from "../src/storage/sql.js";
import { storeSuite } from "../src/storage/store.suite.js";

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

  test("a new database has the tables of Pandapush 2.2, letter by letter", async () => {
    const [path, legacy] = [freshPath(), loadLegacy()];
    await (await openStore({ path })).close();
    expect(query(path, tablesQuery)).toEqual(query(legacy, tablesQuery));
    const migrations = "SELECT id, name, batch FROM knex_migrations";
    expect(query(path, migrations)).toEqual(query(legacy, migrations));
  });
});

describe("a database of Pandapush 2.2", () => {
  test("opens unchanged", async () => {
    const path = loadLegacy();
    const everything = () =>
      [
        tablesQuery,
        "SELECT * FROM applications",
        "SELECT * FROM application_users",
        "SELECT * FROM keys",
        "SELECT * FROM knex_migrations",
        "SELECT * FROM knex_migrations_lock",
      ].map((sql) => query(path, sql));
    const before = everything();
    const store = await openStore({ path });
    await store.keys();
    await store.close();
    expect(everything()).toEqual(before);
  });

  test("has its applications and keys", async () => {
    const store = await openStore({ path: loadLegacy() });
    expect(await store.applications()).toMatchObject([
      { id: "devapp", name: "dev", createdBy: "admin", updatedAt: null },
      {
        id: "KB8A6zwXjuGthukJhTXp",
        name: "Legacy shop",
        createdAt: new Date("2026-11-22T14:49:52.085Z"),
        updatedAt: new Date("2026-11-22T14:49:52.137Z"),
      },
    ]);
    const keys = await store.keys();
    expect(keys.map(({ id, useCount, purpose }) => [id, useCount, purpose])).toEqual([
      ["devkey", 3108, "dev"],
      ["PSIDPpVwXmW6g4fwqWJe", 0, "web shop"],
      ["PSIDFc9o0RfbrOAiP9U3", 0, "old"],
      ["PSIDMbu19emOJblUcKks", 0, "web console"],
    ]);
    expect(keys[0]).toMatchObject({
      appId: "devapp",
      secret: "devsecret",
      expires: new Date("2126-11-22T13:42:53.125Z"),
      lastUsed: new Date("2026-11-22T13:46:45.116Z"),
    });
    expect(keys[2]).toMatchObject({ expires: new Date("2020-01-01T07:00:00.000Z") });
    await store.close();
  });

  test("takes new keys and counts the use of old ones", async () => {
    const path = loadLegacy();
    const store = await openStore({ path });
    const [old] = await store.keys();
    if (old === undefined) throw new Error("the fixture has keys");
    await store.recordUse([{ keyId: old.id, count: 2, lastUsed: new Date() }]);
    await store.addKey({ appId: old.appId, createdBy: "ann", expires: null, purpose: null });
    await store.close();
    expect(query(path, "SELECT use_count FROM keys WHERE id = 'devkey'")).toEqual([
      { use_count: 3110 },
    ]);
    expect(query(path, "SELECT count(*) AS keys FROM keys")).toEqual([{ keys: 5 }]);
  });
});

const tablesQuery =
  "SELECT name, sql FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%' ORDER BY name";

function loadLegacy(): string {
  const path = join(folder, `legacy-${files++}.sqlite`);
  expect(existsSync(path)).toBe(false);
  execute(
    path,
    readFileSync(new URL("fixtures/pandapush-2.2.sqlite.sql", import.meta.url), "utf8"),
  );
  return path;
}

function execute(path: string, sql: string): void {
  const database = new Database(path);
  database.exec(sql);
  database.close();
}

function query(path: string, sql: string): unknown[] {
  const database = new Database(path);
  const rows = database.prepare(sql).all();
  database.close();
  return rows;
}
