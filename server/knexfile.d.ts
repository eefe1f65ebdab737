import type { Knex } from "knex";

/**
 * @param database.path SQLite file; its folder is made
 * @param database.busyTimeoutMs how long a statement blocks the process while another one writes
 */
export function knexConfig(database: { path: string; busyTimeoutMs?: number }): Knex.Config;

declare const config: Knex.Config;
export default config;
