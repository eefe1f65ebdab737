/** `key`: the keys of an application. */
import type { AppId, KeyId } from "@pandapush/protocol";
import { InvalidArgumentError } from "commander";
import { shellWord } from "../first-steps.js";
import { type Key, maxPreviousSecrets, type Store, TooManySecrets } from "../storage/store.js";
import {
  commandLine,
  commandName,
  day,
  durationHelp,
  Failure,
  isOver,
  noSuchKey,
  parseEnding,
  parseExpires,
  print,
  program,
  requireApp,
  requireKey,
  table,
  withStore,
} from "./core.js";

const dayMs = 86_400_000;

const key = program.command("key").description("keys of an application");

key
  .command("add")
  .description("make a key")
  .argument("<appId>", "the application's id")
  .option("--purpose <text>", "what it is for")
  .option("--expires <end>", `${durationHelp} (default: never)`, parseExpires)
  .option("--user <user>", "its creator", "admin")
  .addHelpText(
    "after",
    `
The secret is shown once. Give it to back ends only, which publish with it and
sign tokens for browsers. A key for each back end can be rotated or revoked
without the others.

Examples:
  pandapush key add APP_ID --purpose "web shop"
  pandapush key add APP_ID --purpose "trial" --expires P30D --json`,
  )
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
  .command("revoke")
  .description("revoke a key: it opens nothing any more within a second, and stays to be seen")
  .argument("<appId>", "the application's id")
  .argument("<keyId>", "the key's id")
  .action((appId: string, keyId: string) =>
    withStore(async (store) => {
      const found = await requireKey(store, appId, keyId);
      if (!(await store.revokeKey(found.appId, found.id, commandLine))) {
        throw new Failure(`Key ${keyId} was revoked before.`);
      }
      print(keyJson(await requireKey(store, appId, keyId)), [`Key ${keyId} is revoked.`]);
    }),
  );

key
  .command("rotate")
  .description("give a key a new secret; the old one works a while longer")
  .argument("<appId>", "the application's id")
  .argument("<keyId>", "the key's id")
  .option("--overlap <end>", "how long the old secret works: PT8H; PT0S ends it now", parseOverlap)
  .addHelpText(
    "after",
    `
The old secret works for a day unless told otherwise, a year at most; tokens
that it signed, too. So: rotate, give the new secret to your back ends, done.

Examples:
  pandapush key rotate APP_ID KEY_ID
  pandapush key rotate APP_ID KEY_ID --overlap P7D`,
  )
  .action((appId: string, keyId: string, { overlap }: { overlap?: Date }) =>
    withStore(async (store) => {
      const overlapMs = overlap === undefined ? dayMs : Math.max(0, overlap.getTime() - Date.now());
      const { id } = await usableKey(store, appId, keyId);
      const until = new Date(Date.now() + overlapMs);
      const rotated = await store
        .rotateKey(appId as AppId, id, overlapMs, commandLine)
        .catch(explainTooMany);
      if (rotated === undefined) throw noSuchKey(appId, keyId);
      print({ ...newKeyJson(rotated), old_secret_until: until }, [
        `Key ${rotated.id} of application ${appId}`,
        `  new secret  ${rotated.secret}`,
        `  old secret  ${overlapMs === 0 ? "ended" : `works until ${until.toISOString()}`}`,
        "",
        "Keep the new secret now: it is not shown again.",
      ]);
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

function parseOverlap(text: string): Date {
  const end = parseEnding(text);
  if (end.getTime() - Date.now() <= 365 * dayMs) return end;
  throw new InvalidArgumentError("It must be a year or less.");
}

/** @throws Failure when it opens nothing */
export async function usableKey(store: Store, appId: string, keyId: string): Promise<Key> {
  const found = await requireKey(store, appId, keyId);
  if (found.revokedAt !== null) throw new Failure(`Key ${keyId} was revoked.`);
  if (isOver(found)) throw new Failure(`Key ${keyId} expired on ${day(found.expires)}.`);
  return found;
}

export async function addKey(
  store: Store,
  appId: string,
  given: { createdBy: string; purpose: string | null; expires: Date | null },
): Promise<Key> {
  await requireApp(store, appId);
  return store.addKey({ appId: appId as AppId, ...given }, commandLine);
}

function explainTooMany(error: unknown): never {
  if (!(error instanceof TooManySecrets)) throw error;
  throw new Failure(
    `${maxPreviousSecrets} former secrets of this key still work, and there may be no more; the first of them ends at ${error.until.toISOString()}. With --overlap PT0S the present one ends at once; key revoke ends all of them.`,
  );
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

export function newKeyJson(k: Key) {
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
