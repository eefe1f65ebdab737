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
import PgClient from "knex/lib/dialects/postgres/index.js";
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

/** How much later we give up than those whose word we wait for. */
const graceMs = 1000;
/** What saying goodbye may take: a server that is stuck does not answer it. */
const goodbyeMs = 1000;
/** How long a connection is silent before the network is asked whether it still exists. */
const keepAliveMs = 10_000;

/** knex's client for Postgres, which waits for nothing without end. */
export class PostgresClient extends PgClient {
  /** Connections that are open, used or not. */
  open = new Set();

  async _acquireOnlyConnection() {
    const { ssl } = this.connectionSettings;
    if (ssl !== "prefer") return this.connect(ssl);
    try {
      return await this.connect({ rejectUnauthorized: false });
    } catch (error) {
      if (!/does not support SSL/.test(error.message)) throw error;
      return this.connect(false);
    }
  }

  async connect(ssl) {
    // knex hides the password from whoever copies or prints the settings.
    const { password, connectionTimeoutMillis } = this.connectionSettings;
    const connection = new this.driver.Client({ ...this.connectionSettings, password, ssl });
    // What knex looks at before it uses a connection again.
    connection.on("error", (error) => {
      connection.__knex__disposed ??= error;
    });
    connection.on("end", () => {
      connection.__knex__disposed ??= "it has ended";
      this.open.delete(connection);
    });
    connection.siblings = this.open.add(connection);
    try {
      await connection.connect();
    } catch (error) {
      this.open.delete(connection);
      throw error.message === "timeout expired" ? noAnswer(connectionTimeoutMillis) : error;
    }
    return connection;
  }

  /** Postgres takes no NUL in a text, not even to say that nothing is called so. */
  prepBindings(bindings = []) {
    return bindings.map((value) =>
      typeof value === "string" ? value.replaceAll("\0", "\uFFFD") : value,
    );
  }

  async _query(connection, query) {
    const { answerMs } = this.connectionSettings;
    const timer = setTimeout(() => abandon(connection, answerMs), answerMs);
    try {
      return await super._query(connection, query);
    } catch (error) {
      // They may repeat a row, secrets included.
      delete error.detail;
      delete error.where;
      throw error;
    } finally {
      clearTimeout(timer);
    }
  }

  async destroyRawConnection(connection) {
    const timer = setTimeout(() => connection.connection.stream.destroy(), goodbyeMs);
    await connection.end();
    clearTimeout(timer);
  }
}

/** Gives a connection up whose server does not answer, and with it those that lead the same way. */
function abandon(connection, afterMs) {
  const error = noAnswer(afterMs);
  for (const sibling of connection.siblings) sibling.__knex__disposed ??= error;
  connection.connection.stream.destroy(error);
}

function noAnswer(afterMs) {
  return Object.assign(new Error(`no answer within ${afterMs} ms`), { code: "ETIMEDOUT" });
}

/** @type {typeof import("./knexfile.js").knexConfig} */
export function knexConfig(database) {
  return {
    ...("path" in database ? sqliteConfig(database) : postgresConfig(database)),
    // Else an error's message repeats the values of the statement, secrets included.
    compileSqlOnError: false,
    migrations: { directory: join(here, "migrations"), loadExtensions: [".js"] },
  };
}

function sqliteConfig({ path, busyTimeoutMs = 5000 }) {
  return {
    client: LibsqlClient,
    connection: { filename: path, busyTimeoutMs },
    useNullAsDefault: true,
    // One connection: `PRAGMA data_version` counts what others than this connection wrote.
    pool: { min: 1, max: 1 },
  };
}

function postgresConfig(database) {
  const { address, port, username, password, name, poolMax, timeoutMs } = database;
  const { statementMs = timeoutMs } = database;
  return {
    client: PostgresClient,
    // The oldest that will do. knex would ask each new pool's server.
    version: "12.0",
    connection: {
      host: address,
      port,
      user: username,
      password,
      database: name,
      application_name: "pandapush",
      ssl: sslOf(database),
      connectionTimeoutMillis: timeoutMs,
      keepAlive: true,
      keepAliveInitialDelayMillis: keepAliveMs,
      // The server keeps these by itself, also when this process is frozen or cut off: no lock
      // of ours outlasts them.
      statement_timeout: statementMs,
      idle_in_transaction_session_timeout: 2 * timeoutMs,
      answerMs: statementMs + graceMs,
    },
    // Longer than connecting may take, whose error says more.
    pool: { min: 0, max: poolMax, acquireTimeoutMillis: timeoutMs + graceMs },
  };
}

/** What `pg` takes for a `sslmode` of libpq; `prefer` stays what it is. */
function sslOf({ address, ssl, sslCa }) {
  // As libpq does: there is no network to be safe from.
  if (ssl === "disable" || address.startsWith("/")) return false;
  if (ssl === "prefer") return ssl;
  if (ssl === "require") return { rejectUnauthorized: false };
  const ca = sslCa === undefined ? {} : { ca: readFileSync(sslCa, "utf8") };
  return ssl === "verify-ca" ? { ...ca, checkServerIdentity: () => undefined } : ca;
}

/**
 * The variables as `src/config.ts` describes and checks them. The command changes to this folder,
 * so relative paths are resolved from the one above.
 */
function databaseOfEnvironment() {
  const root = dirname(here);
  let file = {};
  try {
    file = parse(readFileSync(join(root, ".env")));
  } catch (error) {
    if (error.code !== "ENOENT") throw error;
  }
  const read = (name) => process.env[`DATABASE_${name}`] || file[`DATABASE_${name}`] || undefined;
  if ((process.env.DATABASE || file.DATABASE) !== "postgres") {
    return { path: resolve(root, read("PATH") ?? "localdata/db.sqlite") };
  }
  const port = read("PORT");
  const sslCa = read("SSL_CA");
  return {
    address: read("ADDRESS") ?? "localhost",
    // A container orchestrator may have set it to an address of its own.
    port: /^\d+$/.test(port ?? "") ? Number(port) : 5432,
    username: read("USERNAME"),
    password: read("PASSWORD"),
    name: read("NAME") ?? "pandapush",
    ssl: read("SSL") ?? "prefer",
    ...(sslCa === undefined ? {} : { sslCa: resolve(root, sslCa) }),
    // For migrations, which take their time.
    poolMax: 1,
    timeoutMs: 10_000,
    statementMs: 3_600_000,
  };
}

export default knexConfig(databaseOfEnvironment());
