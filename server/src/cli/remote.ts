/** How `publish`, `subscribe`, `presence` and `load` find a running server, and prove who they are. */
import { readFile } from "node:fs/promises";
import { text as textOf } from "node:stream/consumers";
import { type ParsedChannel, parseChannel } from "@pandapush/protocol";
import { type Command, InvalidArgumentError } from "commander";
import type { Pandapush } from "pandapush";
import { readEnvironment } from "../config.js";
import { Failure } from "./core.js";

export interface RemoteOptions {
  readonly url?: string;
  readonly app?: string;
  readonly key?: string;
  readonly secretFile?: string;
}

/** A key of an application at a server. */
export interface Remote {
  /** Where the server answers, without a slash at its end. */
  readonly url: string;
  readonly appId: string;
  readonly keyId: string;
  readonly keySecret: string;
}

/** What may be missing where only public channels are heard. */
export type OpenRemote = Pick<Remote, "url"> & Partial<Remote>;

const environmentHelp = `
Where and as whom, unless options say so:
  PANDAPUSH_URL         the server; default: this machine's, at PORT
  PANDAPUSH_APP_ID      the application
  PANDAPUSH_KEY_ID      a key of it
  PANDAPUSH_KEY_SECRET  the key's secret; there is no option for it, since
                        others on this machine can read a command line
They may stand in the .env file of the working directory, too.`;

export function addRemoteOptions(command: Command): Command {
  return command
    .option("--url <url>", "the server's address, such as https://push.example.com")
    .option("--app <id>", "the application's id")
    .option("--key <id>", "the id of one of its keys")
    .option("--secret-file <file>", "has the key's secret; - is standard input")
    .addHelpText("after", environmentHelp);
}

/** Ends with wrong usage when anything is missing or wrong. */
export async function readRemote(options: RemoteOptions, self: Command): Promise<Remote> {
  return withKey(await readOpenRemote(options, self), self);
}

/** Ends with wrong usage when anything is missing. */
export function withKey({ url, appId, keyId, keySecret }: OpenRemote, self: Command): Remote {
  const missing = [
    appId === undefined && "PANDAPUSH_APP_ID or --app",
    keyId === undefined && "PANDAPUSH_KEY_ID or --key",
    keySecret === undefined && "PANDAPUSH_KEY_SECRET or --secret-file",
  ].filter((each) => each !== false);
  if (appId !== undefined && keyId !== undefined && keySecret !== undefined) {
    return { url, appId, keyId, keySecret };
  }
  return self.error(`error: not known: ${missing.join("; ")}`);
}

/** Ends with wrong usage when what is given is wrong. */
export async function readOpenRemote(options: RemoteOptions, self: Command): Promise<OpenRemote> {
  const environment = readEnvironment();
  const read = (name: string): string | undefined => environment[`PANDAPUSH_${name}`] || undefined;
  const port = /^\d+$/.test(environment.PORT ?? "") ? environment.PORT : "3000";
  const url = options.url ?? read("URL") ?? `http://localhost:${port}`;
  const parsed = URL.canParse(url) ? new URL(url) : undefined;
  if (parsed === undefined || !/^https?:$/.test(parsed.protocol) || parsed.password !== "") {
    self.error(
      "error: the server's address (PANDAPUSH_URL or --url) must be an http or https URL without a password",
    );
  }
  const appId = options.app ?? read("APP_ID");
  const keyId = options.key ?? read("KEY_ID");
  const keySecret = (await readSecret(options.secretFile)) ?? read("KEY_SECRET");
  return {
    url: url.replace(/\/+$/, ""),
    ...(appId === undefined ? {} : { appId }),
    ...(keyId === undefined ? {} : { keyId }),
    ...(keySecret === undefined ? {} : { keySecret }),
  };
}

/** Its arguments are checked by itself: a `TypeError` says what is wrong with one. */
export async function openBackEnd(remote: Remote): Promise<Pandapush> {
  const { Pandapush } = await import("pandapush");
  return new Pandapush(remote);
}

/** Ends with wrong usage when it is none. @param text `private/news` or `/<application id>/private/news` */
export function readChannel(text: string, appId: string | undefined, self: Command): ParsedChannel {
  const name = text.startsWith("/") || appId === undefined ? text : `/${appId}/${text}`;
  const parsed = parseChannel(name);
  if (parsed === undefined) {
    self.error(
      `error: ${text} is no channel; one is private/news or /APP_ID/private/news (also public, presence, meta), in segments of letters, digits, - _ ~${
        appId === undefined ? "; without PANDAPUSH_APP_ID or --app it begins with /APP_ID" : ""
      }`,
    );
  }
  if (appId !== undefined && parsed.appId !== appId) {
    self.error(`error: ${name} is not in the application ${appId}`);
  }
  return parsed;
}

/** @param file `-`: standard input */
export async function readText(file: string): Promise<string> {
  try {
    return file === "-" ? await textOf(process.stdin) : await readFile(file, "utf8");
  } catch (error) {
    throw new Failure(`Cannot read ${file}: ${(error as Error).message}`);
  }
}

async function readSecret(file: string | undefined): Promise<string | undefined> {
  if (file === undefined) return undefined;
  const secret = (await readText(file)).trim();
  if (secret === "") throw new Failure(`${file} is empty; it must have the key's secret.`);
  return secret;
}

/** As long as a timer can be. */
const maxSeconds = 2_000_000;

export function parseSeconds(text: string): number {
  const seconds = Number(text);
  if (/^\d{1,7}(\.\d{1,3})?$/.test(text) && seconds > 0 && seconds <= maxSeconds) return seconds;
  throw new InvalidArgumentError(`It must be a number of seconds, up to ${maxSeconds}.`);
}
