import { timingSafeEqual } from "node:crypto";
import {
  type AppId,
  type Credentials,
  covers,
  type Grant,
  type KeyId,
  type ParsedChannel,
  parseChannel,
} from "@pandapush/protocol";
import { type ErrorCode, Refusal } from "../errors.js";
import { after, type MaybePromise } from "../maybe-promise.js";
import type { KeyTable, LiveKey, LiveSecret } from "./keys.js";
import {
  type KnownToken,
  readKeyId,
  type VerifiedToken,
  VerifiedTokens,
  WrongSignature,
} from "./token.js";

type Action = "subscribe" | "publish";

/**
 * Decides whether `credentials` allow `action` on `channel` (a name or pattern, unparsed).
 *
 * The order of checks and their texts are those of docs/protocol.md, AUTH-1 to AUTH-14.
 * @throws Refusal (or a promise rejected with it)
 */
export type Authorize = (
  action: Action,
  channel: string,
  credentials: Credentials | undefined,
) => MaybePromise<Grant>;

export function createAuthorize(keys: KeyTable): Authorize {
  const tokens = new VerifiedTokens();

  return (action, channel, credentials) => {
    const parsed = parseChannel(channel);
    if (parsed === undefined) throw new Refusal("invalidChannelName");
    if (action === "publish") refuseUnpublishable(parsed);
    return after(keys.hasApp(parsed.appId), (hasApp) => {
      if (!hasApp) throw new Refusal("unknownApplication");
      if (action === "subscribe" && parsed.kind === "public") return { appId: parsed.appId };
      // Parsed JSON may hold null where the type says undefined.
      if (credentials === undefined || credentials === null) throw new Refusal("noAuth");
      return authenticate(action, parsed, credentials);
    });
  };

  function authenticate(
    action: Action,
    channel: ParsedChannel,
    { token, key: keyId, secret }: Credentials,
  ): MaybePromise<Grant> {
    const hasKey = isPresent(keyId);
    const isKeyText = typeof keyId === "string";
    if (isPresent(token)) {
      // A token beside a key only names the key: its secret is what counts then.
      const known = typeof token === "string" ? tokens.find(token) : undefined;
      const tokenKeyId = known?.keyId ?? readKeyId(token);
      if (tokenKeyId === undefined || typeof token !== "string") throw new Refusal("invalidToken");
      return after(keys.find(channel.appId, tokenKeyId), (key) => {
        if (key === undefined || (hasKey && !isKeyText)) throw unknownKey(tokenKeyId);
        if (hasKey) return grantBySecret(keys, key, secret);
        return grantByToken(action, channel, key, token, known);
      });
    }
    if (!hasKey) throw new Refusal("noTokenOrKey");
    if (!isKeyText) throw new Refusal("unknownKey");
    return grantByKey(keys, channel.appId, keyId, secret);
  }

  function grantByToken(
    action: Action,
    channel: ParsedChannel,
    key: LiveKey,
    token: string,
    known: KnownToken | undefined,
  ): Grant {
    const verified = verifyToken(token, key, known);
    refuseUnusable(key);
    if (verified.channel === undefined || !covers(verified.channel, channel.name)) {
      throw refusalOf(key, "tokenChannel");
    }
    if (action === "subscribe" && !verified.maySubscribe) throw refusalOf(key, "tokenSub");
    if (action === "publish" && !verified.mayPublish) throw refusalOf(key, "tokenPub");
    const expiresAt = Math.min(key.expiresAt, verified.expiresAt);
    return grant(keys, key, verified.presence, expiresAt);
  }

  /** By whichever of the key's secrets signed it. */
  function verifyToken(token: string, key: LiveKey, known: KnownToken | undefined): VerifiedToken {
    const secrets = countingSecrets(key);
    const signer = known && secrets.find(({ verifyToken }) => verifyToken === known.verify);
    try {
      for (const { verifyToken } of signer === undefined ? secrets : [signer]) {
        try {
          return tokens.verify(token, key.id, verifyToken, known);
        } catch (error) {
          // What a token signed with this secret lacks, no other secret gives it.
          if (!(error instanceof WrongSignature)) throw error;
        }
      }
      throw new WrongSignature();
    } catch (error) {
      if (error instanceof Refusal) error.keyId = key.id;
      throw error;
    }
  }
}

/**
 * Whose key this is, for what concerns the whole application rather than a channel.
 * @throws Refusal (or a promise rejected with it), as `Authorize`
 */
export type IdentifyKey = (appId: AppId, keyId: KeyId, secret: string) => MaybePromise<Grant>;

export function createIdentifyKey(keys: KeyTable): IdentifyKey {
  return (appId, keyId, secret) =>
    after(keys.hasApp(appId), (hasApp) => {
      if (!hasApp) throw new Refusal("unknownApplication", [], "No application has this id.");
      return grantByKey(keys, appId, keyId, secret);
    });
}

function grantByKey(
  keys: KeyTable,
  appId: AppId,
  keyId: string,
  secret: unknown,
): MaybePromise<Grant> {
  return after(keys.find(appId, keyId as KeyId), (key) => {
    if (key === undefined) throw unknownKey(keyId);
    return grantBySecret(keys, key, secret);
  });
}

function grantBySecret(keys: KeyTable, key: LiveKey, secret: unknown): Grant {
  if (typeof secret !== "string") throw refusalOf(key, "invalidSecret");
  if (!countingSecrets(key).some((each) => isSecret(secret, each.secret)))
    throw refusalOf(key, "invalidSecret");
  refuseUnusable(key);
  return grant(keys, key, undefined, key.expiresAt);
}

function grant(
  keys: KeyTable,
  key: LiveKey,
  presence: Grant["presence"],
  expiresAt: number,
): Grant {
  keys.countUse(key.id);
  return {
    appId: key.appId,
    keyId: key.id,
    ...(presence === undefined ? {} : { presence }),
    ...(expiresAt === Number.POSITIVE_INFINITY ? {} : { expiresAt }),
  };
}

/** What looks like an id of ours is named: a secret in its place, put there by mistake, does not. */
const keyIdForm = /^PSID[A-Za-z0-9]{1,28}$/;

function unknownKey(keyId: string): Refusal {
  const refusal = new Refusal("unknownKey");
  if (keyIdForm.test(keyId)) refusal.keyId = keyId;
  return refusal;
}

function refusalOf(key: LiveKey, code: ErrorCode): Refusal {
  const refusal = new Refusal(code);
  refusal.keyId = key.id;
  return refusal;
}

/** Nobody's credentials allow these, so they are not asked for. */
function refuseUnpublishable(channel: ParsedChannel): void {
  if (channel.isPattern) throw new Refusal("invalidChannel", [channel.name]);
  if (channel.kind === "meta") throw new Refusal("metaPublish");
}

function refuseUnusable(key: LiveKey): void {
  if (Date.now() >= key.expiresAt) throw refusalOf(key, "expiredKey");
  if (key.isRevoked) throw refusalOf(key, "revokedKey");
}

/** The key's secret, and those from before rotations whose time is not over. */
function countingSecrets(key: LiveKey): readonly LiveSecret[] {
  if (key.previous.length === 0) return [key];
  const now = Date.now();
  return [key, ...key.previous.filter(({ until }) => now < until)];
}

/** Clients send null or "" for what they were not configured with. */
function isPresent(value: unknown): boolean {
  return value !== undefined && value !== null && value !== "";
}

/** In a time that tells nothing of the secret but its length. */
function isSecret(text: string, secret: Buffer): boolean {
  const given = Buffer.from(text);
  return given.length === secret.length && timingSafeEqual(given, secret);
}
