import { randomInt } from "node:crypto";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import type { AppId, KeyId } from "@pandapush/protocol";
import createKnex, { type Knex } from "knex";
import { knexConfig } from "../../knexfile.js";
import type { Application, Key, Store } from "./store.js";

/**
 * SQLite is called in this thread: if a statement waited for another process to finish its write,
 * nothing else would run here. So it does not wait, and the whole call is repeated.
 */
const busyTimeoutMs = 0;
const busyRetryMs = 10;
const busyDeadlineMs = 10_000;

/** Statements of one transaction between two turns of the event loop. */
const usesPerTurn = 100;

/**
 * Opens the database, and brings its tables up to date.
 *
 * Several processes may open the same file, also for the first time and at the same moment.
 *
 * @param database.path SQLite file; it and its folder are made when they are missing
 */
export async function openStore(database: { path: string }): Promise<Store> {
  const knex = createKnex({
    ...knexConfig({ path: database.path, busyTimeoutMs }),
    // What it would print is thrown as well, and standard output is not its own.
    log: { warn: ignore, error: ignore, deprecate: ignore, debug: ignore },
  });
  try {
    await patiently(() => migrate(knex));
  } catch (error) {
    await knex.destroy();
    const reason = describe(error, database.path);
    throw new Error(`Cannot open the database ${database.path}: ${reason}`, { cause: error });
  }
  return new SqlStore(knex);
}

interface ApplicationRow {
  id: string;
  name: string | null;
  created_by: string | null;
  created_at: Timestamp;
  updated_at: Timestamp;
}

interface KeyRow {
  id: string;
  application_id: string;
  secret: string;
  created_by: string | null;
  expires: Timestamp;
  purpose: string | null;
  created_at: Timestamp;
  updated_at: Timestamp;
  last_used: Timestamp;
  use_count: number | null;
}

/** Pandapush 2.2 wrote ISO 8601 text, and so do we; knex itself writes ms since 1970. */
type Timestamp = string | number | null;

class SqlStore implements Store {
  constructor(private readonly knex: Knex) {}

  async applications(): Promise<Application[]> {
    const rows = await patiently(() => this.appTable().orderBy(["created_at", "id"]));
    return rows.map(toApplication);
  }

  async findApplication(id: AppId): Promise<Application | undefined> {
    const row = await patiently(() => this.appTable().where({ id }).first());
    return row === undefined ? undefined : toApplication(row);
  }

  async addApplication(app: {
    id?: AppId;
    name: string | null;
    createdBy: string;
  }): Promise<Application> {
    const row: ApplicationRow = {
      id: app.id ?? randomText(20),
      name: app.name,
      created_by: app.createdBy,
      created_at: new Date().toISOString(),
      updated_at: null,
    };
    await this.write(async (trx) => {
      await trx("applications").insert(row);
      await trx("application_users").insert({ application_id: row.id, user_id: app.createdBy });
    });
    return toApplication(row);
  }

  removeApplication(id: AppId): Promise<boolean> {
    return this.write(async (trx) => {
      await trx("keys").where({ application_id: id }).delete();
      await trx("application_users").where({ application_id: id }).delete();
      return (await trx("applications").where({ id }).delete()) > 0;
    });
  }

  async keys(): Promise<Key[]> {
    const rows = await patiently(() => this.usableKeys().orderBy(["created_at", "id"]));
    return rows.map(toKey);
  }

  async findKey(appId: AppId, id: KeyId): Promise<Key | undefined> {
    const row = await patiently(() =>
      this.usableKeys().where({ application_id: appId, id }).first(),
    );
    return row === undefined ? undefined : toKey(row);
  }

  async addKey(key: {
    id?: KeyId;
    secret?: string;
    appId: AppId;
    createdBy: string;
    expires: Date | null;
    purpose: string | null;
  }): Promise<Key> {
    const row: KeyRow = {
      id: key.id ?? `PSID${randomText(16)}`,
      application_id: key.appId,
      secret: key.secret ?? randomText(256),
      created_by: key.createdBy,
      expires: key.expires?.toISOString() ?? null,
      purpose: key.purpose,
      created_at: new Date().toISOString(),
      updated_at: null,
      last_used: null,
      use_count: null,
    };
    await this.write((trx) => trx("keys").insert(row));
    return toKey(row);
  }

  removeKey(appId: AppId, id: KeyId): Promise<boolean> {
    return this.write(
      async (trx) => (await trx("keys").where({ application_id: appId, id }).delete()) > 0,
    );
  }

  async recordUse(uses: readonly { keyId: KeyId; count: number; lastUsed: Date }[]): Promise<void> {
    if (uses.length === 0) return;
    await this.write(async (trx) => {
      for (const [i, { keyId, count, lastUsed }] of uses.entries()) {
        if (i > 0 && i % usesPerTurn === 0) await delay(0);
        await trx("keys")
          .where({ id: keyId })
          .update({
            use_count: trx.raw("coalesce(use_count, 0) + ?", [count]),
            last_used: lastUsed.toISOString(),
          });
      }
    });
  }

  async version(): Promise<number> {
    const rows: { data_version: number }[] = await patiently(() =>
      this.knex.raw("PRAGMA data_version"),
    );
    const version = rows[0]?.data_version;
    if (version === undefined) throw new Error("PRAGMA data_version gave no row");
    return version;
  }

  async close(): Promise<void> {
    await this.knex.destroy();
  }

  private appTable() {
    return this.knex<ApplicationRow>("applications").select<ApplicationRow[]>("*");
  }

  /** The columns of these tables may be null: a key without an application or secret opens nothing. */
  private usableKeys() {
    return this.knex<KeyRow>("keys")
      .select<KeyRow[]>("*")
      .whereNotNull("application_id")
      .where("secret", "<>", "");
  }

  private write<T>(work: (trx: Knex.Transaction) => Promise<T> | Knex.QueryBuilder): Promise<T> {
    return patiently(() => this.knex.transaction(async (trx) => await work(trx)));
  }
}

async function migrate(knex: Knex): Promise<void> {
  // One transaction around it, so that a second process finds either nothing or all of it done,
  // and a process that dies in the middle leaves no lock behind.
  await knex.transaction(async (trx) => {
    const [, pending] = await trx.migrate.list();
    if (pending.length > 0) await trx.migrate.latest();
  });
}

function ignore(): void {
  // Nothing to do: see openStore.
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
  if (error.name === "MigrationLocked") {
    return "another process is migrating it; if none is, run: npx knex --knexfile server/knexfile.js migrate:unlock";
  }
  return error.message;
}

function toApplication(row: ApplicationRow): Application {
  return {
    id: row.id as AppId,
    name: row.name,
    createdBy: row.created_by,
    createdAt: toDate(row.created_at),
    updatedAt: toDate(row.updated_at),
  };
}

function toKey(row: KeyRow): Key {
  const expires = toDate(row.expires);
  return {
    id: row.id as KeyId,
    appId: row.application_id as AppId,
    secret: row.secret,
    createdBy: row.created_by,
    // An expiry that cannot be read must not become "never".
    expires: row.expires !== null && expires === null ? new Date(0) : expires,
    purpose: row.purpose,
    createdAt: toDate(row.created_at),
    updatedAt: toDate(row.updated_at),
    lastUsed: toDate(row.last_used),
    useCount: row.use_count ?? 0,
  };
}

function toDate(value: Timestamp): Date | null {
  if (value === null) return null;
  const date = new Date(value);
  return Number.isNaN(date.getTime()) ? null : date;
}

const alphanumerics = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";

function randomText(length: number): string {
  let text = "";
  for (let i = 0; i < length; i++) text += alphanumerics[randomInt(alphanumerics.length)];
  return text;
}
