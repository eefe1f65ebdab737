import { accessSync, constants, existsSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import createKnex, { type Knex } from "knex";
import { knexConfig } from "../../knexfile.js";
import {
  type Database,
  type DatabaseState,
  migrationLocked,
  pendingMigrations,
  silent,
} from "./database.js";
import { type KeyUse, StorageUnavailable } from "./store.js";

/**
 * SQLite is called in this thread: if a statement waited for another process to finish its write,
 * nothing else would run here. So it does not wait, and the whole call is repeated.
 */
const busyTimeoutMs = 0;
const busyRetryMs = 10;
const busyDeadlineMs = 10_000;

/** Statements of one transaction between two turns of the event loop. */
const usesPerTurn = 100;

/** Several processes may open the same file, also for the first time and at the same moment. */
export async function openSqlite(path: string): Promise<Database> {
  const knex = createKnex({ ...knexConfig({ path, busyTimeoutMs }), log: silent });
  try {
    await patiently(() => migrate(knex));
  } catch (error) {
    await knex.destroy();
    throw new Error(`Cannot open the database ${path}: ${describe(error, path)}`, { cause: error });
  }
  return {
    knex,
    async run(call) {
      try {
        return await patiently(call);
      } catch (error) {
        throw isBusy(error) ? new StorageUnavailable(error) : error;
      }
    },
    version: () => version(knex),
    countUses,
  };
}

/** @throws Error that says what is wrong and which variable mends it */
export async function inspectSqlite(path: string): Promise<DatabaseState> {
  const engine = "SQLite";
  let knex: Knex | undefined;
  try {
    if (!existsSync(path)) {
      accessSync(nearestFolder(path), constants.W_OK);
      return { engine, pending: undefined };
    }
    const opened = createKnex({ ...knexConfig({ path, busyTimeoutMs }), log: silent });
    knex = opened;
    // Begins as a writer does, so that a file that can only be read is noticed.
    const pending = await patiently(() => opened.transaction((trx) => pendingMigrations(trx)));
    return { engine, pending };
  } catch (error) {
    throw new Error(`${path}: ${describe(error, path)}`, { cause: error });
  } finally {
    await knex?.destroy();
  }
}

/** The folder of a file, or the one in which its folders are to be made. */
function nearestFolder(path: string): string {
  const folder = dirname(resolve(path));
  return existsSync(folder) ? folder : nearestFolder(folder);
}

async function migrate(knex: Knex): Promise<void> {
  // One transaction around it, so that a second process finds either nothing or all of it done,
  // and a process that dies in the middle leaves no lock behind.
  await knex.transaction(async (trx) => {
    const [, pending] = await trx.migrate.list();
    if (pending.length > 0) await trx.migrate.latest();
  });
}

async function version(knex: Knex): Promise<number> {
  const rows: { data_version: number }[] = await patiently(() => knex.raw("PRAGMA data_version"));
  const version = rows[0]?.data_version;
  if (version === undefined) throw new Error("PRAGMA data_version gave no row");
  return version;
}

async function countUses(trx: Knex.Transaction, uses: readonly KeyUse[]): Promise<void> {
  for (const [i, { keyId, count, lastUsed }] of uses.entries()) {
    if (i > 0 && i % usesPerTurn === 0) await delay(0);
    await trx("keys")
      .where({ id: keyId })
      .update({
        use_count: trx.raw("coalesce(use_count, 0) + ?", [count]),
        last_used: trx.raw("max(coalesce(last_used, ''), ?)", [lastUsed.toISOString()]),
      });
  }
}

/** Repeats `work` while another process holds the database, up to a deadline. */
async function patiently<T>(work: () => PromiseLike<T>): Promise<T> {
  const deadline = performance.now() + busyDeadlineMs;
  for (;;) {
    try {
      return await work();
    } catch (error) {
      if (!isBusy(error) || performance.now() > deadline) throw error;
    }
    // Spread, so that two who wait do not meet again and again.
    await delay(busyRetryMs * (0.5 + Math.random()));
  }
}

function isBusy(error: unknown): boolean {
  if (!(error instanceof Error)) return false;
  if (error.name === "MigrationLocked") return true;
  return "code" in error && typeof error.code === "string" && /^SQLITE_BUSY/.test(error.code);
}

/** What is wrong, and what to do where the path is to blame. */
function describe(error: unknown, path: string): string {
  if (!(error instanceof Error)) return String(error);
  // With a slash behind it only a folder exists.
  if (existsSync(`${path}/`)) {
    return `it is a folder. Set DATABASE_PATH to a file, such as ${join(path, "db.sqlite")}`;
  }
  const code = "code" in error ? error.code : undefined;
  if (code === "SQLITE_NOTADB") {
    return "it is no SQLite database. Set DATABASE_PATH to one, or to a file to be made";
  }
  // The driver has no code for it, but SQLite's 14 in the text: SQLITE_CANTOPEN.
  const isUnreachable = "syscall" in error || /^ConnectionFailed\(.*: 14"\)$/.test(error.message);
  if (isUnreachable) {
    return `${error.message}. Set DATABASE_PATH to a file that can be made, read and written here`;
  }
  if (error.name === "MigrationLocked") return migrationLocked;
  return error.message;
}
