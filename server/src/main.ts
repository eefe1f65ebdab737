/** The process: configuration in, a server out, and a calm end on SIGTERM. */
import { readFileSync } from "node:fs";
import { addPassword, hasPassword } from "./auth/password.js";
import { type Config, ConfigError, readConfig, readEnvironment } from "./config.js";
import { type AdminLogin, findFirstSteps, firstScreen } from "./first-steps.js";
import { createLog, type Log } from "./observe.js";
import { type RunningServer, startServer } from "./server.js";
import { StorageUnavailable, type Store } from "./storage/store.js";

/**
 * Runs the server until SIGTERM or SIGINT; the process then ends by itself with exit code 0.
 * @returns the exit code when it could not be started
 */
export async function main(): Promise<number> {
  const environment = readEnvironment();
  let settings: ReturnType<typeof readConfig>;
  try {
    settings = readConfig(environment);
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error;
    process.stderr.write(`${error.message}\n`);
    return 1;
  }
  const { config, warnings } = settings;
  let log: Log;
  try {
    log = createLog(config.log);
  } catch (error) {
    process.stderr.write(`Pandapush cannot start: LOG_PATH: ${(error as Error).message}\n`);
    return 1;
  }
  for (const warning of warnings) log.warn(warning);
  const build = { version: readVersion(), rev: "dev", built: "dev" };
  let server: RunningServer;
  try {
    server = await startServer(config, log, build);
  } catch (error) {
    log.debug({ err: error }, "start failed");
    process.stderr.write(`Pandapush cannot start: ${describe(error, config)}\n`);
    return 1;
  }
  endOnSignals(server, log);
  surviveErrors(server, log);
  log.info({ url: server.url, version: build.version }, "listening");
  try {
    // A key's secret is shown to people who try it out, never to a production log.
    if (environment.NODE_ENV !== "production") await showFirstScreen(server, config, build.version);
    else await warnWithoutPassword(server.store, config, log);
  } catch (error) {
    if (!(error instanceof StorageUnavailable)) throw error;
    log.warn("not ready: the database is not available, and is tried again and again");
  }
  return 0;
}

async function showFirstScreen(
  { store, keys, url }: RunningServer,
  config: Config,
  version: string,
): Promise<void> {
  const steps = config.devApplication ?? (await findFirstSteps(store));
  await keys.changed();
  const login = await findAdminLogin(store, config);
  process.stdout.write(firstScreen(url, version, steps, login));
}

/** undefined: nobody can log in. */
async function findAdminLogin(store: Store, { admin }: Config): Promise<AdminLogin | undefined> {
  if (admin.method === "none") return undefined;
  if (admin.provider !== undefined) return { provider: admin.provider.name };
  const { username } = admin;
  if (admin.password !== undefined) return { username, isConfigured: true };
  const password = await addPassword(store);
  return { username, isConfigured: false, ...(password === undefined ? {} : { password }) };
}

async function warnWithoutPassword(store: Store, { admin }: Config, log: Log): Promise<void> {
  if (admin.method !== "basic" || admin.password !== undefined || (await hasPassword(store)))
    return;
  log.warn("no admin can log in: set ADMIN_PASSWORD, or run: pandapush admin reset-password");
}

function endOnSignals(server: RunningServer, log: Log): void {
  const end = (signal: NodeJS.Signals): void => {
    // A second signal ends it the hard way.
    process.removeAllListeners("SIGTERM").removeAllListeners("SIGINT");
    log.info({ signal }, "shutting down");
    void stop(server, log, 0);
  };
  process.once("SIGTERM", end).once("SIGINT", end);
}

/** Nothing ends the process silently: what nobody caught is in the log. */
function surviveErrors(server: RunningServer, log: Log): void {
  process.on("unhandledRejection", (error) => log.error({ err: error }, "unhandled rejection"));
  process.once("uncaughtException", (error) => {
    // What it left half done is unknown: drain and let a fresh process take over.
    log.fatal({ err: error }, "uncaught exception, shutting down");
    void stop(server, log, 1);
  });
}

async function stop(server: RunningServer, log: Log, exitCode: number): Promise<void> {
  try {
    await server.close();
  } catch (error) {
    log.error({ err: error }, "shutdown failed");
    process.exitCode = 1;
  }
  process.exitCode ??= exitCode;
  log.flush();
  process.exit();
}

function readVersion(): string {
  const file = new URL("../package.json", import.meta.url);
  return (JSON.parse(readFileSync(file, "utf8")) as { version: string }).version;
}

function describe(error: unknown, config: Config): string {
  const { code, message, port, hostname } = error as NodeJS.ErrnoException & {
    port?: number;
    hostname?: string;
  };
  const isForMetrics =
    (port !== undefined && port === config.metrics.port) ||
    (hostname !== undefined && hostname !== config.host);
  const portName = isForMetrics ? "METRICS_PORT" : "PORT";
  const hostName = isForMetrics && config.metrics.host !== config.host ? "METRICS_HOST" : "HOST";
  const host = isForMetrics ? config.metrics.host : config.host;
  switch (code) {
    case "EADDRINUSE":
      return `port ${port} is in use. Choose another one with ${portName}.`;
    case "EACCES":
      return `this user may not listen on port ${port}. Choose one above 1023.`;
    case "EADDRNOTAVAIL":
    case "ENOTFOUND":
    case "EAI_AGAIN":
      return `${hostName} is "${host}", which is no address of this machine. Without ${hostName} it listens ${isForMetrics ? "as PORT does" : "on all of them"}.`;
    default:
      return message;
  }
}
