/** A real Postgres on a free port, with which tests do what happens to one. */
import { type ChildProcess, execFile, execFileSync, spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import {
  chownSync,
  existsSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { createRequire } from "node:module";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { promisify } from "node:util";
import pg from "pg";
import type { PostgresConfig } from "../src/config.js";
import { reap } from "./reaper.js";

const startMs = 20_000;
const pollMs = 20;

/** pg_hba.conf: everybody comes in, but guests need their password. */
const access = `
host all guest all scram-sha-256
host all all all trust
local all all trust
`;

export const knexCommand = createRequire(import.meta.url).resolve("knex/bin/cli.js");

/** Postgres refuses to run as root. */
const owner = process.getuid?.() === 0 ? { uid: idOf("-u"), gid: idOf("-g") } : {};

export class Postgres {
  readonly port: number;
  /** Holds `data` and the folder of the Unix socket. */
  readonly folder: string;
  private process: ChildProcess | undefined;
  private databases = 0;
  private output = "";

  /** @param options further settings, such as `{ ssl: "on" }` */
  static async start(options: Readonly<Record<string, string>> = {}): Promise<Postgres> {
    const folder = mkdtempSync(join(tmpdir(), "pandapush-postgres-"));
    if (owner.uid !== undefined) chownSync(folder, owner.uid, owner.gid);
    const data = join(folder, "data");
    const run = (command: string, args: string[]) =>
      promisify(execFile)(command, args, { cwd: folder, ...owner });
    const locale = ["--no-sync", "-E", "UTF8", "--locale=C"];
    await run(program("initdb"), ["-D", data, "-U", "postgres", "-A", "trust", ...locale]);
    writeFileSync(join(data, "pg_hba.conf"), access);
    if (options.ssl === "on") {
      const files = ["-keyout", join(data, "server.key"), "-out", join(data, "server.crt")];
      const subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"];
      const key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
      await run(process.env.OPENSSL_PATH ?? "openssl", [
        "req",
        "-x509",
        ...key,
        ...subject,
        ...files,
      ]);
    }
    const postgres = new Postgres(folder, await freePort(), options);
    await postgres.start();
    return postgres;
  }

  private constructor(
    folder: string,
    port: number,
    private readonly options: Readonly<Record<string, string>>,
  ) {
    this.folder = folder;
    this.port = port;
  }

  /** Makes an empty database. */
  async createDatabase(given: Partial<PostgresConfig> = {}): Promise<PostgresConfig> {
    const name = `test${++this.databases}`;
    await this.query("postgres", `CREATE DATABASE ${name}`);
    return {
      address: "127.0.0.1",
      port: this.port,
      username: "postgres",
      name,
      ssl: "disable",
      poolMax: 5,
      timeoutMs: 5000,
      ...given,
    };
  }

  /** Runs statements, as somebody with psql would. */
  async query(database: string, sql: string): Promise<Record<string, unknown>[]> {
    const client = new pg.Client({
      host: "127.0.0.1",
      port: this.port,
      user: "postgres",
      database,
      ssl: false,
    });
    await client.connect();
    try {
      const { rows } = await client.query<Record<string, unknown>>(sql);
      return rows;
    } finally {
      await client.end();
    }
  }

  /** Does nothing when it is running. */
  async start(): Promise<void> {
    if (this.process !== undefined && this.process.exitCode === null) return;
    const settings = {
      port: String(this.port),
      listen_addresses: "127.0.0.1",
      unix_socket_directories: this.folder,
      fsync: "off",
      ...this.options,
    };
    const args = Object.entries(settings).flatMap(([name, value]) => ["-c", `${name}=${value}`]);
    const child = spawn(program("postgres"), ["-D", join(this.folder, "data"), ...args], {
      cwd: this.folder,
      stdio: ["ignore", "ignore", "pipe"],
      ...owner,
    });
    this.process = child;
    reap(child);
    child.stderr.on("data", (chunk: Buffer) => {
      this.output = (this.output + chunk.toString()).slice(-4000);
    });
    const deadline = Date.now() + startMs;
    while (!(await this.answers())) {
      if (child.exitCode !== null || Date.now() > deadline) {
        child.kill("SIGKILL");
        throw new Error(`Postgres does not start:\n${this.output}`);
      }
      await delay(pollMs);
    }
  }

  /** @param how `fast`: it says goodbye to its clients; `immediate`: it does not */
  async stop(how: "fast" | "immediate" = "fast"): Promise<void> {
    const child = this.process;
    if (child === undefined || child.exitCode !== null) return;
    const ended = once(child, "exit");
    this.thaw();
    child.kill(how === "fast" ? "SIGINT" : "SIGQUIT");
    await ended;
  }

  /** Stops all of its processes where they are: connections stay, and nobody answers. */
  freeze(): void {
    this.signal("SIGSTOP");
  }

  thaw(): void {
    this.signal("SIGCONT");
  }

  async remove(): Promise<void> {
    await this.stop("immediate");
    rmSync(this.folder, { recursive: true, force: true });
  }

  private async answers(): Promise<boolean> {
    return this.query("postgres", "SELECT 1").then(
      () => true,
      () => false,
    );
  }

  private signal(name: "SIGSTOP" | "SIGCONT"): void {
    const child = this.process;
    if (child?.pid === undefined || child.exitCode !== null) return;
    // First, so that it makes no others.
    child.kill(name);
    // It ends with 1 when it found none.
    const { stdout } = spawnSync("pgrep", ["-P", String(child.pid)], { encoding: "utf8" });
    for (const pid of stdout.split("\n").filter(Boolean)) {
      try {
        process.kill(Number(pid), name);
      } catch (error) {
        // It has ended meanwhile.
        if ((error as NodeJS.ErrnoException).code !== "ESRCH") throw error;
      }
    }
  }
}

/** The variables of a server that uses this database. */
export function environmentOf(database: PostgresConfig): Record<string, string> {
  const { address, port, username, password, name, ssl, sslCa, poolMax, timeoutMs } = database;
  return {
    DATABASE: "postgres",
    DATABASE_ADDRESS: address,
    DATABASE_PORT: String(port),
    DATABASE_USERNAME: username,
    ...(password === undefined ? {} : { DATABASE_PASSWORD: password }),
    DATABASE_NAME: name,
    DATABASE_SSL: ssl,
    ...(sslCa === undefined ? {} : { DATABASE_SSL_CA: sslCa }),
    DATABASE_POOL_MAX: String(poolMax),
    DATABASE_TIMEOUT_MS: String(timeoutMs),
  };
}

/** What Pandapush 2.2 left behind. */
export async function loadLegacy(postgres: Postgres, { name }: PostgresConfig): Promise<void> {
  const file = new URL("fixtures/pandapush-2.2.postgres.sql", import.meta.url);
  await postgres.query(name, readFileSync(file, "utf8"));
}

/** From the folder of `POSTGRES_PATH`, PATH, or where Debian puts it. */
function program(name: "postgres" | "initdb"): string {
  const debian = "/usr/lib/postgresql";
  const folders = [
    ...(process.env.POSTGRES_PATH ? [dirname(process.env.POSTGRES_PATH)] : []),
    ...(process.env.PATH ?? "").split(":"),
    ...(existsSync(debian) ? readdirSync(debian).map((each) => join(debian, each, "bin")) : []),
  ];
  const path = folders.map((folder) => join(folder, name)).find((each) => existsSync(each));
  if (path === undefined) throw new Error(`${name} is missing: install PostgreSQL`);
  return path;
}

function idOf(flag: "-u" | "-g"): number {
  return Number(execFileSync("id", [flag, "postgres"], { encoding: "utf8" }));
}

async function freePort(): Promise<number> {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const address = server.address();
  server.close();
  await once(server, "close");
  if (address === null || typeof address === "string") throw new Error("no port is free");
  return address.port;
}
