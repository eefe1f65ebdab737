/**
 * Every error that a client can see: one catalogue, one mapping to Bayeux, HTTP and close codes.
 * Nothing else writes a wire error. `docs/errors.md` is generated from here.
 */

interface ErrorKind {
  /** The text on the wire. `{0}` stands for the first parameter. Old clients match these texts. */
  readonly text: string;
  /** Bayeux 1.0 "error" code; without one the bare text is sent, as Pandapush 2.2 did. */
  readonly bayeuxCode?: number;
  readonly http: number;
  /** What a person can do about it; sent as `ext.detail` and as REST `details`. */
  readonly help: string;
  /** Whether the same request can succeed later. */
  readonly retry: "no" | "later" | "after a new handshake";
}

export const catalogue = {
  // Bayeux errors, "code:params:text"
  connectionTypes: {
    text: "Connection types not supported",
    bayeuxCode: 301,
    http: 400,
    help: "Use one of: long-polling, cross-origin-long-polling, callback-polling, websocket, eventsource.",
    retry: "no",
  },
  badRequest: {
    text: "Bad request",
    bayeuxCode: 400,
    http: 400,
    help: "A request is one JSON message object or an array of them.",
    retry: "no",
  },
  unknownClient: {
    text: "Unknown client",
    bayeuxCode: 401,
    http: 401,
    help: "The session has ended or never existed; send /meta/handshake for a new clientId.",
    retry: "after a new handshake",
  },
  missingParameter: {
    text: "Missing required parameter",
    bayeuxCode: 402,
    http: 400,
    help: "The message lacks a field that its channel requires.",
    retry: "no",
  },
  forbiddenChannel: {
    text: "Forbidden channel",
    bayeuxCode: 403,
    http: 403,
    help: "This channel belongs to the protocol and is not open to clients.",
    retry: "no",
  },
  invalidChannel: {
    text: "Invalid channel",
    bayeuxCode: 405,
    http: 400,
    help: "A channel is /<applicationId>/<public|private|presence|meta>/…; segments hold letters, digits, - _ ~. A wildcard can only be subscribed to.",
    retry: "no",
  },
  internal: {
    text: "Internal server error",
    bayeuxCode: 500,
    http: 500,
    help: "The server failed; its log has the cause.",
    retry: "later",
  },
  unavailable: {
    text: "Service unavailable",
    bayeuxCode: 503,
    http: 503,
    help: "The server cannot answer this at the moment; try again in a few seconds.",
    retry: "later",
  },
  brokerUnavailable: {
    text: "Broker unavailable",
    bayeuxCode: 503,
    http: 503,
    help: "What connects the servers with each other does not answer at the moment; try again in a few seconds.",
    retry: "later",
  },
  busy: {
    text: "Application is busy",
    bayeuxCode: 503,
    http: 503,
    help: "More is being published in this application than its subscribers can be sent; publish more slowly.",
    retry: "later",
  },
  // Refusals of Pandapush, bare texts
  invalidChannelName: {
    text: "Invalid channel name",
    http: 400,
    help: "A channel is /<applicationId>/<public|private|presence|meta>/…; segments hold letters, digits, - _ ~; a pattern ends in /* or /**.",
    retry: "no",
  },
  unknownApplication: {
    text: "Unknown application",
    http: 400,
    help: "The first segment of the channel must be the id of an existing application.",
    retry: "no",
  },
  metricsToken: {
    text: "Token required",
    http: 401,
    help: "Send Authorization: Bearer with the METRICS_TOKEN of this server.",
    retry: "no",
  },
  noAuth: {
    text: "No auth supplied",
    http: 400,
    help: "Send a token or a key with its secret in ext.auth, or over REST in the Authorization header.",
    retry: "no",
  },
  invalidToken: {
    text: "Invalid token",
    http: 400,
    help: "The token must be a JWT whose payload has a keyId.",
    retry: "no",
  },
  noTokenOrKey: {
    text: "Auth information does not include token or key",
    http: 400,
    help: 'Auth is {"token":"<jwt>"} or {"key":"<key id>","secret":"<key secret>"}.',
    retry: "no",
  },
  unknownKey: {
    text: "Could not find key",
    http: 400,
    help: "No key with this id belongs to the application of the channel.",
    retry: "no",
  },
  invalidSecret: {
    text: "Invalid secret",
    http: 400,
    help: "The secret is not the one of this key.",
    retry: "no",
  },
  expiredKey: {
    text: "Expired key",
    http: 400,
    help: "The key's time is over; create a new key.",
    retry: "no",
  },
  revokedKey: {
    text: "Revoked key",
    http: 400,
    help: "The key was revoked or deleted; use another key.",
    retry: "no",
  },
  disconnected: {
    text: "Disconnected",
    http: 403,
    help: "An admin or a back end of the application ended what this client was subscribed to; it may subscribe again.",
    retry: "later",
  },
  invalidTokenProvided: {
    text: "Invalid token provided",
    http: 400,
    help: "The token's signature, algorithm (HS256, HS384 or HS512) or time (exp, nbf) does not hold.",
    retry: "no",
  },
  tokenChannel: {
    text: "Token does not match channel",
    http: 400,
    help: "The token's channel claim does not cover this channel.",
    retry: "no",
  },
  tokenSub: {
    text: "Token does not allow subscribing",
    http: 400,
    help: 'The token needs the claim "sub": true.',
    retry: "no",
  },
  tokenPub: {
    text: "Token does not allow publishing",
    http: 400,
    help: 'The token needs the claim "pub": true.',
    retry: "no",
  },
  metaPublish: {
    text: "Cannot publish to a meta channel",
    http: 400,
    help: "Meta channels carry the server's own statistics.",
    retry: "no",
  },
  membershipPublish: {
    text: "Cannot publish presence membership",
    http: 400,
    help: 'On a presence channel a top-level "subscribe" or "unsubscribe" is said by the server only.',
    retry: "no",
  },
  noPresenceId: {
    text: "No presence id specified in presence subscription",
    http: 400,
    help: 'Subscribe with a token whose claim "presence" is an object with an "id".',
    retry: "no",
  },
  // REST
  unauthorized: {
    text: "Unauthorized",
    http: 403,
    help: "Send Authorization: Basic (key id and secret), Token or Bearer (a JWT), or ?token=.",
    retry: "no",
  },
  keyRequired: {
    text: "Unauthorized",
    http: 401,
    help: "Send Authorization: Basic with a key's id and its secret, as curl -u does; tokens are not taken here.",
    retry: "no",
  },
  noSuchChannel: {
    text: "No such channel",
    http: 404,
    help: "Publish with POST /channel/<applicationId>/<public|private|presence>/…; segments hold letters, digits, - _ ~; no wildcard, no slash at the end.",
    retry: "no",
  },
  methodNotAllowed: {
    text: "Method not allowed",
    http: 405,
    help: "Publish with POST. To listen, subscribe over Bayeux at /push.",
    retry: "no",
  },
  unsupportedType: {
    text: "Unsupported content type",
    http: 415,
    help: "Send Content-Type: application/json or application/x-www-form-urlencoded; multipart forms (curl -F) are not taken.",
    retry: "no",
  },
  emptyBody: {
    text: "Empty body",
    http: 400,
    help: "The body is what subscribers receive: any JSON value, or a form with at least one field.",
    retry: "no",
  },
  malformedJson: {
    text: "Malformed JSON",
    http: 400,
    help: "The body must be one JSON value in UTF-8 (RFC 8259).",
    retry: "no",
  },
  malformedForm: {
    text: "Malformed form",
    http: 400,
    help: "A form is name=value pairs joined by &, percent-encoded UTF-8.",
    retry: "no",
  },
  invalidIdempotencyKey: {
    text: "Invalid idempotency key",
    http: 400,
    help: "Idempotency-Key is 1 to 255 visible ASCII characters without spaces, such as a UUID, and is sent once.",
    retry: "no",
  },
  idempotencyConflict: {
    text: "Idempotency key was used for another request",
    http: 422,
    help: "The same Idempotency-Key says that it is the same request: send the same body to the same channel, or another key.",
    retry: "no",
  },
  notFound: {
    text: "Not found",
    http: 404,
    help: "Nothing is here; publish with POST /channel/<applicationId>/<public|private|presence>/…",
    retry: "no",
  },
  // Administration
  notLoggedIn: {
    text: "Unauthorized",
    http: 401,
    help: "Log in, or send Authorization: Basic with an admin's name and password.",
    retry: "no",
  },
  loginFailed: {
    text: "Wrong user name or password",
    http: 401,
    help: "The password is that of ADMIN_PASSWORD where this is set; else the one shown at the first start, and another is made with: npx pandapush admin reset-password",
    retry: "no",
  },
  tooManyLogins: {
    text: "Too many failed logins",
    http: 429,
    help: "Too many logins from this address failed; try again in a few minutes.",
    retry: "later",
  },
  loginOver: {
    text: "This sign-in is over",
    http: 400,
    help: "It took more than ten minutes, was used already, or began in another browser. Sign in again.",
    retry: "no",
  },
  loginDenied: {
    text: "You were not let in",
    http: 403,
    help: "The identity provider did not let you in here.",
    retry: "no",
  },
  providerDown: {
    text: "The identity provider does not answer",
    http: 503,
    help: "Try again in a moment. Who is signed in already can go on.",
    retry: "later",
  },
  providerFault: {
    text: "The identity provider and this server do not get on",
    http: 502,
    help: "Somebody who runs this server has to mend it: its log has the reason.",
    retry: "no",
  },
  crossSite: {
    text: "Cross-site request",
    http: 403,
    help: "A page of another site may change nothing here. Send the request from the console, or from a program.",
    retry: "no",
  },
  consoleClosed: {
    text: "Unauthorized",
    http: 403,
    help: "The console is closed: AUTH_METHOD is none.",
    retry: "no",
  },
  invalidInput: {
    text: "Invalid input",
    http: 422,
    help: "The fields named in params cannot be taken as they are.",
    retry: "no",
  },
  noSuchResource: {
    text: "Not found",
    http: 404,
    help: "It does not exist, or you do not administer it.",
    retry: "no",
  },
  noSuchKey: {
    text: "could not find key",
    http: 404,
    help: "The application has no key with this id.",
    retry: "no",
  },
  cannotRotate: {
    text: "Key cannot be rotated",
    http: 409,
    help: "A key that has expired or was revoked has no use for a new secret, and at most five former secrets count at once.",
    retry: "no",
  },
  // Limits
  tooLarge: {
    text: "Message too large",
    http: 413,
    help: "See MAX_MESSAGE_BYTES.",
    retry: "no",
  },
  batchTooLong: {
    text: "Too many messages in one request",
    http: 413,
    help: "See MAX_BATCH_MESSAGES.",
    retry: "no",
  },
  tooManySubscriptions: {
    text: "Too many subscriptions in this session",
    http: 400,
    help: "See MAX_SUBSCRIPTIONS_PER_SESSION; a pattern can stand for many channels.",
    retry: "no",
  },
  tooManySessions: {
    text: "Too many sessions from this address",
    http: 429,
    help: "See MAX_SESSIONS_PER_ADDRESS, and TRUST_PROXY when the server stands behind a proxy.",
    retry: "later",
  },
  presenceTooLarge: {
    text: "Presence object too large",
    http: 400,
    help: "See MAX_PRESENCE_BYTES.",
    retry: "no",
  },
  presenceFull: {
    text: "Presence channel is full",
    http: 400,
    help: "See MAX_PRESENCE_MEMBERS.",
    retry: "later",
  },
  publishLimit: {
    text: "Publish limit reached",
    bayeuxCode: 429,
    http: 429,
    help: "The application may not publish more in a second. Of the parameters the second is this limit, the third the seconds after which to try again.",
    retry: "later",
  },
  connectionLimit: {
    text: "Connection limit reached",
    bayeuxCode: 429,
    http: 429,
    help: "No more sessions may be subscribed to something in the application. Of the parameters the second is this limit, the third the seconds after which to try again.",
    retry: "later",
  },
  sessionLimit: {
    text: "New session limit reached",
    bayeuxCode: 429,
    http: 429,
    help: "No more sessions may come to the application in a second. Of the parameters the second is this limit, the third the seconds after which to try again.",
    retry: "later",
  },
  messageLimit: {
    text: "Message too large for this application",
    bayeuxCode: 413,
    http: 413,
    help: "The application has a limit of its own on what is published in it. The second parameter is this limit, in bytes.",
    retry: "no",
  },
  draining: {
    text: "Server is shutting down",
    http: 503,
    help: "Connect again in a few seconds.",
    retry: "later",
  },
} as const satisfies Record<string, ErrorKind>;

export type ErrorCode = keyof typeof catalogue;

/** Close codes of WebSocket connections (RFC 6455, section 7.4). */
export const closeCodes = {
  normal: { code: 1000, reason: "" },
  goingAway: { code: 1001, reason: "Server is shutting down" },
  moved: { code: 1001, reason: "The session goes on elsewhere" },
  notUtf8: { code: 1007, reason: "Not UTF-8" },
  slowConsumer: { code: 4008, reason: "Slow consumer" },
  idle: { code: 4009, reason: "Never connected" },
} as const;

/**
 * A refusal that a client is told about. Thrown where the fault is known.
 *
 * It is an `Error` without a stack: one request can cause a thousand refusals, and recording where
 * each was thrown would cost more than all the rest of answering it.
 */
export class Refusal implements Error {
  readonly name = "Refusal";
  readonly message: string;
  /** The key that it was tried with, where that is known; for the application's admins. */
  keyId: string | undefined;

  /**
   * @param params of the Bayeux form `code:param,param:text`
   * @param detail replaces the catalogue's help when more is known about this case; no secrets
   */
  constructor(
    readonly code: ErrorCode,
    readonly params: readonly string[] = [],
    private readonly detail?: string,
  ) {
    this.message = catalogue[code].text;
  }

  get help(): string {
    return this.detail ?? this.usualHelp;
  }

  /** The catalogue's words, which know nothing of this case. */
  get usualHelp(): string {
    return catalogue[this.code].help;
  }

  get http(): number {
    return catalogue[this.code].http;
  }

  get bayeuxCode(): number | null {
    const kind: ErrorKind = catalogue[this.code];
    return kind.bayeuxCode ?? null;
  }

  /** What `Retry-After` says; undefined where trying again does not help. */
  get retryAfterSeconds(): number | undefined {
    return this.http === 503 || this.http === 429 ? 5 : undefined;
  }

  /** The `error` field of a Bayeux reply. */
  toBayeux(): string {
    const code = this.bayeuxCode;
    return code === null ? this.message : `${code}:${this.params.join(",")}:${this.message}`;
  }

  /** The JSON body of a refused REST request. */
  toRest(): { code: number | null; params: readonly string[]; message: string; details: string } {
    return {
      code: this.bayeuxCode,
      params: this.params,
      message: this.message,
      details: this.help,
    };
  }
}

/**
 * A key that may not ask. Where nothing has to be as it was in Pandapush 2.2, its status says what
 * is wrong: 403.
 */
export class KeyRefusal extends Refusal {
  constructor({ code, params, help, keyId }: Refusal) {
    super(code, params, help);
    this.keyId = keyId;
  }

  override get http(): number {
    return 403;
  }
}

/** What an application may do no more of for a while. LIM-11 */
export class LimitReached extends Refusal {
  /** @param detail says what may be done how often, but not when to try again */
  constructor(
    code: "publishLimit" | "connectionLimit" | "sessionLimit",
    channel: string,
    limit: number,
    private readonly seconds: number,
    detail: string,
  ) {
    const when = seconds === 1 ? "a second" : `${seconds} seconds`;
    super(code, [channel, String(limit), String(seconds)], `${detail}; try again in ${when}.`);
  }

  override get retryAfterSeconds(): number {
    return this.seconds;
  }
}

/** Logins that are refused for a while. */
export class TooManyLogins extends Refusal {
  constructor(private readonly leftMs: number) {
    const minutes = Math.ceil(leftMs / 60_000);
    const left = minutes === 1 ? "a minute" : `${minutes} minutes`;
    super("tooManyLogins", [], `Too many logins from your address failed; try again in ${left}.`);
  }

  override get retryAfterSeconds(): number {
    return Math.ceil(this.leftMs / 1000);
  }
}

/** Input that is refused field by field. */
export class InvalidInput extends Refusal {
  /** @param fields the name of each, and what it must be */
  constructor(readonly fields: Readonly<Record<string, string>>) {
    const sentences = Object.entries(fields).map(([name, fault]) => `${name}: ${fault}`);
    super("invalidInput", Object.keys(fields), sentences.join(" · "));
  }

  override toRest() {
    return { ...super.toRest(), fields: this.fields };
  }
}

Object.setPrototypeOf(Refusal.prototype, Error.prototype);
