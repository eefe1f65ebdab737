/**
 * The client's side of a Bayeux session: gets a transport, shakes hands, keeps one connect at the
 * server, notices when the link is dead, and comes back to the same session or a new one.
 *
 * Knows nothing of subscriptions or applications: it carries messages and tells what happened.
 */
import { Arrivals } from "./arrivals.js";
import { PandapushError } from "./error.js";
import type { ClientState } from "./events.js";
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
  readonly makeScheduler: (message: Message, options: SchedulerOptions) => Scheduler;
  /** Until the server's advice says otherwise. */
  readonly timeoutMs: number;
  readonly intervalMs: number;
  /** Wait before a message is sent again, and longest wait before the first new attempt. */
  readonly retryMs: number | undefined;
}

export interface LinkListeners {
  /** Extensions: pass a message on, changed or not, or null to drop it. */
  readonly outgoing: (message: Message, pass: (message: Message | null) => void) => void;
  readonly incoming: (message: Message, pass: (message: Message | null) => void) => void;
  /** A message that answers no request. */
  readonly event: (message: Message) => void;
  /**
   * Messages are about to flow: what is requested now goes first.
   * @param session `new` ones know no subscriptions; `after-another`: nor what was published in
   *   between
   */
  readonly ready: (session: "resumed" | "new" | "after-another") => void;
  /** Something that was published to this session did not come, or nobody knows. */
  readonly gap: () => void;
  readonly state: (state: ClientState) => void;
  /** Nothing is sent or received any more. */
  readonly ended: (reason: string) => void;
  readonly up: () => void;
  readonly down: () => void;
  /** The connection is lost or was not to be had; another attempt follows. */
  readonly failed: (error: Error) => void;
  readonly handshakeRefused: (error: PandapushError) => void;
}

export interface RequestOptions {
  readonly attempts?: number | undefined;
  /** In seconds from now. */
  readonly deadline?: number | undefined;
  /** It makes sense in this session only: when that is lost it is dropped, unsettled. */
  readonly isOfSession?: boolean;
}

/** One attempt to have a transport, and the transport. */
interface Way {
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
/** A tick that comes this much too late means that the machine slept. */
const sleptMs = 4_000;
/** When WebSockets did not work, how long until they are tried again: at first, and at most. */
const firstUpgradeMs = 30_000;
const lastUpgradeMs = 600_000;

export class Link {
  #state: ClientState = "unconnected";
  #way: Way | undefined;
  /** A session is agreed on and messages flow. */
  #isEstablished = false;
  #clientId: string | undefined;
  #advice: { interval: number; timeout: number };
  readonly #outbox = new Outbox();
  readonly #arrivals = new Arrivals();
  readonly #limits: Limits = { messages: maxBatchMessages };
  #lastId = 0;
  #isFlushing = false;
  #isLeaving = false;

  readonly #reconnect: Reconnect;
  #retryTimer: Timer | undefined;
  #connectTimer: Timer | undefined;
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
  #hadSession = false;
  #sessionLostAt = 0;
  #mayHaveMissed = false;

  #hasSocketWorked = false;
  #socketFailures = 0;
  #upgradeMs = firstUpgradeMs;
  #upgradeTimer: Timer | undefined;
  /** An open WebSocket that takes over when the current poll is answered. */
  #better: Way | undefined;

  constructor(
    private readonly options: LinkOptions,
    private readonly listeners: LinkListeners,
  ) {
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

  /** Begins to connect, once. */
  start(): void {
    if (this.#state !== "unconnected") return;
    this.#setState("connecting");
    this.#tickedAt = Date.now();
    this.#ticker = setInterval(() => this.#tick(), tickMs);
    this.#unwatch = this.options.platform.watch({
      awake: () => this.#awake(),
      doubt: () => this.#probe(),
      leave: () => this.#leave(),
    });
    void this.#attempt();
  }

  /**
   * Sends a message as soon as there is a session, and again when its reply did not come.
   * @param settle called once, with the reply or with what stopped it
   * @returns a function that takes it back: it is not sent, or not again, and settles with its
   *   reply or not at all
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
    message.id = this.#nextId();
    if (this.#clientId !== undefined) message.clientId = this.#clientId;
    let isTakenBack = false;
    let request: Request | undefined;
    this.listeners.outgoing(message, (passed) => {
      if (passed === null || isTakenBack) return;
      const scheduler = this.options.makeScheduler(passed, {
        timeout: replyTimeoutMs / 1000,
        interval: (this.options.retryMs ?? 0) / 1000,
        attempts,
        deadline: deadline === undefined ? undefined : Date.now() + deadline * 1000,
      });
      request = { message: passed, settle, scheduler, isOfSession };
      this.#outbox.add(request);
      this.#flushSoon();
    });
    return () => {
      isTakenBack = true;
      if (request !== undefined) this.#outbox.takeBack(request);
    };
  }

  /** Takes leave of the server, and ends. */
  disconnect(done: () => void): void {
    if (!this.#isEstablished) {
      this.#end("The client was disconnected");
      done();
      return;
    }
    this.#isLeaving = true;
    const finish = (): void => {
      clearTimeout(timer);
      this.#end("The client was disconnected");
      done();
    };
    const timer = setTimeout(finish, goodbyeMs);
    this.request({ channel: "/meta/disconnect" }, { attempts: 1 }, finish);
  }

  // Getting a transport

  async #attempt(): Promise<void> {
    clearTimeout(this.#retryTimer);
    this.#retryTimer = undefined;
    this.#attemptedAt = Date.now();
    const way: Way = { transport: undefined };
    this.#way = way;
    try {
      const transport = await this.#open(way);
      if (this.#way !== way) {
        transport.close();
        return;
      }
      way.transport = transport;
    } catch (error) {
      if (this.#way === way) this.#fail(error as Error);
      return;
    }
    if (this.#clientId === undefined) this.#handshake();
    else this.#connect(0);
  }

  async #open(way: Way): Promise<Transport> {
    const { isDisabled } = this.options;
    const hasPolling = !isDisabled("long-polling") || !isDisabled("eventsource");
    // While the next try is set for later, polling it is.
    if (this.#mayUseSocket() && this.#upgradeTimer === undefined) {
      try {
        const transport = await this.#openSocket(way);
        this.#hasSocketWorked = true;
        this.#socketFailures = 0;
        this.#upgradeMs = firstUpgradeMs;
        return transport;
      } catch (error) {
        this.#socketFailures += 1;
        // Where WebSockets worked the server is away, more likely than that they are blocked now.
        if (!hasPolling || (this.#hasSocketWorked && this.#socketFailures === 1)) throw error;
      }
    }
    if (!hasPolling) throw new Error("No transport is left: all are disabled");
    const { platform, urlOf, network } = this.options;
    const listeners = this.#listenTo(way);
    return openPolling(platform.post, urlOf("long-polling"), network, this.#limits, listeners);
  }

  #mayUseSocket(): boolean {
    return this.options.platform.openSocket !== undefined && !this.options.isDisabled("websocket");
  }

  #openSocket(way: Way): Promise<Transport> {
    const { platform, urlOf, network } = this.options;
    if (platform.openSocket === undefined) throw new Error("There are no WebSockets here");
    const listeners = this.#listenTo(way);
    return openWebSocket(
      platform.openSocket,
      urlOf("websocket"),
      network(),
      openTimeoutMs,
      this.#limits,
      listeners,
    );
  }

  #listenTo(way: Way): TransportListeners {
    return {
      received: (messages) => {
        if (this.#way === way) this.#receive(messages);
      },
      refused: (messages, error) => {
        if (this.#way === way) this.#refuse(messages, error);
      },
      lost: (error) => {
        if (this.#way === way) this.#fail(error);
        else if (this.#better === way) this.#better = undefined;
      },
    };
  }

  /** Without a transport for some reason: what was under way waits, and a new attempt follows. */
  #fail(error: Error, minDelayMs = 0): void {
    this.#lastError = error;
    const transport = this.#way?.transport;
    transport?.close();
    this.#way = undefined;
    this.#dropBetter();
    this.#probeDueAt = 0;
    clearTimeout(this.#connectTimer);
    clearTimeout(this.#retryTimer);
    // A server that shuts down asks its clients to come back at different moments.
    const advisedMs = transport?.type === "eventsource" ? 0 : this.#advice.interval;
    this.#retryAfter(Math.max(minDelayMs, advisedMs, this.#reconnect.nextDelayMs()));

    const wasEstablished = this.#isEstablished;
    this.#isEstablished = false;
    this.#outbox.connectionLost(!wasEstablished);
    if (wasEstablished) {
      this.#mayHaveMissed = true;
      this.#setState("connecting");
    }
    this.#goDown();
    this.#outbox.dropUndeliverable(error.message);
    this.listeners.failed(error);
  }

  /** Earlier than that when there is a reason to hope. */
  #retryAfter(delayMs: number): void {
    clearTimeout(this.#retryTimer);
    const soonMs = Math.max(0, this.#attemptedAt + hurriedMs - Date.now());
    const waitMs = this.#isHurried ? Math.min(delayMs, soonMs) : delayMs;
    this.#isHurried = false;
    this.#retryTimer = setTimeout(() => void this.#attempt(), waitMs);
  }

  // The session

  #handshake(): void {
    const { isDisabled } = this.options;
    const all: ConnectionType[] = ["websocket", "eventsource", "long-polling"];
    const message: Message = {
      channel: "/meta/handshake",
      version: "1.0",
      supportedConnectionTypes: all.filter((type) => !isDisabled(type)),
      // The server is to count what it sends; others do not look at it.
      ext: { pandapush: { count: true } },
    };
    this.#exchange(message, replyTimeoutMs, (reply) => {
      this.#heed(reply);
      if (reply.successful && typeof reply.clientId === "string") {
        this.#clientId = reply.clientId;
        this.#arrivals.newSession();
        this.#openStream(reply);
        return;
      }
      const error = PandapushError.from(reply);
      this.listeners.handshakeRefused(error);
      if (reply.advice?.reconnect === "none") this.#end(error.message);
      else this.#fail(error, reply.advice?.interval);
    });
  }

  /** Polling with events on a stream, where that works; then the session is established. */
  #openStream({ supportedConnectionTypes = [] }: Message): void {
    const way = this.#way;
    const requests = way?.transport;
    const { platform, urlOf, isDisabled } = this.options;
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
    const lost = (error: Error): void => {
      // The server ends the stream of who leaves; its goodbye may still be under way.
      if (!this.#isLeaving) listeners.lost(error);
    };
    openEventSource(stream, requests, openTimeoutMs, { ...listeners, lost }).then((transport) => {
      if (this.#way !== way) return transport.close();
      way.transport = transport;
      go();
    }, go);
  }

  #establish(isNew: boolean): void {
    this.#isEstablished = true;
    this.#reconnect.connected();
    this.#setState("connected");
    if (!this.#isUp) this.listeners.up();
    this.#isUp = true;
    this.#outbox.begin(isNew, () =>
      this.listeners.ready(!isNew ? "resumed" : this.#hadSession ? "after-another" : "new"),
    );
    this.#hadSession = true;
    this.#mayHaveMissed = false;
    this.#flush();
    if (isNew) this.#connect();
    this.#planUpgrade();
  }

  /** @param timeoutMs 0: to be answered at once, which says whether the session lives */
  #connect(timeoutMs?: number): void {
    const type = this.#way?.transport?.type;
    if (type === undefined || this.#clientId === undefined) return;
    const message: Message = {
      channel: "/meta/connect",
      clientId: this.#clientId,
      connectionType: type,
    };
    if (timeoutMs !== undefined) message.advice = { timeout: timeoutMs };
    const heldMs = timeoutMs ?? this.#advice.timeout;
    this.#exchange(message, heldMs + connectGraceMs, (reply) => {
      if (message.clientId !== this.#clientId) return;
      this.#heed(reply);
      if (!reply.successful) {
        this.#loseSession(reply.advice?.reconnect, reply.advice?.interval);
        return;
      }
      this.#compareCount(reply, type);
      if (!this.#isEstablished) this.#establish(false);
      this.#connectTimer = setTimeout(() => this.#connectAgain(), this.#advice.interval);
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
    this.#way?.transport?.close();
    this.#way = better;
    this.#connect(0);
  }

  /** The server counts the events that it sent to this session: a smaller number came here. */
  #compareCount({ ext }: Message, type: ConnectionType): void {
    const sent = (ext?.pandapush as { sent?: unknown } | undefined)?.sent;
    if (typeof sent !== "number") {
      // Nobody knows what became of the events that were on their way.
      if (this.#mayHaveMissed) this.listeners.gap();
    } else if (type !== "eventsource" && this.#arrivals.isBehind(sent)) {
      this.listeners.gap();
    }
    this.#mayHaveMissed = false;
  }

  /** The server does not know the session any more. */
  #loseSession(reconnect: string | undefined, intervalMs = 0): void {
    this.#clientId = undefined;
    if (reconnect === "none") {
      this.#end("The server advised not to come back");
      return;
    }
    this.#isEstablished = false;
    this.#setState("connecting");
    clearTimeout(this.#connectTimer);
    // Once is what happens to clients that were away. Sessions that are lost as they are made are
    // made more and more slowly.
    const isAgain = Date.now() - this.#sessionLostAt < unstableMs;
    this.#sessionLostAt = Date.now();
    const delayMs = isAgain ? Math.max(intervalMs, this.#reconnect.nextDelayMs()) : intervalMs;
    this.#connectTimer = setTimeout(() => this.#handshake(), delayMs);
  }

  #heed({ advice }: Message): void {
    if (typeof advice?.interval === "number") this.#advice.interval = advice.interval;
    if (typeof advice?.timeout === "number") this.#advice.timeout = advice.timeout;
  }

  // Messages

  /** Sends a handshake or connect over the transport at hand. */
  #exchange(message: Message, timeoutMs: number, answered: (reply: Message) => void): void {
    message.id = this.#nextId();
    const way = this.#way;
    this.listeners.outgoing(message, (passed) => {
      if (passed === null || this.#way !== way || way?.transport === undefined) return;
      this.#outbox.sent({
        message: passed,
        settle: (reply) => {
          if (reply !== undefined) answered(reply);
        },
        dueAt: Date.now() + timeoutMs,
      });
      way.transport.send([passed]);
    });
  }

  #flushSoon(): void {
    if (this.#isFlushing) return;
    this.#isFlushing = true;
    // What is asked for in one turn travels together.
    queueMicrotask(() => {
      this.#isFlushing = false;
      this.#flush();
    });
  }

  #flush(): void {
    const transport = this.#way?.transport;
    if (!this.#isEstablished || transport === undefined) return;
    this.#dropUsedUp();
    const messages = this.#outbox.take(this.#clientId);
    if (messages.length > 0) transport.send(messages);
  }

  #receive(messages: readonly Message[]): void {
    this.#probeDueAt = 0;
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
      this.listeners.incoming(message, (passed) => {
        if (passed === null) return;
        if (request === undefined) this.listeners.event(passed);
        else this.#answer(request, passed);
      });
    }
  }

  #answer(request: Request, reply: Message): void {
    const { scheduler, settle } = request;
    if (scheduler !== undefined && reply.error?.startsWith("401:")) {
      // The session ended between two connects: it is begun anew and the message sent again.
      const isNews = this.#isEstablished && request.message.clientId === this.#clientId;
      this.#outbox.putBack(request);
      if (isNews) this.#loseSession("handshake");
      else this.#flushSoon();
      return;
    }
    scheduler?.succeed();
    if (scheduler === undefined || reply.successful) settle(reply, undefined);
    else settle(reply, PandapushError.from(reply));
  }

  #refuse(messages: readonly Message[], error: PandapushError): void {
    for (const { id } of messages) {
      const request = this.#outbox.answered(id);
      if (request === undefined) continue;
      if (request.scheduler === undefined) {
        this.#fail(error);
        return;
      }
      request.scheduler.abort();
      request.settle(undefined, error);
    }
  }

  #dropUsedUp(): void {
    const why = `its attempts or its time are used up. ${this.#lastError?.message ?? ""}`;
    this.#outbox.dropUndeliverable(why.trim());
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
    if (this.#retryTimer !== undefined) this.#retryAfter(Number.POSITIVE_INFINITY);
  }

  #probe(): void {
    if (!this.#isEstablished || this.#probeDueAt > 0) return;
    this.#probeDueAt = Date.now() + probeTimeoutMs;
    this.#way?.transport?.send([]);
  }

  #leave(): void {
    if (this.#clientId === undefined || this.options.isDisabled("autodisconnect")) return;
    const message: Message = {
      channel: "/meta/disconnect",
      clientId: this.#clientId,
      id: this.#nextId(),
    };
    this.#way?.transport?.leave(message);
  }

  #planUpgrade(): void {
    const isPolling = this.#way?.transport?.type === "long-polling";
    if (!isPolling || !this.#mayUseSocket() || this.#upgradeTimer !== undefined) return;
    this.#upgradeTimer = setTimeout(() => void this.#upgrade(), this.#upgradeMs);
    this.#upgradeMs = Math.min(2 * this.#upgradeMs, lastUpgradeMs);
  }

  async #upgrade(): Promise<void> {
    this.#upgradeTimer = undefined;
    if (this.#way?.transport?.type !== "long-polling") return;
    const way: Way = { transport: undefined };
    this.#better = way;
    try {
      const transport = await this.#openSocket(way);
      if (this.#better !== way) return transport.close();
      way.transport = transport;
      this.#hasSocketWorked = true;
      this.#socketFailures = 0;
    } catch {
      // Blocked as before: polling goes on.
      if (this.#better === way) this.#better = undefined;
      this.#planUpgrade();
    }
  }

  #dropBetter(): void {
    this.#better?.transport?.close();
    this.#better = undefined;
  }

  #goDown(): void {
    if (this.#isUp) this.listeners.down();
    this.#isUp = false;
  }

  #setState(state: ClientState): void {
    if (this.#state === state) return;
    this.#state = state;
    this.listeners.state(state);
  }

  #end(reason: string): void {
    if (this.#state === "disconnected") return;
    this.#isEstablished = false;
    this.#clientId = undefined;
    this.#way?.transport?.close();
    this.#way = undefined;
    this.#dropBetter();
    for (const timer of [this.#retryTimer, this.#connectTimer, this.#upgradeTimer, this.#ticker]) {
      clearTimeout(timer);
    }
    this.#unwatch?.();
    this.#setState("disconnected");
    this.listeners.ended(reason);
    this.#goDown();
    this.#outbox.end(reason);
  }
}

type Timer = ReturnType<typeof setTimeout>;
