/** Channel tokens: JWTs (RFC 7519) that are signed with a key's secret. */
import { createHmac } from "node:crypto";

export interface TokenOptions {
  /** A channel or pattern: `private/orders`, or `/<application id>/private/orders/**`. */
  readonly channel: string;
  /** Whether it may subscribe. */
  readonly sub?: boolean;
  /** Whether it may publish. */
  readonly pub?: boolean;
  /** Who its bearer is on a presence channel. */
  readonly presence?: { readonly id: string | number; readonly [field: string]: unknown };
  /** How long it lasts, in ms; default: an hour. `Infinity`: for ever. */
  readonly expiresInMs?: number;
}

const defaultMs = 3_600_000;

/**
 * @param channel its whole name
 * @throws TypeError
 */
export function signToken(
  { keyId, keySecret }: { readonly keyId: string; readonly keySecret: string },
  channel: string,
  { sub = false, pub = false, presence, expiresInMs = defaultMs }: TokenOptions,
): string {
  if (!sub && !pub) throw new TypeError("A token allows something: sub, pub, or both");
  if (!(expiresInMs > 0)) throw new TypeError("expiresInMs must be a positive number");
  if (presence !== undefined && !hasId(presence)) {
    throw new TypeError(
      "presence must have an id: a text with at least one character, or a number",
    );
  }
  const claims = {
    keyId,
    channel,
    ...(pub ? { pub } : {}),
    ...(sub ? { sub } : {}),
    ...(presence === undefined ? {} : { presence }),
    ...(expiresInMs === Number.POSITIVE_INFINITY
      ? {}
      : { exp: Math.floor((Date.now() + expiresInMs) / 1000) }),
  };
  const signed = `${encode({ alg: "HS256", typ: "JWT" })}.${encode(claims)}`;
  return `${signed}.${createHmac("sha256", keySecret).update(signed).digest("base64url")}`;
}

function hasId({ id }: { readonly id?: unknown }): boolean {
  return typeof id === "number" || (typeof id === "string" && id !== "");
}

function encode(value: object): string {
  return Buffer.from(JSON.stringify(value)).toString("base64url");
}
