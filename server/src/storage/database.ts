import type { Knex } from "knex";
import type { KeyUse } from "./store.js";

/** What SQLite and Postgres do differently; the tables and nearly all statements are the same. */
export interface Database {
  readonly knex: Knex;
  /**
   * Makes a call of the store, once the tables are up to date. Another process or node may be in
   * its way: then it is made again, from its beginning.
   *
   * @throws StorageUnavailable when the database cannot be asked, or has no time
   */
  run<T>(call: () => PromiseLike<T>): Promise<T>;
  /** As `Store.version`. */
  version(): Promise<number | undefined>;
  countUses(trx: Knex.Transaction, uses: readonly KeyUse[]): Promise<void>;
}

/** How a database is, found out without changing it. */
export interface DatabaseState {
  /** Such as `PostgreSQL 16.3`. */
  readonly engine: string;
  /** Migrations that are to be made; undefined: it has no tables yet, or there is no file. */
  readonly pending: readonly string[] | undefined;
}

/** @returns undefined where none was ever made: knex would make its tables, in the way of others */
export async function pendingMigrations(knex: Knex): Promise<string[] | undefined> {
  if (!(await knex.schema.hasTable("knex_migrations_lock"))) return undefined;
  const [, pending] = (await knex.migrate.list()) as [unknown, { file: string }[]];
  return pending.map(({ file }) => file);
}

function ignore(): void {
  // See silent.
}

/** A log for knex: what it would print is thrown as well, and standard output is not its own. */
export const silent = { warn: ignore, error: ignore, deprecate: ignore, debug: ignore };

/** A lock that a killed knex command leaves behind. What the server does itself leaves none. */
export const migrationLocked =
  "another process is migrating it; if none is, run: npx knex --knexfile server/knexfile.js migrate:unlock";
