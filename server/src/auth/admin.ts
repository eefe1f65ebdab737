/** Who an admin is: sessions in signed cookies, Basic credentials, and what keeps strangers out. */
import { createHmac, randomBytes, timingSafeEqual } from "node:crypto";
import type { IncomingHttpHeaders } from "node:http";
import { Refusal, TooManyLogins } from "../errors.js";
import { networkOf } from "../network.js";
import { StorageUnavailable, type Store } from "../storage/store.js";
import { isCanonical } from "./token.js";

export interface AdminUser {
  readonly name: string;
  /** Sees and changes all applications. */
  readonly isRoot: boolean;
}

/** What is known of a request before its body is read. */
export interface AdminRequest {
  readonly headers: IncomingHttpHeaders;
  /** Absent where it is not known, or is this machine. */
  readonly address: string | undefined;
  /** Between the browser and the first of our machines. */
  readonly isSecure: boolean;
}

/** Which users there are, and how they prove who they are. */
export interface LoginMethod {
  /**
   * Absent: users prove themselves elsewhere, and have no password here.
   * @param beforeWork called before work that costs, which may come after a while; what it throws
   *   is the answer
   * @throws Refusal unavailable when there is too much to do
   */
  checkPassword?(name: string, password: string, beforeWork?: () => void): Promise<boolean>;
  /**
   * A secret or fact that sessions of this user are bound to: they end when it changes.
   * undefined: there is no such user.
   */
  binding(name: string): Promise<string | undefined>;
}

interface Options {
  readonly method: LoginMethod;
  readonly rootAdmins: readonly string[];
  /** Or how to get it, when it is first needed. */
  readonly sessionKey: string | (() => Promise<string>);
  readonly sessionMs: number;
  /** Where all nodes learn of a session that has ended. */
  readonly store: Pick<Store, "endSession" | "isSessionEnded">;
  /** Told of each failed login. Not of the name: people type passwords there by mistake. */
  readonly onFailure?: (failure: { address: string | undefined }) => void;
}

const sessionCookie = "pandapush_session";
/** Longer user names do not log in: a browser would not keep the cookie. */
export const maxNameLength = 255;

export class AdminAuth {
  private readonly failures = new FailedLogins();

  constructor(private readonly options: Options) {}

  /** Whether users log in with a password, in a form or as Basic credentials. */
  get takesPasswords(): boolean {
    return this.options.method.checkPassword !== undefined;
  }

  get sessionMs(): number {
    return this.options.sessionMs;
  }

  /**
   * Who sent the request, by its session or its Basic credentials.
   *
   * @returns undefined: nobody that says so
   * @throws Refusal loginFailed or tooManyLogins, for Basic credentials
   */
  async identify(request: AdminRequest): Promise<AdminUser | undefined> {
    for (const value of readCookies(request.headers.cookie, sessionCookie)) {
      const session = await this.readSession(value);
      if (session !== undefined) return this.toUser(session.name);
    }
    // Where there are no passwords, they are meant for a proxy before us.
    if (!this.takesPasswords) return undefined;
    // A picture of another site's page would count as a failed login.
    if (isCrossSite(request)) return undefined;
    const basic = readBasic(request.headers.authorization);
    return basic && this.check(basic.name, basic.password, request);
  }

  /**
   * Begins a session.
   *
   * @returns the user, and the `Set-Cookie` header that is the session
   * @throws Refusal loginFailed or tooManyLogins
   */
  async logIn(
    name: string,
    password: string,
    request: AdminRequest,
  ): Promise<{ user: AdminUser; cookie: string }> {
    const user = await this.check(name, password, request);
    return { user, cookie: await this.beginSession(name, request) };
  }

  /** The `Set-Cookie` header of a session, for a user who has proved to be one. */
  async beginSession(name: string, { isSecure }: Pick<AdminRequest, "isSecure">): Promise<string> {
    const binding = await this.options.method.binding(name);
    if (binding === undefined) throw new Refusal("loginFailed");
    const { sessionMs } = this.options;
    const id = randomBytes(16).toString("base64url");
    const content = Buffer.from(JSON.stringify([name, Date.now() + sessionMs, id]));
    const payload = content.toString("base64url");
    const signature = await this.sign(payload, binding);
    const value = `${payload}.${signature.toString("base64url")}`;
    return setCookie(sessionCookie, value, { path: "/admin", maxAgeMs: sessionMs, isSecure });
  }

  /**
   * Ends the request's session at all nodes, also where its cookie was copied to.
   *
   * @returns the `Set-Cookie` header that ends it in the browser
   * @throws Refusal unavailable when it may hold still
   */
  async endSession({ headers, isSecure }: AdminRequest): Promise<string> {
    for (const value of readCookies(headers.cookie, sessionCookie)) {
      const session = await this.readSession(value);
      if (session === undefined) continue;
      const { id, expiresAt } = session;
      await orUnavailable(this.options.store.endSession(id, new Date(expiresAt)));
    }
    return setCookie(sessionCookie, "", { path: "/admin", maxAgeMs: 0, isSecure });
  }

  /** @throws Refusal tooManyLogins */
  requireTries({ address }: AdminRequest): void {
    const leftMs = this.failures.lockedMs(address);
    if (leftMs > 0) throw new TooManyLogins(leftMs);
  }

  /** Counts a login that failed, against its address. */
  countFailure({ address }: AdminRequest): void {
    this.failures.count(address);
    this.options.onFailure?.({ address });
  }

  private async check(name: string, password: string, request: AdminRequest): Promise<AdminUser> {
    const { method } = this.options;
    this.requireTries(request);
    const mayTry = () => this.requireTries(request);
    const isRight =
      name.length <= maxNameLength && (await method.checkPassword?.(name, password, mayTry));
    if (isRight !== true) {
      this.countFailure(request);
      throw this.takesPasswords
        ? new Refusal("loginFailed")
        : new Refusal("loginFailed", [], "There are no passwords here: sign in at /admin.");
    }
    return this.toUser(name);
  }

  /** @returns undefined when it does not hold (any more) */
  private async readSession(value: string): Promise<Session | undefined> {
    const [payload = "", signature = ""] = value.split(".");
    const session = parseSession(payload);
    if (session === undefined || Date.now() >= session.expiresAt) return undefined;
    const binding = await this.options.method.binding(session.name);
    if (binding === undefined || !isCanonical(signature)) return undefined;
    const expected = await this.sign(payload, binding);
    const given = Buffer.from(signature, "base64url");
    if (given.length !== expected.length || !timingSafeEqual(given, expected)) return undefined;
    const isEnded = await orUnavailable(this.options.store.isSessionEnded(session.id));
    return isEnded ? undefined : session;
  }

  /** The binding is signed and not sent: nobody can guess at a password that is in it. */
  private async sign(payload: string, binding: string): Promise<Buffer> {
    const { sessionKey } = this.options;
    const key = typeof sessionKey === "string" ? sessionKey : await sessionKey();
    return createHmac("sha256", key).update(`${payload}.${binding}`).digest();
  }

  private toUser(name: string): AdminUser {
    return { name, isRoot: this.options.rootAdmins.includes(name) };
  }
}

/**
 * What the store answers to who logs in.
 * @throws Refusal unavailable when it cannot answer
 */
export async function orUnavailable<T>(answer: Promise<T>): Promise<T> {
  try {
    return await answer;
  } catch (error) {
    throw error instanceof StorageUnavailable ? new Refusal("unavailable") : error;
  }
}

/**
 * Gets the key that signs sessions, the same for all nodes of this database. The database may be
 * down: then the promise is rejected with Refusal `unavailable`, and the next call asks it again.
 */
export function sharedSessionKey(store: Store): () => Promise<string> {
  let key: string | undefined;
  return async () => {
    const proposed = randomBytes(32).toString("base64url");
    key ??= await orUnavailable(store.addSetting("session.key", proposed));
    return key;
  };
}

/**
 * Whether a browser sends this request for a page of another site. It would add the session's
 * cookie, or the Basic credentials that it remembers, by itself. What is no browser says nothing.
 *
 * Fetch Metadata: `none` is a person's doing, such as a bookmark. Where a browser does not send
 * it (to plain HTTP, for one) it still sends `Origin` with whatever can change something. Whoever
 * is on the way can write a page that came by plain HTTP, so for one that came by TLS it is of
 * another site; the other way round it may be a proxy that does TLS and does not say so.
 */
export function isCrossSite({
  headers,
  isSecure,
}: Pick<AdminRequest, "headers" | "isSecure">): boolean {
  const site = headers["sec-fetch-site"];
  if (site !== undefined) return site !== "same-origin" && site !== "none";
  const { origin } = headers;
  if (origin === undefined) return false;
  if (!URL.canParse(origin)) return true;
  const { host, protocol } = new URL(origin);
  if (protocol !== "https:" && (isSecure || protocol !== "http:")) return true;
  return host !== headers.host && host !== headers["x-forwarded-host"];
}

interface Session {
  readonly name: string;
  /** ms since 1970 */
  readonly expiresAt: number;
  readonly id: string;
}

function parseSession(payload: string): Session | undefined {
  let value: unknown;
  try {
    value = JSON.parse(Buffer.from(payload, "base64url").toString());
  } catch {
    // Whatever it is, we did not write it.
    return undefined;
  }
  if (!Array.isArray(value)) return undefined;
  const [name, expiresAt, id] = value as unknown[];
  return typeof name === "string" && typeof expiresAt === "number" && typeof id === "string"
    ? { name, expiresAt, id }
    : undefined;
}

/** All values of this name: another page of the domain may have set one beside ours. */
export function readCookies(header: string | undefined, name: string): string[] {
  if (header === undefined) return [];
  return header
    .split(";")
    .map((pair) => pair.trim())
    .filter((pair) => pair.startsWith(`${name}=`))
    .map((pair) => pair.slice(name.length + 1));
}

/** A `Set-Cookie` header, for a cookie that no script and no request of another site gets. */
export function setCookie(
  name: string,
  value: string,
  { path, maxAgeMs, isSecure }: { path: string; maxAgeMs: number; isSecure: boolean },
): string {
  const secure = isSecure ? "; Secure" : "";
  return `${name}=${value}; Path=${path}; Max-Age=${Math.floor(maxAgeMs / 1000)}; HttpOnly; SameSite=Lax${secure}`;
}

/** RFC 7617, section 2: the name holds no colon, the password may. */
function readBasic(header: string | undefined): { name: string; password: string } | undefined {
  const value = /^basic +([A-Za-z0-9+/]+={0,2})$/i.exec(header?.trim() ?? "")?.[1];
  if (value === undefined) return undefined;
  const text = Buffer.from(value, "base64").toString("utf8");
  const colon = text.indexOf(":");
  return colon === -1 ? undefined : { name: text.slice(0, colon), password: text.slice(colon + 1) };
}

/** How many logins may fail, from one network (see `networkOf`) and in this time. */
const maxFailures = 10;
const failureWindowMs = 5 * 60_000;
const maxNetworks = 10_000;

/** A login that succeeds changes nothing: it may be somebody else's, behind the same address. */
class FailedLogins {
  private readonly networks = new Map<string, { count: number; readonly until: number }>();

  /** For how long logins from there are refused; 0: they are not. */
  lockedMs(address = "this machine"): number {
    const known = this.networks.get(networkOf(address));
    if (known === undefined || known.count < maxFailures) return 0;
    return Math.max(known.until - performance.now(), 0);
  }

  count(address = "this machine"): void {
    const now = performance.now();
    const network = networkOf(address);
    const known = this.networks.get(network);
    if (known !== undefined && now < known.until) {
      known.count++;
      return;
    }
    this.networks.delete(network);
    this.networks.set(network, { count: 1, until: now + failureWindowMs });
    if (this.networks.size > maxNetworks) this.forgetOldest();
  }

  private forgetOldest(): void {
    for (const network of this.networks.keys()) {
      this.networks.delete(network);
      return;
    }
  }
}
