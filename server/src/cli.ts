#!/usr/bin/env node
import { existsSync } from "node:fs";
import { basename, relative, resolve } from "node:path";
import { type AppId, type KeyId, type PresenceInfo, parseChannel } from "@pandapush/protocol";
import { Command, CommanderError, InvalidArgumentError } from "commander";
import { resetPassword } from "./auth/password.js";
import { signToken } from "./auth/token.js";
import { type Config, type PostgresConfig, readConfig, readEnvironment } from "./config.js";
import { writeDocs } from "./docs.js";
import { parseEnd } from "./duration.js";
import { shellWord } from "./first-steps.js";
import { openStore } from "./storage/sql.js";
import type { Application, Key, Store } from "./storage/store.js";

/** Something a person asked for cannot be done; the message says what, and what to do. */
class Failure extends Error {
  override readonly name = "Failure";
}

/** Who did it, in the audit: `--user` says whose it is, and anybody may write any name there. */
const commandLine = "command line";

const exitCodes = { ok: 0, failed: 1, usage: 2 } as const;

const durationHelp = "an ISO 8601 duration or date, such as P1Y, PT8H or 2030-12-31";

const program = new Command("pandapush")
  .description("Self-hosted, multi-tenant web pub/sub.")
  .option("--json", "print the result as JSON")
  .configureHelp({ showGlobalOptions: true })
  // Commander itself shows help instead of the fault when a wrong command has --help behind it.
  .addHelpText("beforeAll", ({ command }) => {
    refuseUnknown(command);
    return "";
  })
  .addHelpText(
    "after",
    `
Examples:
  pandapush start
  pandapush app add "My shop"
  pandapush key add APP_ID --purpose "web shop" --expires P1Y
  pandapush token APP_ID KEY_ID "/APP_ID/private/*" --sub --expires PT8H

What a command takes: pandapush <command> --help

The same environment variables, and the same .env file in the working
directory, as for the server say which database is meant: DATABASE_PATH, or
DATABASE=postgres with DATABASE_ADDRESS and others.`,
  )
  .exitOverride();

program
  .command("start")
  .description("run the server")
  .action(async () => {
    const { main } = await import("./main.js");
    const exitCode = await main();
    // When it is 0 the server runs; how it ends is its own to say.
    if (exitCode !== exitCodes.ok) process.exitCode = exitCode;
  });

program
  .command("migrate")
  .description("create or update the tables of the database; the server does it at start, too")
  .action(() =>
    withNewStore(async (_store, { config: { database } }) => {
      const name = "path" in database ? database.path : postgresName(database);
      print({ database: name }, [`${name} is up to date.`]);
    }),
  );

const app = program.command("app").description("applications");

app
  .command("add")
  .description("make an application")
  .argument("<name>", "for people; need not be unique", parseName)
  .option("--id <id>", "its id, the first segment of its channels (default: made up)", parseId)
  .option("--user <user>", "its creator and first admin", "admin")
  .action((name: string, { id, user }: { id?: string; user: string }) =>
    withNewStore(async (store, { databaseName }) => {
      if (id !== undefined && (await store.findApplication(id as AppId)) !== undefined) {
        throw new Failure(`An application with the id ${id} exists already.`);
      }
      const given = { ...(id === undefined ? {} : { id: id as AppId }), name, createdBy: user };
      const added = await store.addApplication(given, commandLine);
      print(applicationJson(added), [
        `Application ${name}`,
        `  id        ${added.id}`,
        `  database  ${databaseName}`,
        "",
        "Next, make a key for it:",
        `  ${commandName()} key add ${added.id} --purpose "my first key"`,
      ]);
    }),
  );

app
  .command("list")
  .description("show all applications")
  .action(() =>
    withStore(async (store, { databaseName }) => {
      const applications = await store.applications();
      print(
        applications.map(applicationJson),
        applications.length === 0
          ? [
              `No applications yet in ${databaseName}.`,
              "",
              "Make one:",
              `  ${commandName()} app add "My shop"`,
            ]
          : table(
              ["ID", "NAME", "CREATED BY", "CREATED"],
              applications.map((a) => [a.id, a.name, a.createdBy, day(a.createdAt)]),
            ),
      );
    }),
  );

app
  .command("delete")
  .description("delete an application with its keys; a running server refuses them within a second")
  .argument("<id>", "its id")
  .action((id: string) =>
    withStore(async (store) => {
      if (!(await store.removeApplication(id as AppId, commandLine))) throw noSuchApp(id);
      print({ id }, [`Application ${id} and its keys are deleted.`]);
    }),
  );

const key = program.command("key").description("keys of an application");

key
  .command("add")
  .description("make a key")
  .argument("<appId>", "the application's id")
  .option("--purpose <text>", "what it is for")
  .option("--expires <end>", `${durationHelp} (default: never)`, parseExpires)
  .option("--user <user>", "its creator", "admin")
  .action((appId: string, options: { purpose?: string; expires?: Date; user: string }) =>
    withStore(async (store, { config, isPortSet }) => {
      const { purpose = null, expires = null, user } = options;
      const added = await addKey(store, appId, { createdBy: user, purpose, expires });
      print(newKeyJson(added), [
        `Key ${added.id} of application ${appId}`,
        `  secret   ${added.secret}`,
        `  expires  ${added.expires?.toISOString() ?? "never"}`,
        "",
        "Keep the secret now: it is not shown again. With the server running, publish a message:",
        `  curl -u ${shellWord(`${added.id}:${added.secret}`)} \\`,
        `    -H 'Content-Type: application/json' -d '{"text":"hello"}' \\`,
        `    http://localhost:${config.port}/channel/${appId}/public/news`,
        // The server may have been started with a PORT that this terminal does not know.
        ...(isPortSet
          ? []
          : [`  (${config.port} is the default port: use the one your server runs on)`]),
        "",
        "Or sign a token, for a browser to subscribe to private channels:",
        `  ${commandName()} token ${appId} ${added.id} '/${appId}/private/*' --sub`,
      ]);
    }),
  );

key
  .command("list")
  .description("show the keys of an application, without their secrets")
  .argument("<appId>", "the application's id")
  .action((appId: string) =>
    withStore(async (store) => {
      await requireApp(store, appId);
      const keys = (await store.keys()).filter((k) => k.appId === appId);
      print(
        keys.map(keyJson),
        keys.length === 0
          ? ["No keys yet.", "", "Make one:", `  ${commandName()} key add ${appId}`]
          : table(
              ["ID", "PURPOSE", "CREATED", "EXPIRES", "USES", "LAST USED"],
              keys.map((k) => [
                k.id,
                k.purpose,
                day(k.createdAt),
                k.revokedAt !== null
                  ? "revoked"
                  : isOver(k)
                    ? `${day(k.expires)} (over)`
                    : (day(k.expires) ?? "never"),
                String(k.useCount),
                day(k.lastUsed),
              ]),
            ),
      );
    }),
  );

key
  .command("delete")
  .description("delete a key; a running server refuses it within a second")
  .argument("<appId>", "the application's id")
  .argument("<keyId>", "the key's id")
  .action((appId: string, keyId: string) =>
    withStore(async (store) => {
      if (!(await store.removeKey(appId as AppId, keyId as KeyId, commandLine))) {
        throw noSuchKey(appId, keyId);
      }
      print({ id: keyId, application_id: appId }, [`Key ${keyId} is deleted.`]);
    }),
  );

const admin = program.command("admin").description("who administers the server");

admin
  .command("reset-password")
  .description("make a new password for the admin of AUTH_METHOD=basic; all sessions end")
  .action(() =>
    withStore(async (store, { config }) => {
      const { method, username, password: configured } = config.admin;
      if (method === "none") {
        throw new Failure("The console is closed (AUTH_METHOD is none): nobody can log in.");
      }
      if (method !== "basic") {
        throw new Failure(`Passwords are the provider's business (AUTH_METHOD is ${method}).`);
      }
      if (configured !== undefined) {
        throw new Failure("The password is the one in ADMIN_PASSWORD: change it there.");
      }
      const password = await resetPassword(store, commandLine);
      print({ username, password }, [
        `Admin ${username}`,
        `  password  ${password}`,
        "",
        "Keep it now: it is not shown again. A running server takes it at once,",
        "unless it was started with an ADMIN_PASSWORD of its own: then that counts.",
      ]);
    }),
  );

program
  .command("token")
  .description("sign a channel token with a key, and print it")
  .argument("<appId>", "the application's id")
  .argument("<keyId>", "the key's id")
  .argument("<channel>", "a channel, or a pattern that ends in /* or /**")
  .option("--pub", "it may publish")
  .option("--sub", "it may subscribe")
  .option("--presence <json>", 'the member it makes, such as {"id":"u1"}', parsePresence)
  .option("--expires <end>", `${durationHelp} (default: PT1H)`, parseExpires)
  .action((appId: string, keyId: string, channel: string, options: TokenOptions, self: Command) => {
    if (options.pub !== true && options.sub !== true) {
      self.error("error: a token needs --pub, --sub or both");
    }
    return printToken(appId, keyId, channel, options);
  });

// Scripts of Pandapush 2.2 go on working.

program.commandsGroup("Commands of Pandapush 2.2, which print JSON only:");

program
  .command("add")
  .description("make an application (now: app add)")
  .argument("<name>")
  .argument("<username>", "its creator and first admin")
  .action((name: string, username: string) =>
    withNewStore(async (store) => {
      const given = { name, createdBy: username };
      printJson(applicationJson(await store.addApplication(given, commandLine)));
    }),
  );

program
  .command("show")
  .description("show all applications (now: app list)")
  .action(() =>
    withStore(async (store) => printJson((await store.applications()).map(applicationJson))),
  );

program
  .command("addKey")
  .description("make a key (now: key add)")
  .argument("<applicationId>")
  .argument("<username>")
  .argument("<purpose>")
  .option("-e, --expires <end>", `${durationHelp} (default: never)`, parseExpires)
  .action((appId: string, username: string, purpose: string, { expires }: { expires?: Date }) =>
    withStore(async (store) => {
      const given = { createdBy: username, purpose, expires: expires ?? null };
      printJson(newKeyJson(await addKey(store, appId, given)));
    }),
  );

program
  .command("genToken")
  .description("sign a channel token, and print it (now: token)")
  .argument("<applicationId>")
  .argument("<keyId>")
  .argument("<channel>")
  .option("-p, --pub", "it may publish")
  .option("-s, --sub", "it may subscribe")
  .option("-e, --expires <end>", `${durationHelp} (default: PT1H)`, parseExpires)
  .action(printToken);

program
  .command("docs", { hidden: true })
  .description("write the generated pages of this repository")
  .action(async () => {
    for (const path of await writeDocs()) console.log(path);
  });

// Only here the names alone, which leave room for their descriptions.
program.configureHelp({ showGlobalOptions: true, subcommandTerm: (command) => command.name() });
pointToHelp(program, commandName());

/** What a fault in usage ends with; the whole help would push the fault off the screen. */
function pointToHelp(command: Command, name: string): void {
  command.showHelpAfterError(`See: ${name} --help`);
  for (const sub of command.commands) pointToHelp(sub, `${name} ${sub.name()}`);
}

function refuseUnknown(command: Command): void {
  const [first, second] = command.args;
  const name = (first === "help" ? second : first) ?? "";
  if (command.commands.length === 0 || name === "" || name === "help") return;
  if (name.startsWith("-") || command.commands.some((sub) => sub.name() === name)) return;
  command.error(`error: unknown command '${name}'`);
}

interface TokenOptions {
  readonly pub?: true;
  readonly sub?: true;
  readonly presence?: PresenceInfo;
  readonly expires?: Date;
}

function printToken(appId: string, keyId: string, channel: string, options: TokenOptions) {
  return withStore(async (store) => {
    await requireApp(store, appId);
    const found = await store.findKey(appId as AppId, keyId as KeyId);
    if (found === undefined) throw noSuchKey(appId, keyId);
    if (found.revokedAt !== null) throw new Failure(`Key ${keyId} was revoked.`);
    if (isOver(found)) throw new Failure(`Key ${keyId} expired on ${day(found.expires)}.`);
    // A token may also stand for all kinds of channels at once, which nobody can subscribe to.
    if (channel !== `/${appId}/**` && parseChannel(channel)?.appId !== appId) {
      throw new Failure(
        `${channel} is no channel of this application; one is /${appId}/private/news, a pattern /${appId}/private/*.`,
      );
    }
    const expires = options.expires ?? new Date(Date.now() + 3_600_000);
    const token = signToken(
      found.secret,
      {
        keyId: found.id,
        channel,
        pub: options.pub === true,
        sub: options.sub === true,
        ...(options.presence === undefined ? {} : { presence: options.presence }),
      },
      expires.getTime(),
    );
    // The token alone, so that it can be captured by a script.
    print({ token, expires: expires.toISOString() }, [token]);
  });
}

async function addKey(
  store: Store,
  appId: string,
  given: { createdBy: string; purpose: string | null; expires: Date | null },
): Promise<Key> {
  await requireApp(store, appId);
  return store.addKey({ appId: appId as AppId, ...given }, commandLine);
}

async function requireApp(store: Store, appId: string): Promise<void> {
  if ((await store.findApplication(appId as AppId)) === undefined) throw noSuchApp(appId);
}

function noSuchApp(appId: string): Failure {
  return new Failure(`No application has the id ${appId}. See: ${commandName()} app list`);
}

function noSuchKey(appId: string, keyId: string): Failure {
  return new Failure(
    `No key ${keyId} belongs to application ${appId}. See: ${commandName()} key list ${appId}`,
  );
}

interface Settings {
  readonly config: Config;
  readonly isPortSet: boolean;
  /** With an absolute path: a person may be in another folder than the server. */
  readonly databaseName: string;
}

type Work = (store: Store, settings: Settings) => Promise<void>;

/** For what works in a new database, too: it is made when it is missing. */
async function withNewStore(work: Work, settings = readSettings()): Promise<void> {
  const store = await openStore(settings.config.database);
  try {
    await work(store, settings);
  } finally {
    await store.close();
  }
}

/** For what finds nothing in a new database: a missing file is a wrong folder. */
async function withStore(work: Work): Promise<void> {
  const settings = readSettings();
  if ("path" in settings.config.database && !existsSync(settings.databaseName)) {
    throw new Failure(
      `No database at ${settings.databaseName}\n` +
        "Run this in the folder where the server runs, or set DATABASE_PATH.",
    );
  }
  await withNewStore(work, settings);
}

function readSettings(): Settings {
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

function parseName(text: string): string {
  if (text.trim() !== "" && text.length <= 255) return text;
  throw new InvalidArgumentError("A name has 1 to 255 characters, and not only blanks.");
}

function parseId(text: string): string {
  if (/^[A-Za-z0-9_~-]{1,255}$/.test(text)) return text;
  throw new InvalidArgumentError("An id has 1 to 255 letters, digits, - _ ~.");
}

function parseExpires(text: string): Date {
  const end = parseEnd(text, new Date());
  if (end === undefined) throw new InvalidArgumentError(`It must be ${durationHelp}.`);
  if (end.getTime() <= Date.now()) throw new InvalidArgumentError("It must lie in the future.");
  return end;
}

function parsePresence(text: string): PresenceInfo {
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

/** The names of Pandapush 2.2's admin API. */
function applicationJson(application: Application) {
  return {
    id: application.id,
    name: application.name,
    created_by: application.createdBy,
    created_at: application.createdAt,
    updated_at: application.updatedAt,
  };
}

function keyJson(k: Key) {
  return {
    id: k.id,
    application_id: k.appId,
    created_by: k.createdBy,
    expires: k.expires,
    purpose: k.purpose,
    created_at: k.createdAt,
    updated_at: k.updatedAt,
    last_used: k.lastUsed,
    use_count: k.useCount,
    revoked_at: k.revokedAt,
  };
}

function newKeyJson(k: Key) {
  return {
    id: k.id,
    secret: k.secret,
    application_id: k.appId,
    created_by: k.createdBy,
    expires: k.expires,
    purpose: k.purpose,
    created_at: k.createdAt,
  };
}

function print(json: unknown, lines: readonly string[]): void {
  if (program.opts<{ json?: true }>().json === true) printJson(json);
  else console.log(lines.join("\n"));
}

function printJson(json: unknown): void {
  console.log(JSON.stringify(json, null, 2));
}

function table(head: readonly string[], rows: readonly (readonly (string | null)[])[]): string[] {
  const all = [head, ...rows].map((row) => row.map((cell) => cell ?? "-"));
  const widths = head.map((_, column) => Math.max(...all.map((row) => row[column]?.length ?? 0)));
  return all.map((row) =>
    row
      .map((cell, column) => cell.padEnd(widths[column] ?? 0))
      .join("  ")
      .trimEnd(),
  );
}

function day(date: Date | null): string | null {
  return date?.toISOString().slice(0, 10) ?? null;
}

function isOver(k: Key): boolean {
  return k.expires !== null && k.expires.getTime() <= Date.now();
}

/** How this command was called, so that the lines it prints work when pasted. */
function commandName(): string {
  const script = process.argv[1] ?? "pandapush";
  if (basename(script) === "cli.js") return `node ${relative(process.cwd(), script)}`;
  return process.env.npm_command === "exec" ? "npx pandapush" : "pandapush";
}

// Whoever reads the output may leave before its end (`| head`): that is no failure, and a server
// goes on without a terminal.
process.stdout.on("error", (error: NodeJS.ErrnoException) => {
  if (error.code !== "EPIPE") throw error;
});

try {
  await program.parseAsync();
} catch (error) {
  if (error instanceof CommanderError) {
    // Commander has printed it already.
    process.exitCode = error.exitCode === 0 ? exitCodes.ok : exitCodes.usage;
  } else {
    process.exitCode = exitCodes.failed;
    console.error(error instanceof Error ? error.message : error);
  }
}
