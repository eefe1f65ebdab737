/** Tries a Redis host out, as a node would use it, and leaves nothing behind. */
import { randomBytes } from "node:crypto";
import { setTimeout as delay } from "node:timers/promises";
import { ErrorReply } from "@redis/client";
import type { RedisConfig, RedisHostConfig } from "../config.js";
import { Connection } from "./connection.js";
import { readScript } from "./hosts.js";

/** How long any answer may take. */
const patienceMs = 3_000;
/** How long what a script leaves stays, should it not come to delete it. */
const keepMs = 10_000;

const timeScript = readScript(new URL("../../lua/time.lua", import.meta.url));
/** What nodes do all the time: write, publish and ask the time, in one script. */
const trial = `${timeScript.text}
redis.call('SET', KEYS[1], '1', 'PX', ARGV[1])
redis.call('PUBLISH', KEYS[1], '1')
redis.call('DEL', KEYS[1])
return text(now)`;

export interface Probed {
  /** Of Redis, or of the Redis that a Valkey is compatible with; empty: it does not tell. */
  readonly version: string;
  /** By how many ms its clock is ahead of this machine's, within the time of an answer. */
  readonly clockAheadMs: number;
  /** What it throws away when its memory is full; empty: it does not tell. */
  readonly evictionPolicy: string;
  /** In bytes; 0: as much as there is. */
  readonly maxMemory: number;
}

/**
 * @throws Error whose message says what does not work, in words of Redis or of the network, and
 *   without secrets
 */
export async function probe(host: RedisHostConfig, { prefix }: RedisConfig): Promise<Probed> {
  const commands = new Connection(host, "check", patienceMs);
  const topics = new Connection(host, "check", patienceMs);
  const done = new Error("done");
  try {
    await Promise.all([commands.open(), topics.open()]);
    const name = `${prefix}check:${randomBytes(9).toString("base64url")}`;
    let hear: () => void = () => undefined;
    const heard = new Promise<void>((resolve) => {
      hear = resolve;
    });
    await during("topics", topics.subscribe([name], hear));
    const askedAt = Date.now();
    const time = await during("scripts", commands.send(["EVAL", trial, "1", name, String(keepMs)]));
    const answeredAt = Date.now();
    await during("topics", Promise.race([heard, late()]));
    const info = `${await asked(commands, "server")}\n${await asked(commands, "memory")}`;
    const field = (name: string): string =>
      new RegExp(`^${name}:(.*?)\\r?$`, "m").exec(info)?.[1] ?? "";
    return {
      version: field("redis_version"),
      clockAheadMs: Math.round(Number(time) - (askedAt + answeredAt) / 2),
      evictionPolicy: field("maxmemory_policy"),
      maxMemory: Number(field("maxmemory")),
    };
  } finally {
    commands.fail(done);
    topics.fail(done);
  }
}

/** Not everybody may ask this. */
async function asked(connection: Connection, section: string): Promise<string> {
  try {
    return String(await connection.send(["INFO", section]));
  } catch (error) {
    if (error instanceof ErrorReply) return "";
    throw error;
  }
}

async function late(): Promise<never> {
  await delay(patienceMs, undefined, { ref: false });
  throw new Error(`what was published did not come within ${patienceMs} ms`);
}

async function during<T>(what: string, work: Promise<T>): Promise<T> {
  try {
    return await work;
  } catch (error) {
    throw new Error(`${what}: ${(error as Error).message}`, { cause: error });
  }
}
