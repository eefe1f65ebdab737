/** One connection to a Redis host, from its beginning to its one end. */
import { createClient, ErrorReply } from "@redis/client";
import type { RedisHostConfig } from "../config.js";

/** Connecting, TLS and the first answer take at most this long. */
const connectTimeoutMs = 2_000;
/** What is sent and not yet answered, in characters; beyond, commands are refused. */
const maxUnanswered = 64 * 1_048_576;
/** How often it is checked that answers come. */
const tickMs = 200;
/** Answered commands are forgotten in lots of at least so many. */
const compactAt = 1_024;

/** The host is down, did not answer in time, or has too much to answer. */
export class HostUnavailable extends Error {
  override readonly name = "HostUnavailable";

  constructor(host: string, { message }: Error) {
    super(`Redis host ${host} is unavailable: ${message}`);
  }
}

export type MessageListener = (message: string, topic: string) => void;

/**
 * Commands sent in one turn of the event loop leave in one write, and are answered in their order.
 *
 * It never heals: whoever wants another connection opens one. So nothing of an old connection, no
 * subscription and no queue, can be taken for something of the new one.
 */
export class Connection {
  /** Resolves with the reason when it has ended, also when it never began. */
  readonly ended: Promise<Error>;
  private readonly client;
  private end: (reason: Error) => void = () => undefined;
  private hasEnded = false;
  private sent = 0;
  private answered = 0;
  /** Characters that are sent and not yet answered. */
  private unanswered = 0;
  /** How to refuse what is sent and not yet answered; from `oldest` on, in order. */
  private waiting: ((reason: Error) => void)[] = [];
  private oldest = 0;
  /** How much was sent at each of the last ticks, oldest first. */
  private marks: number[] = [];
  /** How many ticks have passed since anything was answered. */
  private silentTicks = 0;
  private ticking: NodeJS.Timeout | undefined;

  /**
   * @param role shown by `CLIENT LIST`
   * @param patienceMs how long an answer may take before the connection counts as dead
   */
  constructor(
    config: RedisHostConfig,
    role: string,
    private readonly patienceMs: number,
  ) {
    this.client = createClient(clientOptions(config, role));
    this.ended = new Promise((resolve) => {
      this.end = resolve;
    });
    this.client.on("error", (error: Error) => this.fail(error));
    this.client.on("end", () => this.fail(new Error("closed")));
  }

  /** @throws Error saying why there is no connection; it has then ended */
  async open(): Promise<void> {
    const timer = setTimeout(
      () => this.fail(new Error(`no answer within ${connectTimeoutMs} ms of connecting`)),
      connectTimeoutMs,
    );
    try {
      const connected = this.client.connect();
      // The library may leave it pending when the connection ends meanwhile.
      const failed = this.ended.then((reason) => Promise.reject(reason));
      await Promise.race([connected, failed]);
    } catch (error) {
      this.fail(error as Error);
      throw await this.ended;
    } finally {
      clearTimeout(timer);
    }
  }

  /**
   * @param length how many characters it has, for long ones
   * @throws ErrorReply when Redis refuses the command; any other error, in time, says that nobody
   *   knows whether it was or will be run
   */
  send(args: string[], length = 0): Promise<unknown> {
    if (this.hasEnded) return this.ended.then((reason) => Promise.reject(reason));
    if (this.unanswered > maxUnanswered) {
      return Promise.reject(new Error(`${maxUnanswered} characters wait for their answer`));
    }
    return this.watched(this.client.sendCommand(args), length);
  }

  /** Resolves when Redis has confirmed all; messages come from then on, or a moment before. */
  subscribe(topics: string[], listener: MessageListener): Promise<unknown> {
    return this.watched(this.client.subscribe(topics, listener), 0);
  }

  unsubscribe(topics: string[]): Promise<unknown> {
    return this.watched(this.client.unsubscribe(topics), 0);
  }

  /** Ends it; what was sent and not answered fails. Harmless twice. */
  fail(reason: Error): void {
    if (this.hasEnded) return;
    this.hasEnded = true;
    clearInterval(this.ticking);
    this.end(reason);
    this.client.destroy();
  }

  private watched(answer: Promise<unknown>, length: number): Promise<unknown> {
    this.sent++;
    this.unanswered += length;
    this.ticking ??= setInterval(() => this.tick(), tickMs);
    return new Promise((resolve, reject) => {
      this.waiting.push(reject);
      answer.then(
        (reply) => {
          this.count(length);
          resolve(reply);
        },
        (error: Error) => {
          this.count(length);
          if (error instanceof ErrorReply && isLasting(error)) this.fail(error);
          reject(error);
        },
      );
    });
  }

  /** The oldest of what was sent is answered. */
  private count(length: number): void {
    this.answered++;
    this.silentTicks = 0;
    this.unanswered -= length;
    this.oldest++;
    if (this.oldest < compactAt || this.oldest * 2 < this.waiting.length) return;
    this.waiting = this.waiting.slice(this.oldest);
    this.oldest = 0;
  }

  /**
   * What is overdue is refused. When nothing at all was answered, the connection counts as dead.
   *
   * Ticks are counted and no time is compared: when this process itself stood still, what arrived
   * meanwhile is read before the next tick.
   */
  private tick(): void {
    if (this.answered === this.sent) {
      clearInterval(this.ticking);
      this.ticking = undefined;
      this.marks = [];
      return;
    }
    this.silentTicks++;
    const late = new Error(`no answer within ${this.patienceMs} ms`);
    if (this.silentTicks * tickMs >= this.patienceMs) {
      this.fail(late);
      return;
    }
    this.marks.push(this.sent);
    if (this.marks.length * tickMs < this.patienceMs) return;
    const overdue = (this.marks.shift() ?? 0) - this.answered;
    for (let i = 0; i < overdue; i++) this.waiting[this.oldest + i]?.(late);
  }
}

/** The host will not do what we need before something changes, such as who is the primary. */
function isLasting({ message }: ErrorReply): boolean {
  return /\b(?:READONLY|MASTERDOWN|LOADING|NOAUTH)\b/.test(message);
}

function clientOptions(config: RedisHostConfig, role: string) {
  const { host, port, isTls, username, password, database } = config;
  // Proxies and hosts with several certificates need the name; an address is none (RFC 6066).
  const isName = !/^[\d.]+$|:/.test(host);
  return {
    RESP: 3 as const,
    socket: {
      host,
      port,
      connectTimeout: connectTimeoutMs,
      reconnectStrategy: false as const,
      ...(isTls ? { tls: true as const, ...(isName ? { servername: host } : {}) } : {}),
    },
    ...(username === undefined ? {} : { username }),
    ...(password === undefined ? {} : { password }),
    database,
    name: `pandapush-${role}`,
    disableClientInfo: true,
    maintNotifications: "disabled" as const,
    // Its timeouts end when a command is written, and cost more than the command.
    commandOptions: { timeout: 0 },
  };
}
