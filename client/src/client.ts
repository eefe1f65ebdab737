import { expandBayeux } from "@pandapush/protocol";
import { callSafely, Emitter } from "./emitter.js";
import { PandapushError } from "./error.js";
import type { ClientEvents, ClientState } from "./events.js";
import { Link, type Passed } from "./link.js";
import type { ConnectionType, Message } from "./message.js";
import type { Platform } from "./platform.js";
import { type PresenceMember, PresenceRoom } from "./presence.js";
import { Deferred } from "./promise.js";
import { Scheduler, type SchedulerOptions } from "./scheduler.js";
import {
  type MessageListener,
  type NewSubscription,
  Subscription,
  type TokenSource,
} from "./subscription.js";
import { msOf } from "./time.js";

export interface ClientOptions {
  /** How long a connect is held at most, in seconds, until the server says. Default 60. */
  timeout?: number;
  /** Pause between two connects, in seconds, until the server says. Default 0. */
  interval?: number;
  /**
   * Seconds before a message that failed is sent again, and longest pause before the first new
   * attempt to connect. By default messages go as soon as there is a connection again, and the
   * first attempt is made within a second.
   */
  retry?: number;
  /** URLs for single transports, such as `{ websocket: "wss://ws.example.com/push" }`. */
  endpoints?: Partial<Record<ConnectionType, string>>;
  /** Decides when a message is sent again; one is made for each message. */
  scheduler?: new (
    message: Message,
    options: SchedulerOptions,
  ) => Scheduler;
  /** Node: a proxy's URL. Default: the variables `http_proxy` and `https_proxy`. */
  proxy?: string | ProxyOptions;
  /** Node: options of `tls.connect`. */
  tls?: object;
  /** Node: certificates to trust. */
  ca?: string;
  /** Node: anything given here offers compression. Browsers compress by themselves. */
  websocketExtensions?: unknown;
}

export interface ProxyOptions {
  /** Such as `http://proxy.example:3128`; unset: the variables `http_proxy` and `https_proxy`. */
  readonly origin?: string | undefined;
  readonly headers?: Readonly<Record<string, string>> | undefined;
  readonly tls?: object | undefined;
}

/** Sees, and may change, every message on its way. `callback(null)` drops the message. */
export interface Extension {
  incoming?(message: Message, callback: Pass): void;
  outgoing?(message: Message, callback: Pass): void;
  added?(client: Client): void;
  removed?(client: Client): void;
}

/** As in Faye, where functions with three parameters get null between the other two. */
export interface FayeExtension extends Pick<Extension, "added" | "removed"> {
  incoming?(message: Message, request: null, callback: Pass): void;
  outgoing?(message: Message, request: null, callback: Pass): void;
}

/** Passes a message on, changed or not; null drops it. */
export type Pass = (message: Message | null) => void;

/** An `AbortSignal`, of whichever make. */
export interface Signal {
  readonly aborted: boolean;
  readonly reason?: unknown;
  addEventListener(event: "abort", listener: () => void): void;
  removeEventListener(event: "abort", listener: () => void): void;
}

/** What was sent before it is given up, by whichever of these, may have arrived. */
export interface PublishOptions {
  /**
   * How often the message may be sent, or a connection for it be tried in vain, the first time
   * included. Default: until it is taken.
   */
  attempts?: number;
  /** Seconds after which it is given up. */
  deadline?: number;
  /** Gives it up. */
  signal?: Signal;
}

export interface MessagesOptions {
  token?: TokenSource;
  /** Ends the loop. */
  signal?: Signal;
  /** How many messages may wait for the loop before it fails. Default 10,000. */
  maxWaiting?: number;
}

export interface ReceivedMessage<T> {
  readonly channel: string;
  readonly data: T;
}

/** One published message; settles with the server's answer. */
export class Publication extends Deferred {}

/**
 * A connection to a Pandapush or Faye server. Nothing is sent before the first subscribe or
 * publish; from then on it stays connected, and comes back by itself.
 *
 * ```js
 * const client = new Client("https://push.example.com/push");
 * client.subscribe("/APP_ID/public/news", (message) => console.log(message));
 * ```
 */
export class Client extends Emitter<ClientEvents> {
  readonly #link: Link;
  readonly #shareSignal: Platform["shareSignal"];
  readonly #channels = new Map<string, ChannelEntry>();
  /** Without an answer so far. */
  readonly #publications = new Set<Publication>();
  readonly #headers = new Headers();
  readonly #disabled = new Set<string>();
  #extensions: readonly (Extension | FayeExtension)[] = [];
  /** How many there have been. */
  #session = 0;
  #isLeaving = false;

  /** @internal Applications get the class that knows its platform. */
  constructor(platform: Platform, url = "/bayeux", options: ClientOptions = {}) {
    super();
    const {
      timeout = 60,
      interval = 0,
      retry,
      endpoints = {},
      scheduler = Scheduler,
      proxy,
      tls,
      ca,
      websocketExtensions,
      ...others
    } = options;
    requireNone(others);
    const { base } = platform;
    this.#shareSignal = platform.shareSignal;
    const urlOf = (type: ConnectionType): string => new URL(endpoints[type] ?? url, base).href;
    requireServer(endpoints["long-polling"] ?? url, base);
    this.#link = new Link(
      {
        platform,
        urlOf,
        network: () => {
          const headers = Object.fromEntries(this.#headers);
          return { headers, proxy, tls, ca, websocketExtensions };
        },
        isDisabled: (feature) => this.#disabled.has(feature),
        scheduler,
        timeoutMs: msOf(timeout),
        intervalMs: msOf(interval),
        retryMs: retry === undefined ? undefined : msOf(retry),
      },
      {
        pipe: (stage, message, pass) => this.#pipe(stage, message, pass),
        event: (message) => this.#receive(message),
        ready: (isNew) => this.#askAgain(isNew),
        gap: () => this.#miss(),
        ended: (error) => this.#giveUpAll(error),
        emit: (event, ...args) => this.emit(event, ...args),
      },
    );
  }

  /** Whether messages flow; the event `state` tells of changes. */
  get state(): ClientState {
    return this.#link.state;
  }

  /** Why the connection was lost, or not to be had, the last time; the event `failed` tells it. */
  get lastError(): Error | PandapushError | undefined {
    return this.#link.lastError;
  }

  /**
   * Listens to a channel or pattern; with an array, to each of them.
   * @param context `this` of the listener; a `signal` in it cancels the subscription
   */
  subscribe<T = unknown>(
    channel: string,
    listener?: MessageListener<T>,
    context?: unknown,
  ): Subscription<T>;
  subscribe<T = unknown>(
    channels: readonly string[],
    listener?: MessageListener<T>,
    context?: unknown,
  ): Subscription<T>[];
  subscribe<T = unknown>(
    channel: string | readonly string[],
    listener?: MessageListener<T>,
    context?: unknown,
  ): Subscription<T> | Subscription<T>[];
  subscribe<T = unknown>(
    channel: string | readonly string[],
    listener?: MessageListener<T>,
    context?: unknown,
  ): Subscription<T> | Subscription<T>[] {
    return Array.isArray(channel)
      ? channel.map((each: string) => this.subscribe<T>(each, listener, context))
      : this.#subscribe({ channel: channel as string, token: undefined, listener, context });
  }

  /**
   * Listens to a channel that needs a token. On a presence channel the listener is first called
   * with everyone who is there.
   * @param token or a function that gives one, or a promise of one; it is called again whenever
   *   the server has to be asked again
   */
  subscribeTo<T = unknown>(
    channel: string,
    token: TokenSource,
    listener?: MessageListener<T>,
    context?: unknown,
  ): Subscription<T> {
    return this.#subscribe({ channel, token: token ?? null, listener, context });
  }

  /**
   * The messages of a channel as an endless list. It throws when the server refuses or the client
   * was disconnected before, and ends when it is broken off, its signal is aborted or the client
   * disconnects.
   *
   * ```js
   * for await (const { data } of client.messages("/APP_ID/public/news")) console.log(data);
   * ```
   */
  messages<T = unknown>(
    channel: string,
    { token, signal, maxWaiting = 10_000 }: MessagesOptions = {},
  ): AsyncIterableIterator<ReceivedMessage<T>> {
    const waiting: ReceivedMessage<T>[] = [];
    let failure: Error | undefined;
    let sleepers: (() => void)[] = [];
    const wake = (): void => {
      const woken = sleepers;
      sleepers = [];
      for (const each of woken) each();
    };
    const listener = (data: T, from: string): void => {
      if (waiting.length < maxWaiting) waiting.push({ channel: from, data });
      else failure ??= new Error(`More than ${maxWaiting} messages wait to be read`);
      wake();
    };
    const subscription = this.#subscribe({ channel, token, listener, context: { signal } });
    subscription.on("cancelled", wake);
    subscription.on("refused", (error) => {
      failure ??= error;
      wake();
    });
    const end = (): IteratorReturnResult<undefined> => {
      subscription.cancel();
      return { done: true, value: undefined };
    };
    return {
      [Symbol.asyncIterator]() {
        return this;
      },
      async next() {
        const isQuiet = (): boolean =>
          waiting.length === 0 && failure === undefined && subscription.state !== "cancelled";
        while (isQuiet()) await new Promise<void>((resolve) => sleepers.push(resolve));
        const message = waiting.shift();
        if (message !== undefined) return { done: false, value: message };
        const result = end();
        if (failure !== undefined) throw failure;
        return result;
      },
      async return() {
        waiting.length = 0;
        return end();
      },
    };
  }

  /**
   * Joins a presence channel and keeps the list of its members. Other channels and patterns are
   * rejected.
   *
   * ```ts
   * const room = client.presence<Member>("/APP_ID/presence/lobby", token);
   * room.on("join", (id, member) => console.log(member.name, "came"));
   * ```
   */
  presence<T = PresenceMember>(
    channel: string,
    token: TokenSource,
    options: { signal?: Signal } = {},
  ): PresenceRoom<T> {
    const subscription = { channel, token: token ?? null, context: options };
    return new PresenceRoom<T>((listener, onSnapshot) =>
      this.#subscribe({ ...subscription, listener, onSnapshot }),
    );
  }

  /** Ends one subscription, or all of a channel. */
  unsubscribe(channel: string | readonly string[], subscription?: Subscription): void {
    if (typeof channel !== "string") {
      for (const each of channel) this.unsubscribe(each, subscription);
      return;
    }
    for (const each of this.#listenersTo(channel)) {
      if (subscription === undefined || subscription === each) each.cancel();
    }
  }

  /** Publishes; when the channel was subscribed with `subscribeTo`, with that token. */
  publish<T = unknown>(channel: string, data: T, options: PublishOptions = {}): Publication {
    return this.publishTo(channel, this.#channels.get(channel)?.token, data, options);
  }

  /** Publishes with a token, or with what gives one. */
  publishTo<T = unknown>(
    channel: string,
    token: TokenSource,
    data: T,
    options: PublishOptions = {},
  ): Publication {
    requireChannel(channel);
    const { attempts, deadline, signal, ...others } = options;
    requireNone(others);
    const publication = new Publication();
    let takeBack = (): void => {};
    const giveUp = (error: Error): void => {
      takeBack();
      publication.fail(error);
    };
    const abort = (): void => giveUp(reasonOf(signal));
    if (signal?.aborted) {
      abort();
      return publication;
    }
    this.#shareSignal?.(signal);
    signal?.addEventListener("abort", abort);
    const expire = (): void => giveUp(this.#link.usedUp);
    const timer = deadline === undefined ? undefined : setTimeout(expire, msOf(deadline));
    this.#publications.add(publication);
    const finish = (): void => {
      takeBack();
      clearTimeout(timer);
      signal?.removeEventListener("abort", abort);
      this.#publications.delete(publication);
    };
    publication.then(finish, finish);
    withToken(
      token,
      (ext) => {
        if (!this.#publications.has(publication)) return;
        takeBack = this.#link.request(
          { channel, data, ...ext },
          { attempts, deadline },
          (reply, error) => {
            if (error !== undefined) publication.fail(error);
            else if (reply !== undefined) publication.succeed();
          },
        );
      },
      giveUp,
    );
    return publication;
  }

  /** Says goodbye to the server. Afterwards the client is of no more use. */
  disconnect(): Deferred {
    const done = new Deferred();
    // The server forgets them by itself.
    this.#isLeaving = true;
    this.#eachSubscription((subscription) => subscription.cancel());
    this.#link.disconnect(() => done.succeed());
    return done;
  }

  /** Connects without waiting for a subscribe or publish. */
  connect(connected?: () => void, context?: unknown): void {
    if (connected !== undefined) {
      if (this.state === "connected") connected.call(context);
      else this.once("transport:up", connected, context);
    }
    this.#link.start();
  }

  /** As in Faye: `connect`. */
  handshake(connected?: () => void, context?: unknown): void {
    this.connect(connected, context);
  }

  /** Leaves out a transport, or `"autodisconnect"` when a page is left. To be called first. */
  disable(feature: string): void {
    this.#disabled.add(feature);
  }

  /**
   * A header of every request; browsers send none with WebSockets and event streams.
   * @throws TypeError when a header cannot have this name or value
   */
  setHeader(name: string, value: string): void {
    this.#headers.set(name, value);
  }

  /** From now on it sees every message, after those that were added before. */
  addExtension(extension: Extension): void;
  addExtension(extension: FayeExtension): void;
  addExtension(extension: Extension | FayeExtension): void {
    this.#extensions = [...this.#extensions, extension];
    extension.added?.(this);
  }

  removeExtension(extension: Extension | FayeExtension): void {
    if (!this.#extensions.includes(extension)) return;
    this.#extensions = this.#extensions.filter((each) => each !== extension);
    extension.removed?.(this);
  }

  /** As in Faye: `on`. */
  bind<K extends keyof ClientEvents>(
    event: K,
    listener: (...args: ClientEvents[K]) => void,
    context?: unknown,
  ): this {
    return this.on(event, listener, context);
  }

  /** As in Faye: `off`. */
  unbind<K extends keyof ClientEvents>(
    event: K,
    listener?: (...args: ClientEvents[K]) => void,
  ): this {
    return this.off(event, listener);
  }

  /** As in Faye: `off`. */
  removeListener<K extends keyof ClientEvents>(
    event: K,
    listener: (...args: ClientEvents[K]) => void,
  ): this {
    return this.off(event, listener);
  }

  /** As in Faye: `emit`. */
  trigger<K extends keyof ClientEvents>(event: K, ...args: ClientEvents[K]): void {
    this.emit(event, ...args);
  }

  #subscribe<T>(wish: NewSubscription<T>): Subscription<T> {
    const { channel, token, listener, context, onSnapshot } = wish;
    requireChannel(channel);
    if (typeof (listener ?? requireChannel) !== "function") {
      throw new TypeError("The listener is no function; a token goes with subscribeTo");
    }
    const signal = signalOf(context);
    const cancel = (): void => subscription.end(reasonOf(signal));
    const subscription = new Subscription<T>(wish, () => {
      signal?.removeEventListener("abort", cancel);
      this.#remove(subscription as Subscription);
    });
    if (signal?.aborted) {
      cancel();
      return subscription;
    }
    if (onSnapshot !== undefined && !subscription.isOfPresence) {
      const why = `${channel} is no presence channel; one is /APP_ID/presence/lobby`;
      // Whoever made it can listen first.
      queueMicrotask(() => subscription.refuse(PandapushError.own("refused", why)));
      return subscription;
    }
    this.#shareSignal?.(signal);
    signal?.addEventListener("abort", cancel);
    let entry = this.#channels.get(channel);
    if (entry === undefined) {
      entry = { subscriptions: new Set(), held: 0, token };
      this.#channels.set(channel, entry);
    }
    entry.subscriptions.add(subscription as Subscription);
    if (token !== undefined) entry.token = token;
    if (this.#link.isEstablished || this.state === "disconnected") {
      this.#ask(channel, entry, [subscription as Subscription]);
    } else {
      // It is asked for when there is a connection, with a token of that moment.
      this.#link.start();
    }
    return subscription;
  }

  /** Asks the server once for subscriptions that all listen to the same channel. */
  #ask(channel: string, entry: ChannelEntry, subscriptions: readonly Subscription[]): void {
    const session = this.#session;
    const refuse = (error: Error): void =>
      // Whoever subscribed can listen first.
      queueMicrotask(() => {
        // What was meant for another session has been asked for again.
        if (session !== this.#session) return;
        for (const subscription of subscriptions) {
          subscription.refuse(error);
          if (!subscription.wasSubscribed) this.#remove(subscription);
        }
      });
    for (const subscription of subscriptions) subscription.session = session;
    withToken(
      subscriptions.reduce<TokenSource>((last, { token }) => token ?? last, undefined),
      (ext) => {
        const isWanted = subscriptions.some(({ state }) => state !== "cancelled");
        if (!isWanted || session !== this.#session) return;
        for (const subscription of subscriptions) subscription.asked();
        entry.held += 1;
        const message = { channel: "/meta/subscribe", subscription: channel, ...ext };
        this.#link.request(message, { isOfSession: true }, (reply, error) => {
          if (error !== undefined) {
            entry.held -= 1;
            refuse(error);
          } else if (reply !== undefined) {
            for (const subscription of subscriptions) subscription.confirm(reply.ext?.presence);
          }
        });
      },
      refuse,
    );
  }

  /** Asks for what was not asked for in this session. */
  #askAgain(isNew: boolean): void {
    if (isNew) this.#session += 1;
    for (const [channel, entry] of [...this.#channels]) {
      if (isNew) entry.held = 0;
      const unasked = [...entry.subscriptions].filter(({ session }) => session !== this.#session);
      for (const subscription of unasked) subscription.renew();
      const known = unasked.filter(({ wasSubscribed }) => wasSubscribed);
      if (known.length > 0) this.#ask(channel, entry, known);
      // Each has a promise that waits for an answer of its own.
      for (const each of unasked) if (!each.wasSubscribed) this.#ask(channel, entry, [each]);
    }
  }

  #remove(subscription: Subscription): void {
    const { channel } = subscription;
    const entry = this.#channels.get(channel);
    if (!entry?.subscriptions.delete(subscription) || entry.subscriptions.size > 0) return;
    this.#channels.delete(channel);
    if (entry.held === 0 || this.#isLeaving) return;
    const message = { channel: "/meta/unsubscribe", subscription: channel };
    this.#link.request(message, { isOfSession: true }, () => {});
  }

  #receive(message: Message): void {
    const { channel, data, subscription, successful } = message;
    if (channel === "/meta/subscribe" && successful === false) {
      const refusal = PandapushError.from(message);
      for (const each of this.#listenersTo(String(subscription))) each.refuse(refusal);
      return;
    }
    if (data === undefined || typeof channel !== "string") return;
    for (const name of expandBayeux(channel)) {
      for (const each of this.#listenersTo(name)) each.deliver(data, channel);
    }
  }

  /** What was published may not have come. */
  #miss(): void {
    this.#eachSubscription((subscription) => subscription.miss());
    this.#askAgain(false);
  }

  /** Nobody will answer those who wait. */
  #giveUpAll(error: PandapushError): void {
    this.#eachSubscription((subscription) => subscription.refuse(error));
    for (const publication of this.#publications) publication.fail(error);
  }

  #listenersTo(channel: string): readonly Subscription[] {
    return [...(this.#channels.get(channel)?.subscriptions ?? [])];
  }

  #eachSubscription(visit: (subscription: Subscription) => void): void {
    for (const channel of [...this.#channels.keys()]) this.#listenersTo(channel).forEach(visit);
  }

  #pipe(stage: "incoming" | "outgoing", message: Message, pass: Passed): void {
    const extensions = this.#extensions;
    const step = (index: number, current: Message | null): void => {
      const extension = extensions[index];
      // Programs in JavaScript may pass on nothing at all.
      if (!current || extension === undefined) {
        pass(current || null);
        return;
      }
      const call = extension[stage];
      if (call === undefined) {
        step(index + 1, current);
        return;
      }
      let isOver = false;
      const once = (then: () => void): void => {
        if (!isOver) {
          isOver = true;
          then();
        }
      };
      const next: Pass = (result) => once(() => step(index + 1, result));
      const args = call.length >= 3 ? [current, null, next] : [current, next];
      callSafely(
        () => (call as (...args: unknown[]) => void).apply(extension, args),
        (error) => once(() => pass(null, error)),
      );
    };
    step(0, message);
  }
}

/** Those who listen to one channel or pattern. */
interface ChannelEntry {
  readonly subscriptions: Set<Subscription>;
  /** From the last `subscribeTo`: what a plain publish shows. */
  token: TokenSource;
  /** How many subscribes of this session the server was sent, and has not refused. */
  held: number;
}

function requireServer(url: string, base: string | undefined): void {
  try {
    if (/^https?:/.test(new URL(url, base).href)) return;
  } catch {
    // What follows says more than "Invalid URL".
  }
  throw new TypeError(
    `${url} is no URL of a server; one is https://push.example.com/push${base === undefined ? "" : " or /push"}`,
  );
}

function requireNone(options: object): void {
  for (const name of Object.keys(options)) throw new Error(`Unrecognized option: ${name}`);
}

function requireChannel(channel: unknown): void {
  if (typeof channel !== "string") {
    throw new TypeError(`${channel} is no channel; one is "/APP_ID/public/news"`);
  }
}

/** Hands on what a message with this token carries, at once when no promise is in between. */
function withToken(
  source: TokenSource,
  send: (fields: Pick<Message, "ext">) => void,
  failed: (error: Error) => void,
): void {
  const finish = (token: unknown): void => {
    if (token === null || token === undefined) send({});
    else if (typeof token === "string") send({ ext: { auth: { token } } });
    else failed(new TypeError(`A token is a string, not of type ${typeof token}`));
  };
  const fail = (error: unknown): void => {
    const why = error instanceof Error ? error.message : String(error);
    failed(PandapushError.own("no-token", `There is no token: ${why}`));
  };
  let token: unknown;
  try {
    token = typeof source === "function" ? source() : source;
  } catch (error) {
    fail(error);
    return;
  }
  if (typeof (token ?? "") === "string") finish(token);
  else Promise.resolve(token).then(finish, fail);
}

function signalOf(context: unknown): Signal | undefined {
  const signal = (context as { signal?: Signal } | null | undefined)?.signal;
  return typeof signal?.addEventListener === "function" ? signal : undefined;
}

function reasonOf(signal: Signal | undefined): Error {
  return (signal?.reason ?? PandapushError.own("cancelled", "It was aborted")) as Error;
}
