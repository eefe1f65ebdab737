import type { AppId } from "./channel.js";

declare const brand: unique symbol;
/** Id of an application's key, such as `PSIDv4ADyV6V9fQ2BgJZ`. */
export type KeyId = string & { readonly [brand]: "KeyId" };

/** What a presence member says of itself; `id` names the user, the rest is free. */
export interface PresenceInfo {
  readonly id: string;
  readonly [field: string]: unknown;
}

/**
 * The payload of a channel token (a JWT signed with a key's secret, HS256/384/512).
 *
 * `{"keyId":"PSID…","channel":"/app/private/room","sub":true,"exp":1924992000}`
 */
export interface TokenClaims {
  readonly keyId: KeyId;
  /** A channel or pattern; what it covers is decided by `covers()`. */
  readonly channel: string;
  /** Exactly `true` allows publishing. */
  readonly pub?: boolean;
  /** Exactly `true` allows subscribing. */
  readonly sub?: boolean;
  readonly presence?: PresenceInfo;
  /** Seconds since 1970. */
  readonly exp?: number;
}

/**
 * Credentials as a client sent them, unchecked: `ext.auth`, `data.__auth`, or a REST header.
 * Either a token, or a key with its secret.
 */
export interface Credentials {
  readonly token?: unknown;
  readonly key?: unknown;
  readonly secret?: unknown;
}

/** What a token or key was found to allow, for one channel of one application. */
export interface Grant {
  readonly appId: AppId;
  /** Absent for a subscription to a public channel, which needs no key. */
  readonly keyId?: KeyId;
  /** The member a presence subscription becomes. */
  readonly presence?: { readonly id: string; readonly json: string };
  /** When the permission ends, in ms since 1970. */
  readonly expiresAt?: number;
}
