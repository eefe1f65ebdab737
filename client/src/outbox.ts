import { type ErrorReason, PandapushError } from "./error.js";
import type { Message } from "./message.js";
import type { Scheduler } from "./scheduler.js";

/** With the reply, a refusal's too, or without one when the message was given up. */
export type Settle = (reply: Message | undefined, error: PandapushError | undefined) => void;

export interface Request {
  readonly message: Message;
  readonly settle: Settle;
  /** undefined: a handshake or connect, which is never sent again as it is. */
  readonly scheduler?: Scheduler;
  /** It makes sense in this session only: when that is lost it is dropped, unsettled. */
  readonly isOfSession?: boolean;
  /** It was taken back after it was sent: it is not sent again. */
  isTakenBack?: boolean;
  notBefore?: number;
  /** When its reply is overdue, once it was sent. */
  dueAt?: number;
}

/**
 * What is to be sent and what was sent without a reply so far, in the order in which it was asked
 * for, over lost connections and lost sessions. Each request settles once, or not at all when it
 * was taken back or was of a session that is lost.
 */
export class Outbox {
  #waiting: Request[] = [];
  readonly #sent = new Map<string, Request>();

  /** Whether a reply is awaited. */
  get isWaiting(): boolean {
    return this.#sent.size > 0;
  }

  isOverdue(now: number): boolean {
    return [...this.#sent.values()].some(({ dueAt = 0 }) => dueAt < now);
  }

  add(request: Request): void {
    this.#waiting.push(request);
  }

  takeBack(request: Request): void {
    request.isTakenBack = true;
    this.#waiting = this.#waiting.filter((each) => each !== request);
  }

  /** Back to where it was, for the server did not do it. */
  putBack(request: Request): void {
    const next = this.#waiting.findIndex((other) => sequenceOf(other) > sequenceOf(request));
    this.#waiting.splice(next === -1 ? this.#waiting.length : next, 0, request);
  }

  /** It has been sent: its reply is awaited. */
  sent(request: Request): void {
    this.#sent.set(String(request.message.id), request);
  }

  /** What is to be sent now; from now on its replies are awaited. */
  take(clientId: string | undefined): Message[] {
    const now = Date.now();
    // In order: who must wait lets those behind wait too.
    const end = this.#waiting.findIndex(({ notBefore = 0 }) => notBefore > now);
    const ready = this.#waiting.splice(0, end === -1 ? this.#waiting.length : end);
    return ready.map((request) => {
      const { message, scheduler } = request;
      if (clientId !== undefined) message.clientId = clientId;
      scheduler?.send();
      request.dueAt = now + (scheduler?.getTimeout() ?? 0) * 1000;
      this.sent(request);
      return message;
    });
  }

  /** The request that a reply with this id answers, which then is awaited no more. */
  answered(id: unknown): Request | undefined {
    const request = this.#sent.get(String(id));
    this.#sent.delete(String(id));
    return request;
  }

  /** What was under way waits again; what was to go has been tried in vain, if `isAllTried`. */
  connectionLost(isAllTried: boolean): void {
    const underWay = [...this.#sent.values()].filter(
      ({ scheduler, isTakenBack }) => scheduler !== undefined && isTakenBack !== true,
    );
    this.#sent.clear();
    if (isAllTried) for (const { scheduler } of this.#waiting) scheduler?.send();
    const failed = isAllTried ? [...underWay, ...this.#waiting] : underWay;
    for (const request of failed) {
      request.scheduler?.fail();
      request.notBefore = Date.now() + (request.scheduler?.getInterval() ?? 0) * 1000;
    }
    this.#waiting = [...underWay, ...this.#waiting];
  }

  /** What `add` adds goes before all that waits; with a new session, without that of the last. */
  begin(isNewSession: boolean, add: () => void): void {
    const waiting = this.#waiting.filter(({ isOfSession }) => !isNewSession || !isOfSession);
    this.#waiting = [];
    add();
    this.#waiting.push(...waiting);
  }

  /** Gives up what may not be sent again, as its scheduler says. */
  dropUndeliverable(why: string): void {
    const isKept = ({ scheduler }: Request): boolean => scheduler?.isDeliverable() === true;
    const dropped = this.#waiting.filter((request) => !isKept(request));
    if (dropped.length === 0) return;
    this.#waiting = this.#waiting.filter(isKept);
    for (const request of dropped) giveUp(request, "undelivered", why);
  }

  /** Gives up all. */
  end(why: string): void {
    const rest = [...this.#sent.values(), ...this.#waiting];
    this.#sent.clear();
    this.#waiting = [];
    for (const request of rest) giveUp(request, "disconnected", why);
  }
}

function giveUp({ scheduler, settle }: Request, reason: ErrorReason, why: string): void {
  scheduler?.abort();
  settle(undefined, PandapushError.own(reason, `The message was not delivered: ${why}`));
}

function sequenceOf({ message }: Request): number {
  return Number.parseInt(String(message.id), 36);
}
