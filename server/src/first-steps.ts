/** What a newcomer sees in the terminal: where it runs, and two lines that deliver a message. */
import { randomBytes } from "node:crypto";
import type { AppId, KeyId } from "@pandapush/protocol";
import type { Store } from "./storage/store.js";

export interface FirstSteps {
  readonly appId: AppId;
  readonly keyId: KeyId;
  readonly secret: string;
}

/** How admins log in: here with a password, or at a provider that is called so. */
export type AdminLogin = PasswordLogin | { readonly provider: string };

interface PasswordLogin {
  readonly username: string;
  /** By ADMIN_PASSWORD, which is not shown. */
  readonly isConfigured: boolean;
  /** Made just now: to be shown this once. */
  readonly password?: string;
}

const demo = { name: "demo", createdBy: "pandapush", purpose: "first steps" };

/**
 * The application whose key the first screen shows: the demo application that is made in an empty
 * database. Undefined where people have made their own and the demo is gone: their keys are not
 * shown.
 */
export async function findFirstSteps(store: Store): Promise<FirstSteps | undefined> {
  const apps = await store.applications();
  const existing = apps.find((app) => app.name === demo.name && app.createdBy === demo.createdBy);
  if (existing === undefined && apps.length > 0) return undefined;
  const app = existing ?? (await store.addApplication(demo));
  const keys = await store.keys();
  const key =
    keys.find(
      ({ appId, purpose, revokedAt }) =>
        appId === app.id && purpose === demo.purpose && revokedAt === null,
    ) ??
    (existing === undefined
      ? await store.addKey({
          ...demo,
          appId: app.id,
          expires: null,
          // Shorter than a key's usual 256 characters, so that the curl line fits a terminal.
          secret: randomBytes(20).toString("hex"),
        })
      : undefined);
  return key && { appId: app.id, keyId: key.id, secret: key.secret };
}

/** A word for a command line that people paste: as it is, or quoted where a shell would change it. */
export function shellWord(text: string): string {
  // `~` at the beginning of a word stands for a home folder.
  const isPlain = /^[A-Za-z0-9_.~:-]+$/.test(text) && !text.startsWith("~");
  return isPlain ? text : `'${text.replaceAll("'", "'\\''")}'`;
}

/** @param url where the server answers, without a path */
export function firstScreen(
  url: string,
  version: string,
  steps: FirstSteps | undefined,
  login?: AdminLogin,
): string {
  const appId = steps?.appId ?? "APP_ID";
  const credentials = steps ? shellWord(`${steps.keyId}:${steps.secret}`) : "KEY_ID:KEY_SECRET";
  const channel = `/${appId}/public/hello`;
  const lines = [
    `Pandapush ${version} is running at ${url}`,
    "",
    "1. Open this page; it subscribes to a channel:",
    "",
    `   ${url}/?channel=${channel}`,
    "",
    "2. Publish to the channel from another terminal:",
    "",
    `curl -u ${credentials} -H 'Content-Type: application/json' -d '{"text":"hello"}' ${url}/channel${channel}`,
    "",
    steps
      ? `Your own application:  npx pandapush app add "My app"  (then: npx pandapush key add APP_ID)`
      : "Applications:  npx pandapush app list   Keys:  npx pandapush key add APP_ID",
    ...(login === undefined ? [] : [`Console:  ${url}/admin`, ...describeLogin(login)]),
    "Stop with Ctrl-C.",
    "",
  ];
  return `\n${lines.map((line) => (line.startsWith("curl ") || line === "" ? line : `  ${line}`)).join("\n")}\n`;
}

function describeLogin(login: AdminLogin): string[] {
  if ("provider" in login) return [`Admins sign in with ${login.provider}.`];
  const { username, isConfigured, password } = login;
  if (password !== undefined) {
    return [
      `Admin login:  ${username}  password  ${password}`,
      "Keep it now: it is not shown again. Another one:  npx pandapush admin reset-password",
    ];
  }
  const forgotten = isConfigured ? "it is in ADMIN_PASSWORD" : "npx pandapush admin reset-password";
  return [`Admin login:  ${username}  (forgotten the password? ${forgotten})`];
}
