import { setTimeout as delay } from "node:timers/promises";
import createKnex, { type Knex } from "knex";
import { knexConfig, type PostgresDatabase as Settings } from "../../knexfile.js";
import {
  type Database,
  type DatabaseState,
  migrationLocked,
  pendingMigrations,
  silent,
} from "./database.js";
import { type KeyUse, StorageUnavailable } from "./store.js";

/** What one statement of a migration may take; other nodes wait for it, unready. */
const migrationMs = 600_000;
/** How long to wait for a knex command that is migrating. */
const lockedDeadlineMs = 3000;
const lockedRetryMs = 200;

/** While the database is down it is asked by one call in this time; the others fail at once. */
const outageRetryMs = 100;

/** How often a call is made that Postgres ends because another one is in its way. */
const maxTries = 5;

/** The oldest that has all that is used here; as in knexfile.js. */
const oldestMajor = 12;

/** Keys counted by one statement. */
const usesPerStatement = 1000;

/** Any number that no other program of the same database uses: "pandapus" in ASCII. */
const advisoryLock = "8097873655721293171";

const versionSetting = "keys.version";

/**
 * @param options.mayBeDown what cannot be reached now is tried again with each call
 * @throws Error that says what is wrong and which variable mends it
 */
export async function openPostgres(
  settings: Settings,
  { mayBeDown = false }: { readonly mayBeDown?: boolean },
): Promise<Database> {
  let database: PostgresDatabase | undefined;
  try {
    database = new PostgresDatabase(settings);
    if (mayBeDown) await database.run(() => Promise.resolve());
    else await database.migrate();
    return database;
  } catch (error) {
    const cause = error instanceof StorageUnavailable ? error.cause : error;
    if (database !== undefined && mayBeDown && isTemporary(cause)) return database;
    await database?.knex.destroy();
    const { name, address, port } = settings;
    const reason = describe(cause, settings);
    throw new Error(`Cannot open the database ${name} at ${address}:${port}: ${reason}`, { cause });
  }
}

/** @throws Error that says what is wrong and which variable mends it */
export async function inspectPostgres(settings: Settings): Promise<DatabaseState> {
  const { name, address, port } = settings;
  let knex: Knex | undefined;
  try {
    knex = createKnex({ ...knexConfig(settings), log: silent });
    const { rows } = await knex.raw<{ rows: { server_version: string }[] }>("SHOW server_version");
    const version = rows[0]?.server_version ?? "";
    if (Number.parseInt(version, 10) < oldestMajor) {
      throw new Error(`it is PostgreSQL ${version}. Use ${oldestMajor} or newer`);
    }
    return { engine: `PostgreSQL ${version}`, pending: await pendingMigrations(knex) };
  } catch (error) {
    const reason = describe(error, settings);
    throw new Error(`${name} at ${address}:${port}: ${reason}`, { cause: error });
  } finally {
    await knex?.destroy();
  }
}

class PostgresDatabase implements Database {
  readonly knex: Knex;
  /** The tables are up to date, or being brought there. */
  private migrated: Promise<void> | undefined;
  /** Why the database did not answer, and when it is asked again. */
  private outage: { readonly error: unknown; readonly until: number } | undefined;
  private lastAnswerAt = 0;

  constructor(private readonly settings: Settings) {
    this.knex = createKnex({ ...knexConfig(settings), log: silent });
  }

  async run<T>(call: () => PromiseLike<T>): Promise<T> {
    const startedAt = performance.now();
    if (this.outage !== undefined) {
      if (startedAt < this.outage.until) throw new StorageUnavailable(this.outage.error);
      // This one finds out for all others.
      this.outage = { ...this.outage, until: Number.POSITIVE_INFINITY };
    }
    try {
      await this.whenMigrated();
      const result = await repeatedly(call);
      this.answered();
      return result;
    } catch (error) {
      const fault = classify(error);
      const isAnswer = fault === undefined || (fault === "busy" && sqlState(error) !== undefined);
      if (isAnswer) this.answered();
      // A call that hung while others were answered says nothing of now, and one that waited in
      // vain for a free connection nothing new.
      else if (this.lastAnswerAt <= startedAt && (fault === "down" || this.outage !== undefined)) {
        this.outage = { error, until: performance.now() + outageRetryMs };
      }
      throw fault === undefined ? error : new StorageUnavailable(error);
    }
  }

  version(): Promise<number | undefined> {
    return this.run(async () => {
      const row: { value: string } | undefined = await this.knex("settings")
        .where({ name: versionSetting })
        .first("value");
      return row === undefined ? undefined : Number(row.value);
    });
  }

  async countUses(trx: Knex.Transaction, uses: readonly KeyUse[]): Promise<void> {
    // In one order on all nodes, so that none waits for another that waits for it.
    const sorted = [...uses].sort((one, other) => (one.keyId < other.keyId ? -1 : 1));
    for (let i = 0; i < sorted.length; i += usesPerStatement) {
      const part = sorted.slice(i, i + usesPerStatement);
      const ids = part.map(({ keyId }) => keyId);
      await trx.raw('SELECT id FROM keys WHERE id = ANY(?) ORDER BY id COLLATE "C" FOR UPDATE', [
        ids,
      ]);
      await trx.raw(
        `UPDATE keys SET use_count = coalesce(use_count, 0) + used.count,
          last_used = greatest(last_used, used.at)
        FROM unnest(?::text[], ?::bigint[], ?::timestamptz[]) AS used(id, count, at)
        WHERE keys.id = used.id`,
        [ids, part.map(({ count }) => count), part.map(({ lastUsed }) => lastUsed.toISOString())],
      );
    }
  }

  private answered(): void {
    this.lastAnswerAt = performance.now();
    this.outage = undefined;
  }

  /** Brings the tables up to date, once; however long it takes. */
  migrate(): Promise<void> {
    this.migrated ??= this.runMigrations().catch((error: unknown) => {
      this.migrated = undefined;
      throw error;
    });
    return this.migrated;
  }

  /** No call waits for that longer than for anything else. */
  private async whenMigrated(): Promise<void> {
    const stop = new AbortController();
    const late = async () => {
      await delay(this.settings.timeoutMs, undefined, { signal: stop.signal });
      throw new Migrating("its tables are being brought up to date");
    };
    try {
      await Promise.race([this.migrate(), late()]);
    } finally {
      stop.abort();
    }
  }

  private async runMigrations(): Promise<void> {
    if ((await pendingMigrations(this.knex))?.length === 0) return;
    const patient = { ...this.settings, poolMax: 1, statementMs: migrationMs };
    const knex = createKnex({ ...knexConfig(patient), log: silent });
    const deadline = performance.now() + lockedDeadlineMs;
    try {
      for (;;) {
        try {
          await migrateOnce(knex, this.settings.timeoutMs);
          return;
        } catch (error) {
          if (!(error instanceof Error && error.name === "MigrationLocked")) throw error;
          if (performance.now() > deadline) throw new Migrating(migrationLocked);
        }
        await delay(lockedRetryMs);
      }
    } finally {
      await knex.destroy();
    }
  }
}

/** The tables are not as they must be; somebody may be at it. */
class Migrating extends Error {}

/**
 * Several nodes start at once: one migrates, the others wait. All in one transaction, so that a
 * process that dies in the middle leaves neither half of it nor a lock behind.
 */
async function migrateOnce(knex: Knex, lockMs: number): Promise<void> {
  await knex.transaction(async (trx) => {
    await trx.raw("SELECT pg_advisory_xact_lock(?)", [advisoryLock]);
    // Whoever waits for a table to change it keeps all others out of it.
    await trx.raw(`SET LOCAL lock_timeout = ${lockMs}`);
    const [, pending] = await trx.migrate.list();
    if (pending.length > 0) await trx.migrate.latest();
  });
}

/** Makes the call again when Postgres has ended it for the sake of another one. */
async function repeatedly<T>(call: () => PromiseLike<T>): Promise<T> {
  for (let tries = 1; ; tries++) {
    try {
      return await call();
    } catch (error) {
      const code = sqlState(error);
      // A deadlock, and what only stricter transactions than ours meet.
      const isInTheWay = code === "40P01" || code === "40001";
      if (!isInTheWay || tries === maxTries) throw error;
    }
  }
}

/**
 * `down`: it does not answer, and others need not try; `busy`: this call failed, and may succeed
 * later; undefined: it answered, and will answer the same again.
 */
function classify(error: unknown): "down" | "busy" | undefined {
  if (!(error instanceof Error)) return undefined;
  const code = sqlState(error);
  if (code !== undefined) {
    // PostgreSQL, "Error Codes": connection exceptions; shut down, crashed, starting.
    if (/^08|^57P0[1-4]/.test(code)) return "down";
    // Too few resources, an object in use, an intervention such as a timeout, the system's faults,
    // rolled back, ended while idle; who may come in; a standby.
    return /^(?:53|55|57|58|40|25P0[34]|28|3D|25006)/.test(code) ? "busy" : undefined;
  }
  if (error.name === "KnexTimeoutError" || error instanceof Migrating) return "busy";
  const isNetwork = "syscall" in error || ("code" in error && error.code === "ETIMEDOUT");
  const isEnded = /connection terminated|not queryable|connection ended/i;
  // Each address of a host was tried, in vain.
  const isEach = error instanceof AggregateError;
  return isNetwork || isEach || isEnded.test(error.message) || isTls(error) ? "down" : undefined;
}

/** Whether the same settings may do later; else a person has to change something. */
function isTemporary(error: unknown): boolean {
  if (classify(error) === undefined || isTls(error)) return false;
  return !/^28|^3D/.test(sqlState(error) ?? "");
}

/** The five characters of an error that Postgres itself has sent. */
function sqlState(error: unknown): string | undefined {
  if (!(error instanceof Error) || !("severity" in error) || !("code" in error)) return undefined;
  return typeof error.code === "string" ? error.code : undefined;
}

function isTls(error: unknown): boolean {
  if (!(error instanceof Error)) return false;
  const code = "code" in error && typeof error.code === "string" ? error.code : "";
  return (
    /SSL|CERT|UNABLE_TO|_SIGNED_/.test(code) || / SSL connection|support SSL/.test(error.message)
  );
}

/** What is wrong, and what to do where a variable is to blame. */
function describe(error: unknown, { address, port, password }: Settings): string {
  if (!(error instanceof Error)) return String(error);
  const { message } = error;
  const code = sqlState(error) ?? ("code" in error ? error.code : undefined);
  if (/^SASL: .*password must be/.test(message) || (code === "28P01" && password === undefined)) {
    return "it asks for a password. Set DATABASE_PASSWORD";
  }
  switch (code) {
    case "28P01":
      return `${message}. Check DATABASE_USERNAME and DATABASE_PASSWORD`;
    case "28000":
      return `${message}. Check DATABASE_USERNAME and DATABASE_SSL`;
    case "3D000":
      return `${message}. Create it, or set DATABASE_NAME`;
    case "42501":
      return `${message}. Run "pandapush migrate" with a user that owns the tables`;
    case "ENOTFOUND":
    case "EAI_AGAIN":
      return `no host is called ${address}. Check DATABASE_ADDRESS`;
    case "ECONNREFUSED":
      return `nothing listens at ${address}:${port}. Check DATABASE_ADDRESS and DATABASE_PORT`;
  }
  if ("syscall" in error && error.syscall === "open") return `${message}. Check DATABASE_SSL_CA`;
  if (isTls(error)) return `${message}. Check DATABASE_SSL and DATABASE_SSL_CA`;
  return new StorageUnavailable(error).reason;
}
