/** A real server on a free port, and raw clients that queue what they receive so nothing is missed. */
import { createHmac } from "node:crypto";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pino } from "pino";
import { WebSocket } from "ws";
import { readConfig } from "../src/config.js";
import { type RunningServer, startServer } from "../src/server.js";
import { TestRedis } from "./redis.js";
import { Telltale } from "./telltale.js";

/** A Bayeux message as it came over the wire. */
export type Message = { readonly [field: string]: unknown } & {
  readonly id?: unknown;
  readonly channel?: string;
  readonly clientId?: string;
  readonly successful?: boolean;
  readonly error?: string;
  readonly data?: unknown;
  readonly subscription?: unknown;
  readonly advice?: { readonly reconnect?: string; interval?: number; timeout?: number };
  readonly ext?: { readonly presence?: unknown; readonly detail?: string };
};

export const appId = "testapp";
export const keyId = "PSIDtestkey";
export const secret = "aWvMCPXnV599u6hJ71YJqAKSz0t0Lihs09DM92xS";
/** Credentials as `ext` takes them. */
export const keyAuth = { auth: { key: keyId, secret } };

export interface TestServer extends RunningServer {
  /** `ws://…/push` */
  readonly wsUrl: string;
  readonly pushUrl: string;
  /** What was logged at warn or above, as JSON lines. */
  readonly logged: string[];
}

/** `PANDAPUSH_TEST_BROKER=redis`: servers of the tests use the broker on Redis. */
const isOnRedis = process.env.PANDAPUSH_TEST_BROKER === "redis";
let redis: Promise<TestRedis> | undefined;
let redisUsers = 0;

/** A Redis host of its own for each server, as far as keys and topics go. */
async function redisVariables(): Promise<Record<string, string>> {
  if (!isOnRedis) return {};
  redis ??= TestRedis.start();
  redisUsers++;
  return { REDIS_HOSTS: (await redis).address, REDIS_PREFIX: `test${redisUsers}:` };
}

let servers = 0;

/**
 * Starts a server with an empty database and one application (`appId`, `keyId`, `secret`).
 * @param environment further variables, as an operator would set them
 */
export async function startTestServer(
  environment: Record<string, string> = {},
): Promise<TestServer> {
  const directory = mkdtempSync(join(tmpdir(), "pandapush-test-"));
  servers++;
  const variables = {
    PORT: "0",
    HOST: "127.0.0.1",
    DATABASE_PATH: join(directory, "db.sqlite"),
    DEV_APPLICATION_ID: appId,
    DEV_KEY_ID: keyId,
    DEV_KEY_SECRET: secret,
    DRAIN_MS: "500",
    ...(await redisVariables()),
    ...environment,
  };
  const { config } = readConfig(variables);
  const logged: string[] = [];
  const telltale = new Telltale(variables);
  const write = (line: string): void => {
    telltale.read(line);
    if (/^\{"level":[456]0/.test(line)) logged.push(line);
  };
  const log = pino({ level: "trace" }, { write });
  const server = await startServer(config, log, { version: "test", rev: "dev", built: "dev" });
  let checked: Promise<void> | undefined;
  return {
    ...server,
    logged,
    wsUrl: `ws://127.0.0.1:${server.port}/push`,
    pushUrl: `http://127.0.0.1:${server.port}/push`,
    async close() {
      checked ??= telltale.check(server.store);
      await Promise.allSettled([checked]);
      await server.close();
      await checked;
      if (--servers === 0) {
        await (await redis)?.stop();
        redis = undefined;
      }
      rmSync(directory, { recursive: true, force: true });
    },
  };
}

/** A channel token: a JWT signed with the test key, valid for an hour unless told otherwise. */
export function token(claims: object, key = secret, algorithm = "HS256"): string {
  const digests: Record<string, string> = { HS256: "sha256", HS384: "sha384", HS512: "sha512" };
  const encode = (value: object): string =>
    Buffer.from(JSON.stringify(value)).toString("base64url");
  const exp = Math.floor(Date.now() / 1000) + 3600;
  const signed = `${encode({ alg: algorithm, typ: "JWT" })}.${encode({ keyId, exp, ...claims })}`;
  const digest = digests[algorithm];
  if (digest === undefined) return `${signed}.`;
  return `${signed}.${createHmac(digest, key).update(signed).digest("base64url")}`;
}

const handshakeMessage = {
  channel: "/meta/handshake",
  version: "1.0",
  supportedConnectionTypes: ["websocket", "long-polling"],
};

/** One WebSocket. Sends what it is told, receives everything, in order. */
export class Socket {
  readonly received: Message[] = [];
  /** Every frame as text, for what must be seen byte for byte. */
  readonly frames: string[] = [];
  closed: { readonly code: number; readonly reason: string } | undefined;
  clientId = "";
  private readonly ws: WebSocket;
  private readonly changed = new Set<() => void>();
  private ids = 0;

  private constructor(url: string, protocols: string[], headers: Record<string, string>) {
    this.ws = new WebSocket(url, protocols, { headers, perMessageDeflate: false });
    this.ws.on("message", (data: Buffer) => {
      const text = data.toString();
      this.frames.push(text);
      const value: unknown = JSON.parse(text);
      this.received.push(...(Array.isArray(value) ? (value as Message[]) : [value as Message]));
      this.notify();
    });
    this.ws.on("close", (code, reason) => {
      this.closed = { code, reason: reason.toString() };
      this.notify();
    });
    this.ws.on("error", () => this.notify());
  }

  static async open(
    server: { wsUrl: string },
    protocols: string[] = [],
    headers: Record<string, string> = {},
  ): Promise<Socket> {
    const socket = new Socket(server.wsUrl, protocols, headers);
    await new Promise<void>((resolve, reject) => {
      socket.ws.once("open", resolve).once("error", reject);
    });
    return socket;
  }

  /** Opens a socket, handshakes on it and sends a connect that is held. */
  static async connect(server: { wsUrl: string }): Promise<Socket> {
    const socket = await Socket.open(server);
    await socket.handshake();
    socket.sendConnect();
    return socket;
  }

  async handshake(): Promise<string> {
    const reply = await this.ask(handshakeMessage);
    this.clientId = reply.clientId ?? "";
    return this.clientId;
  }

  sendConnect(fields: object = {}): string {
    return this.send({ channel: "/meta/connect", connectionType: "websocket", ...fields });
  }

  /** Sends one message with this client's id and a fresh message id, which it returns. */
  send(message: object): string {
    const id = `m${++this.ids}`;
    const clientId = this.clientId === "" ? {} : { clientId: this.clientId };
    this.sendText(JSON.stringify([{ id, ...clientId, ...message }]));
    return id;
  }

  sendText(text: string | Buffer): void {
    this.ws.send(text);
  }

  /** Sends one message and waits for its reply. */
  async ask(message: object): Promise<Message> {
    const id = this.send(message);
    return this.next((reply) => reply.id === id && reply.successful !== undefined);
  }

  subscribe(subscription: string | readonly string[], ext?: object): Promise<Message> {
    return this.ask({ channel: "/meta/subscribe", subscription, ...(ext ? { ext } : {}) });
  }

  publish(channel: string, data: unknown, ext: object = keyAuth): Promise<Message> {
    return this.ask({ channel, data, ext });
  }

  /** Waits for the next event of a channel (or of any), which is then no longer in `received`. */
  event(channel?: string): Promise<Message> {
    return this.next(
      (message) =>
        message.successful === undefined && (channel === undefined || message.channel === channel),
    );
  }

  /** Waits for the first message that fits, and takes it out of `received`. */
  async next(fits: (message: Message) => boolean, deadlineMs = 5_000): Promise<Message> {
    let found: Message | undefined;
    await this.until(() => {
      const index = this.received.findIndex(fits);
      if (index !== -1) [found] = this.received.splice(index, 1);
      return found !== undefined;
    }, deadlineMs);
    return found as Message;
  }

  async closing(deadlineMs = 5_000): Promise<{ readonly code: number; readonly reason: string }> {
    await this.until(() => this.closed !== undefined, deadlineMs);
    return this.closed ?? { code: 0, reason: "" };
  }

  /** Cuts the connection without a close frame. */
  cut(): void {
    this.ws.terminate();
  }

  close(): void {
    this.ws.close();
  }

  /** Stops reading, as a client that is too slow does. */
  pause(): void {
    this.ws.pause();
  }

  resume(): void {
    this.ws.resume();
  }

  private notify(): void {
    for (const look of [...this.changed]) look();
  }

  private until(isTrue: () => boolean, deadlineMs: number): Promise<void> {
    return new Promise((resolve, reject) => {
      const look = (): void => {
        if (isTrue()) finish(resolve);
      };
      const finish = (settle: () => void): void => {
        clearTimeout(timer);
        this.changed.delete(look);
        settle();
      };
      const timer = setTimeout(() => {
        const seen = JSON.stringify(this.received).slice(0, 2_000);
        finish(() => reject(new Error(`Nothing fitted within ${deadlineMs} ms; received ${seen}`)));
      }, deadlineMs);
      this.changed.add(look);
      look();
    });
  }
}

/** One client over plain HTTP. */
export class Poller {
  clientId = "";
  private ids = 0;

  constructor(private readonly server: { pushUrl: string }) {}

  static async connect(server: { pushUrl: string }): Promise<Poller> {
    const poller = new Poller(server);
    await poller.handshake();
    return poller;
  }

  async handshake(): Promise<string> {
    const [reply] = await this.post([handshakeMessage]);
    this.clientId = reply?.clientId ?? "";
    return this.clientId;
  }

  /** Posts messages with this client's id; resolves with all that the response holds. */
  async post(
    messages: readonly object[],
    { signal }: { signal?: AbortSignal } = {},
  ): Promise<Message[]> {
    const own = this.clientId === "" ? {} : { clientId: this.clientId };
    const body = JSON.stringify(messages.map((m) => ({ id: `p${++this.ids}`, ...own, ...m })));
    const response = await fetch(this.server.pushUrl, {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body,
      ...(signal === undefined ? {} : { signal }),
    });
    if (response.status !== 200) throw new Error(`${response.status} ${await response.text()}`);
    return (await response.json()) as Message[];
  }

  async ask(message: object): Promise<Message> {
    const [reply] = await this.post([message]);
    return reply as Message;
  }

  /** A connect; held until an event comes unless `fields` say otherwise. */
  poll(fields: object = {}, options: { signal?: AbortSignal } = {}): Promise<Message[]> {
    return this.post(
      [{ channel: "/meta/connect", connectionType: "long-polling", ...fields }],
      options,
    );
  }

  subscribe(subscription: string | readonly string[], ext?: object): Promise<Message> {
    return this.ask({ channel: "/meta/subscribe", subscription, ...(ext ? { ext } : {}) });
  }

  publish(channel: string, data: unknown, ext: object = keyAuth): Promise<Message> {
    return this.ask({ channel, data, ext });
  }
}
