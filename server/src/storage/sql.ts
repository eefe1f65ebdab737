import { randomInt } from "node:crypto";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import type { AppId, KeyId } from "@pandapush/protocol";
import createKnex, { type Knex } from "knex";
import { knexConfig } from "../../knexfile.js";
import type { Application, AuditEntry, Found, Key, Page, Store } from "./store.js";

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
  revoked_at: Timestamp;
  revoked_by: string | null;
  previous_secret: string | null;
  previous_until: Timestamp;
}

interface AuditRow {
  id: number;
  created_at: Timestamp;
  user_id: string | null;
  action: string;
  application_id: string | null;
  details: string | null;
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

  findApplications({
    user,
    search,
    ...page
  }: { user?: string; search?: string } & Page): Promise<Found<Application>> {
    const rows = () => {
      const query = this.knex<ApplicationRow>("applications");
      if (user !== undefined) query.whereIn("id", this.administeredBy(user));
      if (search !== undefined) query.where(contains(["name", "id"], search));
      return query;
    };
    const order = [{ column: "created_at" }, { column: "id" }];
    return this.find<ApplicationRow, Application>(rows, order, page, toApplication);
  }

  async admins(id: AppId): Promise<string[]> {
    const users: string[] = await patiently(() =>
      this.knex("application_users")
        .where({ application_id: id })
        .whereNotNull("user_id")
        .distinct()
        .orderBy("user_id")
        .pluck("user_id"),
    );
    return users;
  }

  async isAdmin(id: AppId, user: string): Promise<boolean> {
    const row: unknown = await patiently(() =>
      this.knex("application_users").where({ application_id: id, user_id: user }).first(),
    );
    return row !== undefined;
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
      const details = { name: row.name };
      await audit(trx, app.createdBy, "application.create", row.id, details);
    });
    return toApplication(row);
  }

  updateApplication(
    id: AppId,
    { name, admins }: { name?: string | null; admins?: readonly string[] },
    by?: string,
  ): Promise<boolean> {
    return this.write(async (trx) => {
      const change = {
        updated_at: new Date().toISOString(),
        ...(name === undefined ? {} : { name }),
      };
      if ((await trx("applications").where({ id }).update(change)) === 0) return false;
      if (admins !== undefined) {
        await trx("application_users").where({ application_id: id }).delete();
        const rows = [...new Set(admins)].map((user_id) => ({ application_id: id, user_id }));
        if (rows.length > 0) await trx("application_users").insert(rows);
      }
      await audit(trx, by, "application.update", id, { name, admins });
      return true;
    });
  }

  removeApplication(id: AppId, by?: string): Promise<boolean> {
    return this.write(async (trx) => {
      await trx("keys").where({ application_id: id }).delete();
      await trx("application_users").where({ application_id: id }).delete();
      const row = await trx<ApplicationRow>("applications").where({ id }).first();
      if (row === undefined) return false;
      await trx("applications").where({ id }).delete();
      await audit(trx, by, "application.delete", id, { name: row.name });
      return true;
    });
  }

  async keys(): Promise<Key[]> {
    const rows = await patiently(() => this.usableKeys().orderBy(["created_at", "id"]));
    return rows.map(toKey);
  }

  findKeys(appId: AppId, { search, ...page }: { search?: string } & Page): Promise<Found<Key>> {
    const rows = () => {
      const query = this.knex<KeyRow>("keys").where({ application_id: appId });
      query.where("secret", "<>", "");
      if (search !== undefined) query.where(contains(["purpose", "id"], search));
      return query;
    };
    const order = [{ column: "created_at" }, { column: "id" }];
    return this.find<KeyRow, Key>(rows, order, page, toKey);
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
      revoked_at: null,
      revoked_by: null,
      previous_secret: null,
      previous_until: null,
    };
    await this.write(async (trx) => {
      await trx("keys").insert(row);
      const details = { key: row.id, purpose: row.purpose, expires: row.expires };
      await audit(trx, key.createdBy, "key.create", key.appId, details);
    });
    return toKey(row);
  }

  revokeKey(appId: AppId, id: KeyId, by?: string): Promise<boolean> {
    const now = new Date().toISOString();
    return this.write(async (trx) => {
      const revoked = await trx("keys")
        .where({ application_id: appId, id })
        .whereNull("revoked_at")
        .update({
          revoked_at: now,
          revoked_by: by ?? null,
          updated_at: now,
          previous_secret: null,
          previous_until: null,
        });
      if (revoked > 0) await audit(trx, by, "key.revoke", appId, { key: id });
      return revoked > 0;
    });
  }

  rotateKey(appId: AppId, id: KeyId, overlapMs: number, by?: string): Promise<Key | undefined> {
    return this.write(async (trx) => {
      const isIt = { application_id: appId, id };
      const row = await trx<KeyRow>("keys").where(isIt).whereNull("revoked_at").first();
      if (row === undefined) return undefined;
      const now = Date.now();
      const until = overlapMs > 0 ? new Date(now + overlapMs).toISOString() : null;
      const change = {
        secret: randomText(256),
        previous_secret: until === null ? null : row.secret,
        previous_until: until,
        updated_at: new Date(now).toISOString(),
      };
      await trx("keys").where(isIt).update(change);
      await audit(trx, by, "key.rotate", appId, { key: id, previous_until: until });
      return toKey({ ...row, ...change });
    });
  }

  removeKey(appId: AppId, id: KeyId, by?: string): Promise<boolean> {
    return this.write(async (trx) => {
      const removed = await trx("keys").where({ application_id: appId, id }).delete();
      if (removed > 0) await audit(trx, by, "key.delete", appId, { key: id });
      return removed > 0;
    });
  }

  async addAudit(entry: Pick<AuditEntry, "user" | "action" | "appId" | "details">): Promise<void> {
    const { user, action, appId, details } = entry;
    await this.write((trx) => audit(trx, user, action, appId, details));
  }

  audit({ appId, user, ...page }: { appId?: AppId; user?: string } & Page) {
    const rows = () => {
      const query = this.knex<AuditRow>("audit");
      if (appId !== undefined) query.where({ application_id: appId });
      if (user !== undefined) query.whereIn("application_id", this.administeredBy(user));
      return query;
    };
    const order = [{ column: "id", order: "desc" }];
    return this.find<AuditRow, AuditEntry>(rows, order, page, toAuditEntry);
  }

  async setting(name: string): Promise<string | undefined> {
    const row: { value: string } | undefined = await patiently(() =>
      this.knex("settings").where({ name }).first("value"),
    );
    return row?.value;
  }

  async setSetting(name: string, value: string): Promise<void> {
    await this.write((trx) => trx("settings").insert({ name, value }).onConflict("name").merge());
  }

  addSetting(name: string, value: string): Promise<string> {
    return this.write(async (trx) => {
      await trx("settings").insert({ name, value }).onConflict("name").ignore();
      const row: { value: string } = await trx("settings").where({ name }).first("value");
      return row.value;
    });
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

  private administeredBy(user: string) {
    return this.knex("application_users").where({ user_id: user }).select("application_id");
  }

  private async find<Row extends object, Item>(
    rows: () => Knex.QueryBuilder,
    order: { column: string; order?: string }[],
    { offset, limit }: Page,
    toItem: (row: Row) => Item,
  ): Promise<Found<Item>> {
    const [count]: { total: number | string }[] = await patiently(() =>
      rows().count({ total: "*" }),
    );
    const page: Row[] = await patiently(() => {
      const query = rows().select("*").orderBy(order);
      if (limit !== undefined) query.limit(limit);
      if (offset !== undefined) query.offset(offset);
      return query;
    });
    return { items: page.map(toItem), total: Number(count?.total) };
  }

  private write<T>(work: (trx: Knex.Transaction) => Promise<T> | Knex.QueryBuilder): Promise<T> {
    return patiently(() => this.knex.transaction(async (trx) => await work(trx)));
  }
}

/** Fields that are undefined are left out of `details`. */
async function audit(
  trx: Knex.Transaction,
  user: string | null | undefined,
  action: string,
  appId: string | null,
  details: Readonly<Record<string, unknown>>,
): Promise<void> {
  await trx("audit").insert({
    created_at: new Date().toISOString(),
    user_id: user ?? null,
    action,
    application_id: appId,
    details: JSON.stringify(details),
  });
}

/** A condition: one of the columns has this text in it. */
function contains(columns: readonly string[], text: string) {
  const pattern = `%${text.toLowerCase().replace(/[\\%_]/g, "\\$&")}%`;
  return (query: Knex.QueryBuilder) => {
    for (const column of columns) {
      query.orWhereRaw("lower(??) like ? escape '\\'", [column, pattern]);
    }
  };
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
    // A time that cannot be read was some time all the same.
    revokedAt: row.revoked_at === null ? null : (toDate(row.revoked_at) ?? new Date(0)),
    revokedBy: row.revoked_by,
    previous: row.previous_secret
      ? { secret: row.previous_secret, until: toDate(row.previous_until) ?? new Date(0) }
      : null,
  };
}

function toAuditEntry(row: AuditRow): AuditEntry {
  return {
    id: row.id,
    at: toDate(row.created_at),
    user: row.user_id,
    action: row.action,
    appId: row.application_id as AppId | null,
    details: JSON.parse(row.details ?? "{}") as Record<string, unknown>,
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
