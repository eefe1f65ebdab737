/**
 * Users who prove themselves at an OpenID provider: OpenID Connect Core 1.0, section 3.1, with
 * PKCE (RFC 7636).
 */
import { createHmac, randomBytes, timingSafeEqual } from "node:crypto";
import * as client from "openid-client";
import { Refusal } from "../errors.js";
import {
  type AdminRequest,
  type LoginMethod,
  maxNameLength,
  readCookies,
  setCookie,
} from "./admin.js";

export interface Provider {
  /** What people call it. */
  readonly name: string;
  /** What the names of its variables begin with, for messages to operators. */
  readonly variables: string;
  readonly issuer: string;
  readonly clientId: string;
  readonly clientSecret: string;
  readonly redirectUri: string;
  readonly scopes: string;
  readonly usernameClaim: string;
  /** The domain that is cut off user names; `*`: every domain. */
  readonly stripDomain?: string;
  /** Domains and addresses in lower case; absent: everybody whom the provider lets in. */
  readonly allowed?: readonly string[];
  /** Where the provider sends a browser after a logout; absent: it decides. */
  readonly afterLogout?: string;
}

interface Options {
  /**
   * Or how to get it, when it is first needed. The same on all nodes: a login may begin at one and
   * end at another.
   */
  readonly key: string | (() => Promise<string>);
  /** Told why the provider could not be used; never a secret, a code or a token. */
  readonly report: (
    problem: string,
    fields: { readonly issuer: string; readonly reason: string },
  ) => void;
}

/** A login that is under way in this browser. */
export interface Attempt {
  readonly state: string;
  /** What the browser asked for when it was sent to log in. */
  readonly returnTo: string;
}

const attemptCookie = "pandapush_login_";
/** For typing a password and finding a phone. */
const attemptMs = 10 * 60_000;
/** What one answer of the provider may take. */
const answerSeconds = 10;
/** How far its clock may be from ours. */
const toleratedSeconds = 60;
/** What is known of a provider is used on while it is asked again. */
const knownForMs = 60 * 60_000;
const maxTextLength = 300;

export class OidcLogin implements LoginMethod {
  readonly name: string;
  /** The path of the redirect URI. */
  readonly callbackPath: string;
  private readonly redirectUri: URL;
  private known: { readonly configuration: client.Configuration; readonly at: number } | undefined;
  private asking: Promise<client.Configuration> | undefined;

  constructor(
    private readonly provider: Provider,
    private readonly options: Options,
  ) {
    this.name = provider.name;
    this.redirectUri = new URL(provider.redirectUri);
    this.callbackPath = this.redirectUri.pathname;
  }

  /** Everybody with a session has proved to be a user; it ends when the rules of that change. */
  async binding(): Promise<string> {
    const { issuer, clientId, usernameClaim, stripDomain, allowed } = this.provider;
    return JSON.stringify([issuer, clientId, usernameClaim, stripDomain, allowed]);
  }

  /** Cookies need TLS where the browser comes back by TLS, whatever a proxy tells of it. */
  isSecure({ isSecure }: Pick<AdminRequest, "isSecure">): boolean {
    return isSecure || this.redirectUri.protocol === "https:";
  }

  /**
   * Asks the provider what it is, so that an operator learns of a fault when the server starts.
   * It is asked again by whoever logs in.
   */
  async prepare(): Promise<void> {
    await this.configurationIfAny();
  }

  /**
   * Begins a login.
   *
   * @param returnTo where the browser goes afterwards
   * @param isAgain the provider asks its user to log in even if it knows one
   * @returns where the browser has to go, and a cookie: any number of logins can be under way
   * @throws Refusal providerDown or providerFault
   */
  async begin(
    returnTo: string,
    isAgain: boolean,
    request: AdminRequest,
  ): Promise<{ url: string; cookie: string }> {
    const state = randomBytes(16).toString("base64url");
    const url = await this.ask(async (configuration) =>
      client.buildAuthorizationUrl(configuration, {
        redirect_uri: this.redirectUri.href,
        scope: this.provider.scopes,
        state,
        nonce: await this.derive("nonce", state),
        code_challenge: await client.calculatePKCECodeChallenge(
          await this.derive("verifier", state),
        ),
        code_challenge_method: "S256",
        ...(isAgain ? { prompt: "login" } : {}),
      }),
    );
    const content = Buffer.from(JSON.stringify([returnTo, Date.now() + attemptMs]));
    const payload = content.toString("base64url");
    const value = `${payload}.${await this.sign(payload, state)}`;
    return { url: url.href, cookie: this.attemptCookie(state, value, attemptMs, request) };
  }

  /**
   * The login that a browser comes back from.
   *
   * @param search the query that the provider gave it
   * @returns undefined: it did not begin in this browser, is too old, or has ended
   */
  async resume(search: string, { headers }: AdminRequest): Promise<Attempt | undefined> {
    const state = new URLSearchParams(search).get("state") ?? "";
    if (!/^[\w-]{22}$/.test(state)) return undefined;
    for (const value of readCookies(headers.cookie, attemptCookie + state)) {
      const [payload = "", signature = ""] = value.split(".");
      const expected = Buffer.from(await this.sign(payload, state));
      const given = Buffer.from(signature);
      if (given.length !== expected.length || !timingSafeEqual(given, expected)) continue;
      // We wrote it: only we can have signed it.
      const [returnTo, end] = JSON.parse(Buffer.from(payload, "base64url").toString()) as [
        string,
        number,
      ];
      if (Date.now() < end) return { state, returnTo };
    }
    return undefined;
  }

  /** The `Set-Cookie` header after which the login cannot be resumed. */
  endAttempt({ state }: Attempt, request: AdminRequest): string {
    return this.attemptCookie(state, "", 0, request);
  }

  /**
   * Asks the provider who has logged in.
   *
   * @returns the user's name, and what the provider wants to see at a logout
   * @throws Refusal loginDenied, loginOver, providerDown or providerFault
   */
  async complete({ state }: Attempt, search: string): Promise<{ name: string; idToken: string }> {
    // As it is registered, whatever a proxy made of the address.
    const url = new URL(this.redirectUri);
    url.search = search;
    return this.ask(async (configuration) => {
      const tokens = await client.authorizationCodeGrant(configuration, url, {
        expectedState: state,
        expectedNonce: await this.derive("nonce", state),
        pkceCodeVerifier: await this.derive("verifier", state),
        idTokenExpected: true,
      });
      const claims = await this.claimsOf(configuration, tokens);
      return { name: this.toName(claims), idToken: tokens.id_token ?? "" };
    });
  }

  /** Where a browser logs out at the provider; undefined where it cannot. */
  async logoutUrl(idToken: string | undefined): Promise<string | undefined> {
    const { afterLogout } = this.provider;
    const configuration = await this.configurationIfAny();
    if (configuration?.serverMetadata().end_session_endpoint === undefined) return undefined;
    return client.buildEndSessionUrl(configuration, {
      ...(idToken === undefined ? {} : { id_token_hint: idToken }),
      ...(afterLogout === undefined ? {} : { post_logout_redirect_uri: afterLogout }),
    }).href;
  }

  /** A secret of this login that no node has to remember. 43 characters, as PKCE wants at least. */
  private async derive(purpose: string, state: string): Promise<string> {
    const { key: given } = this.options;
    const shared = typeof given === "string" ? given : await given();
    const key = createHmac("sha256", shared).update("login at a provider").digest();
    return createHmac("sha256", key).update(`${purpose} ${state}`).digest("base64url");
  }

  /** The nonce is no secret: it must not be the signature of anything. */
  private sign(payload: string, state: string): Promise<string> {
    return this.derive(`cookie ${payload}`, state);
  }

  private attemptCookie(
    state: string,
    value: string,
    maxAgeMs: number,
    request: AdminRequest,
  ): string {
    const isSecure = this.isSecure(request);
    return setCookie(attemptCookie + state, value, { path: this.callbackPath, maxAgeMs, isSecure });
  }

  /** @throws Refusal for whatever the provider does */
  private async ask<T>(work: (configuration: client.Configuration) => Promise<T>): Promise<T> {
    try {
      return await work(await this.configuration());
    } catch (error) {
      throw this.refusalOf(error);
    }
  }

  /** @throws Refusal */
  private async configuration(): Promise<client.Configuration> {
    if (this.known === undefined) return this.discover();
    if (performance.now() - this.known.at > knownForMs) void this.discover().catch(reported);
    return this.known.configuration;
  }

  private configurationIfAny(): Promise<client.Configuration | undefined> {
    return this.configuration().catch(reported);
  }

  /** One question at a time, however many wait for its answer. */
  private discover(): Promise<client.Configuration> {
    const { issuer, clientId, clientSecret } = this.provider;
    this.asking ??= client
      .discovery(
        new URL(issuer),
        clientId,
        { [client.clockTolerance]: toleratedSeconds },
        authenticateWith(clientSecret),
        {
          timeout: answerSeconds,
          ...(issuer.startsWith("http:") ? { execute: [client.allowInsecureRequests] } : {}),
        },
      )
      .then((configuration) => {
        this.known = { configuration, at: performance.now() };
        return configuration;
      })
      .catch((error: unknown) => {
        throw this.refusalOf(error);
      })
      .finally(() => {
        this.asking = undefined;
      });
    return this.asking;
  }

  /** Many providers tell only who it is in the ID token, and the rest when they are asked. */
  private async claimsOf(
    configuration: client.Configuration,
    tokens: client.TokenEndpointResponse & client.TokenEndpointResponseHelpers,
  ): Promise<Claims> {
    const claims: Claims = tokens.claims() ?? {};
    const { usernameClaim, allowed } = this.provider;
    const needed = [usernameClaim, ...(allowed === undefined ? [] : ["email"])];
    if (needed.includes("email")) needed.push("email_verified");
    const isComplete = needed.every((name) => claims[name] !== undefined);
    if (isComplete || configuration.serverMetadata().userinfo_endpoint === undefined) return claims;
    const subject = typeof claims.sub === "string" ? claims.sub : "";
    const said: Claims = await client.fetchUserInfo(configuration, tokens.access_token, subject);
    return { ...said, ...claims, ...emailOf(hasEmail(claims) ? claims : said) };
  }

  /** @throws Refusal loginDenied, for a user without a name and for one who is not allowed */
  private toName(claims: Claims): string {
    const { name: provider, usernameClaim, stripDomain, allowed } = this.provider;
    const email = verifiedEmail(claims);
    if (usernameClaim === "email" || allowed !== undefined) {
      if (email === undefined) {
        throw denied(`${provider} does not say that you have a verified e-mail address.`);
      }
      if (allowed !== undefined && !isAllowed(email, allowed)) {
        throw denied(`${email} is not among those who may sign in here.`);
      }
    }
    const name = usernameClaim === "email" ? email : claims[usernameClaim];
    if (typeof name !== "string" || name === "") {
      throw denied(`${provider} does not tell your user name (the claim ${usernameClaim}).`);
    }
    const stripped = withoutDomain(name, stripDomain);
    if (!/^\P{Cc}+$/u.test(stripped) || stripped.length > maxNameLength) {
      throw denied(`Your user name at ${provider} cannot be one here.`);
    }
    return stripped;
  }

  /** What to tell the user; what went wrong is reported. */
  private refusalOf(error: unknown): Refusal {
    if (error instanceof Refusal) return error;
    const { name, variables } = this.provider;
    const fault = describeFault(error);
    if (fault.kind === "denied") {
      return denied(
        fault.text === "" ? `${name} did not let you in here.` : `${name} says: ${fault.text}`,
      );
    }
    if (fault.kind === "over") return new Refusal("loginOver");
    this.options.report(`login with ${name} is not possible`, {
      issuer: this.provider.issuer,
      reason: fault.text,
    });
    if (fault.kind === "down") {
      const help = `${name} cannot be reached from this server. Try again in a moment. Who is signed in already can go on.`;
      return new Refusal("providerDown", [], help);
    }
    const causes = {
      client: `${name} does not know this server: ${variables}_CLIENT_ID or ${variables}_CLIENT_SECRET is wrong.`,
      issuer: `No OpenID provider of that name answers at ${variables}_ISSUER.`,
      clock: `The clocks of this server and of ${name} differ by more than a minute.`,
      other: `${name} answered something that this server does not understand.`,
    };
    const help = `${causes[fault.kind]} Somebody who runs this server has to mend it; its log has more.`;
    return new Refusal("providerFault", [], help);
  }
}

/** For a Refusal that nobody waits for: its reason is in the log. */
function reported(): undefined {
  return undefined;
}

type Claims = Readonly<Record<string, unknown>>;

function denied(help: string): Refusal {
  return new Refusal("loginDenied", [], help);
}

/** What is verified is the address that stands beside it, not one that was told elsewhere. */
function hasEmail({ email, email_verified }: Claims): boolean {
  return email !== undefined && email_verified !== undefined;
}

function emailOf({ email, email_verified }: Claims): Claims {
  return { email, email_verified };
}

/** In lower case, as mail servers see it; but for letters that only look so, such as a Kelvin sign. */
function verifiedEmail({ email, email_verified: verified }: Claims): string | undefined {
  // Some providers write a text.
  const isVerified = verified === true || verified === "true";
  return isVerified && typeof email === "string" ? lowerCase(email) : undefined;
}

function lowerCase(text: string): string {
  return text.replace(/[A-Z]/g, (letter) => letter.toLowerCase());
}

function isAllowed(email: string, allowed: readonly string[]): boolean {
  return allowed.some((item) => email === item || email.endsWith(`@${item}`));
}

function withoutDomain(name: string, domain: string | undefined): string {
  const at = name.lastIndexOf("@");
  if (at < 1 || domain === undefined) return name;
  const isCut = domain === "*" || lowerCase(name.slice(at + 1)) === domain;
  return isCut ? name.slice(0, at) : name;
}

/** As OpenID Connect Core 1.0, section 9, wants it by default, where the provider takes that. */
function authenticateWith(secret: string): client.ClientAuth {
  const basic = client.ClientSecretBasic(secret);
  const post = client.ClientSecretPost(secret);
  return (server, ...rest) => {
    const taken = server.token_endpoint_auth_methods_supported ?? ["client_secret_basic"];
    return (taken.includes("client_secret_basic") ? basic : post)(server, ...rest);
  };
}

interface Fault {
  readonly kind: "denied" | "over" | "down" | "client" | "issuer" | "clock" | "other";
  /** For the log, and for a user who was denied. */
  readonly text: string;
}

/** Never shows what was sent: only the provider's own words and the library's. */
function describeFault(error: unknown): Fault {
  if (error instanceof client.AuthorizationResponseError) return describeOAuthError(error, 400);
  if (error instanceof client.ResponseBodyError) return describeOAuthError(error, error.status);
  if (error instanceof client.WWWAuthenticateChallengeError) {
    const kind = error.status === 401 ? "client" : "other";
    return { kind, text: `the provider answered ${error.status}` };
  }
  const { code = "", message, cause } = error as Error & { code?: string };
  const status = cause instanceof Response ? cause.status : undefined;
  const text = status === undefined ? message : `the provider answered ${status}`;
  if (error instanceof TypeError && message === "fetch failed") {
    const { code: reason, message: said } = (cause ?? {}) as { code?: string; message?: string };
    return { kind: "down", text: reason ?? said ?? message };
  }
  if (code === "OAUTH_TIMEOUT" || (status ?? 0) >= 500) return { kind: "down", text };
  if (code === "OAUTH_JWT_TIMESTAMP_CHECK_FAILED") return { kind: "clock", text };
  const metadata = cause as { attribute?: string; body?: { issuer?: string } } | undefined;
  if (metadata?.attribute === "issuer") {
    return { kind: "issuer", text: `${text}: it calls itself ${metadata.body?.issuer}` };
  }
  return { kind: status === 404 ? "issuer" : "other", text };
}

/** RFC 6749, sections 4.1.2.1 and 5.2; OpenID Connect Core 1.0, section 3.1.2.6. */
function describeOAuthError(
  { error, error_description: description }: { error: string; error_description?: string },
  status: number,
): Fault {
  const said = (description ?? "").slice(0, maxTextLength);
  const text = said === "" ? error : `${error}: ${said}`;
  switch (error) {
    case "access_denied":
    case "login_required":
    case "consent_required":
    case "interaction_required":
    case "account_selection_required":
      return { kind: "denied", text: said };
    case "invalid_grant":
      return { kind: "over", text };
    case "invalid_client":
    case "unauthorized_client":
      return { kind: "client", text };
    case "server_error":
    case "temporarily_unavailable":
      return { kind: "down", text };
    default:
      return { kind: status >= 500 ? "down" : "other", text };
  }
}
