import { readFileSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Credentials } from "@pandapush/protocol";
import { createSigner } from "fast-jwt";
import Database from "libsql";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { createAuthorize } from "../src/auth/authorize.js";
import { KeyTable } from "../src/auth/keys.js";
import type { PostgresConfig } from "../src/config.js";
import { openStore } from "../src/storage/sql.js";
import type { Store } from "../src/storage/store.js";
import { loadLegacy as loadPostgresDump, Postgres } from "./postgres.js";

let folder: string;
let files = 0;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "pandapush-legacy-"));
});

afterAll(() => rm(folder, { recursive: true }));

describe("a SQLite database of Pandapush 2.2", () => {
  test("opens with all that was in it, letter by letter", async () => {
    const path = loadLegacy();
    const keyColumns = columns(path, "keys").join();
    const appColumns = columns(path, "applications").join();
    const everything = () =>
      [
        `SELECT ${appColumns} FROM applications`,
        "SELECT * FROM application_users",
        `SELECT ${keyColumns} FROM keys`,
        "SELECT * FROM knex_migrations WHERE id <= 3",
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
    await expectLegacy(store);
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

  test("its keys open what they opened, and its expired key nothing", async () => {
    const store = await openStore({ path: loadLegacy() });
    await expectLegacyKeysWork(store);
    await store.close();
  });
});

test("a new SQLite database has the tables of one of Pandapush 2.2 that was opened", async () => {
  const [path, legacy] = [join(folder, "new.sqlite"), loadLegacy()];
  const before = query(legacy, tablesQuery);
  for (const each of [path, legacy]) await (await openStore({ path: each })).close();
  expect(query(path, tablesQuery)).toEqual(query(legacy, tablesQuery));
  const migrations = "SELECT name FROM knex_migrations ORDER BY id";
  expect(query(path, migrations)).toEqual(query(legacy, migrations));
  // What is new stands beside what was there.
  const unchanged = before.filter(({ name }) => name !== "keys" && name !== "applications");
  expect(query(path, tablesQuery)).toEqual(expect.arrayContaining(unchanged));
});

describe("a Postgres database of Pandapush 2.2", () => {
  let postgres: Postgres;

  beforeAll(async () => {
    postgres = await Postgres.start();
  }, 60_000);

  afterAll(() => postgres.remove());

  async function createLegacy(): Promise<PostgresConfig> {
    const database = await postgres.createDatabase();
    await loadPostgresDump(postgres, database);
    return database;
  }

  test("opens with all that was in it", async () => {
    const database = await createLegacy();
    const columnsOf = async (table: string): Promise<string> => {
      const [found] = await postgres.query(
        database.name,
        `SELECT string_agg(column_name, ',' ORDER BY ordinal_position) AS columns
        FROM information_schema.columns WHERE table_name = '${table}'`,
      );
      return String(found?.columns);
    };
    const [keyColumns, appColumns] = [await columnsOf("keys"), await columnsOf("applications")];
    const everything = async () => {
      const tables: unknown[] = [];
      for (const sql of [
        `SELECT ${appColumns} FROM applications ORDER BY id`,
        "SELECT * FROM application_users ORDER BY user_id",
        // A count that may be larger now comes as a text.
        `SELECT ${keyColumns.replace("use_count", "use_count::int")} FROM keys ORDER BY id`,
        "SELECT * FROM knex_migrations WHERE id <= 3 ORDER BY id",
        "SELECT * FROM knex_migrations_lock",
      ]) {
        tables.push(await postgres.query(database.name, sql));
      }
      return tables;
    };
    const before = await everything();
    await (await openStore(database)).close();
    expect(await everything()).toEqual(before);
  });

  test("has its applications and keys, which open what they opened", async () => {
    const store = await openStore(await createLegacy());
    await expectLegacy(store);
    await expectLegacyKeysWork(store);
    await store.close();
  });

  test("takes new keys and counts the use of old ones", async () => {
    const store = await openStore(await createLegacy());
    const [old] = await store.keys();
    if (old === undefined) throw new Error("the fixture has keys");
    await store.recordUse([{ keyId: old.id, count: 2, lastUsed: new Date() }]);
    await store.addKey({ appId: old.appId, createdBy: "ann", expires: null, purpose: null });
    const keys = await store.keys();
    expect(keys.map(({ useCount }) => useCount)).toEqual([3110, 0, 0, 0, 0]);
    await store.close();
  });

  test("has the tables of a new one then", async () => {
    const tables = async (database: PostgresConfig) => {
      await (await openStore(database)).close();
      return [
        await postgres.query(database.name, columnsQuery),
        await postgres.query(database.name, constraintsQuery),
        await postgres.query(database.name, "SELECT name FROM knex_migrations ORDER BY id"),
      ];
    };
    expect(await tables(await createLegacy())).toEqual(
      await tables(await postgres.createDatabase()),
    );
  });
});

async function expectLegacy(store: Store): Promise<void> {
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
}

async function expectLegacyKeysWork(store: Store): Promise<void> {
  const problems: string[] = [];
  const report = (problem: string) => problems.push(problem);
  const keys = new KeyTable(store, { reloadMs: 60_000, usageMs: 60_000, report });
  await keys.load();
  const authorize = createAuthorize(keys);
  const publish = async (app: string, credentials: Credentials) =>
    authorize("publish", `/${app}/private/a`, credentials);
  const [, shop, old] = await store.keys();
  if (shop === undefined || old === undefined) throw new Error("the fixture has these keys");

  expect(await publish("devapp", { key: "devkey", secret: "devsecret" })).toMatchObject({
    keyId: "devkey",
  });
  const sign = createSigner({ key: shop.secret, algorithm: "HS256" });
  const token = sign({ keyId: shop.id, channel: `/${shop.appId}/**`, pub: true });
  expect(await publish(shop.appId, { token })).toMatchObject({ keyId: shop.id });
  await expect(publish(old.appId, { key: old.id, secret: old.secret })).rejects.toThrow(
    "Expired key",
  );
  await keys.close();
  expect(problems).toEqual([]);
}

const columnsQuery = `SELECT table_name, column_name, data_type, character_maximum_length, is_nullable, column_default
  FROM information_schema.columns WHERE table_schema = 'public' ORDER BY table_name, column_name`;
const constraintsQuery = `SELECT conrelid::regclass::text AS table_name, conname, pg_get_constraintdef(oid) AS definition
  FROM pg_constraint WHERE connamespace = 'public'::regnamespace ORDER BY 1, 2`;

const tablesQuery =
  "SELECT name, sql FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%' ORDER BY name";

function loadLegacy(): string {
  const path = join(folder, `${files++}.sqlite`);
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

function columns(path: string, table: string): unknown[] {
  return query(path, `SELECT name FROM pragma_table_info('${table}')`).map(({ name }) => name);
}

function query(path: string, sql: string): Record<string, unknown>[] {
  const database = new Database(path);
  const rows = database.prepare(sql).all() as Record<string, unknown>[];
  database.close();
  return rows;
}
