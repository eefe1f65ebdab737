/** Who an admin is: sessions in signed cookies, Basic credentials, and what keeps strangers out. */
import { createHmac, randomBytes, timingSafeEqual } from "node:crypto";
import type { IncomingHttpHeaders } from "node:http";
import { Refusal } from "../errors.js";
import { StorageUnavailable, type Store } from "../storage/store.js";

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
  /** Absent: users prove themselves elsewhere, and have no password here. */
  checkPassword?(name: string, password: string): Promise<boolean>;
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
      const name = await this.readSession(value);
      if (name !== undefined) return this.toUser(name);
    }
    // Where there are no passwords, they are meant for a proxy before us.
    if (!this.takesPasswords) return undefined;
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
    const content = Buffer.from(JSON.stringify([name, Date.now() + sessionMs]));
    const payload = content.toString("base64url");
    const signature = await this.sign(payload, binding);
    const value = `${payload}.${signature.toString("base64url")}`;
    return setCookie(sessionCookie, value, { path: "/admin", maxAgeMs: sessionMs, isSecure });
  }

  /** The `Set-Cookie` header that ends a session in the browser. */
  endSession({ isSecure }: AdminRequest): string {
    return setCookie(sessionCookie, "", { path: "/admin", maxAgeMs: 0, isSecure });
  }

  /** @throws Refusal tooManyLogins */
  requireTries({ address }: AdminRequest): void {
    if (this.failures.isOver(address)) throw new Refusal("tooManyLogins");
  }

  /** Counts a login that failed, against its address. */
  countFailure({ address }: AdminRequest): void {
    this.failures.count(address);
    this.options.onFailure?.({ address });
  }

  private async check(name: string, password: string, request: AdminRequest): Promise<AdminUser> {
    const { method } = this.options;
    this.requireTries(request);
    const isRight = name.length <= maxNameLength && (await method.checkPassword?.(name, password));
    if (isRight !== true) {
      this.countFailure(request);
      throw this.takesPasswords
        ? new Refusal("loginFailed")
        : new Refusal("loginFailed", [], "There are no passwords here: sign in at /admin.");
    }
    return this.toUser(name);
  }

  /** @returns the name of the session's user; undefined when it does not hold (any more) */
  private async readSession(value: string): Promise<string | undefined> {
    const [payload = "", signature = ""] = value.split(".");
    const session = parseSession(payload);
    if (session === undefined || Date.now() >= session.expiresAt) return undefined;
    const binding = await this.options.method.binding(session.name);
    if (binding === undefined) return undefined;
    const expected = await this.sign(payload, binding);
    const given = Buffer.from(signature, "base64url");
    const holds = given.length === expected.length && timingSafeEqual(given, expected);
    return holds ? session.name : undefined;
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
 * it (to plain HTTP, for one) it still sends `Origin` with whatever can change something.
 */
export function isCrossSite(headers: IncomingHttpHeaders): boolean {
  const site = headers["sec-fetch-site"];
  if (site !== undefined) return site !== "same-origin" && site !== "none";
  const { origin } = headers;
  if (origin === undefined) return false;
  if (!URL.canParse(origin)) return true;
  const { host } = new URL(origin);
  return host !== headers.host && host !== headers["x-forwarded-host"];
}

function parseSession(payload: string): { name: string; expiresAt: number } | undefined {
  let value: unknown;
  try {
    value = JSON.parse(Buffer.from(payload, "base64url").toString());
  } catch {
    // Whatever it is, we did not write it.
    return undefined;
  }
  if (!Array.isArray(value)) return undefined;
  const [name, expiresAt] = value as unknown[];
  return typeof name === "string" && typeof expiresAt === "number"
    ? { name, expiresAt }
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

/** How many logins may fail, from one address and in this time. */
const maxFailures = 10;
const failureWindowMs = 5 * 60_000;
const maxAddresses = 10_000;

/** A login that succeeds changes nothing: it may be somebody else's, behind the same address. */
class FailedLogins {
  private readonly addresses = new Map<string, { count: number; readonly until: number }>();

  isOver(address = "this machine"): boolean {
    const known = this.addresses.get(address);
    return known !== undefined && known.count >= maxFailures && performance.now() < known.until;
  }

  count(address = "this machine"): void {
    const now = performance.now();
    const known = this.addresses.get(address);
    if (known !== undefined && now < known.until) {
      known.count++;
      return;
    }
    this.addresses.delete(address);
    this.addresses.set(address, { count: 1, until: now + failureWindowMs });
    if (this.addresses.size > maxAddresses) this.forgetOldest();
  }

  private forgetOldest(): void {
    for (const address of this.addresses.keys()) {
      this.addresses.delete(address);
      return;
    }
  }
}
