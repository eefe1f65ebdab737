/** What all commands share: the program, how they print and fail, and how they reach the database. */
import { existsSync } from "node:fs";
import { basename, relative, resolve } from "node:path";
import type { AppId, KeyId, PresenceInfo } from "@pandapush/protocol";
import { Command, InvalidArgumentError } from "commander";
import { type Config, type PostgresConfig, readConfig, readEnvironment } from "../config.js";
import { parseEnd } from "../duration.js";
import { openStore } from "../storage/sql.js";
import type { Key, Store } from "../storage/store.js";

/** Something a person asked for cannot be done; the message says what, and what to do. */
export class Failure extends Error {
  override readonly name = "Failure";
}

export const exitCodes = { ok: 0, failed: 1, usage: 2 } as const;

/** Who did it, in the audit: `--user` says whose it is, and anybody may write any name there. */
export const commandLine = "command line";

export const durationHelp = "an ISO 8601 duration or date, such as P1Y, PT8H or 2030-12-31";

// Subcommands take over what is set before they are made.
export const program = new Command("pandapush")
  .configureHelp({ showGlobalOptions: true })
  .exitOverride();

export interface Settings {
  readonly config: Config;
  readonly isPortSet: boolean;
  /** With an absolute path: a person may be in another folder than the server. */
  readonly databaseName: string;
}

export type Work = (store: Store, settings: Settings) => Promise<void>;

/** For what works in a new database, too: it is made when it is missing. */
export async function withNewStore(work: Work, settings = readSettings()): Promise<void> {
  const store = await openStore(settings.config.database);
  try {
    await work(store, settings);
  } finally {
    await store.close();
  }
}

/** For what finds nothing in a new database: a missing file is a wrong folder. */
export async function withStore(work: Work): Promise<void> {
  const settings = readSettings();
  if ("path" in settings.config.database && !existsSync(settings.databaseName)) {
    throw new Failure(
      `No database at ${settings.databaseName}\n` +
        "Run this in the folder where the server runs, or set DATABASE_PATH.",
    );
  }
  await withNewStore(work, settings);
}

export function readSettings(): Settings {
  const environment = readEnvironment();
  const { config } = readConfig(environment);
  const { database } = config;
  return {
    config,
    isPortSet: (environment.PORT ?? "") !== "",
    databaseName: "path" in database ? resolve(database.path) : postgresName(database),
  };
}

function postgresName({ name, address, port }: PostgresConfig): string {
  return `${name} at ${address}:${port}`;
}

export async function requireApp(store: Store, appId: string): Promise<void> {
  if ((await store.findApplication(appId as AppId)) === undefined) throw noSuchApp(appId);
}

export async function requireKey(store: Store, appId: string, keyId: string): Promise<Key> {
  await requireApp(store, appId);
  const found = await store.findKey(appId as AppId, keyId as KeyId);
  if (found === undefined) throw noSuchKey(appId, keyId);
  return found;
}

export function noSuchApp(appId: string): Failure {
  return new Failure(`No application has the id ${appId}. See: ${commandName()} app list`);
}

export function noSuchKey(appId: string, keyId: string): Failure {
  return new Failure(
    `No key ${keyId} belongs to application ${appId}. See: ${commandName()} key list ${appId}`,
  );
}

export function parseEnding(text: string): Date {
  const end = parseEnd(text, new Date());
  if (end === undefined) throw new InvalidArgumentError(`It must be ${durationHelp}.`);
  return end;
}

export function parseExpires(text: string): Date {
  const end = parseEnding(text);
  if (end.getTime() <= Date.now()) throw new InvalidArgumentError("It must lie in the future.");
  return end;
}

export function parsePresence(text: string): PresenceInfo {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    throw new InvalidArgumentError(`It is not JSON: ${(error as SyntaxError).message}`);
  }
  if (typeof value === "object" && value !== null && "id" in value) {
    const { id } = value;
    if (typeof id === "string" && id !== "") return { ...value, id };
  }
  throw new InvalidArgumentError('It must be an object with an id, such as {"id":"u1"}.');
}

export function print(json: unknown, lines: readonly string[]): void {
  if (program.opts<{ json?: true }>().json === true) printJson(json);
  else console.log(lines.join("\n"));
}

export function printJson(json: unknown): void {
  console.log(JSON.stringify(json, null, 2));
}

export function table(
  head: readonly string[],
  rows: readonly (readonly (string | null)[])[],
): string[] {
  const all = [head, ...rows].map((row) => row.map((cell) => cell ?? "-"));
  const widths = head.map((_, column) => Math.max(...all.map((row) => row[column]?.length ?? 0)));
  return all.map((row) =>
    row
      .map((cell, column) => cell.padEnd(widths[column] ?? 0))
      .join("  ")
      .trimEnd(),
  );
}

export function day(date: Date | null): string | null {
  return date?.toISOString().slice(0, 10) ?? null;
}

export function isOver(k: Key): boolean {
  return k.expires !== null && k.expires.getTime() <= Date.now();
}

/** How this command was called, so that the lines it prints work when pasted. */
export function commandName(): string {
  const script = process.argv[1] ?? "pandapush";
  if (basename(script) === "cli.js") return `node ${relative(process.cwd(), script)}`;
  return process.env.npm_command === "exec" ? "npx pandapush" : "pandapush";
}
