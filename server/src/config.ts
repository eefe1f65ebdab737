/**
 * Every environment variable: name, type, range, default, meaning. The only reader of
 * `process.env`. `docs/configuration.md` and `.env.example` are generated from here.
 */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import type { AppId, KeyId } from "@pandapush/protocol";
import { parse as parseDotenv } from "dotenv";
import proxyAddr from "proxy-addr";
import { isLoopback } from "./network.js";

/** Bounds of what clients can make the server keep. Bytes, counts and milliseconds. */
export interface Limits {
  readonly messageBytes: number;
  readonly batchMessages: number;
  readonly outboxMessages: number;
  readonly outboxBytes: number;
  readonly socketBufferBytes: number;
  readonly subscriptionsPerSession: number;
  readonly sessionsPerAddress: number;
  readonly unboundSocketsPerAddress: number;
  readonly unboundSocketMs: number;
  readonly presenceBytes: number;
  readonly presenceMembers: number;
  readonly backlogMessages: number;
  readonly backlogBytes: number;
}

export interface Config {
  /** 0: any free port. */
  readonly port: number;
  /** Absent: all interfaces, IPv6 and IPv4. */
  readonly host?: string;
  /** Addresses, CIDR ranges and names that the `proxy-addr` package compiles; empty: trust nobody. */
  readonly trustProxy: readonly string[];
  readonly log: {
    readonly level: LogLevel;
    /** Absent: standard output. */
    readonly file?: {
      readonly path: string;
      /** 0: never. */
      readonly everyMs: number;
      readonly maxBytes: number;
      readonly kept: number;
    };
  };
  readonly bayeux: {
    readonly timeoutMs: number;
    readonly intervalMs: number;
    readonly pingIntervalMs: number;
  };
  readonly statisticsIntervalMs: number;
  readonly drainMs: number;
  readonly cacheTtlMs: number;
  readonly keyStatsIntervalMs: number;
  /** SQLite, or Postgres. */
  readonly database: { readonly path: string } | PostgresConfig;
  /** Absent: this node stands alone. */
  readonly redis?: RedisConfig;
  /** Made at start when it is missing, with one key. */
  readonly devApplication?: {
    readonly appId: AppId;
    readonly keyId: KeyId;
    readonly secret: string;
  };
  readonly admin: AdminConfig;
  /** Of Prometheus. */
  readonly metrics: {
    /** Absent: no port of their own. */
    readonly port?: number;
    /** Where that port listens; absent: as the server's. */
    readonly host?: string;
    /** What whoever asks for them has to show; absent: nothing, and only on their own port. */
    readonly token?: string;
    /** How many have series of their own. */
    readonly applications: number;
  };
  /** Absent: nothing is sent. */
  readonly statsd?: {
    readonly host: string;
    readonly port: number;
    readonly prefix: string;
    readonly intervalMs: number;
  };
  /** For the console, to tell apart and to switch between. */
  readonly deployment: {
    /** What this one is called. */
    readonly environment: string;
    readonly environments: readonly Environment[];
    /** What the deployment calls its version; empty: nothing. */
    readonly commit: string;
  };
  readonly limits: Limits;
}

export interface RedisConfig {
  /** At least one; no two the same. */
  readonly hosts: readonly RedisHostConfig[];
  /** In front of all keys and topics. */
  readonly prefix: string;
}

export interface RedisHostConfig {
  /** A name or an address, without brackets. */
  readonly host: string;
  readonly port: number;
  readonly isTls: boolean;
  readonly username?: string;
  readonly password?: string;
  readonly database: number;
}

const sslModes = ["disable", "prefer", "require", "verify-ca", "verify-full"] as const;

export interface PostgresConfig {
  /** A host, or the folder of a Unix socket. */
  readonly address: string;
  readonly port: number;
  readonly username: string;
  readonly password?: string;
  readonly name: string;
  readonly ssl: (typeof sslModes)[number];
  readonly sslCa?: string;
  readonly poolMax: number;
  readonly timeoutMs: number;
}

export interface AdminConfig {
  readonly method: "basic" | "okta" | "oidc" | "none";
  /** The user of `basic`. */
  readonly username: string;
  /** Absent: generated, and kept hashed in the database. */
  readonly password?: string;
  /** Where users prove themselves with `okta` and `oidc`; absent with the others. */
  readonly provider?: ProviderConfig;
  /** Who sees all applications; the username of `basic` is one of them. */
  readonly rootAdmins: readonly string[];
  /** Signs sessions. Absent: kept in the database. */
  readonly sessionKey?: string;
  readonly sessionMs: number;
}

/** An OpenID provider, and what a user of it is called here. */
export interface ProviderConfig {
  /** What people call it. */
  readonly name: string;
  /** What the names of its variables begin with, for messages to operators. */
  readonly variables: "OKTA" | "OIDC";
  readonly issuer: string;
  readonly clientId: string;
  readonly clientSecret: string;
  readonly redirectUri: string;
  /** Separated by blanks. */
  readonly scopes: string;
  readonly usernameClaim: string;
  /** The domain that is cut off user names; `*`: every domain. Absent: none. */
  readonly stripDomain?: string;
  /** Domains and addresses, in lower case. Absent: everybody whom the provider lets in. */
  readonly allowed?: readonly string[];
  /** Where the provider sends a browser after a logout; absent: it decides. */
  readonly afterLogout?: string;
}

export interface Environment {
  readonly name: string;
  readonly url: string;
}

const logLevels = ["trace", "debug", "info", "warn", "error", "fatal", "silent"] as const;
export type LogLevel = (typeof logLevels)[number];

/** The configuration cannot be used. The message lists every fault, and no secret. */
export class ConfigError extends Error {
  override readonly name = "ConfigError";

  /** @param faults one sentence each: the variable, its value, what is allowed */
  constructor(readonly faults: readonly string[]) {
    super(
      `The configuration has ${faults.length === 1 ? "a fault" : `${faults.length} faults`}:\n${faults
        .map((fault) => `  ${fault}`)
        .join("\n")}`,
    );
  }
}

interface Variable<T> {
  readonly group: string;
  readonly doc: string;
  /** What is allowed, in words: the documentation's column and the end of every fault. */
  readonly allowed: string;
  /** As it would be written in a `.env` file; absent: none. */
  readonly default?: string;
  /** Whether faults must not show it; of a function, whether they must not show this text. */
  readonly isSecret?: boolean | ((text: string) => boolean);
  /** undefined: the text is not allowed. Not called for an unset or empty variable. */
  read(text: string): T | undefined;
  /** Which parts of a text that is not allowed are at fault. */
  faultsIn?(text: string): readonly string[];
}

/** A variable that always has a value. */
type Defaulted<T> = Variable<T> & { readonly default: string };

interface Words {
  readonly group: string;
  readonly doc: string;
}

function integer(
  words: Words,
  range: { default: number; min: number; max: number; unit?: "ms" | "bytes" },
): Defaulted<number> {
  const unit = range.unit === undefined ? "" : { ms: " milliseconds", bytes: " bytes" }[range.unit];
  return {
    ...words,
    allowed: `an integer from ${range.min} to ${range.max}${unit}`,
    default: String(range.default),
    read(text) {
      const value = /^\d{1,15}$/.test(text) ? Number(text) : Number.NaN;
      return value >= range.min && value <= range.max ? value : undefined;
    },
  };
}

/** Without a value unless it is set. */
function optionalInteger(...args: Parameters<typeof integer>): Variable<number> {
  const { default: _default, ...variable } = integer(...args);
  return variable;
}

function oneOf<const T extends string>(
  words: Words,
  values: readonly T[],
  fallback: T,
  note = "",
): Defaulted<T> {
  return {
    ...words,
    allowed:
      values.length === 1 ? `only ${values[0]}${note}` : `one of ${values.join(", ")}${note}`,
    default: fallback,
    read: (text) => values.find((value) => value === text),
  };
}

function text<W extends Words & { allowed: string; default?: string; isSecret?: boolean }>(
  words: W,
): W & Pick<Variable<string>, "read"> {
  return { ...words, read: (value) => value };
}

const network = "Network";
const logging = "Logging";
const timing = "Timing";
const limits = "Limits";
const storage = "Database and keys";
const postgres = "Postgres";
const cluster = "Several nodes";
const monitoring = "Metrics";
const administration = "Administration";
const okta = "Login with Okta";
const oidc = "Login with another OpenID provider";
const development = "Development application";

const day = 86_400_000;
const hour = 3_600_000;
const gibibyte = 1_073_741_824;

/** An id that can stand in a channel, in a Basic authorization header and in the database. */
const idGrammar = /^[A-Za-z0-9_~-]{1,255}$/;
const idAllowed = "1 to 255 letters, digits, - _ ~";

const redisAllowed =
  "a comma-separated list of different hosts, each host:port or redis://user:password@host:port/database (rediss:// for TLS)";

const variables = {
  PORT: integer(
    { group: network, doc: "Port of the HTTP and WebSocket server. 0 takes any free port." },
    { default: 3000, min: 0, max: 65_535 },
  ),
  HOST: text({
    group: network,
    doc: "Address to listen on. Unset: all interfaces, IPv6 and IPv4.",
    allowed: "an IP address or a host name of this machine",
  }),
  TRUST_PROXY: {
    group: network,
    doc: "Proxies whose `X-Forwarded-For` is believed. Unset: nobody's, and a client's address is that of its connection. Limits per address count what this yields.",
    allowed:
      "a comma-separated list of IP addresses, CIDR ranges, and the names loopback, linklocal, uniquelocal",
    read(value: string): readonly string[] | undefined {
      const list = splitList(value);
      try {
        proxyAddr.compile(list);
      } catch (error) {
        if (error instanceof TypeError) return undefined;
        throw error;
      }
      return list;
    },
  } satisfies Variable<readonly string[]>,

  LOG_LEVEL: oneOf({ group: logging, doc: "Least severity that is written." }, logLevels, "info"),
  LOG_PATH: text({
    group: logging,
    doc: "File to append the log to. Unset: standard output.",
    allowed: "a path",
  }),
  LOG_ROTATE: oneOf(
    {
      group: logging,
      doc: "How often a new log file is begun, in UTC; the former ones are called `<path>.0`, the latest, to `<path>.23`.",
    },
    ["hourly", "daily", "never"],
    "hourly",
  ),
  LOG_FILE_BYTES: integer(
    { group: logging, doc: "A new log file is begun at this size, too." },
    { default: 104_857_600, min: 65_536, max: 10_737_418_240, unit: "bytes" },
  ),
  LOG_FILES: integer(
    { group: logging, doc: "How many former log files are kept." },
    { default: 24, min: 1, max: 1_000 },
  ),

  BAYEUX_TIMEOUT_MS: integer(
    {
      group: timing,
      doc: "How long a `/meta/connect` without messages is held before it is answered; told to clients as `advice.timeout`.",
    },
    { default: 30_000, min: 100, max: hour, unit: "ms" },
  ),
  BAYEUX_INTERVAL_MS: integer(
    {
      group: timing,
      doc: "How long a client waits before its next `/meta/connect`; told to clients as `advice.interval`.",
    },
    { default: 0, min: 0, max: hour, unit: "ms" },
  ),
  PING_INTERVAL_MS: integer(
    {
      group: timing,
      doc: "Time between WebSocket pings, by which dead connections are noticed. Keep it below the idle timeout of proxies.",
    },
    { default: 25_000, min: 10, max: hour, unit: "ms" },
  ),
  STATISTICS_INTERVAL_MS: integer(
    { group: timing, doc: "Time between two events on `/<applicationId>/meta/statistics`." },
    { default: 5000, min: 10, max: hour, unit: "ms" },
  ),
  DRAIN_MS: integer(
    {
      group: timing,
      doc: "How long the server takes at most, after SIGTERM, to answer and close what is open.",
    },
    { default: 10_000, min: 0, max: hour, unit: "ms" },
  ),

  MAX_MESSAGE_BYTES: integer(
    {
      group: limits,
      doc: "Largest request body, WebSocket message, or published message.",
    },
    { default: 262_144, min: 1024, max: 67_108_864, unit: "bytes" },
  ),
  MAX_BATCH_MESSAGES: integer(
    { group: limits, doc: "Most Bayeux messages in one request or WebSocket message." },
    { default: 1000, min: 1, max: 1_000_000 },
  ),
  MAX_OUTBOX_MESSAGES: integer(
    {
      group: limits,
      doc: "Most messages that wait for a session between two of its connections or polls.",
    },
    { default: 10_000, min: 1, max: 10_000_000 },
  ),
  MAX_OUTBOX_BYTES: integer(
    { group: limits, doc: "Most bytes that wait for a session, as `MAX_OUTBOX_MESSAGES`." },
    { default: 8_388_608, min: 1024, max: gibibyte, unit: "bytes" },
  ),
  MAX_SOCKET_BUFFER_BYTES: integer(
    {
      group: limits,
      doc: "Bytes written to a connection and not yet taken by the network; above it the client is too slow and its connection is closed.",
    },
    { default: 4_194_304, min: 1024, max: gibibyte, unit: "bytes" },
  ),
  MAX_SUBSCRIPTIONS_PER_SESSION: integer(
    { group: limits, doc: "Most channels and patterns that one session is subscribed to." },
    { default: 2000, min: 1, max: 1_000_000 },
  ),
  MAX_SESSIONS_PER_ADDRESS: integer(
    {
      group: limits,
      doc: "Most sessions from one client address; the addresses of an IPv6 /64 network count as one. Loopback addresses are not limited. Set `TRUST_PROXY` behind a proxy.",
    },
    { default: 10_000, min: 1, max: 10_000_000 },
  ),
  MAX_UNBOUND_SOCKETS_PER_ADDRESS: integer(
    {
      group: limits,
      doc: "Most WebSocket connections from one client address (or IPv6 /64 network) that carry no session yet. Loopback addresses are not limited.",
    },
    { default: 10_000, min: 1, max: 10_000_000 },
  ),
  UNBOUND_SOCKET_MS: integer(
    {
      group: limits,
      doc: "A WebSocket connection that carries no session for this long is closed.",
    },
    { default: 120_000, min: 10, max: day, unit: "ms" },
  ),
  MAX_PRESENCE_BYTES: integer(
    { group: limits, doc: "Largest presence object of a member, as JSON text." },
    { default: 4096, min: 16, max: 1_048_576, unit: "bytes" },
  ),
  MAX_PRESENCE_MEMBERS: integer(
    { group: limits, doc: "Most members of one presence channel." },
    { default: 10_000, min: 1, max: 1_000_000 },
  ),
  MAX_BACKLOG_MESSAGES: integer(
    {
      group: limits,
      doc: "Most publications of one application that wait for delivery; above it publishing is refused for the moment.",
    },
    { default: 20_000, min: 1, max: 10_000_000 },
  ),
  MAX_BACKLOG_BYTES: integer(
    { group: limits, doc: "Most bytes that wait for delivery, as `MAX_BACKLOG_MESSAGES`." },
    { default: 67_108_864, min: 1024, max: 16 * gibibyte, unit: "bytes" },
  ),

  DATABASE: oneOf(
    {
      group: storage,
      doc: "Kind of the database that holds applications and keys. Several nodes share one Postgres; SQLite is for one node.",
    },
    ["sqlite", "postgres"],
    "sqlite",
  ),
  DATABASE_PATH: text({
    group: storage,
    doc: "SQLite file, relative to the working directory; it and its folder are made at the first start. The database runs in WAL mode: back it up with `sqlite3 <file> .backup`, not by copying the file alone.",
    allowed: "a path",
    default: "localdata/db.sqlite",
  }),
  CACHE_TTL_MS: integer(
    {
      group: storage,
      doc: "Time between two reloads of all keys. Changes are noticed within a second without it; this is the safety net.",
    },
    { default: 300_000, min: 100, max: day, unit: "ms" },
  ),
  KEY_STATS_INTERVAL_MS: integer(
    { group: storage, doc: "Time between two writes of how often keys were used." },
    { default: 60_000, min: 10, max: day, unit: "ms" },
  ),

  DATABASE_ADDRESS: text({
    group: postgres,
    doc: "Where Postgres (12 or newer) is. Needed with `DATABASE=postgres`.",
    allowed: "a host name, an IP address, or the folder of a Unix socket",
  }),
  DATABASE_PORT: integer(
    { group: postgres, doc: "Its port." },
    { default: 5432, min: 1, max: 65_535 },
  ),
  DATABASE_USERNAME: text({
    group: postgres,
    doc: "Who to log in as. Needed with `DATABASE=postgres`.",
    allowed: "a text",
  }),
  DATABASE_PASSWORD: {
    group: postgres,
    doc: "That user's password. Unset: none is sent.",
    allowed: "a text",
    isSecret: true,
    read: (value: string) => value,
  } satisfies Variable<string>,
  DATABASE_NAME: text({
    group: postgres,
    doc: "The database; it must exist. Its tables are made, and brought up to date, when a server starts.",
    allowed: "a text",
    default: "pandapush",
  }),
  DATABASE_SSL: oneOf(
    {
      group: postgres,
      doc: "As libpq's `sslmode`. `prefer`: TLS if the server has it; `require`: only TLS, with whomever answers; `verify-ca`: its certificate must be signed by one that is trusted; `verify-full`: and be for `DATABASE_ADDRESS`. A Unix socket has no TLS.",
    },
    sslModes,
    "prefer",
  ),
  DATABASE_SSL_CA: text({
    group: postgres,
    doc: "File with the certificates (PEM) to trust, as libpq's `sslrootcert`; for `verify-ca` and `verify-full`. Unset: those that Node trusts.",
    allowed: "a path",
  }),
  DATABASE_POOL_MAX: integer(
    {
      group: postgres,
      doc: "Most connections that a node opens at once. Those of all nodes together must be fewer than Postgres' `max_connections`.",
    },
    { default: 10, min: 1, max: 1000 },
  ),
  DATABASE_TIMEOUT_MS: integer(
    {
      group: postgres,
      doc: "What connecting, waiting for a free connection, and a statement may each take. What takes longer fails.",
    },
    { default: 5000, min: 100, max: 600_000, unit: "ms" },
  ),
  REDIS_HOSTS: {
    group: cluster,
    doc: "Redis (6.2 or later) or Valkey hosts that several nodes share, the same for all of them and by the same names: channels are shared out over the hosts by name. User and password are percent-encoded, such as `%40` for `@`. Unset, and `REDIS_URL_ENV_VARS` too: this node stands alone.",
    allowed: redisAllowed,
    isSecret: (value: string) => value.includes("@"),
    read: readRedisHosts,
  } satisfies Variable<readonly RedisHostConfig[]>,
  REDIS_URL_ENV_VARS: {
    group: cluster,
    doc: "Names of variables that hold the URLs of Redis hosts, one each, as hosting platforms set them. Used when `REDIS_HOSTS` is unset.",
    allowed: "a comma-separated list of names of variables",
    read: (value: string) => {
      const names = splitList(value);
      return names.length > 0 && names.every((name) => /^\w+$/.test(name)) ? names : undefined;
    },
  } satisfies Variable<readonly string[]>,
  REDIS_PREFIX: {
    group: cluster,
    doc: "In front of all keys and topics, so that several deployments can share a host. The same for all nodes of one.",
    allowed: "1 to 100 letters, digits, : . _ -",
    default: "pandapush:",
    read: (value: string) => (/^[A-Za-z0-9:._-]{1,100}$/.test(value) ? value : undefined),
  } satisfies Variable<string>,

  METRICS_PORT: optionalInteger(
    {
      group: monitoring,
      doc: "Port on which Prometheus finds `/metrics`, and nothing else is. 0 takes any free port. Unset: `/metrics` is on `PORT` when `METRICS_TOKEN` is set, else nowhere.",
    },
    { default: 0, min: 0, max: 65_535 },
  ),
  METRICS_HOST: text({
    group: monitoring,
    doc: "Address on which `METRICS_PORT` listens. Unset: that of `HOST`.",
    allowed: "an IP address or a host name of this machine",
  }),
  METRICS_TOKEN: {
    group: monitoring,
    doc: "What Prometheus sends as `Authorization: Bearer`. Unset: `METRICS_PORT` is open to whoever reaches it.",
    allowed: "16 to 1024 visible ASCII characters without blanks",
    isSecret: true,
    read: (value: string) => (/^[\x21-\x7e]{16,1024}$/.test(value) ? value : undefined),
  } satisfies Variable<string>,
  METRICS_APPLICATIONS: integer(
    {
      group: monitoring,
      doc: "How many applications have series of their own at a node, the largest; all others are counted together as `other`.",
    },
    { default: 20, min: 0, max: 1000 },
  ),
  STATSD_HOST: text({
    group: monitoring,
    doc: "Where statsd listens on UDP. Unset: nothing is sent.",
    allowed: "a host name or an IP address",
  }),
  STATSD_PORT: integer(
    { group: monitoring, doc: "Its port." },
    { default: 8125, min: 1, max: 65_535 },
  ),
  STATSD_PREFIX: {
    group: monitoring,
    doc: "What the names begin with, before a dot.",
    allowed: "1 to 100 letters, digits, . _ -",
    default: "pandapush",
    read(value: string): string | undefined {
      // Some write the dot that follows it.
      const prefix = value.replace(/\.$/, "");
      return /^[A-Za-z0-9._-]{0,99}[A-Za-z0-9_-]$/.test(prefix) ? prefix : undefined;
    },
  } satisfies Defaulted<string>,
  STATSD_INTERVAL_MS: integer(
    { group: monitoring, doc: "Time between two reports to statsd." },
    { default: 5000, min: 10, max: hour, unit: "ms" },
  ),

  AUTH_METHOD: oneOf(
    {
      group: administration,
      doc: "How admins log in. `basic`: one user, `ADMIN_USERNAME`, by a form or with Basic credentials. `okta` and `oidc`: many users, at an OpenID provider. `none`: nobody can, the console is closed.",
    },
    ["basic", "okta", "oidc", "none"],
    "basic",
  ),
  ADMIN_USERNAME: {
    group: administration,
    doc: "Name of the user of `basic`, who sees all applications.",
    allowed: "1 to 255 characters without a colon",
    default: "admin",
    read: (value: string) => (/^[^:\p{Cc}]{1,255}$/u.test(value) ? value : undefined),
  } satisfies Variable<string>,
  ADMIN_PASSWORD: {
    group: administration,
    doc: "Password of that user. Unset: one is made up at the first start in a terminal, shown there once and kept hashed in the database; `pandapush admin reset-password` makes another.",
    allowed: "1 to 1024 characters",
    isSecret: true,
    read: (value: string) => (value.length <= 1024 ? value : undefined),
  } satisfies Variable<string>,
  ROOT_ADMINS: {
    group: administration,
    doc: "Users who see and change all applications, beside `ADMIN_USERNAME` (with `okta` and `oidc` only when that is set). Others see those that they administer.",
    allowed: "a comma-separated list of user names",
    read: splitList,
  } satisfies Variable<readonly string[]>,
  SESSION_PRIVATE_KEY: {
    group: administration,
    doc: "Signs the sessions of admins; the same for all nodes. Unset: made up once and kept in the database.",
    allowed: "16 to 1024 characters",
    isSecret: true,
    read: (value: string) => (value.length >= 16 && value.length <= 1024 ? value : undefined),
  } satisfies Variable<string>,
  ADMIN_SESSION_MS: integer(
    { group: administration, doc: "How long an admin stays logged in." },
    { default: 12 * hour, min: 1000, max: 365 * day, unit: "ms" },
  ),
  ENVIRONMENTS: {
    group: administration,
    doc: "Other deployments, for the console to switch to.",
    allowed: "a list such as `staging,https://staging.example.com;production,https://example.com`",
    read: readEnvironments,
  } satisfies Variable<readonly Environment[]>,
  CG_ENVIRONMENT: text({
    group: administration,
    doc: "What this deployment is called.",
    allowed: "a text",
    default: "local",
  }),
  CG_GIT_COMMIT_ID: text({
    group: administration,
    doc: "Version that the console shows. Unset: that of Pandapush.",
    allowed: "a text",
  }),

  OKTA_ISSUER: issuer({
    group: okta,
    doc: "The authorization server, such as `https://example.okta.com` or `https://example.okta.com/oauth2/default`.",
  }),
  OKTA_CLIENT_ID: text({
    group: okta,
    doc: "Client ID of the app integration.",
    allowed: "a text",
  }),
  OKTA_CLIENT_SECRET: text({
    group: okta,
    doc: "Its client secret.",
    allowed: "a text",
    isSecret: true,
  }),
  OKTA_REDIRECT_URI: redirectUri({
    group: okta,
    doc: "Where Okta sends the browser back to: the console's own origin with any free path, such as `https://push.example.com/admin/login/callback`. The same stands in the app integration.",
  }),
  OKTA_STRIP_DOMAIN: {
    group: okta,
    doc: "What is cut off user names: with `example.com`, `ann@example.com` is `ann` here. `true` cuts off any domain: then `ann@example.org` is `ann`, too.",
    allowed: "a domain, or true, or false",
    read(value: string): string | undefined {
      if (value === "true") return "*";
      return value === "false" ? "" : readDomain(value);
    },
  } satisfies Variable<string>,

  OIDC_ISSUER: issuer({
    group: oidc,
    doc: "The provider's address, exactly as it calls itself in `<address>/.well-known/openid-configuration`.",
  }),
  OIDC_CLIENT_ID: text({ group: oidc, doc: "Id of this client.", allowed: "a text" }),
  OIDC_CLIENT_SECRET: text({
    group: oidc,
    doc: "Its secret.",
    allowed: "a text",
    isSecret: true,
  }),
  OIDC_REDIRECT_URI: redirectUri({
    group: oidc,
    doc: "Where the provider sends the browser back to, as `OKTA_REDIRECT_URI`.",
  }),
  OIDC_ALLOWED_USERS: {
    group: oidc,
    doc: "Who may log in: `example.com` stands for all whose e-mail address is in that domain, `ann@example.org` for one; a domain without a dot has an `@` before it. The provider must say that the address is verified. `*`: everybody whom the provider lets in.",
    allowed: "a comma-separated list of domains and e-mail addresses, or *",
    read: readAllowedUsers,
    faultsIn: oddAllowedUsers,
  } satisfies Variable<readonly string[]>,
  OIDC_USERNAME_CLAIM: {
    group: oidc,
    doc: "Which claim is the user's name here. It must be one that users cannot choose for themselves. `email` counts in lower case, and only when it is verified.",
    allowed: "the name of a claim",
    default: "email",
    read: (value: string) => (/^[^\s\p{Cc}]{1,255}$/u.test(value) ? value : undefined),
  } satisfies Defaulted<string>,
  OIDC_SCOPES: {
    group: oidc,
    doc: "What is asked of the provider.",
    allowed: "scopes separated by blanks, with openid among them",
    default: "openid profile email",
    read: (value: string) => (value.split(" ").includes("openid") ? value : undefined),
  } satisfies Defaulted<string>,
  OIDC_STRIP_DOMAIN: {
    group: oidc,
    doc: "What is cut off user names: with `example.com`, `ann@example.com` is `ann` here.",
    allowed: "a domain",
    read: readDomain,
  } satisfies Variable<string>,
  OIDC_NAME: text({
    group: oidc,
    doc: "What the sign-in page calls the provider. Unset: its host.",
    allowed: "a text",
  }),
  OIDC_AFTER_LOGOUT_URI: {
    group: oidc,
    doc: "Where the provider sends a browser after a logout, if it is registered there. Unset: the provider shows a page of its own.",
    allowed: "an http(s) URL",
    read: (value: string) => (isHttpUrl(value) ? value : undefined),
  } satisfies Variable<string>,

  DEV_APPLICATION_ID: id("Id of an application that is made at start when it is missing."),
  DEV_KEY_ID: id("Id of its key, which is valid for 100 years."),
  DEV_KEY_SECRET: {
    group: development,
    doc: "Secret of that key. Needs `DEV_APPLICATION_ID` and `DEV_KEY_ID`, as these need it.",
    allowed: "1 to 1024 characters",
    isSecret: true,
    read: (value: string) => (value.length <= 1024 ? value : undefined),
  } satisfies Variable<string>,
};

function id(doc: string): Variable<string> {
  return {
    group: development,
    doc,
    allowed: idAllowed,
    read: (value) => (idGrammar.test(value) ? value : undefined),
  };
}

function issuer(words: Words): Variable<string> {
  return {
    ...words,
    // What comes from there says who a user is: nobody may change it on its way.
    allowed: "an https URL without query and fragment, or http on this machine (localhost)",
    read(value) {
      if (!isHttpUrl(value)) return undefined;
      const { protocol, hostname, search, hash } = new URL(value);
      const isSafe = protocol === "https:" || isThisMachine(hostname);
      return isSafe && search === "" && hash === "" ? value : undefined;
    },
  };
}

/** Paths of ours, which a provider cannot send browsers to. */
const takenPath =
  /^\/(?:|logout|admin|admin\/logout|admin\/login\/oidc|(?:push|channel|api|admin\/api|admin\/assets)(?:\/.*)?)$/;

function redirectUri(words: Words): Variable<string> {
  return {
    ...words,
    allowed:
      "an http(s) URL without query and fragment; its path is made of letters, digits, - _ ~ /, and is none of the server's own",
    read(value) {
      if (!isHttpUrl(value)) return undefined;
      const { pathname, search, hash } = new URL(value);
      const isFree = /^[\w~/-]+$/.test(pathname) && !takenPath.test(pathname);
      return isFree && search === "" && hash === "" ? value : undefined;
    },
  };
}

/** What Pandapush 2.2 and its deployments set and this version does not read. */
const unusedNames = ["CONNECTIONS_STATS_INTERVAL"] as const;

/** What the command reads that speaks with a running server, perhaps another one. */
const commandVariables = [
  "PANDAPUSH_URL",
  "PANDAPUSH_APP_ID",
  "PANDAPUSH_KEY_ID",
  "PANDAPUSH_KEY_SECRET",
] as const;

/** Unknown names that begin so are taken for misspelt ones of ours. */
const families =
  /^(?:ADMIN|AUTH|BAYEUX|CACHE|CG|DATABASE|DEV|DRAIN|KEY_STATS|LOG|MAX|METRICS|OIDC|OKTA|PANDAPUSH|PING|REDIS|STATISTICS|STATSD|TRUST|UNBOUND)_/;

/** What container orchestrators inject for a service named, say, `redis`. */
const injectedName = /_(?:SERVICE_HOST|SERVICE_PORT(?:_\w+)?|PORT_\d+_(?:TCP|UDP)(?:_\w+)?)$/;
const injectedValue = /^(?:tcp|udp|sctp):\/\//;

/** It may have the name of one of ours: a service called `database` brings a `DATABASE_PORT`. */
function isInjected(name: string, value = ""): boolean {
  if (!families.test(name)) return false;
  return injectedName.test(name) || (name.endsWith("_PORT") && injectedValue.test(value));
}

type Name = keyof typeof variables;
type Values = {
  readonly [K in Name]: (typeof variables)[K] extends Defaulted<infer T>
    ? T
    : (typeof variables)[K] extends Variable<infer T>
      ? T | undefined
      : never;
};

/**
 * Checks the environment and gives it names, types and units. An empty variable counts as unset.
 *
 * @returns the frozen configuration, and one sentence for each variable that has no effect
 * @throws ConfigError with all faults
 */
export function readConfig(env: NodeJS.ProcessEnv): { config: Config; warnings: string[] } {
  const faults: string[] = [];
  const values = readValues(env, faults);
  const devApplication = readDevApplication(env, values, faults);
  const database = readDatabase(env, values, faults);
  const provider = readProvider(env, values, faults);
  const redisHosts = findRedisHosts(env, values, faults);
  const { METRICS_PORT: metricsPort } = values;
  if (metricsPort !== undefined && metricsPort !== 0 && metricsPort === values.PORT) {
    faults.push("METRICS_PORT is that of PORT; allowed: another one, or none");
  }
  if (faults.length > 0) throw new ConfigError(faults);
  const config: Config = {
    port: values.PORT,
    ...(values.HOST === undefined ? {} : { host: values.HOST }),
    trustProxy: values.TRUST_PROXY ?? [],
    log: {
      level: values.LOG_LEVEL,
      ...(values.LOG_PATH === undefined
        ? {}
        : {
            file: {
              path: values.LOG_PATH,
              everyMs: { hourly: hour, daily: day, never: 0 }[values.LOG_ROTATE],
              maxBytes: values.LOG_FILE_BYTES,
              kept: values.LOG_FILES,
            },
          }),
    },
    bayeux: {
      timeoutMs: values.BAYEUX_TIMEOUT_MS,
      intervalMs: values.BAYEUX_INTERVAL_MS,
      pingIntervalMs: values.PING_INTERVAL_MS,
    },
    statisticsIntervalMs: values.STATISTICS_INTERVAL_MS,
    drainMs: values.DRAIN_MS,
    cacheTtlMs: values.CACHE_TTL_MS,
    keyStatsIntervalMs: values.KEY_STATS_INTERVAL_MS,
    database,
    ...(redisHosts === undefined
      ? {}
      : { redis: { hosts: redisHosts, prefix: values.REDIS_PREFIX } }),
    ...(devApplication === undefined ? {} : { devApplication }),
    admin: adminConfig(env, values, provider),
    metrics: metricsConfig(values),
    ...(values.STATSD_HOST === undefined
      ? {}
      : {
          statsd: {
            host: values.STATSD_HOST,
            port: values.STATSD_PORT,
            prefix: values.STATSD_PREFIX,
            intervalMs: values.STATSD_INTERVAL_MS,
          },
        }),
    deployment: {
      environment: values.CG_ENVIRONMENT,
      environments: values.ENVIRONMENTS ?? [],
      commit: values.CG_GIT_COMMIT_ID ?? "",
    },
    limits: {
      messageBytes: values.MAX_MESSAGE_BYTES,
      batchMessages: values.MAX_BATCH_MESSAGES,
      outboxMessages: values.MAX_OUTBOX_MESSAGES,
      outboxBytes: values.MAX_OUTBOX_BYTES,
      socketBufferBytes: values.MAX_SOCKET_BUFFER_BYTES,
      subscriptionsPerSession: values.MAX_SUBSCRIPTIONS_PER_SESSION,
      sessionsPerAddress: values.MAX_SESSIONS_PER_ADDRESS,
      unboundSocketsPerAddress: values.MAX_UNBOUND_SOCKETS_PER_ADDRESS,
      unboundSocketMs: values.UNBOUND_SOCKET_MS,
      presenceBytes: values.MAX_PRESENCE_BYTES,
      presenceMembers: values.MAX_PRESENCE_MEMBERS,
      backlogMessages: values.MAX_BACKLOG_MESSAGES,
      backlogBytes: values.MAX_BACKLOG_BYTES,
    },
  };
  return { config: freezeDeep(config), warnings: [...warnings(env, values), ...idle(env, values)] };
}

/**
 * The process's environment, completed from the `.env` file of the working directory.
 * What is set in the environment, and not empty, wins.
 */
export function readEnvironment(directory = process.cwd()): NodeJS.ProcessEnv {
  let file: Buffer;
  try {
    file = readFileSync(join(directory, ".env"));
  } catch (error) {
    if (error instanceof Error && "code" in error && error.code === "ENOENT") {
      return { ...process.env };
    }
    throw error;
  }
  const set = Object.entries(process.env).filter(([, value]) => value !== "");
  return { ...parseDotenv(file), ...Object.fromEntries(set) };
}

/** The variables in the order of their groups, for the documentation. */
export function describeVariables(): {
  readonly name: string;
  readonly group: string;
  readonly doc: string;
  readonly allowed: string;
  readonly default: string | undefined;
}[] {
  return Object.entries<Variable<unknown>>(variables).map(([name, variable]) => ({
    name,
    group: variable.group,
    doc: variable.doc,
    allowed: variable.allowed,
    default: variable.default,
  }));
}

/** Names that this version accepts and ignores. */
export function describeUnused(): readonly string[] {
  return unusedNames;
}

function readValues(env: NodeJS.ProcessEnv, faults: string[]): Values {
  const values: Record<string, unknown> = {};
  for (const [name, variable] of Object.entries<Variable<unknown>>(variables)) {
    const given = isInjected(name, env[name]) ? "" : (env[name] ?? "");
    const text = given === "" ? variable.default : given;
    if (text === undefined) continue;
    const value = variable.read(text);
    if (value === undefined) {
      const { isSecret = false } = variable;
      const isHidden = typeof isSecret === "boolean" ? isSecret : isSecret(text);
      const shown = isHidden ? "set to something" : `"${text}"`;
      const parts = variable.faultsIn?.(text).map((part) => `"${part}"`) ?? [];
      const odd = parts.length === 0 ? "" : ` (not ${parts.join(", ")})`;
      faults.push(`${name} is ${shown}; allowed: ${variable.allowed}${odd}`);
    }
    values[name] = value;
  }
  // Complete unless there are faults, and then nobody reads on.
  return values as Values;
}

function readDatabase(
  env: NodeJS.ProcessEnv,
  values: Values,
  faults: string[],
): Config["database"] {
  if (values.DATABASE !== "postgres") return { path: values.DATABASE_PATH };
  const { DATABASE_ADDRESS: address = "", DATABASE_USERNAME: username = "" } = values;
  const { DATABASE_PASSWORD: password, DATABASE_SSL: ssl, DATABASE_SSL_CA: sslCa } = values;
  for (const name of ["DATABASE_ADDRESS", "DATABASE_USERNAME"] as const) {
    if (!isSet(env, name)) {
      faults.push(`${name} is missing; DATABASE=postgres needs ${variables[name].allowed}`);
    }
  }
  if (sslCa !== undefined && ssl !== "verify-ca" && ssl !== "verify-full") {
    faults.push("DATABASE_SSL_CA needs DATABASE_SSL=verify-ca or verify-full");
  }
  return {
    address,
    port: values.DATABASE_PORT,
    username,
    ...(password === undefined ? {} : { password }),
    name: values.DATABASE_NAME,
    ssl,
    ...(sslCa === undefined ? {} : { sslCa }),
    poolMax: values.DATABASE_POOL_MAX,
    timeoutMs: values.DATABASE_TIMEOUT_MS,
  };
}

function metricsConfig(values: Values): Config["metrics"] {
  const { METRICS_PORT: port, METRICS_HOST: host = values.HOST, METRICS_TOKEN: token } = values;
  return {
    ...(port === undefined ? {} : { port }),
    ...(host === undefined ? {} : { host }),
    ...(token === undefined ? {} : { token }),
    applications: values.METRICS_APPLICATIONS,
  };
}

function adminConfig(
  env: NodeJS.ProcessEnv,
  values: Values,
  provider: ProviderConfig | undefined,
): AdminConfig {
  const { ADMIN_USERNAME: username, ADMIN_PASSWORD: password } = values;
  const sessionKey = values.SESSION_PRIVATE_KEY;
  // A provider's user may well be called as ours is by default.
  const isRoot = provider === undefined || isSet(env, "ADMIN_USERNAME");
  return {
    method: values.AUTH_METHOD,
    username,
    ...(password === undefined ? {} : { password }),
    ...(provider === undefined ? {} : { provider }),
    rootAdmins: [...new Set([...(isRoot ? [username] : []), ...(values.ROOT_ADMINS ?? [])])],
    ...(sessionKey === undefined ? {} : { sessionKey }),
    sessionMs: values.ADMIN_SESSION_MS,
  };
}

/** The hosts of `REDIS_HOSTS`, else those of the variables that `REDIS_URL_ENV_VARS` names. */
function findRedisHosts(
  env: NodeJS.ProcessEnv,
  values: Values,
  faults: string[],
): readonly RedisHostConfig[] | undefined {
  const { REDIS_HOSTS: hosts, REDIS_URL_ENV_VARS: names } = values;
  if ((env.REDIS_HOSTS ?? "") !== "" || names === undefined) return hosts;
  const urls = names.map((name) => {
    const url = env[name] ?? "";
    if (url === "" || readRedisHosts(url)?.length !== 1) {
      const state = url === "" ? "not set" : "no such URL";
      faults.push(
        `REDIS_URL_ENV_VARS names ${name}, which is ${state}; allowed: redis://user:password@host:port/database (rediss:// for TLS)`,
      );
    }
    return url;
  });
  const found = readRedisHosts(urls.join());
  if (found === undefined && faults.length === 0) {
    faults.push("REDIS_URL_ENV_VARS names the same host twice; allowed: different hosts");
  }
  return found;
}

function readRedisHosts(text: string): readonly RedisHostConfig[] | undefined {
  const hosts: RedisHostConfig[] = [];
  for (const item of splitList(text)) {
    const host = readRedisHost(item.includes("://") ? item : `redis://${item}`);
    if (host === undefined) return undefined;
    hosts.push(host);
  }
  const names = new Set(hosts.map(({ host, port, database }) => `${host}:${port}/${database}`));
  return hosts.length > 0 && names.size === hosts.length ? hosts : undefined;
}

function readRedisHost(text: string): RedisHostConfig | undefined {
  const path = /^\/?(\d{0,5})$/;
  if (!URL.canParse(text)) return undefined;
  const { protocol, hostname, port, pathname, username, password, search, hash } = new URL(text);
  const database = path.exec(pathname)?.[1];
  const isRedis = protocol === "redis:" || protocol === "rediss:";
  if (!isRedis || hostname === "" || port === "0" || database === undefined || search + hash) {
    return undefined;
  }
  try {
    return {
      host: decodeURIComponent(hostname)
        .toLowerCase()
        .replace(/^\[(.*)\]$/, "$1"),
      port: port === "" ? 6379 : Number(port),
      isTls: protocol === "rediss:",
      ...(username === "" ? {} : { username: decodeURIComponent(username) }),
      ...(password === "" ? {} : { password: decodeURIComponent(password) }),
      database: Number(database),
    };
  } catch (error) {
    if (error instanceof URIError) return undefined;
    throw error;
  }
}

/** What each way to log in at a provider cannot do without. */
const providerNames = {
  okta: ["OKTA_ISSUER", "OKTA_CLIENT_ID", "OKTA_CLIENT_SECRET", "OKTA_REDIRECT_URI"],
  oidc: [
    "OIDC_ISSUER",
    "OIDC_CLIENT_ID",
    "OIDC_CLIENT_SECRET",
    "OIDC_REDIRECT_URI",
    "OIDC_ALLOWED_USERS",
  ],
} as const satisfies Record<string, readonly Name[]>;

/** @returns undefined with the other ways to log in, and where something is missing */
function readProvider(
  env: NodeJS.ProcessEnv,
  values: Values,
  faults: string[],
): ProviderConfig | undefined {
  const method = values.AUTH_METHOD;
  if (method !== "okta" && method !== "oidc") return undefined;
  const missing = providerNames[method].filter((name) => !isSet(env, name));
  for (const name of missing) {
    faults.push(`${name} is missing; AUTH_METHOD=${method} needs ${variables[name].allowed}`);
  }
  // Complete unless there are faults, and then nobody reads on.
  if (faults.length > 0) return undefined;
  return method === "okta" ? oktaConfig(values) : oidcConfig(values);
}

function oktaConfig(values: Values): ProviderConfig {
  return {
    name: "Okta",
    variables: "OKTA",
    // Okta's own has no slash at its end.
    issuer: (values.OKTA_ISSUER ?? "").replace(/\/+$/, ""),
    clientId: values.OKTA_CLIENT_ID ?? "",
    clientSecret: values.OKTA_CLIENT_SECRET ?? "",
    redirectUri: values.OKTA_REDIRECT_URI ?? "",
    scopes: "openid profile email",
    usernameClaim: "preferred_username",
    ...stripped(values.OKTA_STRIP_DOMAIN),
  };
}

function oidcConfig(values: Values): ProviderConfig {
  const { OIDC_ISSUER: issuer = "", OIDC_ALLOWED_USERS: allowed = [] } = values;
  const afterLogout = values.OIDC_AFTER_LOGOUT_URI;
  return {
    name: values.OIDC_NAME ?? new URL(issuer).host,
    variables: "OIDC",
    issuer,
    clientId: values.OIDC_CLIENT_ID ?? "",
    clientSecret: values.OIDC_CLIENT_SECRET ?? "",
    redirectUri: values.OIDC_REDIRECT_URI ?? "",
    scopes: values.OIDC_SCOPES,
    usernameClaim: values.OIDC_USERNAME_CLAIM,
    ...stripped(values.OIDC_STRIP_DOMAIN),
    ...(allowed.includes("*") ? {} : { allowed }),
    ...(afterLogout === undefined ? {} : { afterLogout }),
  };
}

function stripped(domain: string | undefined): Pick<ProviderConfig, "stripDomain"> {
  return domain === undefined || domain === "" ? {} : { stripDomain: domain };
}

function readAllowedUsers(value: string): readonly string[] | undefined {
  if (value.trim() === "*") return ["*"];
  const users = splitList(value).map(readAllowedUser);
  const read = users.filter((item) => item !== undefined);
  return read.length > 0 && read.length === users.length ? read : undefined;
}

function oddAllowedUsers(value: string): readonly string[] {
  return splitList(value).filter((item) => readAllowedUser(item) === undefined);
}

/** A name alone is meant as somebody's, and no domain; who has such a domain writes `@` before it. */
function readAllowedUser(item: string): string | undefined {
  if (!/[@.]/.test(item)) return undefined;
  return readAddress(item) ?? readDomain(item);
}

/** Without what may stand in an address and is meant otherwise: patterns, names, other separators. */
function readAddress(value: string): string | undefined {
  const [, local, domain = ""] = /^([\p{L}\d!#$%&'+/=?^_`{|}~.-]+)@(.+)$/u.exec(value) ?? [];
  const read = readDomain(domain);
  if (local === undefined || read === undefined || domain.startsWith("@")) return undefined;
  return `${local.toLowerCase()}@${read}`;
}

/** @returns it in lower case, and without the `@` that some write before it */
function readDomain(value: string): string | undefined {
  const domain = value.replace(/^@/, "").toLowerCase();
  const label = "[\\p{L}\\d](?:[\\p{L}\\d-]*[\\p{L}\\d])?";
  return new RegExp(`^${label}(?:\\.${label})*$`, "u").test(domain) ? domain : undefined;
}

function isHttpUrl(value: string): boolean {
  return /^https?:\/\//.test(value) && URL.canParse(value);
}

function isThisMachine(hostname: string): boolean {
  return hostname === "localhost" || isLoopback(hostname.replace(/^\[|\]$/g, ""));
}

function isSet(env: NodeJS.ProcessEnv, name: Name): boolean {
  return (env[name] ?? "") !== "" && !isInjected(name, env[name]);
}

function readEnvironments(text: string): readonly Environment[] | undefined {
  const items = text.split(";").filter((item) => item.trim() !== "");
  const environments = items.map((item) => {
    const [name = "", url = ""] = item.split(/,(.*)/s).map((part) => part.trim());
    return { name, url };
  });
  const isEvery = environments.every(({ name, url }) => name !== "" && isHttpUrl(url));
  return isEvery ? environments : undefined;
}

function readDevApplication(
  env: NodeJS.ProcessEnv,
  values: Values,
  faults: string[],
): Config["devApplication"] {
  const names = ["DEV_APPLICATION_ID", "DEV_KEY_ID", "DEV_KEY_SECRET"] as const;
  const missing = names.filter((name) => !isSet(env, name));
  if (missing.length > 0 && missing.length < names.length) {
    faults.push(`${missing.join(" and ")} missing; allowed: all of ${names.join(", ")}, or none`);
  }
  const { DEV_APPLICATION_ID: appId, DEV_KEY_ID: keyId, DEV_KEY_SECRET: secret } = values;
  if (appId === undefined || keyId === undefined || secret === undefined) return undefined;
  return { appId: appId as AppId, keyId: keyId as KeyId, secret };
}

const metricsNeeds = [
  ["METRICS_HOST", "METRICS_PORT"],
  ["STATSD_PORT", "STATSD_HOST"],
  ["STATSD_PREFIX", "STATSD_HOST"],
  ["STATSD_INTERVAL_MS", "STATSD_HOST"],
] as const satisfies readonly (readonly [Name, Name])[];

/** Variables of a way to log in, of a database, or of a place for metrics that is not chosen. */
function idle(env: NodeJS.ProcessEnv, values: Values): string[] {
  const groups: Record<string, readonly ["AUTH_METHOD" | "DATABASE", string]> = {
    [okta]: ["AUTH_METHOD", "okta"],
    [oidc]: ["AUTH_METHOD", "oidc"],
    [postgres]: ["DATABASE", "postgres"],
  };
  const result: string[] = [];
  for (const [name, variable] of Object.entries<Variable<unknown>>(variables)) {
    const choice =
      name === "DATABASE_PATH" ? (["DATABASE", "sqlite"] as const) : groups[variable.group];
    if (choice === undefined || values[choice[0]] === choice[1]) continue;
    if (!isSet(env, name as Name) || env[name] === variable.default) continue;
    result.push(`${name} has no effect without ${choice.join("=")}`);
  }
  for (const [name, needed] of metricsNeeds) {
    const isDefault = env[name] === (variables[name] as Variable<unknown>).default;
    if (isSet(env, name) && !isDefault && !isSet(env, needed)) {
      result.push(`${name} has no effect without ${needed}`);
    }
  }
  return result;
}

function warnings(env: NodeJS.ProcessEnv, values: Values): string[] {
  const known = new Set<string>([
    ...Object.keys(variables),
    ...commandVariables,
    ...(values.REDIS_URL_ENV_VARS ?? []),
  ]);
  const unused = new Set<string>(unusedNames);
  const injected: string[] = [];
  const result: string[] = [];
  for (const [name, value] of Object.entries(env)) {
    if (value === undefined || value === "") continue;
    if (isInjected(name, value)) {
      injected.push(name);
    } else if (known.has(name)) {
      // Checked where it is read.
    } else if (unused.has(name)) {
      result.push(`${name} is set but not used by this version`);
    } else {
      const near = nearest(name, [...known, ...unused]);
      if (near !== undefined) result.push(`${name} is unknown; did you mean ${near}?`);
      else if (families.test(name)) result.push(`${name} is unknown and has no effect`);
    }
  }
  if (values.REDIS_HOSTS !== undefined && values.REDIS_URL_ENV_VARS !== undefined) {
    result.push("REDIS_URL_ENV_VARS is set but not used, because REDIS_HOSTS is set");
  }
  if (injected.length > 0) {
    result.push(`${injected.join(", ")}: ignored, as set by a container orchestrator`);
  }
  return result;
}

/**
 * The known name that is `name` without a prefix of ours, or differs from it in at most two
 * letters; short names have so many neighbours that one letter must do.
 */
function nearest(name: string, candidates: readonly string[]): string | undefined {
  const bare = name.replace(/^PANDAPUSH_/, "");
  return candidates.find((candidate) => {
    const isShort = Math.min(bare.length, candidate.length) < 7;
    return editDistance(bare, candidate) <= (isShort ? 1 : 2);
  });
}

/** Levenshtein's: letters to insert, remove or replace. */
function editDistance(from: string, to: string): number {
  let row = Array.from({ length: to.length + 1 }, (_, i) => i);
  for (let i = 0; i < from.length; i++) {
    const next = [i + 1];
    for (let j = 0; j < to.length; j++) {
      const replaced = (row[j] ?? 0) + (from[i] === to[j] ? 0 : 1);
      next.push(Math.min(replaced, (row[j + 1] ?? 0) + 1, (next[j] ?? 0) + 1));
    }
    row = next;
  }
  return row[to.length] ?? 0;
}

function splitList(text: string): string[] {
  return text
    .split(",")
    .map((item) => item.trim())
    .filter((item) => item !== "");
}

function freezeDeep<T extends object>(value: T): T {
  for (const inner of Object.values(value)) {
    if (typeof inner === "object" && inner !== null) freezeDeep(inner);
  }
  return Object.freeze(value);
}
