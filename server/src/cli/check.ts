/** `check`: whether a server could start here, and would find what it needs. */
import { resolve } from "node:path";
import {
  type Config,
  ConfigError,
  type RedisConfig,
  readConfig,
  readEnvironment,
} from "../config.js";
import { type Probed, probe } from "../redis/probe.js";
import { inspectDatabase } from "../storage/sql.js";
import { exitCodes, print, program } from "./core.js";
import { openFilesLimit } from "./open-files.js";

interface Finding {
  /** `note`: the server starts, and somebody should know; `fault`: something does not work. */
  readonly level: "ok" | "note" | "fault";
  /** What was looked at. */
  readonly subject: string;
  /** What it is like, and what to do if anything. */
  readonly text: string;
}

const oldestRedis = [6, 2] as const;
/** Tokens are judged by the clock of each machine. */
const maxClockMs = 1_000;
const fewFiles = 4_096;

program
  .command("check")
  .description("validate the configuration; try out the database and the Redis hosts")
  .addHelpText(
    "after",
    `
Run it where the server is to run: with its environment, or in the folder with
its .env file. It changes nothing. Each line begins with ok, note (the server
starts all the same) or FAULT.

Exit code: 0 when there is no fault, 1 when there is one.

Examples:
  pandapush check
  pandapush check --json | jq '.findings[] | select(.level != "ok")'`,
  )
  .action(async () => {
    const findings = await check();
    const isWell = findings.every(({ level }) => level !== "fault");
    const words = { ok: "ok   ", note: "note ", fault: "FAULT" };
    const lines = findings.map(
      ({ level, subject, text }) => `${words[level]}  ${subject}: ${text}`,
    );
    const faults = findings.filter(({ level }) => level === "fault").length;
    const summary = isWell
      ? "The server can start."
      : `${faults === 1 ? "A fault" : `${faults} faults`}: the server cannot start or work as it should.`;
    print({ ok: isWell, findings }, [...lines, "", summary]);
    if (!isWell) process.exitCode = exitCodes.failed;
  });

async function check(): Promise<Finding[]> {
  const subject = "configuration";
  let settings: ReturnType<typeof readConfig>;
  try {
    settings = readConfig(readEnvironment());
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error;
    return error.faults.map((text) => ({ level: "fault", subject, text }));
  }
  const { config, warnings } = settings;
  const redis = config.redis;
  const groups = await Promise.all([
    checkDatabase(config),
    ...(redis?.hosts.map((host) => checkRedis(host, redis)) ?? [noRedis(config)]),
  ]);
  return [
    { level: "ok", subject, text: "all values are allowed" },
    ...warnings.map((text) => ({ level: "note", subject, text }) as const),
    ...groups.flat(),
    ...checkFiles(),
  ];
}

async function checkDatabase({ database }: Config): Promise<Finding[]> {
  const subject = "database";
  const place =
    "path" in database
      ? resolve(database.path)
      : `${database.name} at ${database.address}:${database.port}`;
  try {
    const { engine, pending } = await inspectDatabase(database);
    const name = `${engine}, ${place}`;
    if (pending === undefined) {
      const text = `${name}: it has no tables yet; the first start makes them, or: pandapush migrate`;
      return [{ level: "note", subject, text }];
    }
    if (pending.length === 0) return [{ level: "ok", subject, text: `${name}: up to date` }];
    const text = `${name}: to be brought up to date by ${pending.join(", ")}; the next start does it, or: pandapush migrate`;
    return [{ level: "note", subject, text }];
  } catch (error) {
    return [{ level: "fault", subject, text: (error as Error).message }];
  }
}

async function checkRedis(
  host: RedisConfig["hosts"][number],
  config: RedisConfig,
): Promise<Finding[]> {
  const suffix = host.database === 0 ? "" : `/${host.database}`;
  const subject = `Redis host ${host.host}:${host.port}${suffix}`;
  try {
    const probed = await probe(host, config);
    const faults = [checkVersion(probed), checkEviction(probed), checkClock(probed)].flat();
    const version = probed.version === "" ? "of an unknown version" : probed.version;
    const text = `${version}; scripts run, and topics are heard`;
    return [{ level: "ok" as const, text }, ...faults].map((each) => ({ ...each, subject }));
  } catch (error) {
    const text = `${(error as Error).message}. ${redisHelp((error as Error).message)}`;
    return [{ level: "fault", subject, text }];
  }
}

type Judgement = Omit<Finding, "subject">;

function checkVersion({ version }: Probed): Judgement[] {
  const [major = 0, minor = 0] = version.split(".").map(Number);
  const [oldMajor, oldMinor] = oldestRedis;
  if (version === "" || major > oldMajor || (major === oldMajor && minor >= oldMinor)) return [];
  const text = `it is Redis ${version}. Use ${oldestRedis.join(".")} or newer, or Valkey`;
  return [{ level: "fault", text }];
}

function checkEviction({ evictionPolicy, maxMemory }: Probed): Judgement[] {
  if (evictionPolicy === "" || evictionPolicy === "noeviction") return [];
  const help = "Set maxmemory-policy to noeviction";
  return [
    maxMemory > 0
      ? {
          level: "fault",
          text: `when its memory is full it throws keys away (maxmemory-policy is ${evictionPolicy}), and with them who is present and where sessions are. ${help}`,
        }
      : {
          level: "note",
          text: `should it be given a maxmemory, it would throw keys away then (maxmemory-policy is ${evictionPolicy}). ${help}`,
        },
  ];
}

function checkClock({ clockAheadMs }: Probed): Judgement[] {
  const byMs = Math.abs(clockAheadMs);
  if (byMs <= maxClockMs) return [];
  const side = clockAheadMs > 0 ? "ahead of" : "behind";
  const text = `its clock is ${byMs} ms ${side} this machine's, so one of them is wrong; tokens end by this machine's. Let NTP set both`;
  return [{ level: "note", text }];
}

function redisHelp(message: string): string {
  if (/ECONNREFUSED|no answer|ETIMEDOUT|EHOSTUNREACH/.test(message)) {
    return "Start it, let this machine reach it, or change REDIS_HOSTS";
  }
  if (/ENOTFOUND|EAI_AGAIN/.test(message)) return "Check its name in REDIS_HOSTS";
  if (/NOAUTH|WRONGPASS|NOPERM|AUTH|can't (?:publish|run)/.test(message)) {
    return "REDIS_HOSTS has user and password, as redis://user:password@host:port; the user may run scripts and use keys and topics that begin with REDIS_PREFIX";
  }
  if (/READONLY/.test(message)) return "It is a replica: name its primary in REDIS_HOSTS";
  return "Check REDIS_HOSTS, and what the host's log says";
}

async function noRedis({ database }: Config): Promise<Finding[]> {
  const text = "REDIS_HOSTS is not set: this node stands alone";
  return [{ level: "path" in database ? "ok" : "note", subject: "Redis", text }];
}

function checkFiles(): Finding[] {
  const limit = openFilesLimit();
  const subject = "open files";
  if (limit >= fewFiles) {
    const count = limit === Number.POSITIVE_INFINITY ? "without limit" : `at most ${limit}`;
    return [{ level: "ok", subject, text: `${count}; each connection is one` }];
  }
  const text = `at most ${limit}, and each connection is one. Raise it: ulimit -n 65536, or LimitNOFILE= of systemd`;
  return [{ level: "note", subject, text }];
}
