import type { Message } from "./message.js";
import type { Scheduler } from "./scheduler.js";
import type { Parcel } from "./transports/transport.js";

/**
 * With the reply, and an error when that refuses; with an error alone when the message was given
 * up; or with neither when an extension dropped it.
 */
export type Settle = (reply: Message | undefined, error: Error | undefined) => void;

export interface Request {
  readonly id: string;
  readonly channel: string;
  /** The message as JSON, without the id of a session. */
  readonly json: string;
  readonly settle: Settle;
  /** undefined: a handshake or connect, which is never sent again as it is. */
  readonly scheduler?: Scheduler;
  /** It makes sense in this session only: when that is lost it is dropped, unsettled. */
  readonly isOfSession?: boolean;
  /** It is not to be sent, or not again. */
  isTakenBack?: boolean;
  notBefore?: number;
  /** The session that it was sent in, if it was sent. */
  clientId?: string | undefined;
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

  /** From now on its reply is awaited. @returns what is to be sent */
  send(request: Request, clientId: string | undefined): Parcel {
    const { id, channel, json } = request;
    request.clientId = clientId;
    this.#sent.set(id, request);
    const session = clientId === undefined ? "" : `"clientId":${JSON.stringify(clientId)},`;
    return { id, channel, text: `{${session}${json.slice(1)}` };
  }

  /** What is to be sent now; from now on its replies are awaited. */
  take(clientId: string | undefined): Parcel[] {
    const now = Date.now();
    // In order: who must wait lets those behind wait too.
    const end = this.#waiting.findIndex(({ notBefore = 0 }) => notBefore > now);
    const ready = this.#waiting.splice(0, end === -1 ? this.#waiting.length : end);
    return ready.map((request) => {
      const { scheduler } = request;
      scheduler?.send();
      request.dueAt = now + (scheduler?.getTimeout() ?? 0) * 1000;
      return this.send(request, clientId);
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
    const underWay = [...this.#sent.values()].filter(({ scheduler }) => scheduler !== undefined);
    this.#sent.clear();
    if (isAllTried) for (const { scheduler } of this.#waiting) scheduler?.send();
    const failed = isAllTried ? [...underWay, ...this.#waiting] : underWay;
    for (const request of failed) {
      request.scheduler?.fail();
      request.notBefore = Date.now() + (request.scheduler?.getInterval() ?? 0) * 1000;
    }
    this.#waiting = [...underWay, ...this.#waiting];
  }

  /** With a new session: what `add` adds goes first, and what was of the last one is dropped. */
  begin(add: () => void): void {
    const waiting = this.#waiting.filter(({ isOfSession }) => !isOfSession);
    this.#waiting = [];
    add();
    this.#waiting.push(...waiting);
  }

  /** Gives up what was taken back, and what may not be sent again, as its scheduler says. */
  dropUndeliverable(why: () => Error): void {
    const isKept = ({ scheduler, isTakenBack }: Request): boolean =>
      scheduler?.isDeliverable() === true && !isTakenBack;
    const dropped = this.#waiting.filter((request) => !isKept(request));
    if (dropped.length === 0) return;
    this.#waiting = this.#waiting.filter(isKept);
    for (const request of dropped) giveUp(request, why());
  }

  /** Gives up all; what was of the session is dropped. */
  end(error: Error): void {
    const rest = [...this.#sent.values(), ...this.#waiting];
    this.#sent.clear();
    this.#waiting = [];
    for (const request of rest) if (!request.isOfSession) giveUp(request, error);
  }
}

function giveUp({ scheduler, settle }: Request, error: Error): void {
  scheduler?.abort();
  settle(undefined, error);
}
