/**
 * Bayeux 1.0: a batch of messages in, their replies out; one function for each meta channel.
 *
 * The messages of one connection are authorised and run in the order of their arrival. Only a
 * held connect waits aside; the replies of its batch wait with it. Rules: docs/protocol.md.
 */
import {
  type Advice,
  bayeuxVersion,
  type Channel,
  type ConnectRequest,
  connectionTypes,
  type DisconnectRequest,
  encodeBatch,
  encodeEvent,
  encodeReply,
  type HandshakeRequest,
  isBayeuxName,
  isBayeuxPattern,
  type PublishRequest,
  parseBatch,
  parseChannel,
  type Reply,
  type Request,
  replyTo,
  type SubscribeRequest,
  textOf,
  type UnsubscribeRequest,
} from "@pandapush/protocol";
import type { Authorize } from "./auth/authorize.js";
import { Refusal } from "./errors.js";
import { after, inTurn, type MaybePromise } from "./maybe-promise.js";
import { maxListLength, type Node } from "./node.js";
import {
  type ClientSession,
  type Encoder,
  type Joined,
  type ListBudget,
  type Outcome,
  Session,
  type Sessions,
  type Subscribed,
  type Waiter,
} from "./session.js";
import type { Origin, PushConnection } from "./transports/transport.js";

/** What messages come by: one WebSocket, or one HTTP request. */
export interface Source extends Origin {
  /** Events are pushed here once a connect has bound a session to it; HTTP requests have none. */
  readonly push: PushConnection | undefined;
  /** The session that the last connect bound; kept here by `Bayeux`. Its own node's, if it pushes. */
  session: ClientSession | undefined;
  /** What it asked for and the broker has not confirmed yet; kept here by `Bayeux`. */
  underWay?: UnderWay | undefined;
  /** It was closed while its batch waited: nothing may be bound to it or held. */
  isGone: boolean;
  /** Sends the replies of one batch. */
  respond(text: string, outcome: Outcome | undefined): void;
}

export interface BayeuxOptions {
  /** How long a connect is held, and what clients are told about it. */
  readonly timeoutMs: number;
  /** What clients wait between two connects. */
  readonly intervalMs: number;
  readonly batchMessages: number;
  /** @param channel the one that was asked for, of a subscribe or publish; as it came */
  readonly onRefusal: (refusal: Refusal, request: Request, channel: unknown) => void;
  /** Text came that is no batch. */
  readonly onMalformed: () => void;
  readonly logError: (error: unknown, what: string) => void;
}

/**
 * How many characters of publications of one connection may wait for the broker before its next
 * messages do, and what each counts beside its own.
 */
const maxUnderWay = 1_048_576;
const underWayOverhead = 256;

/** Refused handshakes are repeated after this long, plus up to as much again. HS-5 */
const handshakeRetryMs = 5_000;

/** A connect that could not reach its session is repeated after this long, plus up to as much again. */
const outageRetryMs = 1_000;

/** Clients of a node that shuts down return after this long, plus up to as much again. */
const drainRetryMs = 1_000;

export const bayeuxEncoder: Encoder = {
  event: ({ channel, data, id, ext }) => encodeEvent(channel, data, id, ext),
  subscriptionEnded: (clientId, subscription, error) => {
    const reply = replyTo({ clientId, channel: "/meta/subscribe" });
    reply.successful = false;
    reply.subscription = subscription;
    reply.error = error;
    return encodeReply(reply);
  },
  join: encodeBatch,
};

/** A batch on its way: replies gather until every message of it has been answered. */
interface Batch {
  readonly source: Source;
  /** In the order of the requests; empty for those that the broker has not confirmed yet. */
  readonly replies: string[];
  /** Settled when those are answered. */
  readonly unanswered: Promise<void>[];
  readonly connects: { readonly request: ConnectRequest; readonly session: ClientSession }[];
  disconnected: ClientSession[];
  /** Presence lists that its replies hold. */
  readonly joined: Joined[];
  readonly lists: ListBudget;
}

/**
 * What one connection has given to the broker, in order, and waits for. Publishes wait together,
 * and so do subscribes; whatever is neither waits until both are done.
 */
interface UnderWay {
  kind: Request["kind"];
  /** Settled when all batches up to the last are answered. */
  answered: Promise<void> | undefined;
  /** In characters. */
  length: number;
}

/** A subscribe that was begun, for one name. */
interface Begun {
  readonly name: string;
  readonly done: MaybePromise<Subscribed>;
}

/** The replies of a batch whose connects are held. */
interface HeldResponse {
  readonly source: Source;
  readonly replies: string[];
  readonly outcomes: Outcome[];
  unanswered: number;
}

/** A class and no closure: every idle client has one. */
class HeldConnect implements Waiter {
  constructor(
    private readonly bayeux: Bayeux,
    private readonly response: HeldResponse,
    private readonly request: ConnectRequest,
  ) {}

  get source(): Source {
    return this.response.source;
  }

  answer(events: readonly string[], sent: number | undefined, outcome: Outcome): void {
    this.response.outcomes.push(outcome);
    this.bayeux.answerHeld(this.response, this.request, sent, events);
  }

  refuse(error: unknown): void {
    this.bayeux.refuseHeld(this.response, this.request, error);
  }
}

export class Bayeux {
  private isLeaving = false;
  private isDraining = false;
  /** What a subscribe asked for last, of its list: what a refusal is about. */
  private readonly asked = new WeakMap<Request, unknown>();

  constructor(
    private readonly node: Node,
    private readonly sessions: Sessions,
    private readonly authorize: Authorize,
    private readonly options: BayeuxOptions,
  ) {}

  /**
   * Runs a batch. Returns (or resolves) when the next batch of the same connection may run; the
   * replies may come later, when a connect is held or the broker has to confirm something.
   * @throws MalformedBatch at once, before anything has run
   */
  receive(source: Source, text: string): MaybePromise<void> {
    const requests = this.parse(text);
    const batch: Batch = {
      source,
      replies: [],
      unanswered: [],
      connects: [],
      disconnected: [],
      joined: [],
      lists: { left: maxListLength },
    };
    return after(this.sessions.ready(), () =>
      after(
        inTurn(requests, (request) => this.handle(batch, request)),
        () => after(endElsewhere(batch), () => this.finishInTurn(batch)),
      ),
    );
  }

  private parse(text: string): Request[] {
    try {
      return parseBatch(text, this.options.batchMessages);
    } catch (error) {
      this.options.onMalformed();
      throw error;
    }
  }

  /** The answer to text that is no batch, for connections that have no status codes. */
  refuse(detail: string): string {
    const refusal = new Refusal("badRequest");
    const reply = replyTo({});
    return encodeBatch([encodeFailure(reply, refusal.toBayeux(), detail)]);
  }

  /** The connection is gone; what it was sent in vain has been put back. The session lives on. */
  closed(source: Source): void {
    const { session } = source;
    source.isGone = true;
    if (session === undefined) return;
    source.session = undefined;
    session.forget(source);
    if (source.push !== undefined && session instanceof Session) session.detach(source.push);
  }

  /**
   * A stream opened for this client; unknown ids are streams on which nothing comes. TR-ES-2
   * One whose session cannot be found at the moment is closed: its client opens another one.
   */
  async attach(source: Source, clientId: string): Promise<void> {
    try {
      await this.sessions.ready();
      const session = await this.sessions.fetch(clientId);
      if (session !== undefined && !source.isGone) this.bind(source, session);
    } catch (error) {
      if (!(error instanceof Refusal)) this.options.logError(error, "attach a stream");
      source.push?.close("goingAway");
    }
  }

  /**
   * From now on connects are answered at once, with an interval that spreads the clients' return:
   * other nodes take the sessions of this one.
   */
  leave(): void {
    this.isLeaving = true;
  }

  /** And no session begins any more. */
  drain(): void {
    this.isLeaving = true;
    this.isDraining = true;
  }

  /** Answers every message, whatever happens: the one place where a message's errors are caught. */
  private handle(batch: Batch, request: Request): MaybePromise<void> {
    const quiet = this.untilQuiet(batch, request.kind);
    if (quiet !== undefined) return quiet.then(() => this.handle(batch, request));
    const reply = replyTo(request);
    const refuse = (error: unknown): void => {
      batch.replies.push(this.refuseMessage(request, reply, error));
    };
    try {
      const handled = this.dispatch(batch, request, reply);
      return handled instanceof Promise ? handled.catch(refuse) : undefined;
    } catch (error) {
      refuse(error);
    }
  }

  /** What the broker has still to confirm, if a request of this kind must wait for it. MSG-10 */
  private untilQuiet(batch: Batch, kind: Request["kind"]): Promise<unknown> | undefined {
    const { underWay } = batch.source;
    if (underWay === undefined || underWay.kind === kind) return undefined;
    const quiet = Promise.all([underWay.answered, ...batch.unanswered]);
    return quiet.then(() => {
      batch.source.underWay = undefined;
    });
  }

  /**
   * Answers a request when the broker has confirmed what it was given. Nothing else of its kind
   * waits for that: what is sent to the broker keeps its order.
   */
  private answerWhen(
    done: MaybePromise<unknown>,
    batch: Batch,
    request: Request,
    reply: Reply,
    length = 0,
  ): void {
    if (!(done instanceof Promise)) {
      batch.replies.push(encodeReply(reply));
      return;
    }
    const at = batch.replies.push("") - 1;
    const underWay = batch.source.underWay ?? {
      kind: request.kind,
      answered: undefined,
      length: 0,
    };
    batch.source.underWay = underWay;
    underWay.length += length + underWayOverhead;
    const answer = (text: string): void => {
      underWay.length -= length + underWayOverhead;
      batch.replies[at] = text;
    };
    batch.unanswered.push(
      done.then(
        () => answer(encodeReply(reply)),
        (error: unknown) => answer(this.refuseMessage(request, reply, error)),
      ),
    );
  }

  /** Batches of one connection are answered in their order. */
  private finishInTurn(batch: Batch): MaybePromise<void> {
    const { source, unanswered } = batch;
    const { underWay } = source;
    if (underWay === undefined) return this.finish(batch);
    // Also of those that are only waiting for their turn.
    const length = batch.replies.reduce((sum, text) => sum + text.length, underWayOverhead);
    underWay.length += length;
    const answered = Promise.all([underWay.answered, ...unanswered])
      .then(() => this.finish(batch))
      .catch((error: unknown) => this.options.logError(error, "answer a batch"))
      .then(() => {
        underWay.length -= length;
        if (underWay.length === 0 && source.underWay === underWay) source.underWay = undefined;
      });
    underWay.answered = answered;
    return underWay.length > maxUnderWay ? answered : undefined;
  }

  private dispatch(batch: Batch, request: Request, reply: Reply): MaybePromise<void> {
    switch (request.kind) {
      case "handshake":
        return this.handshake(batch, request, reply);
      case "connect":
        return this.connect(batch, request);
      case "subscribe":
        return this.subscribe(batch, request, reply);
      case "unsubscribe":
        return this.unsubscribe(batch, request, reply);
      case "disconnect":
        return this.disconnect(batch, request, reply);
      case "publish":
        return this.publish(batch, request, reply);
      case "other-meta":
        throw new Refusal("forbiddenChannel", [textOf(request.channel)]);
    }
  }

  private refuseMessage(request: Request, reply: Reply, error: unknown): string {
    if (error instanceof OwnError) {
      return this.fail(request, reply, error.message, "The message itself carries this error.");
    }
    const refusal = error instanceof Refusal ? error : new Refusal("internal");
    if (!(error instanceof Refusal)) this.options.logError(error, `handle ${request.kind}`);
    const asked = request.kind === "subscribe" ? this.asked.get(request) : request.channel;
    this.options.onRefusal(refusal, request, asked);
    const isPassing = refusal.http === 503;
    return this.fail(request, reply, refusal.toBayeux(), refusal.help, isPassing);
  }

  /** @param isPassing the session may be there: its client shall try again and keep it */
  private fail(
    request: Request,
    reply: Reply,
    error: string,
    detail: string,
    isPassing = false,
  ): string {
    switch (request.kind) {
      case "handshake":
        reply.version = bayeuxVersion;
        reply.supportedConnectionTypes = connectionTypes;
        // Without an interval old clients would be back within milliseconds, for ever. HS-5
        reply.advice = { reconnect: "handshake", interval: spread(handshakeRetryMs) };
        break;
      case "connect":
        reply.clientId = undefined;
        // Spread, for after a restart all clients come at once. CON-6
        reply.advice = isPassing
          ? { reconnect: "retry", interval: spread(outageRetryMs) }
          : { reconnect: "handshake", interval: Math.round(Math.random() * 1_000) };
        break;
      case "disconnect":
        reply.clientId = undefined;
        break;
      case "subscribe":
      case "unsubscribe":
        reply.subscription = request.subscription || [];
    }
    return encodeFailure(reply, error, detail);
  }

  // MUST version, supportedConnectionTypes · MAY ext
  private handshake(batch: Batch, request: HandshakeRequest, reply: Reply): void {
    const types = request.supportedConnectionTypes;
    if (!types) throw new Refusal("missingParameter", ["supportedConnectionTypes"]);
    const offered: unknown[] = Array.isArray(types) ? types : [types];
    if (!offered.some(isConnectionType)) throw new Refusal("connectionTypes", offered.map(textOf));
    if (!request.version) throw new Refusal("missingParameter", ["version"]);
    requireNoError(request);
    if (this.isDraining) throw new Refusal("draining");
    const session = this.node.createSession(bayeuxEncoder, batch.source.address);
    session.notice(batch.source);
    session.isCounting = request.wantsCount;
    reply.version = bayeuxVersion;
    reply.supportedConnectionTypes = connectionTypes;
    reply.clientId = session.clientId;
    reply.advice = this.advice();
    batch.replies.push(encodeReply(reply));
  }

  // MUST clientId, connectionType · MAY advice.timeout
  private connect(batch: Batch, request: ConnectRequest): MaybePromise<void> {
    const { connectionType } = request;
    if (!connectionType) throw new Refusal("missingParameter", ["connectionType"]);
    if (!isConnectionType(connectionType)) {
      throw new Refusal("connectionTypes", [textOf(connectionType)]);
    }
    const pushes = batch.source.push !== undefined;
    return this.withSession(batch, request, pushes, (session) => {
      batch.connects.push({ request, session });
    });
  }

  // MUST clientId, subscription (a channel or an array) · MAY ext.auth
  private subscribe(batch: Batch, request: SubscribeRequest, reply: Reply): MaybePromise<void> {
    const names = readSubscription(request);
    this.asked.set(request, names[0]);
    if (names.length > this.options.batchMessages) throw new Refusal("batchTooLong");
    return this.withSession(batch, request, false, (session) =>
      this.subscribeAll(batch, request, reply, session, names),
    );
  }

  private subscribeAll(
    batch: Batch,
    request: SubscribeRequest,
    reply: Reply,
    session: ClientSession,
    names: unknown[],
  ): MaybePromise<void> {
    const lists: string[] = [];
    const begun: Begun[] = [];
    const begin = (name: unknown): MaybePromise<void> => {
      this.asked.set(request, name);
      if (typeof name !== "string") throw new Refusal("invalidChannelName");
      return after(this.authorize("subscribe", name, request.auth), (grant) => {
        const channel = parseChannel(name);
        if (channel === undefined) throw new Refusal("invalidChannelName");
        const done = after(session.subscribe(channel, grant, batch.lists), (subscribed) => {
          const { joined } = subscribed;
          if (joined !== undefined) {
            batch.joined.push(joined);
            lists.push(joined.list);
          }
          return subscribed;
        });
        // It may fail before the others are begun, when nobody looks yet.
        if (done instanceof Promise) done.catch(() => undefined);
        begun.push({ name, done });
      });
    };
    return after(
      refusalOf(() => inTurn(distinct(names), begin)),
      (refusal) => {
        const done = this.whenSubscribed(request, session, begun, refusal);
        const subscribed = after(done, () => {
          reply.subscription = request.subscription;
          if (lists.length > 0) reply.ext = `{"presence":{"subscribe":${joinObjects(lists)}}}`;
        });
        this.answerWhen(subscribed, batch, request, reply);
      },
    );
  }

  /**
   * Left to right; the first refusal counts. Those before it stay subscribed, those behind it that
   * were begun meanwhile do not. SUB-4
   * @param refusal what kept the rest from being begun
   */
  private whenSubscribed(
    request: SubscribeRequest,
    session: ClientSession,
    begun: readonly Begun[],
    refusal: unknown,
  ): MaybePromise<void> {
    if (!begun.some(({ done }) => done instanceof Promise)) {
      if (refusal !== undefined) throw refusal;
      return;
    }
    return Promise.allSettled(begun.map(({ done }) => done)).then(async (results) => {
      const first = results.findIndex(({ status }) => status === "rejected");
      const failed = results[first];
      if (failed?.status === "rejected") {
        this.asked.set(request, begun[first]?.name);
        for (const [index, result] of results.entries()) {
          if (index < first || result.status === "rejected" || !result.value.isNew) continue;
          await session.unsubscribe(begun[index]?.name ?? "");
        }
        throw failed.reason;
      }
      if (refusal !== undefined) throw refusal;
    });
  }

  // MUST clientId, subscription
  private unsubscribe(batch: Batch, request: UnsubscribeRequest, reply: Reply): MaybePromise<void> {
    const names = readSubscription(request);
    return this.withSession(batch, request, false, (session) => {
      const done = inTurn(names, (name) => {
        if (typeof name !== "string" || !(isBayeuxName(name) || isBayeuxPattern(name))) {
          throw new Refusal("invalidChannel", [textOf(name)]);
        }
        if (/^\/(?:meta|service)(?:\/|$)/.test(name)) throw new Refusal("forbiddenChannel", [name]);
        return session.unsubscribe(name);
      });
      return after(done, () => {
        reply.subscription = request.subscription;
        batch.replies.push(encodeReply(reply));
      });
    });
  }

  // MUST clientId
  private disconnect(batch: Batch, request: DisconnectRequest, reply: Reply): MaybePromise<void> {
    return this.withSession(batch, request, false, (session) => {
      batch.disconnected.push(session);
      batch.replies.push(encodeReply(reply));
    });
  }

  // MUST channel, data · MAY ext.auth, data.__auth. The clientId is not looked at. PUB-6
  private publish(batch: Batch, request: PublishRequest, reply: Reply): MaybePromise<void> {
    const { channel, data, ext } = request;
    if (data === undefined) throw new Refusal("missingParameter", ["data"]);
    if (typeof channel !== "string" || !isBayeuxName(channel)) {
      throw new Refusal("invalidChannel", [textOf(channel ?? "")]);
    }
    requireNoError(request);
    return after(this.authorize("publish", channel, request.auth), (grant) => {
      const taken = this.node.publish(grant, channel as Channel, data, ext);
      this.answerWhen(taken, batch, request, reply, data.length);
    });
  }

  /** Everything but the connects is answered: hold those, or respond. */
  private finish({ source, replies, connects, disconnected, joined }: Batch): void {
    if (connects.length === 0) source.respond(encodeBatch(replies), undefined);
    // Whoever sent the connect has left while its batch waited for a key. CON-8
    const held = source.isGone ? [] : connects;
    // One response for all of them: it leaves with the answer to the last.
    const response = { source, replies, outcomes: [], unanswered: held.length };
    for (const { request, session } of held) {
      this.bind(source, session);
      session.hold(new HeldConnect(this, response, request), this.holdMs(request));
    }
    // The disconnect's own reply comes before that of a held connect, and before the close. DIS-2
    for (const session of disconnected) void session.end("disconnect");
    for (const { release } of joined) release();
  }

  /** For `HeldConnect`: the response leaves with the answer to its last connect. */
  answerHeld(
    response: HeldResponse,
    request: ConnectRequest,
    sent: number | undefined,
    events: readonly string[],
  ): void {
    const { replies } = response;
    const reply = replyTo(request);
    reply.advice = this.advice(request.connectionType);
    if (sent !== undefined) reply.ext = `{"pandapush":{"sent":${sent}}}`;
    replies.push(encodeReply(reply));
    for (const event of events) replies.push(event);
    this.afterHeld(response);
  }

  /** For `HeldConnect`. */
  refuseHeld(response: HeldResponse, request: ConnectRequest, error: unknown): void {
    response.replies.push(this.refuseMessage(request, replyTo(request), error));
    this.afterHeld(response);
  }

  private afterHeld(response: HeldResponse): void {
    if (--response.unanswered > 0) return;
    const { source, replies, outcomes } = response;
    source.respond(encodeBatch(replies), (hasReached) => {
      for (const outcome of outcomes) outcome(hasReached);
    });
  }

  private bind(source: Source, session: ClientSession): void {
    const previous = source.session;
    if (previous !== undefined && previous !== session) {
      previous.answerFrom(source);
      if (source.push !== undefined && previous instanceof Session) previous.detach(source.push);
    }
    source.session = session;
    // It was fetched: what pushes is of the session's own node.
    if (source.push !== undefined && session instanceof Session) session.attach(source.push);
    session.notice(source);
  }

  /** @param isPushed its events are to be pushed over the source */
  private withSession(
    { disconnected }: Batch,
    request: Request,
    isPushed: boolean,
    use: (session: ClientSession) => MaybePromise<void>,
  ): MaybePromise<void> {
    const { clientId } = request;
    if (!clientId) throw new Refusal("missingParameter", ["clientId"]);
    const unknown = (): never => {
      throw new Refusal("unknownClient", [textOf(clientId)]);
    };
    if (typeof clientId !== "string") return unknown();
    const found = isPushed ? this.sessions.fetch(clientId) : this.sessions.find(clientId);
    return after(found, (session) => {
      if (session === undefined) return unknown();
      if (disconnected.some((each) => each.clientId === clientId)) return unknown();
      requireNoError(request);
      return use(session);
    });
  }

  private holdMs({ connectionType, timeoutMs }: ConnectRequest): number {
    if (connectionType === "eventsource" || this.isLeaving) return 0;
    return Math.min(timeoutMs ?? this.options.timeoutMs, this.options.timeoutMs);
  }

  private advice(connectionType?: unknown): Advice {
    const { timeoutMs, intervalMs } = this.options;
    if (this.isLeaving) {
      return { reconnect: "retry", interval: spread(drainRetryMs), timeout: timeoutMs };
    }
    // An EventSource client's connects only say that it lives. TR-ES-4
    return connectionType === "eventsource"
      ? { reconnect: "retry", interval: timeoutMs, timeout: 0 }
      : { reconnect: "retry", interval: intervalMs, timeout: timeoutMs };
  }
}

/**
 * Sessions of other nodes have ended before their clients hear so: whatever comes next finds them
 * unknown. Unless connects of the same batch are to be held first.
 */
function endElsewhere(batch: Batch): MaybePromise<unknown> {
  const remote = batch.disconnected.filter((session) => !(session instanceof Session));
  if (batch.connects.length > 0 || remote.length === 0) return;
  batch.disconnected = batch.disconnected.filter((session) => session instanceof Session);
  return Promise.all(remote.map((session) => session.end("disconnect")));
}

/** The client itself says that its message is wrong. The protocol's own errors come first. MSG-5 */
class OwnError extends Error {}

/** What `work` fails with, now or later. */
function refusalOf(work: () => MaybePromise<void>): MaybePromise<unknown> {
  try {
    const done = work();
    return done instanceof Promise ? done.catch((error: unknown) => error) : undefined;
  } catch (error) {
    return error;
  }
}

function requireNoError({ error }: Request): void {
  if (error !== undefined) throw new OwnError(error);
}

function encodeFailure(reply: Reply, error: string, detail: string): string {
  reply.successful = false;
  reply.error = error;
  reply.ext = `{"detail":${JSON.stringify(detail)}}`;
  return encodeReply(reply);
}

function isConnectionType(type: unknown): boolean {
  return (connectionTypes as readonly unknown[]).includes(type);
}

/** `[]` is a subscription to nothing, and succeeds. */
function readSubscription({ subscription }: SubscribeRequest | UnsubscribeRequest): unknown[] {
  if (!subscription) throw new Refusal("missingParameter", ["subscription"]);
  return Array.isArray(subscription) ? subscription : [subscription];
}

/** A name that an array repeats is subscribed to once: its permission is the same. SUB-3 */
function distinct(names: unknown[]): unknown[] {
  return names.length === 1 ? names : [...new Set(names)];
}

/** The text of one JSON object with the members of all; none of them is empty. */
function joinObjects(objects: readonly string[]): string {
  return `{${objects.map((object) => object.slice(1, -1)).join(",")}}`;
}

/** Between one and two times `ms`, so that many clients do not return at once. */
function spread(ms: number): number {
  return Math.round(ms * (1 + Math.random()));
}
