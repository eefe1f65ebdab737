import { randomInt } from "node:crypto";
import type { AppId, KeyId } from "@pandapush/protocol";
import type { Knex } from "knex";
import type { PostgresDatabase } from "../../knexfile.js";
import type { Database, DatabaseState } from "./database.js";
import { inspectPostgres, openPostgres } from "./postgres.js";
import { inspectSqlite, openSqlite } from "./sqlite.js";
import {
  type AppLimits,
  type Application,
  type AuditEntry,
  consolePurpose,
  type Found,
  type Key,
  type KeyUse,
  maxPreviousSecrets,
  type NewKey,
  NoSuchApplication,
  type Page,
  type PreviousSecret,
  type Store,
  TooManySecrets,
} from "./store.js";

/**
 * Opens the database, and brings its tables up to date.
 *
 * @param database `{ path }`: SQLite, whose file is made when it is missing
 * @param options.mayBeDown where Postgres does not answer, a store comes all the same, which
 *   brings the tables up to date as soon as it can be reached; until then every call of it rejects
 * @throws Error that says what is wrong and which variable mends it
 */
export async function openStore(
  database: { readonly path: string } | PostgresDatabase,
  options: { readonly mayBeDown?: boolean } = {},
): Promise<Store> {
  return new SqlStore(
    "path" in database ? await openSqlite(database.path) : await openPostgres(database, options),
  );
}

/** As `openStore`, but changes nothing. */
export function inspectDatabase(
  database: { readonly path: string } | PostgresDatabase,
): Promise<DatabaseState> {
  return "path" in database ? inspectSqlite(database.path) : inspectPostgres(database);
}

const consoleKeyYears = 10;

interface ApplicationRow {
  id: string;
  name: string | null;
  created_by: string | null;
  created_at: Timestamp;
  updated_at: Timestamp;
  max_publishes_per_second: number | null;
  max_connections: number | null;
  max_sessions_per_second: number | null;
  max_message_bytes: number | null;
}

/** The columns of `AppLimits`. */
const limitColumns = {
  maxPublishesPerSecond: "max_publishes_per_second",
  maxConnections: "max_connections",
  maxSessionsPerSecond: "max_sessions_per_second",
  maxMessageBytes: "max_message_bytes",
} as const satisfies Record<keyof AppLimits, keyof ApplicationRow>;
const limitNames = Object.keys(limitColumns) as (keyof AppLimits)[];

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
  /** Postgres gives large integers as text. */
  use_count: number | string | null;
  revoked_at: Timestamp;
  revoked_by: string | null;
  /** JSON of `PreviousRow[]`, the newest first. */
  previous_secrets: string | null;
}

interface PreviousRow {
  secret: string;
  until: string;
}

interface AuditRow {
  id: number;
  created_at: Timestamp;
  user_id: string | null;
  action: string;
  application_id: string | null;
  application_name: string | null;
  details: string | null;
}

/**
 * On Postgres a date. On SQLite Pandapush 2.2 wrote ISO 8601 text, and so do we; knex itself writes
 * ms since 1970.
 */
type Timestamp = Date | string | number | null;

class SqlStore implements Store {
  private readonly knex: Knex;
  private lastCreatedAt = 0;

  constructor(private readonly database: Database) {
    this.knex = database.knex;
  }

  async applications(): Promise<Application[]> {
    const rows = await this.run(() => this.appTable().orderBy(["created_at", "id"]));
    return rows.map(toApplication);
  }

  async findApplication(id: AppId): Promise<Application | undefined> {
    const row = await this.run(() => this.appTable().where({ id }).first());
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
      return query;
    };
    const texts = ({ name, id }: ApplicationRow) => [name, id];
    return this.findOldest<ApplicationRow, Application>(rows, texts, search, page, toApplication);
  }

  async admins(id: AppId): Promise<string[]> {
    const users: string[] = await this.run(() =>
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
    const row: unknown = await this.run(() =>
      this.knex("application_users").where({ application_id: id, user_id: user }).first(),
    );
    return row !== undefined;
  }

  async addApplication(
    app: { id?: AppId; name: string | null; createdBy: string },
    by = app.createdBy,
  ): Promise<Application> {
    const row: ApplicationRow = {
      id: app.id ?? randomText(20),
      name: app.name,
      created_by: app.createdBy,
      created_at: this.nextCreatedAt(),
      updated_at: null,
      max_publishes_per_second: null,
      max_connections: null,
      max_sessions_per_second: null,
      max_message_bytes: null,
    };
    await this.write(async (trx) => {
      await trx("applications").insert(row);
      await trx("application_users").insert({ application_id: row.id, user_id: app.createdBy });
      await audit(trx, by, "application.create", row.id, { name: row.name });
    });
    return toApplication(row);
  }

  updateApplication(
    id: AppId,
    {
      name,
      admins,
      limits,
    }: { name?: string | null; admins?: readonly string[]; limits?: Partial<AppLimits> },
    by?: string,
  ): Promise<boolean> {
    return this.write(async (trx) => {
      const apps = () => trx<ApplicationRow>("applications").where({ id });
      const row = await apps().forUpdate().first();
      if (row === undefined) return false;
      const updated_at = new Date().toISOString();
      const other = otherLimits(row, limits ?? {});
      if (Object.keys(other.after).length > 0) {
        await apps().update({ updated_at, ...other.after });
        await audit(trx, by, "application.limits", id, other);
      }
      if (name === undefined && admins === undefined && limits !== undefined) return true;
      await apps().update({ updated_at, ...(name === undefined ? {} : { name }) });
      await audit(trx, by, "application.update", id, { name, admins });
      if (admins === undefined) return true;
      const users = trx("application_users").where({ application_id: id });
      const before: (string | null)[] = await users.clone().pluck("user_id");
      await users.delete();
      const rows = [...new Set(admins)].map((user_id) => ({ application_id: id, user_id }));
      if (rows.length > 0) await trx("application_users").insert(rows);
      for (const user of new Set(before)) {
        if (user === null || admins.includes(user)) continue;
        for (const key of await consoleKeys(trx, id, user)) await revoke(trx, id, key.id, by);
      }
      return true;
    });
  }

  removeApplication(id: AppId, by?: string): Promise<boolean> {
    return this.write(async (trx) => {
      // First, so that nobody makes a key meanwhile.
      const row = await trx<ApplicationRow>("applications").where({ id }).forUpdate().first();
      if (row === undefined) return false;
      await trx("keys").where({ application_id: id }).delete();
      await trx("application_users").where({ application_id: id }).delete();
      await audit(trx, by, "application.delete", id, { name: row.name });
      await trx("applications").where({ id }).delete();
      return true;
    });
  }

  async keys(): Promise<Key[]> {
    const rows = await this.run(() => this.usableKeys().orderBy(["created_at", "id"]));
    return rows.map(toKey);
  }

  findKeys(appId: AppId, { search, ...page }: { search?: string } & Page): Promise<Found<Key>> {
    const rows = () => {
      const query = this.knex<KeyRow>("keys").where({ application_id: appId });
      return query.where("secret", "<>", "");
    };
    const texts = ({ purpose, id }: KeyRow) => [purpose, id];
    return this.findOldest<KeyRow, Key>(rows, texts, search, page, toKey);
  }

  async findKey(appId: AppId, id: KeyId): Promise<Key | undefined> {
    const row = await this.run(() =>
      this.usableKeys().where({ application_id: appId, id }).first(),
    );
    return row === undefined ? undefined : toKey(row);
  }

  addKey(key: NewKey, by?: string): Promise<Key> {
    return this.write(async (trx) => {
      // Nobody deletes it meanwhile.
      const app: unknown = await trx("applications").where({ id: key.appId }).forShare().first();
      if (app === undefined) throw new NoSuchApplication();
      return this.insertKey(trx, key, by);
    });
  }

  consoleKey(appId: AppId, user: string): Promise<{ key: Key; isNew: boolean }> {
    return this.write(async (trx) => {
      // One after the other: whoever comes second finds the key of the first.
      const app: unknown = await trx("applications").where({ id: appId }).forUpdate().first();
      if (app === undefined) throw new NoSuchApplication();
      const now = new Date();
      const keys = (await consoleKeys(trx, appId, user)).map(toKey);
      const key = keys.find(({ expires }) => expires === null || expires > now);
      if (key !== undefined) return { key, isNew: false };
      const expires = new Date(now);
      expires.setFullYear(now.getFullYear() + consoleKeyYears);
      const made = { appId, createdBy: user, expires, purpose: consolePurpose };
      return { key: await this.insertKey(trx, made), isNew: true };
    });
  }

  revokeKey(appId: AppId, id: KeyId, by?: string): Promise<boolean> {
    return this.write((trx) => revoke(trx, appId, id, by));
  }

  rotateKey(appId: AppId, id: KeyId, overlapMs: number, by?: string): Promise<Key | undefined> {
    return this.write(async (trx) => {
      const isIt = { application_id: appId, id };
      const row = await trx<KeyRow>("keys").where(isIt).whereNull("revoked_at").forUpdate().first();
      if (row === undefined) return undefined;
      const now = Date.now();
      const previous = toPrevious(row.previous_secrets).filter(({ until }) => +until > now);
      const until = overlapMs > 0 ? new Date(now + overlapMs) : null;
      if (until !== null) {
        if (previous.length >= maxPreviousSecrets) {
          throw new TooManySecrets(new Date(Math.min(...previous.map((each) => +each.until))));
        }
        previous.unshift({ secret: row.secret, until });
      }
      const change = {
        secret: randomText(256),
        previous_secrets: previous.length === 0 ? null : JSON.stringify(previous),
        updated_at: new Date(now).toISOString(),
      };
      await trx("keys").where(isIt).update(change);
      const { purpose } = row;
      await audit(trx, by, "key.rotate", appId, { key: id, purpose, previous_until: until });
      return toKey({ ...row, ...change });
    });
  }

  removeKey(appId: AppId, id: KeyId, by?: string): Promise<boolean> {
    return this.write(async (trx) => {
      const keys = () => trx<KeyRow>("keys").where({ application_id: appId, id });
      const row = await keys().forUpdate().first();
      if (row === undefined) return false;
      await keys().delete();
      await audit(trx, by, "key.delete", appId, { key: id, purpose: row.purpose });
      return true;
    });
  }

  async addAudit(entry: Omit<AuditEntry, "id" | "at" | "appName">): Promise<void> {
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
    const row: { value: string } | undefined = await this.run(() =>
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

  async endSession(id: string, until: Date): Promise<void> {
    const row = { id, until: until.toISOString() };
    await this.write(async (trx) => {
      await trx("ended_sessions").where("until", "<", new Date().toISOString()).delete();
      await trx("ended_sessions").insert(row).onConflict("id").ignore();
    });
  }

  async isSessionEnded(id: string): Promise<boolean> {
    const row: unknown = await this.run(() => this.knex("ended_sessions").where({ id }).first());
    return row !== undefined;
  }

  async recordUse(uses: readonly KeyUse[]): Promise<void> {
    if (uses.length === 0) return;
    await this.write((trx) => this.database.countUses(trx, uses));
  }

  version(): Promise<number | undefined> {
    return this.database.version();
  }

  async close(): Promise<void> {
    await this.knex.destroy();
  }

  private async insertKey(
    trx: Knex.Transaction,
    { id, secret, appId, createdBy, expires, purpose }: NewKey,
    by = createdBy,
  ): Promise<Key> {
    const row: KeyRow = {
      id: id ?? `PSID${randomText(16)}`,
      application_id: appId,
      secret: secret ?? randomText(256),
      created_by: createdBy,
      expires: expires?.toISOString() ?? null,
      purpose,
      created_at: this.nextCreatedAt(),
      updated_at: null,
      last_used: null,
      use_count: null,
      revoked_at: null,
      revoked_by: null,
      previous_secrets: null,
    };
    await trx("keys").insert(row);
    const details = { key: row.id, purpose, expires: row.expires };
    await audit(trx, by, "key.create", appId, details);
    return toKey(row);
  }

  /** What is made in the same millisecond has an order, too. */
  private nextCreatedAt(): string {
    const now = Date.now();
    const isAhead = this.lastCreatedAt >= now && this.lastCreatedAt < now + 1000;
    this.lastCreatedAt = isAhead ? this.lastCreatedAt + 1 : now;
    return new Date(this.lastCreatedAt).toISOString();
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
    const [count]: { total: number | string }[] = await this.run(() =>
      rows().count({ total: "*" }),
    );
    const page: Row[] = await this.run(() => {
      const query = rows().select("*").orderBy(order);
      if (limit !== undefined) query.limit(limit);
      if (offset !== undefined) query.offset(offset);
      return query;
    });
    return { items: page.map(toItem), total: Number(count?.total) };
  }

  /**
   * The oldest first. A text is looked for here, in the row's texts: databases differ in which
   * letters they know, and SQLite knows those of ASCII alone. There are few applications, and few
   * keys of one.
   */
  private async findOldest<Row extends object, Item>(
    rows: () => Knex.QueryBuilder,
    textsOf: (row: Row) => readonly (string | null)[],
    search: string | undefined,
    page: Page,
    toItem: (row: Row) => Item,
  ): Promise<Found<Item>> {
    const order = [{ column: "created_at" }, { column: "id" }];
    if (search === undefined) return this.find(rows, order, page, toItem);
    const folded = fold(search);
    const all: Row[] = await this.run(() => rows().orderBy(order).select("*"));
    const found = all.filter((row) =>
      textsOf(row).some((each) => fold(each ?? "").includes(folded)),
    );
    const { offset = 0, limit } = page;
    const shown = found.slice(offset, limit === undefined ? undefined : offset + limit);
    return { items: shown.map(toItem), total: found.length };
  }

  private write<T>(work: (trx: Knex.Transaction) => Promise<T> | Knex.QueryBuilder): Promise<T> {
    return this.run(() => this.knex.transaction(async (trx) => await work(trx)));
  }

  private run<T>(call: () => PromiseLike<T>): Promise<T> {
    return this.database.run(call);
  }
}

/** Those that the console signs with for this user, expired ones too, the oldest first. */
function consoleKeys(trx: Knex.Transaction, appId: string, user: string): Promise<KeyRow[]> {
  return trx<KeyRow>("keys")
    .where({ application_id: appId, created_by: user, purpose: consolePurpose })
    .where("secret", "<>", "")
    .whereNull("revoked_at")
    .orderBy(["created_at", "id"])
    .then((rows) => rows as KeyRow[]);
}

async function revoke(
  trx: Knex.Transaction,
  appId: string,
  id: string,
  by: string | undefined,
): Promise<boolean> {
  const now = new Date().toISOString();
  const keys = () =>
    trx<KeyRow>("keys").where({ application_id: appId, id }).whereNull("revoked_at");
  const row = await keys().forUpdate().first();
  if (row === undefined) return false;
  await keys().update({
    revoked_at: now,
    revoked_by: by ?? null,
    updated_at: now,
    previous_secrets: null,
  });
  await audit(trx, by, "key.revoke", appId, { key: id, purpose: row.purpose });
  return true;
}

/** Fields that are undefined are left out of `details`. The application must still be there. */
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
    application_name: trx("applications").where({ id: appId }).select("name"),
    details: JSON.stringify(details),
  });
}

/** Upper and lower case in one, also where a letter becomes two (ß) or has two small forms (σ, ς). */
function fold(text: string): string {
  return text.normalize().toLowerCase().toUpperCase();
}

/** By column, what changes, and how it was. */
function otherLimits(
  row: ApplicationRow,
  limits: Partial<AppLimits>,
): Record<"before" | "after", Partial<ApplicationRow>> {
  const before: Partial<ApplicationRow> = {};
  const after: Partial<ApplicationRow> = {};
  for (const name of limitNames) {
    const column = limitColumns[name];
    const limit = limits[name];
    if (limit === undefined || limit === row[column]) continue;
    before[column] = row[column];
    after[column] = limit;
  }
  return { before, after };
}

function toApplication(row: ApplicationRow): Application {
  return {
    id: row.id as AppId,
    name: row.name,
    createdBy: row.created_by,
    createdAt: toDate(row.created_at),
    updatedAt: toDate(row.updated_at),
    limits: {
      maxPublishesPerSecond: row.max_publishes_per_second,
      maxConnections: row.max_connections,
      maxSessionsPerSecond: row.max_sessions_per_second,
      maxMessageBytes: row.max_message_bytes,
    },
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
    useCount: Number(row.use_count ?? 0),
    // A time that cannot be read was some time all the same.
    revokedAt: row.revoked_at === null ? null : (toDate(row.revoked_at) ?? new Date(0)),
    revokedBy: row.revoked_by,
    previous: toPrevious(row.previous_secrets),
  };
}

function toPrevious(json: string | null): PreviousSecret[] {
  const rows = JSON.parse(json ?? "[]") as PreviousRow[];
  return rows.map(({ secret, until }) => ({ secret, until: toDate(until) ?? new Date(0) }));
}

function toAuditEntry(row: AuditRow): AuditEntry {
  return {
    id: row.id,
    at: toDate(row.created_at),
    user: row.user_id,
    action: row.action,
    appId: row.application_id as AppId | null,
    appName: row.application_name,
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
