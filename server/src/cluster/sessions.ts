/**
 * Sessions of all nodes: any request of any client may reach any node.
 *
 * A session lives at one node, its owner. Requests that reach another are authorised there and
 * forwarded: the owner is told what was granted, never by which credentials. When a client wants
 * its events pushed at another node, the session moves there (`Moves`).
 */
import type { AppId, Grant, KeyId, ParsedChannel } from "@pandapush/protocol";
import { parseChannel } from "@pandapush/protocol";
import { Refusal } from "../errors.js";
import type { MaybePromise } from "../maybe-promise.js";
import type { Node } from "../node.js";
import type {
  ClientSession,
  Joined,
  ListBudget,
  Outcome,
  Session,
  Sessions,
  Subscribed,
  Waiter,
} from "../session.js";
import { hashOf } from "../session.js";
import type { Origin } from "../transports/transport.js";
import type { Directory, Sought } from "./directory.js";
import type { Membership } from "./membership.js";
import type { Moves } from "./moves.js";
import { type Peers, PeerUnavailable } from "./peers.js";

/** Characters of events in one answer to another node; what is more comes with the next connect. */
const maxAnswerLength = 262_144;
/**
 * How long after it should have come an answer from the owner is waited for. It may be lost, when
 * Redis is down at that moment; the owner finds out, and keeps what stood in it.
 */
const lateMs = 5_000;
/**
 * How long an owner waits for the word that its answer has come to the node where the connect is
 * open. Longer than a node may stand still and be the same afterwards.
 */
const receiptMs = 10_000;
/** After so long a node that answers a client says that it has not yet been able to. */
const pendingMs = 1_000;
/** How long a list of members may take to its client. */
const releaseMs = 5_000;

/** What another node asks the owner to do. */
type Command =
  | {
      readonly do: "subscribe";
      readonly name: string;
      readonly grant: Grant;
      readonly left: number;
    }
  | { readonly do: "release" | "unsubscribe"; readonly name: string }
  | { readonly do: "hold"; readonly n: number; readonly holdMs: number; readonly origin?: Origin }
  | { readonly do: "forget" | "answer"; readonly n: number }
  | { readonly do: "end" };

type Answer = Sought<unknown>;

interface Request {
  readonly clientId: string;
  readonly command: Command;
}

/** Answers a connect that is open at another node. */
interface Answered {
  readonly n: number;
  readonly events: readonly string[];
  readonly sent?: number;
}

interface RemotelySubscribed {
  readonly isNew: boolean;
  /** The list of a presence channel's members; to be followed by `release`. */
  readonly list?: string;
}

/** Whether an answer reached the kernel; `pending`: that is not known yet, and may be asked again. */
type Told = boolean | "pending";

/** A connect that is open here and held by another node. */
interface Open {
  readonly clientId: string;
  readonly request: Waiter;
  owner: string | undefined;
  /** Ends when the owner's answer is lost. */
  timer: NodeJS.Timeout | undefined;
}

export interface ClusterSessionsParts {
  readonly node: Node;
  readonly directory: Directory;
  readonly membership: Membership;
  readonly peers: Peers;
  readonly moves: Moves;
  /** Whether what this key permits goes on, as far as this node knows. */
  readonly isAllowed: (appId: AppId, keyId: KeyId | undefined) => MaybePromise<boolean>;
  /**
   * How long an owner waits to hear whether its answer reached the client, from when the other node
   * has it. Longer than a connect is held: the answers to all connects of one request go together.
   */
  readonly outcomeMs: number;
}

export class ClusterSessions implements Sessions {
  private readonly open = new Map<number, Open>();
  private opened = 0;
  /** Connects that are held here and open at other nodes. */
  private readonly held = new Map<string, RemoteWaiter>();
  /** Lists of members on their way to a client by another node. */
  private readonly releases = new Map<string, () => void>();
  /** What comes of answers whose owners were told `pending`. */
  private readonly outcomes = new Map<number, Promise<boolean>>();

  constructor(private readonly parts: ClusterSessionsParts) {
    const { peers } = parts;
    peers.serve("session", ({ clientId, command }: Request, from) =>
      this.serve(clientId, command, from),
    );
    peers.serve("answer", (answered: Answered) => this.answered(answered));
    peers.serve("outcome", ({ n }: { n: number }) => this.told(n));
    peers.serve("let go", ({ n }: { n: number }, from) => this.heldFor(from, n)?.letGo());
  }

  ready(): MaybePromise<void> {
    return this.parts.membership.verified();
  }

  find(clientId: string): MaybePromise<ClientSession | undefined> {
    return this.parts.node.findSession(clientId) ?? this.findElsewhere(clientId);
  }

  fetch(clientId: string): MaybePromise<Session | undefined> {
    const session = this.parts.node.findSession(clientId);
    return session?.isLeaving === false ? session : this.parts.moves.fetch(clientId);
  }

  /** Another node died: its sessions are no more. */
  died(nodeId: string): void {
    for (const [n, { clientId, owner }] of this.open) {
      if (owner === nodeId) void this.refuseHeld(n, clientId);
    }
  }

  /** A connect that is open here is held by nobody any more. */
  private async refuseHeld(n: number, clientId: string): Promise<void> {
    let reason: unknown;
    try {
      // The session may have left its owner before.
      const session = await this.find(clientId);
      reason = new Refusal(session === undefined ? "unknownClient" : "unavailable", [clientId]);
    } catch (error) {
      reason = error;
    }
    this.close(n)?.refuse(reason);
  }

  /** Lets go of the connects that are open here: their clients return elsewhere. */
  drain(): void {
    for (const [n, { owner }] of this.open) {
      if (owner !== undefined) this.parts.peers.tell(owner, "let go", { n });
    }
  }

  /**
   * Has the owner of a session do something.
   * @returns what it answers, and who it is
   * @throws Refusal `unknownClient`, `unavailable`, or the owner's
   */
  async command(clientId: string, command: Command): Promise<{ done: unknown; owner: string }> {
    const { directory, membership } = this.parts;
    const found = await directory.seek(clientId, (owner) => this.ask(owner, clientId, command));
    if (found === undefined) throw new Refusal("unknownClient", [clientId]);
    if (found.owner !== membership.id) directory.remember(clientId, found.owner);
    return found;
  }

  /**
   * A connect is open here, and to be held by the session's owner.
   * @returns its number, for `release`
   */
  hold(clientId: string, request: Waiter, holdMs: number, origin: Origin | undefined): number {
    const n = ++this.opened;
    void this.askToHold(n, clientId, request, holdMs, origin);
    return n;
  }

  private async askToHold(
    n: number,
    clientId: string,
    request: Waiter,
    holdMs: number,
    origin: Origin | undefined,
  ): Promise<void> {
    const open: Open = { clientId, request, owner: undefined, timer: undefined };
    this.open.set(n, open);
    try {
      const from = origin === undefined ? {} : { origin };
      const { owner } = await this.command(clientId, { do: "hold", n, holdMs, ...from });
      open.owner = owner;
      if (this.open.get(n) !== open) return;
      open.timer = setTimeout(() => {
        this.close(n)?.refuse(new Refusal("unavailable", [clientId]));
      }, holdMs + lateMs);
    } catch (error) {
      // Unless it was answered nevertheless.
      this.close(n)?.refuse(error);
    }
  }

  /** A connect that is open here is gone, or shall be answered now. */
  release(clientId: string, n: number, how: "forget" | "answer"): void {
    if (!this.open.has(n)) return;
    if (how === "forget") this.close(n);
    // An owner that cannot be told answers, and hears that nobody is there.
    this.command(clientId, { do: how, n }).catch(() => undefined);
  }

  /** @returns what is open here no more; undefined when it was not */
  private close(n: number): Waiter | undefined {
    const open = this.open.get(n);
    clearTimeout(open?.timer);
    this.open.delete(n);
    return open?.request;
  }

  private async findElsewhere(clientId: string): Promise<ClientSession | undefined> {
    const { node, directory, moves } = this.parts;
    const arrived = await moves.arriving(clientId);
    if (arrived !== undefined) return arrived;
    if ((await directory.locate(clientId)) !== undefined) return new RemoteSession(clientId, this);
    // It may have come here while others were looked for.
    return node.findSession(clientId) ?? moves.arriving(clientId);
  }

  private async ask(owner: string, clientId: string, command: Command): Promise<Answer> {
    const { membership, peers } = this.parts;
    if (owner === membership.id) return this.serve(clientId, command, owner);
    try {
      const request: Request = { clientId, command };
      return (await peers.ask(owner, "session", request)) as Answer;
    } catch (error) {
      if (!(error instanceof PeerUnavailable)) throw error;
      return { unreachable: true };
    }
  }

  private async serve(clientId: string, command: Command, from: string): Promise<Answer> {
    const { node, moves, directory, membership } = this.parts;
    await membership.verified();
    const session = node.findSession(clientId) ?? (await moves.arriving(clientId));
    if (session?.isLeaving) {
      await moves.decided(session);
      return this.serve(clientId, command, from);
    }
    if (session === undefined) {
      const moved = directory.recall(clientId);
      return moved === undefined || moved === membership.id ? { unknown: true } : { moved };
    }
    // JSON knows no undefined.
    return { done: (await this.perform(session, command, from)) ?? null };
  }

  private async perform(session: Session, command: Command, from: string): Promise<unknown> {
    switch (command.do) {
      case "subscribe":
        return this.subscribe(session, command.name, command.grant, command.left);
      case "release":
        this.releases.get(releaseKey(session, command.name))?.();
        return undefined;
      case "unsubscribe":
        return session.unsubscribe(command.name);
      case "hold": {
        if (command.origin !== undefined) session.notice(command.origin);
        const waiter = new RemoteWaiter(session, from, command.n, this);
        this.held.set(waiter.key, waiter);
        session.hold(waiter, command.holdMs);
        return undefined;
      }
      case "forget": {
        const waiter = this.heldFor(from, command.n);
        if (waiter !== undefined) session.forget(waiter.source);
        if (waiter !== undefined) this.held.delete(waiter.key);
        return undefined;
      }
      case "answer":
        this.heldFor(from, command.n)?.letGo();
        return undefined;
      case "end":
        session.end("disconnect");
        return undefined;
    }
  }

  private async subscribe(
    session: Session,
    name: string,
    grant: Grant,
    left: number,
  ): Promise<RemotelySubscribed> {
    const channel = parseChannel(name);
    if (channel === undefined) throw new Refusal("invalidChannelName");
    // It may have been revoked here and not yet there.
    if (!(await this.parts.isAllowed(grant.appId, grant.keyId))) throw new Refusal("revokedKey");
    const { isNew, joined } = await session.subscribe(channel, grant, { left });
    if (joined === undefined) return { isNew };
    const key = releaseKey(session, name);
    const release = (): void => {
      clearTimeout(timer);
      if (this.releases.get(key) === release) this.releases.delete(key);
      joined.release();
    };
    const timer = setTimeout(release, releaseMs);
    this.releases.set(key, release);
    return { isNew, list: joined.list };
  }

  private heldFor(nodeId: string, n: number): RemoteWaiter | undefined {
    return this.held.get(waiterKey(nodeId, n));
  }

  /** The owner answers a connect that is open here. */
  private answered({ n, events, sent }: Answered): MaybePromise<Told> {
    const request = this.close(n);
    if (request === undefined) return false;
    return this.told(n, new Promise((resolve) => request.answer(events, sent, resolve)));
  }

  /** What came of an answer. The answers to all connects of one request go together: some wait long. */
  private told(n: number, outcome = this.outcomes.get(n)): MaybePromise<Told> {
    if (outcome === undefined) return false;
    return new Promise((resolve) => {
      const timer = setTimeout(() => {
        this.outcomes.set(n, outcome);
        resolve("pending");
      }, pendingMs);
      void outcome.then((hasReached) => {
        clearTimeout(timer);
        resolve(hasReached);
        // Its owner asks again at once, or never.
        if (this.outcomes.has(n)) setTimeout(() => this.outcomes.delete(n), receiptMs).unref();
      });
    });
  }

  /** For `RemoteWaiter`. */
  async sendAnswer(waiter: RemoteWaiter, answered: Answered): Promise<boolean> {
    this.held.delete(waiter.key);
    try {
      const { peers, outcomeMs } = this.parts;
      const { nodeId } = waiter;
      let told = await peers.ask(nodeId, "answer", answered, receiptMs);
      const end = performance.now() + outcomeMs;
      while (told === "pending" && performance.now() < end) {
        told = await peers.ask(nodeId, "outcome", { n: answered.n }, receiptMs);
      }
      return told === true;
    } catch (error) {
      if (error instanceof PeerUnavailable) return false;
      throw error;
    }
  }
}

/** A session that lives at another node. */
export class RemoteSession implements ClientSession {
  private origin: Origin | undefined;
  private readonly holds: { readonly n: number; readonly source: object }[] = [];

  constructor(
    readonly clientId: string,
    private readonly sessions: ClusterSessions,
  ) {}

  get hash(): string {
    return hashOf(this.clientId);
  }

  notice({ kind, address, userAgent }: Origin): void {
    this.origin = { kind, address, userAgent };
  }

  async subscribe(channel: ParsedChannel, grant: Grant, lists: ListBudget): Promise<Subscribed> {
    const { name } = channel;
    const command: Command = { do: "subscribe", name, grant, left: lists.left };
    const { done } = await this.sessions.command(this.clientId, command);
    const { isNew, list } = done as RemotelySubscribed;
    if (list === undefined) return { isNew };
    lists.left -= list.length;
    const release = (): void => {
      // It is released there by itself, later.
      this.sessions.command(this.clientId, { do: "release", name }).catch(() => undefined);
    };
    return { isNew, joined: { list, release } satisfies Joined };
  }

  async unsubscribe(name: string): Promise<void> {
    await this.sessions.command(this.clientId, { do: "unsubscribe", name });
  }

  hold(request: Waiter, holdMs: number): void {
    const n = this.sessions.hold(this.clientId, request, holdMs, this.origin);
    this.holds.push({ n, source: request.source });
  }

  forget(source: object): void {
    this.release(source, "forget");
  }

  answerFrom(source: object): void {
    this.release(source, "answer");
  }

  private release(from: object, how: "forget" | "answer"): void {
    for (const { n, source } of this.holds) {
      if (source === from) this.sessions.release(this.clientId, n, how);
    }
  }

  async end(): Promise<void> {
    try {
      await this.sessions.command(this.clientId, { do: "end" });
    } catch (error) {
      if (!(error instanceof Refusal)) throw error;
    }
  }
}

/** A connect that is held here and open at another node. */
class RemoteWaiter implements Waiter {
  readonly source = this;
  readonly maxLength = maxAnswerLength;
  readonly key: string;

  constructor(
    private readonly session: Session,
    readonly nodeId: string,
    private readonly n: number,
    private readonly sessions: ClusterSessions,
  ) {
    this.key = waiterKey(nodeId, n);
  }

  answer(events: readonly string[], sent: number | undefined, outcome: Outcome): void {
    const answered = { n: this.n, events, ...(sent === undefined ? {} : { sent }) };
    const told = this.sessions.sendAnswer(this, answered).then(outcome);
    if (events.length > 0) this.session.confirmBefore(told);
  }

  /** The session is lost on its way to another node: its client finds out when it asks again. */
  refuse(): void {
    this.answer([], undefined, () => undefined);
  }

  letGo(): void {
    this.session.answerFrom(this.source);
  }
}

function waiterKey(nodeId: string, n: number): string {
  return `${nodeId}/${n}`;
}

function releaseKey({ clientId }: Session, name: string): string {
  return `${clientId}${name}`;
}
