import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, expect, test, vi } from "vitest";
import { ConfigError, describeVariables, readConfig, readEnvironment } from "./config.js";

afterEach(() => {
  vi.unstubAllEnvs();
});

function faults(env: NodeJS.ProcessEnv): readonly string[] {
  try {
    readConfig(env);
  } catch (error) {
    if (error instanceof ConfigError) return error.faults;
    throw error;
  }
  return [];
}

test("an empty environment gives the documented defaults", () => {
  expect(readConfig({})).toEqual({
    config: {
      port: 3000,
      trustProxy: [],
      log: { level: "info" },
      bayeux: { timeoutMs: 30_000, intervalMs: 0, pingIntervalMs: 25_000 },
      statisticsIntervalMs: 5000,
      drainMs: 10_000,
      cacheTtlMs: 300_000,
      keyStatsIntervalMs: 60_000,
      database: { path: "localdata/db.sqlite" },
      metrics: { applications: 20 },
      admin: {
        method: "basic",
        username: "admin",
        rootAdmins: ["admin"],
        sessionMs: 43_200_000,
      },
      deployment: { environment: "local", environments: [], commit: "" },
      limits: {
        messageBytes: 262_144,
        batchMessages: 1000,
        outboxMessages: 10_000,
        outboxBytes: 8_388_608,
        socketBufferBytes: 4_194_304,
        subscriptionsPerSession: 2000,
        sessionsPerAddress: 10_000,
        unboundSocketsPerAddress: 10_000,
        unboundSocketMs: 120_000,
        presenceBytes: 4096,
        presenceMembers: 10_000,
        backlogMessages: 20_000,
        backlogBytes: 67_108_864,
      },
    },
    warnings: [],
  });
});

test("every default is an allowed value", () => {
  const defaults = describeVariables().map(({ name, default: value }) => [name, value]);
  expect(readConfig(Object.fromEntries(defaults))).toEqual(readConfig({}));
});

test("what is set counts, and an empty variable is not set", () => {
  const { config } = readConfig({
    PORT: "0",
    HOST: "127.0.0.1",
    LOG_LEVEL: "debug",
    LOG_PATH: "/tmp/log",
    TRUST_PROXY: "loopback, 10.0.0.0/8,::1",
    DATABASE: "sqlite",
    DATABASE_PATH: "/data/db",
    MAX_MESSAGE_BYTES: "2048",
    DRAIN_MS: "",
    DEV_APPLICATION_ID: "dev~app",
    DEV_KEY_ID: "dev-key",
    DEV_KEY_SECRET: "secret with spaces",
  });
  expect(config).toMatchObject({
    port: 0,
    host: "127.0.0.1",
    log: {
      level: "debug",
      file: { path: "/tmp/log", everyMs: 3_600_000, maxBytes: 104_857_600, kept: 24 },
    },
    trustProxy: ["loopback", "10.0.0.0/8", "::1"],
    database: { path: "/data/db" },
    drainMs: 10_000,
    devApplication: { appId: "dev~app", keyId: "dev-key", secret: "secret with spaces" },
  });
  expect(config.limits.messageBytes).toBe(2048);
});

const postgres = {
  DATABASE: "postgres",
  DATABASE_ADDRESS: "db.example.com",
  DATABASE_USERNAME: "push",
};

test("Postgres is found by its address, and its other variables have defaults", () => {
  const defaults = { port: 5432, name: "pandapush", ssl: "prefer", poolMax: 10, timeoutMs: 5000 };
  const { config, warnings } = readConfig(postgres);
  expect(config.database).toEqual({ address: "db.example.com", username: "push", ...defaults });
  expect(warnings).toEqual([]);
});

test("all that is said of Postgres is read", () => {
  const { config } = readConfig({
    ...postgres,
    DATABASE_PORT: "6432",
    DATABASE_PASSWORD: "pass:word",
    DATABASE_NAME: "push",
    DATABASE_SSL: "verify-full",
    DATABASE_SSL_CA: "ca.pem",
    DATABASE_POOL_MAX: "3",
    DATABASE_TIMEOUT_MS: "700",
  });
  expect(config.database).toEqual({
    address: "db.example.com",
    port: 6432,
    username: "push",
    password: "pass:word",
    name: "push",
    ssl: "verify-full",
    sslCa: "ca.pem",
    poolMax: 3,
    timeoutMs: 700,
  });
});

test("Postgres needs an address and a user, and a trusted certificate somebody who checks it", () => {
  expect(faults({ DATABASE: "postgres", DATABASE_SSL_CA: "ca.pem" })).toEqual([
    expect.stringMatching(/^DATABASE_ADDRESS is missing; DATABASE=postgres needs a host name, /),
    "DATABASE_USERNAME is missing; DATABASE=postgres needs a text",
    "DATABASE_SSL_CA needs DATABASE_SSL=verify-ca or verify-full",
  ]);
});

test("variables of the other kind of database start with a warning", () => {
  expect(readConfig({ ...postgres, DATABASE_PATH: "/data/db" }).warnings).toEqual([
    "DATABASE_PATH has no effect without DATABASE=sqlite",
  ]);
  const { warnings } = readConfig({ ...postgres, DATABASE: "sqlite", DATABASE_PASSWORD: "hidden" });
  expect(warnings).toEqual([
    "DATABASE_ADDRESS has no effect without DATABASE=postgres",
    "DATABASE_USERNAME has no effect without DATABASE=postgres",
    "DATABASE_PASSWORD has no effect without DATABASE=postgres",
  ]);
});

test("the port that an orchestrator injects for a service called database is none of ours", () => {
  const { config, warnings } = readConfig({
    ...postgres,
    DATABASE_PORT: "tcp://10.0.0.2:5432",
    ADMIN_PASSWORD: "tcp://is-a-fine-password",
  });
  expect(config.database).toMatchObject({ port: 5432 });
  expect(config.admin.password).toBe("tcp://is-a-fine-password");
  expect(warnings).toEqual(["DATABASE_PORT: ignored, as set by a container orchestrator"]);
});

test("the admin's name, password, roots and session key are read", () => {
  const { config } = readConfig({
    AUTH_METHOD: "basic",
    ADMIN_USERNAME: "zoe",
    ADMIN_PASSWORD: "pass:word",
    ROOT_ADMINS: "ann, zoe,ben",
    SESSION_PRIVATE_KEY: "0123456789abcdef",
  });
  expect(config.admin).toEqual({
    method: "basic",
    username: "zoe",
    password: "pass:word",
    rootAdmins: ["zoe", "ann", "ben"],
    sessionKey: "0123456789abcdef",
    sessionMs: 43_200_000,
  });
});

test("environments are names with URLs", () => {
  const ENVIRONMENTS = "staging,https://staging.example.com; live,https://example.com/a,b;";
  expect(readConfig({ ENVIRONMENTS }).config.deployment.environments).toEqual([
    { name: "staging", url: "https://staging.example.com" },
    { name: "live", url: "https://example.com/a,b" },
  ]);
});

test.each(["staging", "staging,", ",https://a", "a,javascript:alert(1)", "a,https://"])(
  "%j is no list of environments",
  (ENVIRONMENTS) => {
    expect(faults({ ENVIRONMENTS })).toEqual([expect.stringContaining("ENVIRONMENTS is")]);
  },
);

test("a way to log in that this version does not have stops the start", () => {
  expect(faults({ AUTH_METHOD: "saml", SESSION_PRIVATE_KEY: "short" })).toEqual([
    'AUTH_METHOD is "saml"; allowed: one of basic, okta, oidc, none',
    "SESSION_PRIVATE_KEY is set to something; allowed: 16 to 1024 characters",
  ]);
});

const oktaLogin = {
  AUTH_METHOD: "okta",
  OKTA_ISSUER: "https://example.okta.com/oauth2/default/",
  OKTA_CLIENT_ID: "id",
  OKTA_CLIENT_SECRET: "hidden",
  OKTA_REDIRECT_URI: "http://push.example.com/authorization-code/callback",
};
const oidcLogin = {
  AUTH_METHOD: "oidc",
  OIDC_ISSUER: "https://id.example.com/realms/x/",
  OIDC_CLIENT_ID: "id",
  OIDC_CLIENT_SECRET: "hidden",
  OIDC_REDIRECT_URI: "https://push.example.com/admin/login/callback",
  OIDC_ALLOWED_USERS: "Example.com, @example.net,Ann@Example.org",
};

test("a login with Okta has the variables of Pandapush 2.2", () => {
  const { config, warnings } = readConfig({ ...oktaLogin, OKTA_STRIP_DOMAIN: "Example.com" });
  expect(warnings).toEqual([]);
  expect(config.admin).toMatchObject({ method: "okta", rootAdmins: [] });
  expect(config.admin.provider).toEqual({
    name: "Okta",
    variables: "OKTA",
    issuer: "https://example.okta.com/oauth2/default",
    clientId: "id",
    clientSecret: "hidden",
    redirectUri: "http://push.example.com/authorization-code/callback",
    scopes: "openid profile email",
    usernameClaim: "preferred_username",
    stripDomain: "example.com",
  });
});

test.each([
  [undefined, undefined],
  ["true", "*"],
  ["false", undefined],
  ["@example.com", "example.com"],
])("OKTA_STRIP_DOMAIN %j cuts off %j", (OKTA_STRIP_DOMAIN, expected) => {
  const { provider } = readConfig({ ...oktaLogin, OKTA_STRIP_DOMAIN }).config.admin;
  expect(provider?.stripDomain).toBe(expected);
});

test("a login at another provider says who may log in", () => {
  const { config } = readConfig(oidcLogin);
  expect(config.admin.provider).toEqual({
    name: "id.example.com",
    variables: "OIDC",
    issuer: "https://id.example.com/realms/x/",
    clientId: "id",
    clientSecret: "hidden",
    redirectUri: "https://push.example.com/admin/login/callback",
    scopes: "openid profile email",
    usernameClaim: "email",
    allowed: ["example.com", "example.net", "ann@example.org"],
  });
  const everybody = readConfig({ ...oidcLogin, OIDC_ALLOWED_USERS: "*" }).config.admin;
  expect(everybody.provider).not.toHaveProperty("allowed");
});

test("a provider's user who is called as ours is by default is no root", () => {
  const named = { ADMIN_USERNAME: "zoe", ROOT_ADMINS: "ann" };
  expect(readConfig(oidcLogin).config.admin.rootAdmins).toEqual([]);
  expect(readConfig({ ...oidcLogin, ...named }).config.admin.rootAdmins).toEqual(["zoe", "ann"]);
});

test("what a login at a provider lacks is named", () => {
  expect(faults({ AUTH_METHOD: "okta", OKTA_CLIENT_SECRET: "hidden" })).toEqual([
    expect.stringMatching(/^OKTA_ISSUER is missing; AUTH_METHOD=okta needs an https URL/),
    "OKTA_CLIENT_ID is missing; AUTH_METHOD=okta needs a text",
    expect.stringMatching(/^OKTA_REDIRECT_URI is missing; AUTH_METHOD=okta needs an http/),
  ]);
  const { OIDC_ALLOWED_USERS: _, ...rest } = oidcLogin;
  expect(faults(rest)).toEqual([
    "OIDC_ALLOWED_USERS is missing; AUTH_METHOD=oidc needs a comma-separated list of domains and e-mail addresses, or *",
  ]);
});

test.each([
  ["OIDC_ISSUER", "http://id.example.com"],
  ["OIDC_ISSUER", "http://127.0.0.1.example.com"],
  ["OIDC_ISSUER", "https://id.example.com/?tenant=x"],
  ["OIDC_ISSUER", "id.example.com"],
  ["OIDC_REDIRECT_URI", "https://push.example.com"],
  ["OIDC_REDIRECT_URI", "https://push.example.com/admin"],
  ["OIDC_REDIRECT_URI", "https://push.example.com/admin/login/oidc"],
  ["OIDC_REDIRECT_URI", "https://push.example.com/admin/api/callback"],
  ["OIDC_REDIRECT_URI", "https://push.example.com/push"],
  ["OIDC_REDIRECT_URI", "https://push.example.com/callback?x"],
  ["OIDC_REDIRECT_URI", "https://push.example.com/:any/*"],
  ["OIDC_REDIRECT_URI", "https://push.example.com/client.js"],
  ["OIDC_REDIRECT_URI", "javascript:alert(1)"],
  ["OIDC_ALLOWED_USERS", "*, example.com"],
  ["OIDC_ALLOWED_USERS", "*.example.com"],
  ["OIDC_ALLOWED_USERS", "ann@"],
  ["OIDC_ALLOWED_USERS", ","],
  ["OIDC_SCOPES", "email profile"],
  ["OIDC_STRIP_DOMAIN", "a/b"],
  ["OIDC_AFTER_LOGOUT_URI", "/"],
])("%s cannot be %j", (name, value) => {
  expect(faults({ ...oidcLogin, [name]: value })).toEqual([
    expect.stringMatching(`^${name} is ".*"; allowed: `),
  ]);
});

test("odd entries of the users who may log in are named, each of them", () => {
  const odd = [
    "ann",
    "*@example.com",
    "*",
    "ben;zoe@example.com",
    "-x.com",
    "a@@b.com",
    "Zoe <z@b.com>",
  ];
  const OIDC_ALLOWED_USERS = ["example.com", ...odd, "ann@corp", "@corp"].join(", ");
  expect(faults({ ...oidcLogin, OIDC_ALLOWED_USERS })).toEqual([
    `OIDC_ALLOWED_USERS is "${OIDC_ALLOWED_USERS}"; allowed: a comma-separated list of domains and e-mail addresses, or * (not ${odd.map((item) => `"${item}"`).join(", ")})`,
  ]);
  const { admin } = readConfig({
    ...oidcLogin,
    OIDC_ALLOWED_USERS: "ann@corp, @corp, a.b+c@Sub.Example.com",
  }).config;
  expect(admin.provider?.allowed).toEqual(["ann@corp", "corp", "a.b+c@sub.example.com"]);
});

test.each(["http://localhost:8080/realms/x", "http://127.0.0.1:4000", "http://[::1]:4000"])(
  "a provider on this machine (%s) needs no TLS",
  (OIDC_ISSUER) => {
    expect(faults({ ...oidcLogin, OIDC_ISSUER })).toEqual([]);
  },
);

test("variables of a way to log in that is not chosen start with a warning", () => {
  const { warnings } = readConfig({ ...oktaLogin, AUTH_METHOD: "basic" });
  expect(warnings).toEqual([
    "OKTA_ISSUER has no effect without AUTH_METHOD=okta",
    "OKTA_CLIENT_ID has no effect without AUTH_METHOD=okta",
    "OKTA_CLIENT_SECRET has no effect without AUTH_METHOD=okta",
    "OKTA_REDIRECT_URI has no effect without AUTH_METHOD=okta",
  ]);
});

test("the configuration cannot be changed", () => {
  const { config } = readConfig({});
  expect(Object.isFrozen(config)).toBe(true);
  expect(Object.isFrozen(config.limits)).toBe(true);
  expect(Object.isFrozen(config.trustProxy)).toBe(true);
});

test("all faults are named at once, with what is allowed", () => {
  const env = { PORT: "70000", LOG_LEVEL: "loud", DATABASE: "mysql", TRUST_PROXY: "everyone" };
  expect(faults(env)).toEqual([
    'PORT is "70000"; allowed: an integer from 0 to 65535',
    expect.stringContaining('TRUST_PROXY is "everyone"; allowed: a comma-separated list'),
    'LOG_LEVEL is "loud"; allowed: one of trace, debug, info, warn, error, fatal, silent',
    'DATABASE is "mysql"; allowed: one of sqlite, postgres',
  ]);
  expect(() => readConfig(env)).toThrow(/has 4 faults:\n {2}PORT is "70000".*\n {2}TRUST_PROXY/);
});

test.each(["-1", "1.5", "1e3", "0x10", "abc", " 3000", "3000 ", "99999999999999999999"])(
  "%j is no integer",
  (PORT) => {
    expect(faults({ PORT })).toHaveLength(1);
  },
);

test("a fault does not show a secret", () => {
  const secret = "s".repeat(1025);
  const found = faults({ DEV_APPLICATION_ID: "a", DEV_KEY_ID: "k", DEV_KEY_SECRET: secret });
  expect(found).toEqual(["DEV_KEY_SECRET is set to something; allowed: 1 to 1024 characters"]);
});

test("the development application needs all of its variables", () => {
  expect(faults({ DEV_APPLICATION_ID: "app" })).toEqual([
    "DEV_KEY_ID and DEV_KEY_SECRET missing; allowed: all of DEV_APPLICATION_ID, DEV_KEY_ID, DEV_KEY_SECRET, or none",
  ]);
});

test.each(["a/b", "a b", "*", "é", "x".repeat(256)])("%j is no id for a channel", (id) => {
  const found = faults({ DEV_APPLICATION_ID: id, DEV_KEY_ID: "k", DEV_KEY_SECRET: "s" });
  expect(found).toEqual([expect.stringContaining("DEV_APPLICATION_ID is")]);
});

test("variables of Pandapush 2.2 that have no use here start with a warning", () => {
  const { warnings } = readConfig({ CONNECTIONS_STATS_INTERVAL: "1" });
  expect(warnings).toEqual(["CONNECTIONS_STATS_INTERVAL is set but not used by this version"]);
});

test("statsd is told nothing unless it has a host, and then as 2.2 did", () => {
  expect(readConfig({}).config.statsd).toBeUndefined();
  expect(readConfig({ STATSD_HOST: "stats" }).config.statsd).toEqual({
    host: "stats",
    port: 8125,
    prefix: "pandapush",
    intervalMs: 5000,
  });
  const { config } = readConfig({ STATSD_HOST: "stats", STATSD_PREFIX: "a.push." });
  expect(config.statsd?.prefix).toBe("a.push");
  expect(faults({ STATSD_HOST: "stats", STATSD_PREFIX: "a:b" })).toEqual([
    'STATSD_PREFIX is "a:b"; allowed: 1 to 100 letters, digits, . _ -',
  ]);
  expect(faults({ STATSD_HOST: "stats", STATSD_PREFIX: "..." })).toHaveLength(1);
});

test("the metrics have no port and no token unless they are set, and the token is not shown", () => {
  expect(readConfig({}).config.metrics).toEqual({ applications: 20 });
  const token = "tell-nobody-of-this";
  expect(
    readConfig({ HOST: "::1", METRICS_PORT: "9464", METRICS_TOKEN: token }).config.metrics,
  ).toEqual({ port: 9464, host: "::1", token, applications: 20 });
  expect(readConfig({ METRICS_PORT: "0", METRICS_HOST: "::1" }).config.metrics).toEqual({
    port: 0,
    host: "::1",
    applications: 20,
  });
  expect(faults({ METRICS_TOKEN: "a secret with blanks" })).toEqual([
    "METRICS_TOKEN is set to something; allowed: 16 to 1024 visible ASCII characters without blanks",
  ]);
  expect(faults({ METRICS_PORT: "3000" })).toEqual([
    "METRICS_PORT is that of PORT; allowed: another one, or none",
  ]);
});

test("what an orchestrator injects for services called metrics and statsd is ignored", () => {
  const { config, warnings } = readConfig({
    METRICS_PORT: "tcp://10.0.0.1:9464",
    STATSD_PORT: "udp://10.0.0.2:8125",
  });
  expect(config.metrics.port).toBeUndefined();
  expect(warnings).toEqual([
    "METRICS_PORT, STATSD_PORT: ignored, as set by a container orchestrator",
  ]);
});

test("variables of metrics that are sent nowhere have no effect, and say so", () => {
  const { warnings } = readConfig({ METRICS_HOST: "::1", STATSD_PORT: "1", STATSD_PREFIX: "a" });
  expect(warnings).toEqual([
    "METRICS_HOST has no effect without METRICS_PORT",
    "STATSD_PORT has no effect without STATSD_HOST",
    "STATSD_PREFIX has no effect without STATSD_HOST",
  ]);
});

test("Redis hosts are host:port or URLs, with a prefix for their keys", () => {
  const { config, warnings } = readConfig({
    REDIS_HOSTS:
      "redis1:6380, [::1], REDIS2,redis://10.0.0.1/3,rediss://me:p%40ss%2Cw@redis.example.com:7000/",
    REDIS_PREFIX: "shop:",
  });
  const plain = { isTls: false, database: 0 };
  expect(config.redis).toEqual({
    prefix: "shop:",
    hosts: [
      { ...plain, host: "redis1", port: 6380 },
      { ...plain, host: "::1", port: 6379 },
      { ...plain, host: "redis2", port: 6379 },
      { ...plain, host: "10.0.0.1", port: 6379, database: 3 },
      {
        host: "redis.example.com",
        port: 7000,
        isTls: true,
        username: "me",
        password: "p@ss,w",
        database: 0,
      },
    ],
  });
  expect(warnings).toEqual([]);
});

test("Redis hosts can be named by variables that hold their URLs, unless they are set", () => {
  const env = {
    REDIS_URL_ENV_VARS: "REDISCLOUD_URL,MY_REDIS",
    REDISCLOUD_URL: "redis://:secret@a:1",
    MY_REDIS: "rediss://b",
  };
  const { config, warnings } = readConfig(env);
  expect(config.redis).toEqual({
    prefix: "pandapush:",
    hosts: [
      { host: "a", port: 1, isTls: false, password: "secret", database: 0 },
      { host: "b", port: 6379, isTls: true, database: 0 },
    ],
  });
  expect(warnings).toEqual([]);
  const both = readConfig({ ...env, REDIS_HOSTS: "c" });
  expect(both.config.redis?.hosts).toMatchObject([{ host: "c" }]);
  expect(both.warnings).toEqual([
    "REDIS_URL_ENV_VARS is set but not used, because REDIS_HOSTS is set",
  ]);
});

test.each([
  "a:b",
  "a:0x1",
  "a:70000",
  "a:0",
  "a,,b:c",
  ",",
  "http://a",
  "redis://",
  "redis://a/x",
  "redis://a/1/2",
  "redis://a?db=1",
  "redis://a#1",
  "a:6379,A",
  "a b",
])("%j is no list of Redis hosts", (REDIS_HOSTS) => {
  expect(faults({ REDIS_HOSTS })).toEqual([
    expect.stringContaining(`REDIS_HOSTS is "${REDIS_HOSTS}"; allowed: a comma-separated list`),
  ]);
});

test("a fault of a Redis URL does not show its password", () => {
  const found = faults({
    REDIS_HOSTS: "redis://me:hidden@a:99999",
    REDIS_PREFIX: "{tag}",
  });
  expect(found).toEqual([
    expect.stringContaining("REDIS_HOSTS is set to something; allowed"),
    'REDIS_PREFIX is "{tag}"; allowed: 1 to 100 letters, digits, : . _ -',
  ]);
  expect(
    faults({ REDIS_URL_ENV_VARS: "ONE,TWO,THREE", ONE: "tcp://hidden", THREE: "redis://a,b" }),
  ).toEqual([
    expect.stringContaining("REDIS_URL_ENV_VARS names ONE, which is no such URL; allowed: redis:"),
    expect.stringContaining("REDIS_URL_ENV_VARS names TWO, which is not set; allowed: redis:"),
    expect.stringContaining("REDIS_URL_ENV_VARS names THREE, which is no such URL"),
  ]);
  expect(faults({ REDIS_URL_ENV_VARS: "ONE,TWO", ONE: "redis://a", TWO: "a:6379" })).toEqual([
    "REDIS_URL_ENV_VARS names the same host twice; allowed: different hosts",
  ]);
});

test("what a container orchestrator injects is ignored with one warning", () => {
  const { warnings } = readConfig({
    REDIS_PORT: "tcp://10.0.0.1:6379",
    REDIS_PORT_6379_TCP_ADDR: "10.0.0.1",
    REDIS_SERVICE_HOST: "10.0.0.1",
    DATABASE_PORT: "tcp://10.0.0.2:5432",
    KUBERNETES_SERVICE_HOST: "10.0.0.3",
  });
  expect(warnings).toEqual([
    "REDIS_PORT, REDIS_PORT_6379_TCP_ADDR, REDIS_SERVICE_HOST, DATABASE_PORT: ignored, as set by a container orchestrator",
  ]);
});

test("misspelt variables are noticed, those of other programs are not", () => {
  const { warnings } = readConfig({
    MAX_MESAGE_BYTES: "1",
    MAX_FISH: "1",
    TRUSTPROXY: "1",
    PORTS: "1",
    PANDAPUSH_PORT: "1",
    PANDAPUSH_FISH: "1",
    PANDAPUSH_URL: "https://push.example.com",
    PANDAPUSH_KEY_SECRET: "known to the command",
    PATH: "/bin",
    HOME: "/root",
    NODE_ENV: "production",
    HOSTNAME: "node1",
    SESSION_MANAGER: "local/x",
    npm_config_port: "1",
  });
  expect(warnings).toEqual([
    "MAX_MESAGE_BYTES is unknown; did you mean MAX_MESSAGE_BYTES?",
    "MAX_FISH is unknown and has no effect",
    "TRUSTPROXY is unknown; did you mean TRUST_PROXY?",
    "PORTS is unknown; did you mean PORT?",
    "PANDAPUSH_PORT is unknown; did you mean PORT?",
    "PANDAPUSH_FISH is unknown and has no effect",
  ]);
});

test("the .env file of a folder completes the environment, which wins", async () => {
  const folder = await mkdtemp(join(tmpdir(), "pandapush-config-"));
  const [name, value] = Object.entries(process.env).find(([, text]) => text !== "") ?? [];
  if (name === undefined) throw new Error("an empty environment");
  await writeFile(join(folder, ".env"), `PANDAPUSH_TEST="from the file" # why\n${name}=wrong\n`);
  expect(readEnvironment(folder)).toMatchObject({
    PANDAPUSH_TEST: "from the file",
    [name]: value,
  });
  await rm(folder, { recursive: true });
  expect(readEnvironment(folder)).toEqual(process.env);
  expect(process.env.PANDAPUSH_TEST).toBeUndefined();
});

test("an empty variable of the environment does not hide the one in .env", async () => {
  const folder = await mkdtemp(join(tmpdir(), "pandapush-config-"));
  await writeFile(join(folder, ".env"), "PORT=4700\n");
  vi.stubEnv("PORT", "");
  expect(readConfig(readEnvironment(folder)).config.port).toBe(4700);
  await rm(folder, { recursive: true });
});
