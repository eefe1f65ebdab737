/**
 * The client's side of a Bayeux session: gets a transport, shakes hands, keeps one connect at the
 * server, notices when the link is dead, and comes back to the same session or a new one.
 *
 * Knows nothing of subscriptions or applications: it carries messages and tells what happened.
 */
import { Arrivals } from "./arrivals.js";
import { PandapushError } from "./error.js";
import type { ClientEvents, ClientState } from "./events.js";
import type { ConnectionType, Message } from "./message.js";
import { Outbox, type Request, type Settle } from "./outbox.js";
import type { NetworkOptions, Platform } from "./platform.js";
import { Reconnect } from "./reconnect.js";
import type { Scheduler, SchedulerOptions } from "./scheduler.js";
import { openEventSource } from "./transports/eventsource.js";
import { openPolling } from "./transports/polling.js";
import {
  type Limits,
  maxBatchMessages,
  type Parcel,
  type Transport,
  type TransportListeners,
} from "./transports/transport.js";
import { openWebSocket } from "./transports/websocket.js";

export interface LinkOptions {
  readonly platform: Platform;
  readonly urlOf: (type: ConnectionType) => string;
  readonly network: () => NetworkOptions;
  /** A connection type, or `autodisconnect`. */
  readonly isDisabled: (feature: string) => boolean;
  readonly scheduler: new (message: Message, options: SchedulerOptions) => Scheduler;
  /** Until the server's advice says otherwise. */
  readonly timeoutMs: number;
  readonly intervalMs: number;
  /** Wait before a message is sent again, and longest wait before the first new attempt. */
  readonly retryMs: number | undefined;
}

/** What extensions made of a message: null when they dropped it, or failed with this error. */
export type Passed = (message: Message | null, error?: Error) => void;

export interface LinkListeners {
  /** Extensions: they pass each message on, once. */
  readonly pipe: (stage: "incoming" | "outgoing", message: Message, pass: Passed) => void;
  /** A message that answers no request. */
  readonly event: (message: Message) => void;
  /** Messages are about to flow. A new session knows no subscriptions: they go first then. */
  readonly ready: (isNew: boolean) => void;
  /** Something that was published to this session did not come, or nobody knows. */
  readonly gap: () => void;
  /** Nothing is sent or received any more. */
  readonly ended: (error: PandapushError) => void;
  /** What an application may want to know. */
  readonly emit: <K extends keyof ClientEvents>(event: K, ...args: ClientEvents[K]) => void;
}

export interface RequestOptions {
  readonly attempts?: number | undefined;
  /** In seconds from now. */
  readonly deadline?: number | undefined;
  /** It makes sense in this session only: when that is lost it is dropped, unsettled. */
  readonly isOfSession?: boolean;
}

/** One attempt to have a transport, and the transport; aborted, it is closed. */
class Way extends AbortController {
  transport: Transport | undefined;
}

const openTimeoutMs = 5_000;
const replyTimeoutMs = 10_000;
/** How long to wait for the server's reply to a disconnect. */
const goodbyeMs = 2_000;
/** How much later than advised a connect may be answered. */
const connectGraceMs = 5_000;
const probeTimeoutMs = 5_000;
/** Two sessions lost within this time are one failure. */
const unstableMs = 30_000;
const tickMs = 1_000;
/** Events that tell of a better world make attempts no more frequent than this. */
const hurriedMs = 1_000;
/** Connects that a server answers at once, with nothing, follow each other no faster than this. */
const idleMs = 1_000;
/** A tick that comes this much too late means that the machine slept. */
const sleptMs = 4_000;
/** When WebSockets did not work, how long until they are tried again: at first, and at most. */
const firstUpgradeMs = 30_000;
const lastUpgradeMs = 600_000;

export class Link {
  readonly #options: LinkOptions;
  readonly #listeners: LinkListeners;
  #state: ClientState = "unconnected";
  #way: Way | undefined;
  #isEstablished = false;
  #clientId: string | undefined;
  #advice: { interval: number; timeout: number };
  readonly #outbox = new Outbox();
  readonly #arrivals = new Arrivals();
  readonly #limits: Limits = { messages: maxBatchMessages };
  #lastId = 0;
  #isLeaving = false;

  readonly #reconnect: Reconnect;
  /** Until the next attempt, handshake or connect, whichever it is. */
  #timer: Timer | undefined;
  #ticker: Timer | undefined;
  #tickedAt = 0;
  #attemptedAt = 0;
  #lastError: Error | undefined;
  /** Something happened that makes it likely that the next attempt succeeds. */
  #isHurried = false;
  /** When a sign of life must have come; 0: none is awaited. */
  #probeDueAt = 0;
  #unwatch: (() => void) | undefined;

  #isUp = false;
  /** What came last was a batch of one message. */
  #isAlone = false;
  #sessionLostAt = 0;
  #mayHaveMissed = false;

  /** Since they last worked; when they never did it is one already. */
  #socketFailures = 1;
  #upgradeMs = firstUpgradeMs;
  #upgradeTimer: Timer | undefined;
  /** An open WebSocket that takes over when the current poll is answered. */
  #better: Way | undefined;

  constructor(options: LinkOptions, listeners: LinkListeners) {
    this.#options = options;
    this.#listeners = listeners;
    this.#advice = { interval: options.intervalMs, timeout: options.timeoutMs };
    this.#reconnect = new Reconnect(options.retryMs ?? 1_000);
  }

  get state(): ClientState {
    return this.#state;
  }

  /** Why the connection was lost, or not to be had, the last time. */
  get lastError(): Error | undefined {
    return this.#lastError;
  }

  /** Why a message is given up. */
  get usedUp(): PandapushError {
    const why = this.#lastError === undefined ? "" : `: ${this.#lastError.message}`;
    const what = "The message was not delivered: its attempts or its time are used up";
    return PandapushError.own("undelivered", what + why);
  }

  /** A session is agreed on and messages flow. */
  get isEstablished(): boolean {
    return this.#isEstablished;
  }

  /** Begins to connect, once. */
  start(): void {
    if (this.#state !== "unconnected") return;
    this.#setState("connecting");
    this.#tickedAt = Date.now();
    this.#ticker = setInterval(() => this.#tick(), tickMs);
    this.#unwatch = this.#options.platform.watch({
      awake: () => this.#awake(),
      doubt: () => this.#probe(),
      leave: () => this.#leave(),
    });
    void this.#attempt();
  }

  /**
   * Sends a message as soon as there is a session, and again when its reply did not come.
   * @param settle called once at most
   * @returns a function that takes it back: it is not sent, or not again
   */
  request(
    message: Message,
    { attempts, deadline, isOfSession = false }: RequestOptions,
    settle: Settle,
  ): () => void {
    if (this.#state === "disconnected") {
      settle(undefined, PandapushError.own("disconnected", "The client is disconnected"));
      return () => {};
    }
    this.start();
    const state = { settle, isOfSession, isTakenBack: false };
    this.#prepare(message, settle, (prepared, passed) => {
      const scheduler = new this.#options.scheduler(passed, {
        timeout: replyTimeoutMs / 1000,
        interval: (this.#options.retryMs ?? 0) / 1000,
        attempts,
        deadline: deadline && Date.now() + deadline * 1000,
      });
      this.#outbox.add(Object.assign(state, prepared, { scheduler }));
      this.#flushSoon();
    });
    return () => {
      state.isTakenBack = true;
    };
  }

  /** Takes leave of the server, and ends. */
  disconnect(done: () => void): void {
    const finish = (): void => {
      clearTimeout(timer);
      this.#end("The client was disconnected");
      done();
    };
    const timer = setTimeout(finish, goodbyeMs);
    this.#isLeaving = true;
    if (!this.#isEstablished) finish();
    else this.request({ channel: "/meta/disconnect" }, { attempts: 1 }, finish);
  }

  // Getting a transport

  async #attempt(): Promise<void> {
    this.#attemptedAt = Date.now();
    const way = new Way();
    this.#way = way;
    try {
      way.transport = await this.#open(way);
    } catch (error) {
      if (this.#way === way) this.#fail(error as Error);
      return;
    }
    if (this.#way !== way) return;
    if (this.#clientId === undefined) this.#handshake();
    else this.#connect(0);
  }

  async #open(way: Way): Promise<Transport> {
    const { isDisabled, platform, urlOf, network } = this.#options;
    const hasPolling = !isDisabled("long-polling") || !isDisabled("eventsource");
    // While the next try is set for later, polling it is.
    if (this.#socketMaker !== undefined && this.#upgradeTimer === undefined) {
      try {
        return await this.#openSocket(this.#socketMaker, way);
      } catch (error) {
        this.#socketFailures += 1;
        // Where WebSockets worked the server is away, more likely than that they are blocked now.
        if (!hasPolling || this.#socketFailures === 1) throw error;
      }
    }
    if (!hasPolling) throw new Error("All transports are disabled");
    const url = urlOf("long-polling");
    const listeners = this.#listenTo(way);
    return openPolling(platform.post, url, network, this.#limits, listeners, way.signal);
  }

  /** undefined where there are no WebSockets, or none are wanted. */
  get #socketMaker(): Platform["openSocket"] {
    const { platform, isDisabled } = this.#options;
    return isDisabled("websocket") ? undefined : platform.openSocket;
  }

  async #openSocket(make: NonNullable<Platform["openSocket"]>, way: Way): Promise<Transport> {
    const { urlOf, network } = this.#options;
    const transport = await openWebSocket(
      make,
      urlOf("websocket"),
      network(),
      openTimeoutMs,
      this.#limits,
      this.#listenTo(way),
      way.signal,
    );
    this.#socketFailures = 0;
    this.#upgradeMs = firstUpgradeMs;
    return transport;
  }

  #listenTo(way: Way): TransportListeners {
    return {
      received: (messages) => {
        if (this.#way === way) this.#receive(messages);
      },
      refused: (parcels, error) => {
        if (this.#way === way) this.#refuse(parcels, error);
      },
      lost: (error) => {
        if (this.#way === way) this.#fail(error);
        else if (this.#better === way) this.#dropBetter();
      },
    };
  }

  /** Without a transport for some reason: what was under way waits, and a new attempt follows. */
  #fail(error: Error): void {
    const hasStream = this.#way?.transport?.type === "eventsource";
    // The server ends the stream of who leaves; its goodbye may still be under way.
    if (hasStream && this.#isLeaving) return;
    this.#lastError = error;
    // A server that shuts down asks its clients to come back at different moments.
    const advisedMs = hasStream ? 0 : this.#advice.interval;
    this.#closeWays();
    this.#probeDueAt = 0;
    this.#retryAfter(Math.max(advisedMs, this.#reconnect.nextDelayMs()));

    const wasEstablished = this.#isEstablished;
    this.#isEstablished = false;
    this.#outbox.connectionLost(!wasEstablished);
    if (wasEstablished) {
      this.#mayHaveMissed = true;
      this.#setState("connecting");
    }
    this.#goDown();
    this.#dropUsedUp();
    this.#listeners.emit("failed", error);
  }

  /** Earlier than that when there is a reason to hope. */
  #retryAfter(delayMs: number): void {
    const soonMs = Math.max(0, this.#attemptedAt + hurriedMs - Date.now());
    const waitMs = this.#isHurried ? Math.min(delayMs, soonMs) : delayMs;
    this.#isHurried = false;
    this.#wait(() => void this.#attempt(), waitMs);
  }

  #wait(call: () => void, ms: number): void {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(call, ms);
  }

  // The session

  #handshake(): void {
    const { isDisabled } = this.#options;
    const all: ConnectionType[] = ["websocket", "eventsource", "long-polling"];
    const message: Message = {
      channel: "/meta/handshake",
      version: "1.0",
      supportedConnectionTypes: all.filter((type) => !isDisabled(type)),
      // The server is to count what it sends; others do not look at it.
      ext: { pandapush: { count: true } },
    };
    this.#exchange(message, replyTimeoutMs, (reply) => {
      if (reply.successful && typeof reply.clientId === "string") {
        this.#clientId = reply.clientId;
        this.#arrivals.newSession();
        this.#mayHaveMissed = false;
        this.#openStream(reply);
        return;
      }
      const error = PandapushError.from(reply);
      this.#listeners.emit("refused", error);
      const why = `The server advised not to come back: ${error.message}`;
      if (reply.advice?.reconnect === "none") this.#end(why);
      else this.#fail(error);
    });
  }

  /** Polling with events on a stream, where that works; then the session is established. */
  #openStream({ supportedConnectionTypes = [] }: Message): void {
    const way = this.#way;
    const requests = way?.transport;
    const { platform, urlOf, isDisabled } = this.#options;
    const isWanted =
      requests?.type === "long-polling" &&
      !isDisabled("eventsource") &&
      supportedConnectionTypes.includes("eventsource");
    const url = urlOf("eventsource").replace(/\/?$/, `/${this.#clientId}`);
    const stream = isWanted ? platform.openStream?.(url) : undefined;
    if (way === undefined || requests === undefined || stream === undefined) {
      this.#establish(true);
      return;
    }
    const go = (): void => {
      if (this.#way === way) this.#establish(true);
    };
    const listeners = this.#listenTo(way);
    openEventSource(stream, requests, openTimeoutMs, listeners, way.signal).then((transport) => {
      way.transport = transport;
      go();
    }, go);
  }

  #establish(isNew: boolean): void {
    this.#isEstablished = true;
    this.#reconnect.connected();
    if (isNew) this.#outbox.begin(() => this.#listeners.ready(true));
    else this.#listeners.ready(false);
    this.#setState("connected");
    if (!this.#isUp) this.#listeners.emit("transport:up");
    this.#isUp = true;
    this.#flush();
    if (isNew) this.#connect();
    this.#planUpgrade();
  }

  /** @param timeoutMs 0: to be answered at once, which says whether the session lives */
  #connect(timeoutMs?: number): void {
    const type = this.#way?.transport?.type;
    const clientId = this.#clientId;
    if (type === undefined || clientId === undefined) return;
    const message: Message = { channel: "/meta/connect", connectionType: type };
    if (timeoutMs !== undefined) message.advice = { timeout: timeoutMs };
    const heldMs = timeoutMs ?? this.#advice.timeout;
    const sentAt = Date.now();
    this.#exchange(message, heldMs + connectGraceMs, (reply) => {
      if (clientId !== this.#clientId) return;
      const { advice, successful } = reply;
      const reconnect = advice?.reconnect;
      // A server that cannot find out about the session at the moment advises to ask again.
      if (reconnect !== "retry" && (!successful || reconnect)) {
        this.#loseSession(advice);
        return;
      }
      if (successful) {
        if (!this.#isEstablished) this.#establish(false);
        this.#compareCount(reply, type);
      }
      const isIdle = this.#isAlone && timeoutMs === undefined;
      const earliest = isIdle ? sentAt + Math.min(idleMs, heldMs || idleMs) : 0;
      const delayMs = Math.max(this.#advice.interval, earliest - Date.now());
      this.#wait(() => this.#connectAgain(), delayMs);
    });
  }

  #connectAgain(): void {
    const better = this.#better;
    // It is still being opened; or replies to what is under way would come to nobody.
    if (better?.transport === undefined || this.#outbox.isWaiting) {
      this.#connect();
      return;
    }
    this.#better = undefined;
    this.#way?.abort();
    this.#way = better;
    this.#connect(0);
  }

  /** The server counts the events that it sent to this session: a smaller number came here. */
  #compareCount({ ext }: Message, type: ConnectionType): void {
    const sent = (ext?.pandapush as { sent?: unknown } | undefined)?.sent;
    const isMissing =
      typeof sent === "number"
        ? type !== "eventsource" && this.#arrivals.isBehind(sent)
        : // Nobody knows what became of the events that were on their way.
          this.#mayHaveMissed;
    if (isMissing) this.#listeners.gap();
    this.#mayHaveMissed = false;
  }

  /** The server does not know the session any more. */
  #loseSession({ reconnect, interval = 0 }: Advice = {}): void {
    this.#clientId = undefined;
    if (reconnect === "none") {
      this.#end("The server advised not to come back");
      return;
    }
    this.#isEstablished = false;
    this.#setState("connecting");
    // Once is what happens to clients that were away. Sessions that are lost as they are made are
    // made more and more slowly.
    const isAgain = Date.now() - this.#sessionLostAt < unstableMs;
    this.#sessionLostAt = Date.now();
    const delayMs = isAgain ? Math.max(interval, this.#reconnect.nextDelayMs()) : interval;
    this.#wait(() => this.#handshake(), delayMs);
  }

  // Messages

  /** Sends a handshake or connect over the transport at hand, which without a reply is of no use. */
  #exchange(message: Message, timeoutMs: number, answered: (reply: Message) => void): void {
    const way = this.#way;
    const settle: Settle = (reply, error) => {
      if (this.#way !== way) return;
      if (reply !== undefined) answered(reply);
      else this.#fail(error ?? new Error(`An extension dropped ${message.channel}`));
    };
    this.#prepare(message, settle, (prepared) => {
      if (this.#way !== way) return;
      const request = { ...prepared, settle, dueAt: Date.now() + timeoutMs };
      way?.transport?.send([this.#outbox.send(request, this.#clientId)]);
    });
  }

  /** Takes a message through the extensions, and writes it down as it is now. */
  #prepare(
    message: Message,
    settle: Settle,
    ready: (prepared: Pick<Request, "id" | "channel" | "json">, passed: Message) => void,
  ): void {
    message.id = this.#nextId();
    if (this.#clientId !== undefined) message.clientId = this.#clientId;
    this.#listeners.pipe("outgoing", message, (passed, error) => {
      if (passed === null) return settle(undefined, error);
      let json: string;
      try {
        json = JSON.stringify({ ...passed, clientId: undefined });
      } catch (unwritable) {
        return settle(undefined, unwritable as Error);
      }
      ready({ id: String(passed.id), channel: passed.channel, json }, passed);
    });
  }

  #flushSoon(): void {
    // What is asked for in one turn travels together.
    queueMicrotask(() => this.#flush());
  }

  #flush(): void {
    const transport = this.#way?.transport;
    if (!this.#isEstablished || transport === undefined) return;
    this.#dropUsedUp();
    const parcels = this.#outbox.take(this.#clientId);
    if (parcels.length > 0) transport.send(parcels);
  }

  #receive(messages: readonly Message[]): void {
    this.#probeDueAt = 0;
    this.#isAlone = messages.length === 1;
    for (const message of messages) {
      if (message.channel === undefined && message.successful === false) {
        // A whole batch was refused, without a word on which: it is sent again one by one.
        this.#limits.messages = 1;
        this.#fail(PandapushError.from(message));
        return;
      }
      const isReply = message.successful !== undefined;
      const request = isReply ? this.#outbox.answered(message.id) : undefined;
      if (request === undefined && !this.#arrivals.isNews(message)) continue;
      this.#listeners.pipe("incoming", message, (passed, error) => {
        if (request !== undefined) this.#answer(request, passed, error);
        else if (passed !== null) this.#listeners.event(passed);
      });
    }
  }

  #answer(request: Request, reply: Message | null, failure: Error | undefined): void {
    const { scheduler, settle, clientId } = request;
    if (reply === null) {
      settle(undefined, failure);
      return;
    }
    const { advice, error = "" } = reply;
    this.#advice = { ...this.#advice, ...advice };
    // `401::Log in first` is an application's own refusal. Faye's server names the client that it
    // does not know, CometD's advises a handshake.
    const isUnknown =
      error.startsWith(`401:${clientId}:`) ||
      (/^40[12]:/.test(error) && advice?.reconnect === "handshake");
    if (isUnknown && scheduler !== undefined && !this.#isLeaving) {
      // The session ended between two connects: it is begun anew and the message sent again.
      const isNews = this.#isEstablished && clientId === this.#clientId;
      this.#outbox.add(request);
      if (isNews) this.#loseSession();
      else this.#flushSoon();
      return;
    }
    scheduler?.succeed();
    settle(reply, reply.successful ? undefined : PandapushError.from(reply));
  }

  #refuse(parcels: readonly Parcel[], error: PandapushError): void {
    for (const { id } of parcels) {
      const request = this.#outbox.answered(id);
      request?.scheduler?.abort();
      request?.settle(undefined, error);
    }
  }

  #dropUsedUp(): void {
    this.#outbox.dropUndeliverable(() => this.usedUp);
  }

  #nextId(): string {
    this.#lastId = (this.#lastId + 1) % 2 ** 32;
    return this.#lastId.toString(36);
  }

  // Watching

  #tick(): void {
    const now = Date.now();
    const hasSlept = now - this.#tickedAt > tickMs + sleptMs;
    this.#tickedAt = now;
    if (hasSlept) {
      this.#awake();
      return;
    }
    this.#dropUsedUp();
    if (this.#outbox.isOverdue(now) || (this.#probeDueAt > 0 && this.#probeDueAt < now)) {
      this.#fail(new Error("The server did not answer in time"));
    } else {
      this.#flush();
    }
  }

  /** The network came, the page is looked at, or the machine woke up. */
  #awake(): void {
    this.#probe();
    if (this.#isEstablished) return;
    this.#isHurried = true;
    if (this.#way === undefined) this.#retryAfter(Number.POSITIVE_INFINITY);
  }

  #probe(): void {
    if (!this.#isEstablished || this.#probeDueAt > 0) return;
    this.#probeDueAt = Date.now() + probeTimeoutMs;
    this.#way?.transport?.send([]);
  }

  #leave(): void {
    const clientId = this.#clientId;
    if (clientId === undefined || this.#options.isDisabled("autodisconnect")) return;
    const channel = "/meta/disconnect";
    const parcel: Parcel = { id: "", channel, text: JSON.stringify({ channel, clientId }) };
    const transport = this.#way?.transport;
    if (transport?.type === "websocket") {
      transport.send([parcel]);
      return;
    }
    // Browsers may have closed what was open.
    const { platform, urlOf, network } = this.#options;
    const options = { ...network(), signal: null };
    platform.post(urlOf("long-polling"), `[${parcel.text}]`, options).catch(() => {
      // Nobody is left to tell.
    });
  }

  /** Where WebSockets did not work they are tried again, less and less often. */
  #planUpgrade(): void {
    const isPolling = (): boolean => this.#way?.transport?.type === "long-polling";
    const make = this.#socketMaker;
    if (!isPolling() || make === undefined || this.#upgradeTimer !== undefined) return;
    this.#upgradeTimer = setTimeout(() => {
      this.#upgradeTimer = undefined;
      if (!isPolling()) return;
      const way = new Way();
      this.#better = way;
      this.#openSocket(make, way).then(
        (transport) => {
          way.transport = transport;
        },
        () => {
          // Blocked as before: polling goes on.
          this.#better = undefined;
          this.#planUpgrade();
        },
      );
    }, this.#upgradeMs);
    this.#upgradeMs = Math.min(2 * this.#upgradeMs, lastUpgradeMs);
  }

  #closeWays(): void {
    this.#way?.abort();
    this.#way = undefined;
    this.#dropBetter();
  }

  #dropBetter(): void {
    this.#better?.abort();
    this.#better = undefined;
  }

  #goDown(): void {
    if (this.#isUp) this.#listeners.emit("transport:down");
    this.#isUp = false;
  }

  #setState(state: ClientState): void {
    if (this.#state === state) return;
    this.#state = state;
    this.#listeners.emit("state", state);
  }

  #end(reason: string): void {
    if (this.#state === "disconnected") return;
    this.#isEstablished = false;
    this.#clientId = undefined;
    this.#closeWays();
    for (const timer of [this.#timer, this.#upgradeTimer, this.#ticker]) clearTimeout(timer);
    this.#unwatch?.();
    this.#setState("disconnected");
    const error = PandapushError.own("disconnected", reason);
    this.#outbox.end(error);
    this.#listeners.ended(error);
    this.#goDown();
  }
}

type Advice = NonNullable<Message["advice"]>;
type Timer = ReturnType<typeof setTimeout>;
