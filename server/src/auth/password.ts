/** The one user of `AUTH_METHOD=basic`, whose password is configured, or generated and kept hashed. */
import {
  createHmac,
  randomBytes,
  randomInt,
  type ScryptOptions,
  scrypt,
  timingSafeEqual,
} from "node:crypto";
import { promisify } from "node:util";
import { Refusal } from "../errors.js";
import { Gate, GateFull } from "../gate.js";
import type { Store } from "../storage/store.js";
import { type LoginMethod, orUnavailable } from "./admin.js";

const deriveKey = promisify<string, Buffer, number, ScryptOptions, Buffer>(scrypt);

/** RFC 7914; 32 MB and about 80 ms of one core for each try. */
const cost = { N: 32_768, r: 8, p: 1, maxmem: 64 * 1024 * 1024 };
const hashBytes = 32;

/** Hashes under way at once, over all addresses: the threads that make them have other work, too. */
const maxHashing = 2;
/** Those that wait for their turn: some seconds of them. */
const maxWaiting = 64;

const setting = "admin.password";

/** 16 of these are 80 random bits. No letters that look like others. */
const letters = "abcdefghijkmnpqrstuvwxyz23456789";

/** @returns `scrypt$<salt>$<hash>` */
export async function hashPassword(password: string): Promise<string> {
  const salt = randomBytes(16);
  const hash = await deriveKey(password, salt, hashBytes, cost);
  return `scrypt$${salt.toString("base64url")}$${hash.toString("base64url")}`;
}

async function isPasswordOf(stored: string, password: string): Promise<boolean> {
  const [kind, salt, hash] = stored.split("$");
  if (kind !== "scrypt" || salt === undefined || hash === undefined) return false;
  const given = await deriveKey(password, Buffer.from(salt, "base64url"), hashBytes, cost);
  return timingSafeEqual(given, Buffer.from(hash, "base64url"));
}

/** Gives the admin a new password, which ends all sessions, and returns it. */
export async function resetPassword(store: Store, by: string): Promise<string> {
  const password = generatePassword();
  await store.setSetting(setting, await hashPassword(password));
  await store.addAudit({ user: by, action: "admin.reset-password", appId: null, details: {} });
  return password;
}

/** @returns the admin's new password, or undefined when there is one already */
export async function addPassword(store: Store): Promise<string | undefined> {
  if (await hasPassword(store)) return undefined;
  const password = generatePassword();
  const hash = await hashPassword(password);
  return (await store.addSetting(setting, hash)) === hash ? password : undefined;
}

export async function hasPassword(store: Store): Promise<boolean> {
  return (await store.setting(setting)) !== undefined;
}

function generatePassword(): string {
  const part = () => Array.from({ length: 4 }, () => letters[randomInt(letters.length)]).join("");
  return [part(), part(), part(), part()].join("-");
}

/** @param given.password absent: the one that is kept in the database */
export function basicLogin(
  store: Store,
  given: { readonly username: string; readonly password?: string },
): LoginMethod {
  const digestKey = randomBytes(32);
  const digest = (text: string) => createHmac("sha256", digestKey).update(text).digest();
  const isSame = (one: string, other: string) => timingSafeEqual(digest(one), digest(other));
  const hashing = new Gate(maxHashing, maxWaiting);
  /** What passwords of other users are compared with, which takes as long. */
  const nobodys = ["scrypt", randomBytes(16), randomBytes(hashBytes)]
    .map((part) => (typeof part === "string" ? part : part.toString("base64url")))
    .join("$");
  /** Basic credentials come with each request, and hashing them would be most of its cost. */
  let lastRight: { readonly stored: string; readonly digest: Buffer } | undefined;
  /** One for each password, however many requests wait for it. */
  const tries = new Map<string, Promise<boolean>>();

  function isStored(
    stored: string,
    password: string,
    beforeWork: () => void,
  ): boolean | Promise<boolean> {
    const digested = digest(password);
    if (lastRight?.stored === stored && timingSafeEqual(lastRight.digest, digested)) return true;
    const name = `${digested.toString("hex")} ${stored}`;
    const running = tries.get(name);
    if (running !== undefined) return running;
    const trying = hashing
      .do(async () => {
        beforeWork();
        const isRight = await isPasswordOf(stored, password);
        if (isRight) lastRight = { stored, digest: digested };
        return isRight;
      })
      .catch((error: unknown) => {
        throw error instanceof GateFull ? tooMany() : error;
      })
      .finally(() => tries.delete(name));
    tries.set(name, trying);
    return trying;
  }

  return {
    async checkPassword(name, password, beforeWork = () => undefined) {
      const isUser = isSame(name, given.username);
      if (given.password !== undefined) return isSame(password, given.password) && isUser;
      const stored = await orUnavailable(store.setting(setting));
      if (stored === undefined) return false;
      return isStored(isUser ? stored : nobodys, password, beforeWork);
    },
    async binding(name) {
      if (name !== given.username) return undefined;
      return given.password ?? (await orUnavailable(store.setting(setting)));
    },
  };
}

function tooMany(): Refusal {
  return new Refusal(
    "unavailable",
    [],
    "Too many passwords are being checked at this moment; try again in a few seconds.",
  );
}
