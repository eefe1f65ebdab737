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
import { type MessageListener, Subscription, type TokenSource } from "./subscription.js";
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
  readonly #channels = new Map<string, Set<Subscription>>();
  /** Made while there was no connection. */
  readonly #unasked = new Set<Subscription>();
  /** By channel, from the last `subscribeTo`: what a plain publish shows. */
  readonly #tokens = new Map<string, TokenSource>();
  /** Without an answer so far. */
  readonly #publications = new Set<Publication>();
  readonly #headers = new Headers();
  readonly #disabled = new Set<string>();
  #extensions: readonly (Extension | FayeExtension)[] = [];
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
        gap: () => this.#eachSubscription((subscription) => subscription.miss()),
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
   * The messages of a channel as an endless list. It throws when the server refuses, and ends
   * when it is broken off, its signal is aborted or the client disconnects.
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
    const fail = (error: Error): void => {
      if (subscription.state === "refused") failure ??= error;
      wake();
    };
    subscription.on("cancelled", () => wake());
    subscription.on("refused", fail);
    // It may have been refused before anybody could listen: by a token that could not be had.
    subscription.errback(fail);
    const end = (): IteratorReturnResult<undefined> => {
      subscription.cancel();
      return { done: true, value: undefined };
    };
    return {
      [Symbol.asyncIterator]() {
        return this;
      },
      async next() {
        for (;;) {
          const message = waiting.shift();
          if (message !== undefined) return { done: false, value: message };
          if (failure !== undefined) {
            end();
            throw failure;
          }
          if (subscription.state === "cancelled") return end();
          await new Promise<void>((resolve) => {
            sleepers.push(resolve);
          });
        }
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
    const fault = /^\/[^/]+\/presence(?:\/[^*]+)?$/.test(channel)
      ? undefined
      : PandapushError.own(
          "refused",
          `${channel} is no presence channel; one is /APP_ID/presence/lobby`,
        );
    const subscription = { channel, token: token ?? null, context: options, fault };
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
    for (const each of [...(this.#channels.get(channel) ?? [])]) {
      if (subscription === undefined || subscription === each) each.cancel();
    }
  }

  /** Publishes; when the channel was subscribed with `subscribeTo`, with that token. */
  publish<T = unknown>(channel: string, data: T, options: PublishOptions = {}): Publication {
    return this.publishTo(channel, this.#tokens.get(channel), data, options);
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

  #subscribe<T>({ channel, token, listener, context, onSnapshot, fault }: NewSubscription<T>) {
    requireChannel(channel);
    if (typeof (listener ?? requireChannel) !== "function") {
      throw new TypeError("The listener is no function; a token goes with subscribeTo");
    }
    const signal = signalOf(context);
    const cancel = (): void => {
      subscription.fail(reasonOf(signal));
      subscription.cancel();
    };
    const subscription = new Subscription<T>(
      channel,
      listener,
      context,
      token,
      () => {
        signal?.removeEventListener("abort", cancel);
        this.#forget(subscription as Subscription);
      },
      onSnapshot,
    );
    if (signal?.aborted) {
      cancel();
      return subscription;
    }
    if (fault !== undefined) {
      // Whoever made it can listen first.
      queueMicrotask(() => subscription.refuse(fault));
      return subscription;
    }
    this.#shareSignal?.(signal);
    signal?.addEventListener("abort", cancel);
    const all = this.#channels.get(channel) ?? new Set();
    this.#channels.set(channel, all.add(subscription as Subscription));
    if (token !== undefined) this.#tokens.set(channel, token);
    if (this.state === "connected" || this.state === "disconnected") {
      this.#ask(channel, [subscription as Subscription], false);
    } else {
      // It is asked for when there is a connection, with a token of that moment.
      this.#unasked.add(subscription as Subscription);
      this.#link.start();
    }
    return subscription;
  }

  /** Asks the server once for subscriptions that all listen to the same channel. */
  #ask(channel: string, subscriptions: readonly Subscription[], hasGap: boolean): void {
    const isWanted = (): boolean => subscriptions.some(({ state }) => state !== "cancelled");
    const token = subscriptions.reduce<TokenSource>((last, each) => each.token ?? last, undefined);
    const refuse = (error: PandapushError | Error): void => {
      for (const subscription of subscriptions) {
        subscription.refuse(error as PandapushError);
        if (!subscription.wasSubscribed) this.#remove(subscription);
      }
    };
    withToken(
      token,
      (ext) => {
        if (!isWanted()) return;
        const message = { channel: "/meta/subscribe", subscription: channel, ...ext };
        this.#link.request(message, { isOfSession: true }, (reply, error) => {
          if (error !== undefined) {
            refuse(error);
            return;
          }
          // An extension dropped it.
          if (reply === undefined) return;
          const presence = reply.ext?.presence;
          for (const subscription of subscriptions) {
            if (presence !== undefined && subscription.state !== "cancelled") {
              subscription.deliverSnapshot(presence);
            }
            subscription.confirm(hasGap);
          }
        });
      },
      refuse,
    );
  }

  #askAgain(isNew: boolean): void {
    const unasked = [...this.#unasked];
    this.#unasked.clear();
    if (!isNew) {
      for (const each of unasked) this.#ask(each.channel, [each], false);
      return;
    }
    for (const [channel, all] of [...this.#channels]) {
      const known = [...all].filter(({ wasSubscribed }) => wasSubscribed);
      for (const subscription of known) subscription.renew();
      if (known.length > 0) this.#ask(channel, known, true);
      // Each has a promise that waits for an answer of its own.
      for (const each of [...all]) if (!each.wasSubscribed) this.#ask(channel, [each], false);
    }
  }

  #forget(subscription: Subscription): void {
    const { channel } = subscription;
    const wasAsked = !this.#unasked.has(subscription);
    if (!this.#remove(subscription) || this.#channels.has(channel)) return;
    if (this.#isLeaving || !wasAsked) return;
    const message = { channel: "/meta/unsubscribe", subscription: channel };
    this.#link.request(message, { isOfSession: true }, () => {});
  }

  /** @returns whether it was there */
  #remove(subscription: Subscription): boolean {
    const { channel } = subscription;
    const all = this.#channels.get(channel);
    const wasThere = all?.delete(subscription) === true;
    this.#unasked.delete(subscription);
    if (all?.size === 0) {
      this.#channels.delete(channel);
      this.#tokens.delete(channel);
    }
    return wasThere;
  }

  #receive(message: Message): void {
    const { channel, data, subscription, successful } = message;
    if (channel === "/meta/subscribe" && successful === false) {
      const refusal = PandapushError.from(message);
      for (const each of [...(this.#channels.get(String(subscription)) ?? [])]) {
        each.refuse(refusal);
      }
      return;
    }
    if (data === undefined || typeof channel !== "string") return;
    for (const name of expandBayeux(channel)) {
      for (const each of [...(this.#channels.get(name) ?? [])]) each.deliver(data, channel);
    }
  }

  /** Nobody will answer those who wait. */
  #giveUpAll(error: PandapushError): void {
    this.#eachSubscription((subscription) => subscription.refuse(error));
    for (const publication of this.#publications) publication.fail(error);
  }

  #eachSubscription(visit: (subscription: Subscription) => void): void {
    for (const all of [...this.#channels.values()]) for (const each of [...all]) visit(each);
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

interface NewSubscription<T> {
  readonly channel: string;
  readonly token: TokenSource;
  readonly listener: MessageListener<T> | undefined;
  readonly context: unknown;
  readonly onSnapshot?: ((presence: unknown) => void) | undefined;
  /** The server need not be asked. */
  readonly fault?: PandapushError | undefined;
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
    token = Promise.reject(error);
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
