/**
 * The Redis hosts that nodes share: what is sent to them, heard from them, and known of their state.
 * Knows scripts, keys and topics, and nothing of what they mean.
 *
 * Each host has a connection for commands and one for topics. Both are opened again whenever they
 * end, for ever. While a host is down its commands fail at once, and its topics wait.
 */
import { createHash, randomBytes } from "node:crypto";
import { readFileSync } from "node:fs";
import { setImmediate as nextTurn } from "node:timers/promises";
import { ErrorReply } from "@redis/client";
import type { RedisConfig, RedisHostConfig } from "../config.js";
import type { MaybePromise } from "../maybe-promise.js";
import { Connection, HostUnavailable } from "./connection.js";
import { Link } from "./link.js";
import { type Log, type TopicListener, Topics } from "./topics.js";

export { HostUnavailable } from "./connection.js";
export type { Log, TopicListener } from "./topics.js";

/** How long a command may stay unanswered before its host counts as down. */
const commandPatienceMs = 800;
/**
 * The same for topics. Longer, because nothing is lost on a connection that only stands still, and
 * giving it up may lose something.
 */
const topicPatienceMs = 3_000;
/** How often an idle connection is tried out. */
const pingIntervalMs = 2_000;

/** A Lua script; it may write only to keys that it is given. */
export interface Script {
  readonly text: string;
  readonly sha: string;
}

/** Where `server/lua/<name>.lua` is. */
export function luaUrl(name: string): URL {
  return new URL(`../../lua/${name}.lua`, import.meta.url);
}

/** @param urls its parts, in their order: what several scripts share stands in front */
export function readScript(...urls: readonly URL[]): Script {
  const text = urls.map((url) => readFileSync(url, "utf8")).join("\n");
  return { text, sha: createHash("sha1").update(text).digest("hex") };
}

export type HostState =
  | {
      readonly isUp: true;
      /**
       * It is another process than before, or its data was replaced. Whatever was written before
       * may be missing. Never said of the first time.
       */
      readonly mayLackData: boolean;
    }
  | { readonly isUp: false };

export class RedisHosts {
  readonly all: readonly RedisHost[];
  private readonly ranked: readonly { readonly host: RedisHost; readonly seed: number }[];

  /** Begins to connect. */
  constructor({ hosts, prefix }: RedisConfig, log: Log) {
    this.all = hosts.map((config) => new RedisHost(config, prefix, log));
    // In an order that does not depend on the configuration's.
    this.ranked = [...this.all]
      .sort((a, b) => (a.name < b.name ? -1 : 1))
      .map((host) => ({ host, seed: hash(host.name) }));
  }

  /**
   * The host for `key`, the same on every node that has the same hosts in whatever order. When a
   * host is added or taken away, only keys that move to or from it change theirs.
   */
  hostOf(key: string): RedisHost {
    const [first, ...others] = this.ranked;
    if (first === undefined) throw new Error("There is no Redis host");
    if (others.length === 0) return first.host;
    const keyHash = hash(key);
    let best = first;
    let bestScore = mix(keyHash ^ first.seed);
    for (const each of others) {
      const score = mix(keyHash ^ each.seed);
      if (score <= bestScore) continue;
      best = each;
      bestScore = score;
    }
    return best.host;
  }

  /** Resolves when each host is up or could not be reached, within a few seconds. */
  async tried(): Promise<void> {
    await Promise.all(this.all.map((host) => host.tried));
  }

  /** What was sent is answered before, if that takes no longer than a command may take. */
  async close(): Promise<void> {
    await Promise.all(this.all.map((host) => host.close()));
  }
}

export class RedisHost {
  /** `host:port`, with `/database` if that is not 0. */
  readonly name: string;
  /** Resolves after the first attempt to connect, however it went. */
  readonly tried: Promise<unknown>;
  private readonly prefix: string;
  private readonly commands: Link;
  private readonly topics: Topics;
  private readonly topicLink: Link;
  private readonly listeners: ((state: HostState) => void)[] = [];
  private readonly pinging: NodeJS.Timeout;
  private wasUp = false;
  private mayLackData = false;
  /** Which process and which data were seen last. */
  private seen: { readonly process: string; readonly data: string } | undefined;
  /** Scripts are run again that Redis did not know: what comes meanwhile waits behind them. */
  private replay: { readonly drained: Promise<unknown>; readonly over: Promise<void> } | undefined;
  /** The reason for being down that was logged last. */
  private complaint: string | undefined;

  constructor(
    config: RedisHostConfig,
    prefix: string,
    private readonly log: Log,
  ) {
    const { host, port, database } = config;
    const suffix = database === 0 ? "" : `/${database}`;
    this.name = `${host.includes(":") ? `[${host}]` : host}:${port}${suffix}`;
    // Topics know no databases: without the number, one would hear what is said in another.
    this.prefix = database === 0 ? prefix : `${prefix}${database}:`;
    this.topics = new Topics(this.name, log);
    const changed = (): void => this.afterChange();
    this.commands = new Link(
      () => new Connection(config, "commands", commandPatienceMs),
      (connection) => this.identify(connection),
      changed,
      changed,
    );
    this.topicLink = new Link(
      () => new Connection(config, "topics", topicPatienceMs),
      (connection) => this.topics.begin(connection),
      changed,
      (reason) => {
        this.topics.interrupt(reason);
        this.afterChange();
      },
    );
    this.tried = Promise.all([this.commands.tried, this.topicLink.tried]);
    this.pinging = setInterval(() => this.ping(), pingIntervalMs);
    this.pinging.unref();
  }

  /** Whether commands are answered and all topics heard. */
  get isUp(): boolean {
    return this.commands.connection !== undefined && this.topicLink.connection !== undefined;
  }

  /**
   * Name of a key or topic. All with the same tag (an application's id, say) are in one slot of a
   * Redis Cluster, and may stand in one script.
   */
  key(tag: string, rest: string): string {
    return `${this.prefix}{${tag}}${rest}`;
  }

  /**
   * Runs a script, once or not at all. Scripts run in the order of these calls.
   * @returns its reply; texts are strings
   * @throws HostUnavailable at once when the host is down, or within a second. It may have run.
   * @throws ErrorReply when Redis refuses it
   */
  run(script: Script, keys: readonly string[], args: readonly string[]): Promise<unknown> {
    if (this.replay !== undefined) return this.replay.over.then(() => this.run(script, keys, args));
    const { connection } = this.commands;
    if (connection === undefined) return Promise.reject(this.commands.unavailable(this.name));
    const rest = [String(keys.length), ...keys, ...args];
    const length = lengthOf(rest);
    return connection.send(["EVALSHA", script.sha, ...rest], length).catch((error: Error) => {
      if (!error.message.startsWith("NOSCRIPT")) throw this.explain(error);
      return this.runAgain(connection, ["EVAL", script.text, ...rest], length);
    });
  }

  /** Runs one command; otherwise as `run`. */
  command(...args: string[]): Promise<unknown> {
    const { connection } = this.commands;
    if (connection === undefined) return Promise.reject(this.commands.unavailable(this.name));
    return connection.send(args, lengthOf(args)).catch((error: Error) => {
      throw this.explain(error);
    });
  }

  /**
   * The listener hears what is said on `topic` from now on, also after connections were lost, until
   * `unsubscribe`. A topic has one listener; harmless twice.
   * @param waitMs how long to wait for what cannot be confirmed now
   * @returns (or resolves) when Redis has confirmed it
   * @throws HostUnavailable when that took too long. It is still confirmed as soon as possible.
   */
  subscribe(topic: string, listener: TopicListener, waitMs: number): MaybePromise<void> {
    return this.topics.subscribe(topic, listener, waitMs);
  }

  /** Harmless when not subscribed. Who waits for `subscribe` waits no longer, as if it had come. */
  unsubscribe(topic: string): void {
    this.topics.unsubscribe(topic);
  }

  /**
   * Resolves when all has been heard that was said before this call on topics that are confirmed.
   * @returns false when the connection was lost: some of it is missed
   */
  async caughtUp(): Promise<boolean> {
    const { connection } = this.topicLink;
    if (connection === undefined) return false;
    // Answered behind all that Redis has said on this connection.
    return connection.send(["PING"]).then(
      () => true,
      () => false,
    );
  }

  /** Told of every change from now on. */
  onState(listener: (state: HostState) => void): void {
    this.listeners.push(listener);
  }

  async close(): Promise<void> {
    clearInterval(this.pinging);
    // Answered behind everything else.
    await this.commands.connection?.send(["PING"]).catch(() => undefined);
    this.commands.close();
    this.topicLink.close();
    this.topics.close();
  }

  /**
   * Redis did not know the script, nor perhaps others that are on their way. They are run again in
   * their order when all that was sent has been answered.
   */
  private async runAgain(connection: Connection, args: string[], length: number): Promise<unknown> {
    if (this.replay === undefined) {
      // Answered behind everything that was sent before.
      const drained = connection.send(["PING"]);
      const over = drained
        .catch(noop)
        .then(() => nextTurn())
        .then(() => {
          this.replay = undefined;
        });
      this.replay = { drained, over };
    }
    try {
      await this.replay.drained;
      return await connection.send(args, length);
    } catch (error) {
      throw this.explain(error as Error);
    }
  }

  /** Whatever is no refusal by Redis says that the connection was lost. */
  private explain(error: Error): Error {
    return isReply(error) ? error : new HostUnavailable(this.name, error);
  }

  /** Finds out whether this is the host that we knew, with what we knew it had. */
  private async identify(connection: Connection): Promise<void> {
    const { marker } = this;
    const [info, , data] = await Promise.all([
      // Not everybody may ask this; then the marker has to do.
      connection.send(["INFO", "server"]).catch((error: Error) => {
        if (isReply(error)) return "";
        throw error;
      }),
      connection.send(["SET", marker, randomBytes(12).toString("base64url"), "NX"]),
      connection.send(["GET", marker]),
    ]);
    const process = /^run_id:(\w+)/m.exec(String(info))?.[1] ?? "";
    const seen = { process, data: String(data) };
    const before = this.seen ?? seen;
    this.mayLackData ||= seen.process !== before.process || seen.data !== before.data;
    this.seen = seen;
  }

  private afterChange(): void {
    const { isUp } = this;
    const mayLackData = this.mayLackData;
    if (!isUp) this.complain();
    if (isUp === this.wasUp) return;
    this.wasUp = isUp;
    if (isUp) {
      this.mayLackData = false;
      this.complaint = undefined;
      this.log("info", "Redis host is up", { host: this.name, mayLackData });
    }
    const state: HostState = isUp ? { isUp, mayLackData } : { isUp };
    for (const listener of this.listeners) listener(state);
  }

  /** Attempts are many; a reason is logged once. */
  private complain(): void {
    const reason = (this.commands.reason ?? this.topicLink.reason)?.message;
    if (reason === undefined || reason === this.complaint) return;
    this.complaint = reason;
    this.log("warn", "Redis host is down", { host: this.name, reason });
  }

  /** What says which data these are: who empties a host takes it away, too. */
  private get marker(): string {
    return `${this.prefix}marker`;
  }

  /** A failure ends the connection, which is all that matters here. */
  private ping(): void {
    this.topicLink.connection?.send(["PING"]).catch(noop);
    const { connection } = this.commands;
    connection?.send(["GET", this.marker]).then((data) => {
      // As a host that came back: what it lacks is given to it again.
      if (data !== this.seen?.data) connection.fail(new Error("its data were deleted"));
    }, noop);
  }
}

function isReply(error: Error): boolean {
  return error instanceof ErrorReply;
}

function lengthOf(texts: readonly string[]): number {
  let length = 0;
  for (const text of texts) length += text.length;
  return length;
}

/** FNV-1a. */
function hash(text: string): number {
  let value = 0x811c9dc5;
  for (let i = 0; i < text.length; i++) value = Math.imul(value ^ text.charCodeAt(i), 0x01000193);
  return value;
}

/** MurmurHash3's last step: each bit of the result depends on each of `value`. */
function mix(value: number): number {
  let bits = value;
  bits = Math.imul(bits ^ (bits >>> 16), 0x85ebca6b);
  bits = Math.imul(bits ^ (bits >>> 13), 0xc2b2ae35);
  return (bits ^ (bits >>> 16)) >>> 0;
}

function noop(): void {}
