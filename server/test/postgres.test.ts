import { execFile } from "node:child_process";
import { join } from "node:path";
import { promisify } from "node:util";
import type { AppId, KeyId } from "@pandapush/protocol";
import createKnex from "knex";
import { afterAll, afterEach, beforeAll, describe, expect, onTestFinished, test } from "vitest";
import { TcpProxy } from "../../e2e/tcp-proxy.js";
import { knexConfig } from "../knexfile.js";
import type { PostgresConfig } from "../src/config.js";
import { repositoryPath } from "../src/docs.js";
import { openStore } from "../src/storage/sql.js";
import { StorageUnavailable, type Store } from "../src/storage/store.js";
import { storeSuite } from "../src/storage/store.suite.js";
import { addRotatedKey, migratedUpTo } from "./migrated.js";
import { environmentOf, knexCommand, loadLegacy, Postgres } from "./postgres.js";

/** What is noticed is noticed well within this. */
const soon = { timeout: 10_000, interval: 20 };
const appId = "app" as AppId;

let postgres: Postgres;

beforeAll(async () => {
  postgres = await Postgres.start();
}, 60_000);

afterAll(() => postgres.remove());

/** A store that is closed when the test is over. */
async function open(
  database: PostgresConfig,
  options: { mayBeDown?: boolean } = {},
): Promise<Store> {
  const store = await openStore(database, options);
  onTestFinished(() => store.close());
  return store;
}

async function openWithApp(database: PostgresConfig): Promise<Store> {
  const store = await open(database);
  await store.addApplication({ id: appId, name: "shop", createdBy: "ann" });
  return store;
}

function addKey(store: Store, id = "key") {
  const key = { appId, createdBy: "ann", expires: null, purpose: null };
  return store.addKey({ ...key, id: id as KeyId, secret: "secret" });
}

/** How long something took that had to fail for want of a database, in ms. */
async function failsWithin(ms: number, call: Promise<unknown>): Promise<StorageUnavailable> {
  const startedAt = performance.now();
  const error: unknown = await call.then(
    () => undefined,
    (failure: unknown) => failure,
  );
  expect(error).toBeInstanceOf(StorageUnavailable);
  expect(performance.now() - startedAt).toBeLessThan(ms);
  return error as StorageUnavailable;
}

describe("a store on Postgres", () => {
  storeSuite(async () => {
    const database = await postgres.createDatabase();
    return { store: await openStore(database), other: await openStore(database) };
  });

  test("its version changes with what others change, with whatever program", async () => {
    const database = await postgres.createDatabase();
    const [store, other] = [await openWithApp(database), await open(database)];
    const versions = [await store.version()];
    const changes = [
      () => addKey(other),
      () => other.rotateKey(appId, "key" as KeyId, 60_000),
      () => other.revokeKey(appId, "key" as KeyId),
      () => postgres.query(database.name, "UPDATE keys SET expires = now()"),
      () => postgres.query(database.name, "DELETE FROM keys"),
      () => other.updateApplication(appId, { limits: { maxConnections: 5 } }),
      ...[
        "max_publishes_per_second",
        "max_connections",
        "max_sessions_per_second",
        "max_message_bytes",
      ].map((limit) => () => postgres.query(database.name, `UPDATE applications SET ${limit} = 1`)),
      () => other.removeApplication(appId),
    ];
    for (const change of changes) {
      await change();
      versions.push(await store.version());
    }
    expect(new Set(versions).size).toBe(changes.length + 1);
  });

  test("its version stays when keys are used and applications renamed", async () => {
    const store = await openWithApp(await postgres.createDatabase());
    await addKey(store);
    const before = await store.version();
    await store.recordUse([{ keyId: "key" as KeyId, count: 1, lastUsed: new Date() }]);
    await store.updateApplication(appId, { name: "store", admins: ["ben"] });
    expect(await store.version()).toBe(before);
  });

  test("its version changes when a change is committed that was made before", async () => {
    const database = await postgres.createDatabase();
    const store = await openWithApp(database);
    const knex = createKnex(knexConfig(database));
    onTestFinished(() => knex.destroy());
    const trx = await knex.transaction();
    await trx("keys").insert({ id: "key", application_id: appId, secret: "secret" });
    const before = await store.version();
    expect(await store.keys()).toEqual([]);
    await trx.commit();
    expect(await store.version()).not.toBe(before);
  });

  test("a former secret that was kept before there could be several goes on", async () => {
    const database = await postgres.createDatabase();
    const until = new Date(Date.now() + 60_000);
    const knex = await migratedUpTo(knexConfig(database), "20261122230000_postgres.js");
    await addRotatedKey(knex, until);
    await knex.destroy();
    const store = await open(database);
    expect(await store.findKey(appId, "key" as KeyId)).toMatchObject({
      previous: [{ secret: "old", until }],
    });
    const before = await store.version();
    await postgres.query(database.name, "UPDATE keys SET previous_secrets = NULL");
    expect(await store.version()).not.toBe(before);
  });

  test("no more connections are open than the pool may have", async () => {
    const database = await postgres.createDatabase({ poolMax: 2 });
    const store = await open(database);
    const calls = Array.from({ length: 50 }, () => store.keys());
    await Promise.all(calls);
    const sql = `SELECT count(*)::int AS n FROM pg_stat_activity WHERE datname = '${database.name}' AND application_name = 'pandapush'`;
    expect(await postgres.query("postgres", sql)).toEqual([{ n: 2 }]);
  });

  test("an error of the database repeats no row", async () => {
    const database = await postgres.createDatabase();
    const store = await openWithApp(database);
    await postgres.query(database.name, "ALTER TABLE keys ADD CHECK (purpose IS NOT NULL)");
    const key = { appId, createdBy: "ann", expires: null, purpose: null, secret: "s3cret" };
    const failure = await store.addKey(key).catch((error: unknown) => error);
    expect(failure).toMatchObject({ code: "23514" });
    expect(JSON.stringify(Object.entries(failure as object)) + String(failure)).not.toContain(
      "s3cret",
    );
  });

  test("a Unix socket will do", async () => {
    const database = await postgres.createDatabase({
      address: postgres.folder,
      ssl: "verify-full",
    });
    expect(await (await open(database)).keys()).toEqual([]);
  });
});

describe("the tables", () => {
  test("several nodes that start at once make them once", async () => {
    const database = await postgres.createDatabase();
    const stores = await Promise.all(Array.from({ length: 5 }, () => open(database)));
    for (const store of stores) expect(await store.keys()).toEqual([]);
    const names = await postgres.query(database.name, "SELECT name FROM knex_migrations");
    expect(new Set(names.map(({ name }) => name)).size).toBe(names.length);
  });

  test("the knex command makes them, told by the same variables", async () => {
    const database = await postgres.createDatabase();
    await migrateWithKnex(database);
    const tables = await postgres.query(
      database.name,
      "SELECT count(*)::int AS n FROM knex_migrations",
    );
    const store = await open(database);
    expect(await store.keys()).toEqual([]);
    expect(
      await postgres.query(database.name, "SELECT count(*)::int AS n FROM knex_migrations"),
    ).toEqual(tables);
  });

  test("a node waits while another one migrates, and tries again", async () => {
    const database = await postgres.createDatabase({ timeoutMs: 500 });
    const knex = createKnex(knexConfig({ ...database, timeoutMs: 60_000 }));
    onTestFinished(() => knex.destroy());
    const trx = await knex.transaction();
    await trx.raw("SELECT pg_advisory_xact_lock(8097873655721293171)");
    const store = await open(database, { mayBeDown: true });
    await failsWithin(5000, store.keys());
    await trx.rollback();
    await expect.poll(() => store.keys().catch(String), soon).toEqual([]);
  });

  test("a start does not wait for a migration that takes long; the command does", async () => {
    const slowly = `
      CREATE FUNCTION slow() RETURNS event_trigger LANGUAGE plpgsql
      AS 'BEGIN PERFORM pg_sleep(0.06); END';
      CREATE EVENT TRIGGER slow ON ddl_command_start EXECUTE FUNCTION slow();`;
    const [database, other] = [
      await postgres.createDatabase({ timeoutMs: 500 }),
      await postgres.createDatabase({ timeoutMs: 500 }),
    ];
    for (const { name } of [database, other]) await postgres.query(name, slowly);
    const store = await open(database, { mayBeDown: true });
    const failure = await failsWithin(2000, store.keys());
    expect(failure.reason).toBe("its tables are being brought up to date");
    await expect.poll(() => store.keys().catch(String), soon).toEqual([]);
    expect(await (await open(other)).keys()).toEqual([]);
  });

  test("a lock that a killed knex command left is in the way only of who has to migrate", async () => {
    const database = await postgres.createDatabase();
    await migrateWithKnex(database);
    const lock = "UPDATE knex_migrations_lock SET is_locked = 1";
    await postgres.query(database.name, lock);
    expect(await (await open(database)).keys()).toEqual([]);

    const old = await postgres.createDatabase({ timeoutMs: 500 });
    await loadLegacy(postgres, old);
    await postgres.query(old.name, lock);
    const help = /another process is migrating it; if none is, run: npx knex .* migrate:unlock$/;
    const waiting = await open(old, { mayBeDown: true });
    await expect(openStore(old)).rejects.toThrow(help);
    const reason = async () => (await failsWithin(5000, waiting.keys())).reason;
    await expect.poll(reason, soon).toMatch(help);
    await runKnex(old, "migrate:unlock");
    await expect.poll(() => waiting.keys().catch(String), soon).toHaveLength(4);
  });

  test("a user who may only read and write needs no more once they are there", async () => {
    const database = await postgres.createDatabase();
    const rights = `
      CREATE ROLE clerk LOGIN; REVOKE CREATE ON SCHEMA public FROM PUBLIC;
      GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO clerk;
      GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO clerk;`;
    await (await openStore(database)).close();
    await postgres.query(database.name, rights);
    const store = await openWithApp({ ...database, username: "clerk" });
    expect(await addKey(store)).toMatchObject({ id: "key" });

    const empty = await postgres.createDatabase({ username: "clerk" });
    await postgres.query(empty.name, "REVOKE CREATE ON SCHEMA public FROM PUBLIC");
    await expect(openStore(empty)).rejects.toThrow(
      /permission denied .*Run "pandapush migrate" with a user that owns the tables/,
    );
  });
});

describe("a Postgres that cannot be opened", () => {
  test("is named, with the variable that mends it, and no password", async () => {
    const database = await postgres.createDatabase();
    await postgres.query("postgres", "CREATE ROLE guest LOGIN PASSWORD 'right'");
    const faults: [Partial<PostgresConfig>, RegExp][] = [
      [{ name: "nowhere" }, /database "nowhere" does not exist\. Create it, or set DATABASE_NAME$/],
      [
        { username: "guest", password: "wr0ng" },
        /authentication failed .*Check DATABASE_USERNAME and DATABASE_PASSWORD$/,
      ],
      [{ username: "guest" }, /it asks for a password\. Set DATABASE_PASSWORD$/],
      [
        { port: 1 },
        /nothing listens at 127\.0\.0\.1:1\. Check DATABASE_ADDRESS and DATABASE_PORT$/,
      ],
      [
        { address: "nowhere.invalid" },
        /no host is called nowhere\.invalid\. Check DATABASE_ADDRESS$/,
      ],
      [{ ssl: "require" }, /does not support SSL connections\. Check DATABASE_SSL/],
      [{ ssl: "verify-ca", sslCa: "/nowhere.pem" }, /no such file .*Check DATABASE_SSL_CA$/],
    ];
    for (const [given, message] of faults) {
      const failure = await openStore({ ...database, ...given }).catch(String);
      expect(failure).toMatch(/^Error: Cannot open the database \w+ at [\w.]+:\d+: /);
      expect(failure).toMatch(message);
      expect(failure).not.toContain("wr0ng");
    }
  });

  test("stops a start for what a person must mend, and for nothing else", async () => {
    const database = await postgres.createDatabase();
    const start = (given: Partial<PostgresConfig>) =>
      openStore({ ...database, ...given }, { mayBeDown: true }).then((store) => store.close());
    await expect(start({ name: "nowhere" })).rejects.toThrow("Cannot open");
    await expect(start({ ssl: "require" })).rejects.toThrow("Cannot open");
    await start({ port: 1 });
    await start({ address: "nowhere.invalid" });
  });
});

describe("a Postgres that is restarted or does not answer", () => {
  afterEach(async () => {
    postgres.thaw();
    await postgres.start();
  });

  test.each(["fast", "immediate"] as const)(
    "is used again by itself after a %s stop",
    async (how) => {
      const store = await openWithApp(await postgres.createDatabase());
      await Promise.all(Array.from({ length: 5 }, () => store.keys()));
      await postgres.stop(how);
      await failsWithin(5000, store.keys());
      await failsWithin(5000, addKey(store));
      await postgres.start();
      await expect.poll(() => store.keys().catch(String), soon).toEqual([]);
      await addKey(store);
      expect(await store.keys()).toHaveLength(1);
    },
  );

  test("ends every call in bounded time when it is frozen, and the next ones at once", async () => {
    const store = await openWithApp(await postgres.createDatabase({ timeoutMs: 1000 }));
    await Promise.all(Array.from({ length: 5 }, () => store.keys()));
    postgres.freeze();
    const calls = Array.from({ length: 30 }, () => failsWithin(6000, store.keys()));
    await Promise.all([...calls, failsWithin(6000, addKey(store))]);
    for (let i = 0; i < 20; i++) await failsWithin(4000, store.keys());
    await Promise.all(Array.from({ length: 20 }, () => failsWithin(4000, store.keys())));
    postgres.thaw();
    await expect.poll(() => store.applications().catch(String), soon).toHaveLength(1);
  });

  test("is asked by one call at a time when it has not answered at the start", async () => {
    const database = await postgres.createDatabase({ timeoutMs: 1000 });
    postgres.freeze();
    const store = await open(database, { mayBeDown: true });
    const startedAt = performance.now();
    await Promise.all(Array.from({ length: 20 }, () => failsWithin(4000, store.keys())));
    for (let i = 0; i < 20; i++) await failsWithin(4000, store.keys());
    expect(performance.now() - startedAt).toBeLessThan(8000);
    postgres.thaw();
    await expect.poll(() => store.keys().catch(String), soon).toEqual([]);
  });

  test("is opened when it is there, if it was not at first", async () => {
    const database = await postgres.createDatabase();
    await postgres.stop();
    const store = await open(database, { mayBeDown: true });
    await failsWithin(5000, store.keys());
    await postgres.start();
    await expect.poll(() => store.keys().catch(String), soon).toEqual([]);
  });

  test("is closed in bounded time", async () => {
    const store = await openStore(await postgres.createDatabase({ timeoutMs: 1000 }));
    await Promise.all(Array.from({ length: 5 }, () => store.keys()));
    postgres.freeze();
    const startedAt = performance.now();
    await store.close();
    expect(performance.now() - startedAt).toBeLessThan(5000);
  });
});

describe("on the way to Postgres", () => {
  test("connections that became silent cost one call each at most", async () => {
    const proxy = await TcpProxy.start(`http://127.0.0.1:${postgres.port}`);
    onTestFinished(() => proxy.close());
    const port = Number(new URL(proxy.url).port);
    const database = await postgres.createDatabase({ timeoutMs: 500 });
    const store = await open({ ...database, port });
    await Promise.all(Array.from({ length: 5 }, () => store.keys()));
    proxy.forget();
    await failsWithin(5000, store.keys());
    await expect.poll(() => store.keys().catch(String), soon).toEqual([]);
    expect(await Promise.all(Array.from({ length: 5 }, () => store.keys()))).toHaveLength(5);
  });

  test("a statement that waits for another one's lock fails alone", async () => {
    const database = await postgres.createDatabase({ timeoutMs: 500 });
    const store = await openWithApp(database);
    await addKey(store);
    const knex = createKnex(knexConfig({ ...database, timeoutMs: 60_000 }));
    onTestFinished(() => knex.destroy());
    const trx = await knex.transaction();
    await trx("keys").update({ purpose: "locked" });
    const failing = failsWithin(5000, store.removeKey(appId, "key" as KeyId));
    expect(await store.keys()).toHaveLength(1);
    expect((await failing).reason).toContain("statement timeout");
    expect(await store.keys()).toHaveLength(1);
    await trx.rollback();
    expect(await store.removeKey(appId, "key" as KeyId)).toBe(true);
  });

  test("a standby lets keys be read, also by a node that starts, and no more", async () => {
    const database = await postgres.createDatabase();
    await (await openStore(database)).close();
    const readOnly = `ALTER DATABASE ${database.name} SET default_transaction_read_only = on`;
    await postgres.query("postgres", readOnly);
    const store = await open(database);
    expect(await store.keys()).toEqual([]);
    const failure = await failsWithin(5000, store.addApplication({ name: "x", createdBy: "ann" }));
    expect(failure.reason).toContain("read-only transaction");
  });

  test("what a frozen node has locked is free again soon, and its change is not made", async () => {
    const database = await postgres.createDatabase({ timeoutMs: 500 });
    const store = await openWithApp(database);
    await addKey(store);
    const knex = createKnex(knexConfig(database));
    onTestFinished(() => knex.destroy());
    const [locked, thawed] = [new Signal(), new Signal()];
    const frozen = knex.transaction(async (trx) => {
      await trx("keys").delete();
      locked.give();
      await thawed.given;
    });
    await locked.given;
    const rotate = () => store.rotateKey(appId, "key" as KeyId, 0).catch(() => undefined);
    await expect.poll(rotate, soon).toMatchObject({ id: "key" });
    thawed.give();
    await expect(frozen).rejects.toThrow();
    expect(await store.keys()).toHaveLength(1);
  });
});

describe("TLS", () => {
  let secure: Postgres;
  let certificate: string;

  beforeAll(async () => {
    secure = await Postgres.start({ ssl: "on" });
    certificate = join(secure.folder, "data", "server.crt");
  }, 60_000);

  afterAll(() => secure.remove());

  const isEncrypted = async (given: Partial<PostgresConfig>) => {
    const database = await secure.createDatabase(given);
    const store = await openStore(database);
    await store.keys();
    const [row] = await secure.query(
      "postgres",
      `SELECT bool_and(ssl) AS encrypted FROM pg_stat_ssl JOIN pg_stat_activity USING (pid)
      WHERE datname = '${database.name}' AND application_name = 'pandapush'`,
    );
    await store.close();
    return row?.encrypted;
  };

  test("is used as DATABASE_SSL says", async () => {
    expect(await isEncrypted({ ssl: "disable" })).toBe(false);
    expect(await isEncrypted({ ssl: "prefer" })).toBe(true);
    expect(await isEncrypted({ ssl: "require" })).toBe(true);
    expect(await isEncrypted({ ssl: "verify-ca", sslCa: certificate })).toBe(true);
    const full = { ssl: "verify-full", sslCa: certificate } as const;
    expect(await isEncrypted({ ...full, address: "localhost" })).toBe(true);
  });

  test("a server that proves nothing is refused", async () => {
    const refused = /Check DATABASE_SSL and DATABASE_SSL_CA$/;
    // Its certificate is for localhost, and signed by nobody else.
    await expect(isEncrypted({ ssl: "verify-full", sslCa: certificate })).rejects.toThrow(refused);
    await expect(isEncrypted({ ssl: "verify-ca" })).rejects.toThrow(refused);
  });

  test("prefer is content without", async () => {
    const store = await open(await postgres.createDatabase({ ssl: "prefer" }));
    expect(await store.keys()).toEqual([]);
  });
});

function migrateWithKnex(database: PostgresConfig) {
  return runKnex(database, "migrate:latest");
}

function runKnex(database: PostgresConfig, command: string) {
  const args = [knexCommand, "--knexfile", "server/knexfile.js", command];
  const env = { PATH: process.env.PATH, ...environmentOf(database) };
  return promisify(execFile)(process.execPath, args, { cwd: repositoryPath(""), env });
}

class Signal {
  give = (): void => undefined;
  readonly given = new Promise<void>((resolve) => {
    this.give = resolve;
  });
}
