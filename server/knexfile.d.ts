import type { Knex } from "knex";

interface SqliteDatabase {
  /** The file; its folder is made. */
  readonly path: string;
  /** How long a statement blocks the process while another one writes. */
  readonly busyTimeoutMs?: number;
}

export interface PostgresDatabase {
  /** A host's name, an IP address, or the folder of a Unix socket. */
  readonly address: string;
  readonly port: number;
  readonly username: string;
  readonly password?: string;
  readonly name: string;
  /** As libpq's `sslmode`. */
  readonly ssl: "disable" | "prefer" | "require" | "verify-ca" | "verify-full";
  /** File with the certificates to trust instead of the usual ones. */
  readonly sslCa?: string;
  /** Most connections at once. */
  readonly poolMax: number;
  /** What connecting, waiting for a free connection, and a statement may each take. */
  readonly timeoutMs: number;
  /** Where a statement may take longer. */
  readonly statementMs?: number;
}

/** @throws the error of reading `sslCa` */
export function knexConfig(database: SqliteDatabase | PostgresDatabase): Knex.Config;

declare const config: Knex.Config;
export default config;
