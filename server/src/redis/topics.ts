/** What is said on topics of one Redis host, and who hears it. */
import type { MaybePromise } from "../maybe-promise.js";
import { type Connection, HostUnavailable } from "./connection.js";

/** Topics in one command. */
const topicsPerCommand = 1_000;

export type Log = (level: "info" | "warn" | "error", message: string, fields: object) => void;

/** Who hears a topic. The same object may hear many. */
export interface TopicListener {
  message(message: string, topic: string): void;
  /** Confirmed again after the connection was lost: what was said in between was not heard. */
  missed(topic: string): void;
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
export class Topics {
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

function noop(): void {}
