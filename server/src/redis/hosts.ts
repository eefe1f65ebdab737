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
import { Connection } from "./connection.js";

/** How long a command may stay unanswered before its host counts as down. */
const commandPatienceMs = 800;
/**
 * The same for topics. Longer, because nothing is lost on a connection that only stands still, and
 * giving it up may lose something.
 */
const topicPatienceMs = 3_000;
/** How often an idle connection is tried out. */
const pingIntervalMs = 2_000;
/** Wait between two attempts to connect: doubles from the first to the second, less a random part. */
const retryMs = { first: 50, longest: 1_000 };
/** A connection that ended sooner counts as a failed attempt. */
const steadyMs = 5_000;
/** Topics in one command. */
const topicsPerCommand = 1_000;

export type Log = (level: "info" | "warn" | "error", message: string, fields: object) => void;

/** A Lua script; it may write only to keys that it is given. */
export interface Script {
  readonly text: string;
  readonly sha: string;
}

export function readScript(url: URL): Script {
  const text = readFileSync(url, "utf8");
  return { text, sha: createHash("sha1").update(text).digest("hex") };
}

/** The host is down, did not answer in time, or has too much to answer. */
export class HostUnavailable extends Error {
  override readonly name = "HostUnavailable";

  constructor(host: string, { message }: Error) {
    super(`Redis host ${host} is unavailable: ${message}`);
  }
}

/** Who hears a topic. The same object may hear many. */
export interface TopicListener {
  message(message: string, topic: string): void;
  /** Confirmed again after the connection was lost: what was said in between was not heard. */
  missed(topic: string): void;
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
    const marker = `${this.prefix}marker`;
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

  private ping(): void {
    for (const { connection } of [this.commands, this.topicLink]) {
      // A failure ends the connection, which is all that matters here.
      connection?.send(["PING"]).catch(noop);
    }
  }
}

/** Keeps one connection open: whenever it has ended, another is opened. */
class Link {
  /** The one that can be used, if there is one. */
  connection: Connection | undefined;
  /** Why there is none; undefined before the first attempt. */
  reason: Error | undefined;
  readonly tried: Promise<void>;
  private opening: Connection | undefined;
  private isClosed = false;
  private afterTrying: () => void = noop;
  private goOn: () => void = noop;
  private unavailableError: HostUnavailable | undefined;

  constructor(
    private readonly connect: () => Connection,
    /** Done before it is used. */
    private readonly prepare: (connection: Connection) => Promise<void>,
    private readonly onUp: (connection: Connection) => void,
    private readonly onDown: (reason: Error) => void,
  ) {
    this.tried = new Promise((resolve) => {
      this.afterTrying = resolve;
    });
    void this.keepOpen();
  }

  /** For what cannot be sent now; one object for all, for they may be many. */
  unavailable(host: string): HostUnavailable {
    this.unavailableError ??= new HostUnavailable(host, this.reason ?? new Error("not connected"));
    return this.unavailableError;
  }

  close(): void {
    this.isClosed = true;
    (this.connection ?? this.opening)?.fail(new Error("closed"));
    this.goOn();
  }

  private async keepOpen(): Promise<void> {
    let failures = 0;
    while (!this.isClosed) {
      const openedAt = performance.now();
      const reason = await this.use(this.connect());
      if (performance.now() - openedAt > steadyMs) failures = 0;
      this.connection = undefined;
      this.reason = reason;
      this.unavailableError = undefined;
      this.afterTrying();
      if (this.isClosed) return;
      this.onDown(reason);
      await this.pause(Math.min(retryMs.first * 2 ** failures++, retryMs.longest));
    }
  }

  /** @returns why it ended */
  private async use(connection: Connection): Promise<Error> {
    this.opening = connection;
    try {
      await connection.open();
      await this.prepare(connection);
    } catch (error) {
      connection.fail(error as Error);
      return connection.ended;
    }
    this.connection = connection;
    this.reason = undefined;
    this.onUp(connection);
    this.afterTrying();
    return connection.ended;
  }

  /** At least half of `ms`: nodes that lost a host together do not return together. */
  private pause(ms: number): Promise<void> {
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, ms * (0.5 + Math.random() / 2));
      this.goOn = () => {
        clearTimeout(timer);
        resolve();
      };
    });
  }
}

interface Topic {
  readonly name: string;
  listener: TopicListener;
  isWanted: boolean;
  /** By Redis, on the present connection. */
  isConfirmed: boolean;
  /** It was confirmed to the present listener, on whatever connection. */
  wasConfirmed: boolean;
  waiting: Set<Waiter> | undefined;
}

interface Waiter {
  readonly resolve: () => void;
  readonly giveUp: () => void;
  readonly timer: NodeJS.Timeout;
}

/**
 * Which topics are wanted, and which of them Redis has confirmed. What differs is settled by one
 * pair of commands at a time: so it is always known what is confirmed, whatever is wanted
 * meanwhile, and what comes meanwhile shares the next pair.
 */
class Topics {
  private readonly topics = new Map<string, Topic>();
  /** What may differ, oldest first. */
  private readonly unsettled = new Set<Topic>();
  private connection: Connection | undefined;
  private reason = new Error("not connected");
  private isSettling = false;
  /** How many commands it takes until a new connection has all topics of the old one. */
  private commandsToResume = 0;
  private afterResuming: () => void = noop;
  /** How many topics were confirmed again since the connection was lost. */
  private missed = 0;

  constructor(
    private readonly host: string,
    private readonly log: Log,
  ) {}

  subscribe(name: string, listener: TopicListener, waitMs: number): MaybePromise<void> {
    let topic = this.topics.get(name);
    if (topic === undefined) {
      topic = {
        name,
        listener,
        isWanted: true,
        isConfirmed: false,
        wasConfirmed: false,
        waiting: undefined,
      };
      this.topics.set(name, topic);
    }
    topic.listener = listener;
    topic.isWanted = true;
    if (topic.isConfirmed) {
      topic.wasConfirmed = true;
      return;
    }
    this.unsettled.add(topic);
    this.settleSoon();
    return this.wait(topic, waitMs);
  }

  unsubscribe(name: string): void {
    const topic = this.topics.get(name);
    if (topic === undefined) return;
    topic.isWanted = false;
    topic.wasConfirmed = false;
    release(topic);
    if (this.connection === undefined) {
      this.topics.delete(name);
      this.unsettled.delete(topic);
    } else {
      this.unsettled.add(topic);
      this.settleSoon();
    }
  }

  /** Resolves when all topics that are wanted now are confirmed. */
  async begin(connection: Connection): Promise<void> {
    this.connection = connection;
    for (const topic of this.topics.values()) this.unsettled.add(topic);
    // Whatever is wanted meanwhile comes after them.
    this.commandsToResume = Math.ceil(this.unsettled.size / topicsPerCommand);
    if (this.commandsToResume === 0) return;
    const resumed = new Promise<void>((resolve) => {
      this.afterResuming = resolve;
    });
    this.settleSoon();
    await Promise.race([resumed, connection.ended.then((reason) => Promise.reject(reason))]);
  }

  interrupt(reason: Error): void {
    this.connection = undefined;
    this.reason = reason;
    for (const topic of this.topics.values()) topic.isConfirmed = false;
  }

  close(): void {
    this.interrupt(new Error("closed"));
    for (const { waiting } of this.topics.values()) {
      for (const waiter of waiting ?? []) waiter.giveUp();
    }
    this.topics.clear();
  }

  private wait(topic: Topic, waitMs: number): Promise<void> {
    return new Promise((resolve, reject) => {
      const giveUp = (): void => {
        clearTimeout(timer);
        topic.waiting?.delete(waiter);
        reject(new HostUnavailable(this.host, this.reason));
      };
      const timer = setTimeout(giveUp, waitMs);
      const waiter: Waiter = { resolve, giveUp, timer };
      topic.waiting ??= new Set();
      topic.waiting.add(waiter);
    });
  }

  /** At the end of this turn, so that all of its subscriptions are in one command. */
  private settleSoon(): void {
    const { connection } = this;
    if (this.isSettling || connection === undefined) return;
    this.isSettling = true;
    setImmediate(() => {
      this.settle(connection)
        .catch((error: Error) => connection.fail(error))
        .finally(() => {
          this.isSettling = false;
          // On the next connection, if there is one already; else that does it when it begins.
          if (this.unsettled.size > 0) this.settleSoon();
        });
    });
  }

  private async settle(connection: Connection): Promise<void> {
    while (connection === this.connection && this.unsettled.size > 0) {
      const { wanted, unwanted } = this.takeUnsettled();
      for (const topic of unwanted) topic.isConfirmed = false;
      await Promise.all([
        wanted.length === 0 || connection.subscribe(wanted.map(nameOf), this.listen),
        unwanted.length === 0 || connection.unsubscribe(unwanted.map(nameOf)),
      ]);
      if (connection !== this.connection) return;
      for (const topic of wanted) this.confirm(topic);
      // Unless it is wanted again, it can now be forgotten.
      for (const topic of unwanted) this.unsettled.add(topic);
      if (--this.commandsToResume === 0) this.resumed();
    }
  }

  private resumed(): void {
    if (this.missed > 0) {
      const fields = { host: this.host, topics: this.missed };
      this.log("warn", "topics were interrupted: what was said meanwhile was not heard", fields);
    }
    this.missed = 0;
    this.afterResuming();
  }

  private takeUnsettled(): { readonly wanted: Topic[]; readonly unwanted: Topic[] } {
    const wanted: Topic[] = [];
    const unwanted: Topic[] = [];
    for (const topic of this.unsettled) {
      if (wanted.length + unwanted.length === topicsPerCommand) break;
      this.unsettled.delete(topic);
      if (topic.isWanted) {
        if (!topic.isConfirmed) wanted.push(topic);
      } else if (topic.isConfirmed) {
        unwanted.push(topic);
      } else {
        this.topics.delete(topic.name);
      }
    }
    return { wanted, unwanted };
  }

  private confirm(topic: Topic): void {
    topic.isConfirmed = true;
    if (!topic.isWanted) {
      this.unsettled.add(topic);
      return;
    }
    const { listener, name, wasConfirmed } = topic;
    topic.wasConfirmed = true;
    if (wasConfirmed) {
      this.missed++;
      this.tell(() => listener.missed(name));
    }
    release(topic);
  }

  private readonly listen = (message: string, name: string): void => {
    const topic = this.topics.get(name);
    if (topic?.isWanted) this.tell(() => topic.listener.message(message, name));
  };

  /** A listener's fault must not end the reading of what comes for others. */
  private tell(say: () => void): void {
    try {
      say();
    } catch (error) {
      this.log("error", "handle what came from Redis", { err: error });
    }
  }
}

/** Nobody waits for it any longer. */
function release(topic: Topic): void {
  for (const { resolve, timer } of topic.waiting ?? []) {
    clearTimeout(timer);
    resolve();
  }
  topic.waiting = undefined;
}

function nameOf({ name }: Topic): string {
  return name;
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
