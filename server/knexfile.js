/**
 * How to reach the database, for the server and for the knex command alike:
 * `npx knex --knexfile server/knexfile.js migrate:latest`.
 *
 * Plain JavaScript, so that the command works in a checkout that has not been built.
 */
import { mkdirSync, readFileSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { parse } from "dotenv";
import BetterSqlite3Client from "knex/lib/dialects/better-sqlite3/index.js";
import Database from "libsql";

const here = dirname(fileURLToPath(import.meta.url));

/** knex's client for better-sqlite3, on a package with the same interface that is never compiled. */
export class LibsqlClient extends BetterSqlite3Client {
  _driver() {
    return Database;
  }

  async acquireRawConnection() {
    const { filename, busyTimeoutMs } = this.connectionSettings;
    mkdirSync(dirname(filename), { recursive: true });
    const connection = new Database(filename, { timeout: busyTimeoutMs });
    // Readers never wait for a writer, nor a writer for readers. The mode stays in the file.
    connection.pragma("journal_mode = WAL");
    connection.pragma("foreign_keys = ON");
    return connection;
  }

  transaction(...args) {
    const transaction = super.transaction(...args);
    // A transaction that reads first and writes later fails at once, whatever the timeout, when
    // another process has written in between. All of ours write: they take their place in the
    // queue at the beginning. By exec(), because a prepared statement of this driver that found
    // the database busy stays in progress, and the connection could not commit any more.
    transaction.begin = async (connection) => connection.exec("BEGIN IMMEDIATE");
    return transaction;
  }
}

/**
 * @param {{ path: string, busyTimeoutMs?: number }} database
 *   busyTimeoutMs: how long a statement blocks the process while another one writes
 * @returns {import("knex").Knex.Config}
 */
export function knexConfig({ path, busyTimeoutMs = 5000 }) {
  return {
    client: LibsqlClient,
    connection: { filename: path, busyTimeoutMs },
    useNullAsDefault: true,
    // Else an error's message repeats the values of the statement, secrets included.
    compileSqlOnError: false,
    // One connection: `PRAGMA data_version` counts what others than this connection wrote.
    pool: { min: 1, max: 1 },
    migrations: { directory: join(here, "migrations"), loadExtensions: [".js"] },
  };
}

/** The command changes to this folder, so relative paths are resolved from the one above. */
function databasePath() {
  const root = dirname(here);
  let file = {};
  try {
    file = parse(readFileSync(join(root, ".env")));
  } catch (error) {
    if (error.code !== "ENOENT") throw error;
  }
  const path = process.env.DATABASE_PATH || file.DATABASE_PATH || "localdata/db.sqlite";
  return resolve(root, path);
}

export default knexConfig({ path: databasePath() });
