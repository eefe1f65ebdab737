/**
 * What one node asks of another: over a topic that each node has on every Redis host. Requests of
 * one node to another arrive in their order as long as no host goes down.
 */
import { type ErrorCode, Refusal } from "../errors.js";
import { Gate } from "../gate.js";
import type { MaybePromise } from "../maybe-promise.js";
import type { Log, RedisHost, RedisHosts, TopicListener } from "../redis/hosts.js";
import { HostUnavailable } from "../redis/hosts.js";

/** How long an answer may take. */
const answerMs = 5_000;
/** How long it may take until another node can be asked. */
const subscribeMs = 5_000;
/** Requests that wait for their answer. */
const maxAsked = 100_000;

/** Longer messages go in parts of so many characters. */
const partLength = 65_536;
/** 64 Mi characters. */
const maxParts = 1_024;
/** Messages in parts that a node sends at once. */
const maxLong = 8;

const partKind = "part";

interface Part {
  readonly n: number;
  readonly i: number;
  readonly of: number;
  readonly part: string;
}

interface Assembling {
  readonly texts: string[];
  timer: NodeJS.Timeout | undefined;
}

/** It cannot be asked at the moment, or did not answer: nobody knows whether it heard. */
export class PeerUnavailable extends Error {
  override readonly name = "PeerUnavailable";
}

export type Handler = (body: never, from: string) => MaybePromise<unknown>;

interface Request {
  readonly v: 1;
  readonly ask: string;
  readonly n: number;
  readonly from: string;
  readonly body: unknown;
}

/** On the wire; members that are not known are ignored. */
type Envelope =
  | Request
  | { readonly v: 1; readonly answer: number; readonly from: string; readonly body?: unknown }
  | {
      readonly v: 1;
      readonly failure: number;
      readonly from: string;
      /** Absent: something that only its own log knows. */
      readonly refusal?: { code: ErrorCode; params: readonly string[]; help: string };
    };

interface Asked {
  readonly nodeId: string;
  readonly resolve: (body: unknown) => void;
  readonly reject: (error: Error) => void;
  readonly timer: NodeJS.Timeout;
}

export class Peers implements TopicListener {
  private readonly handlers = new Map<string, Handler>();
  private readonly asked = new Map<number, Asked>();
  private count = 0;
  private readonly long = new Gate(maxLong);
  private readonly assembling = new Map<string, Assembling>();
  private isClosed = false;
  private hasComplained = false;

  constructor(
    private readonly hosts: RedisHosts,
    private id: string,
    private readonly log: Log,
  ) {
    this.serve(partKind, (part: Part, from) => this.assemble(part, from));
  }

  /** @param handler its refusals are what the asking node's call rejects with */
  serve(kind: string, handler: Handler): void {
    this.handlers.set(kind, handler);
  }

  /** From now on others can ask; resolves when that is so on all hosts, or has taken too long. */
  async listen(): Promise<void> {
    const listening = this.hosts.all.map((host) =>
      host.subscribe(topicOf(host, this.id), this, subscribeMs),
    );
    await Promise.allSettled(listening);
  }

  /** This node is another one now. */
  rename(id: string): void {
    for (const host of this.hosts.all) host.unsubscribe(topicOf(host, this.id));
    this.id = id;
    for (const { reject } of [...this.asked.values()]) {
      reject(new PeerUnavailable("this node is another one now"));
    }
    void this.listen();
  }

  /**
   * @returns what the node's handler returned
   * @throws Refusal that its handler threw
   * @throws PeerUnavailable within `timeoutMs`
   */
  async ask(nodeId: string, kind: string, body: unknown, timeoutMs = answerMs): Promise<unknown> {
    if (this.asked.size >= maxAsked) throw new PeerUnavailable("too much was asked");
    const n = ++this.count;
    const answer = new Promise((resolve, reject) => {
      const settle = (): void => {
        clearTimeout(timer);
        this.asked.delete(n);
      };
      const fail = (error: Error): void => {
        settle();
        reject(error);
      };
      const timer = setTimeout(
        () => fail(new PeerUnavailable(`node ${nodeId} did not answer within ${timeoutMs} ms`)),
        timeoutMs,
      );
      this.asked.set(n, {
        nodeId,
        timer,
        reject: fail,
        resolve: (answered) => {
          settle();
          resolve(answered);
        },
      });
    });
    const text = JSON.stringify({ v: 1, ask: kind, n, from: this.id, body } satisfies Envelope);
    // Parts are what long messages are sent in.
    const sent = kind === partKind ? this.sendWhole(nodeId, text) : this.send(nodeId, text);
    sent.catch((error: Error) => this.asked.get(n)?.reject(error));
    return answer;
  }

  /** Nobody waits for its answer; what fails is no matter. */
  tell(nodeId: string, kind: string, body: unknown): void {
    this.ask(nodeId, kind, body).catch((error: unknown) => {
      this.log("info", "another node was not told", { node: nodeId, kind, reason: String(error) });
    });
  }

  /** Whoever waits for this node waits no longer. */
  died(nodeId: string): void {
    for (const each of [...this.asked.values()]) {
      if (each.nodeId === nodeId) each.reject(new PeerUnavailable(`node ${nodeId} has died`));
    }
  }

  close(): void {
    this.isClosed = true;
    for (const host of this.hosts.all) host.unsubscribe(topicOf(host, this.id));
    for (const { reject } of [...this.asked.values()]) reject(new PeerUnavailable("closed"));
  }

  /** For the hosts. */
  message(text: string): void {
    if (this.isClosed) return;
    const envelope = read(text);
    if (envelope === undefined) {
      this.complain();
      return;
    }
    if ("ask" in envelope) {
      void this.answer(envelope);
    } else if ("answer" in envelope) {
      this.asked.get(envelope.answer)?.resolve(envelope.body);
    } else {
      const { failure, refusal } = envelope;
      const error =
        refusal === undefined
          ? new PeerUnavailable(`node ${envelope.from} failed; its log says why`)
          : new Refusal(refusal.code, refusal.params, refusal.help);
      this.asked.get(failure)?.reject(error);
    }
  }

  /** Of a release to come, or of another program. */
  private complain(): void {
    if (this.hasComplained) return;
    this.hasComplained = true;
    this.log("warn", "ignored what another node asked, for it is not understood", {});
  }

  /** For the hosts. Whoever asked and was not heard gets no answer, and says so. */
  missed(): void {}

  private async answer({ ask, n, from, body }: Request): Promise<void> {
    let envelope: Envelope;
    try {
      const handler = this.handlers.get(ask);
      if (handler === undefined) throw new Refusal("unavailable");
      const answer = await handler(body as never, from);
      envelope = { v: 1, answer: n, from: this.id, body: answer };
    } catch (error) {
      envelope = { v: 1, failure: n, from: this.id };
      if (error instanceof Refusal) {
        const { code, params, help } = error;
        envelope = { ...envelope, refusal: { code, params, help } };
      } else if (!(error instanceof PeerUnavailable)) {
        this.log("error", "answer another node", { kind: ask, err: error });
      }
    }
    try {
      await this.send(from, JSON.stringify(envelope));
    } catch (error) {
      this.log("info", "another node was not answered", {
        node: from,
        kind: ask,
        reason: String(error),
      });
    }
  }

  /**
   * In parts, each after the last has been heard, and only some of so long at once: Redis cuts off
   * whoever has too much to read, with all that it hears.
   */
  private send(nodeId: string, text: string): Promise<void> {
    if (text.length <= partLength) return this.sendWhole(nodeId, text);
    return this.long.do(async () => {
      const of = Math.ceil(text.length / partLength);
      const n = ++this.count;
      for (let i = 0; i < of; i++) {
        const part = text.slice(i * partLength, (i + 1) * partLength);
        await this.ask(nodeId, partKind, { n, i, of, part } satisfies Part);
      }
    });
  }

  private assemble({ n, i, of, part }: Part, from: string): void {
    const key = `${from}/${n}`;
    const parts: Assembling | undefined =
      i === 0 ? { texts: [], timer: undefined } : this.assembling.get(key);
    clearTimeout(parts?.timer);
    this.assembling.delete(key);
    // Those before it came to another life of this node, or too slowly.
    if (parts === undefined || parts.texts.length !== i || of > maxParts) {
      throw new Refusal("unavailable");
    }
    parts.texts.push(part);
    if (parts.texts.length === of) {
      this.message(parts.texts.join(""));
      return;
    }
    parts.timer = setTimeout(() => this.assembling.delete(key), answerMs);
    this.assembling.set(key, parts);
  }

  /**
   * By the first host that the other node hears; its own first, so that all comes in order.
   * @throws PeerUnavailable
   */
  private async sendWhole(nodeId: string, text: string): Promise<void> {
    const first = this.hosts.hostOf(nodeId);
    const others = this.hosts.all.filter((host) => host !== first);
    for (const host of [first, ...others]) {
      if (!host.isUp) continue;
      const heard = await host
        .command("PUBLISH", topicOf(host, nodeId), text)
        .catch((error: unknown) => {
          if (!(error instanceof HostUnavailable)) throw error;
          // Not sent again: it may have been heard.
          throw new PeerUnavailable(`node ${nodeId} may not have heard it: ${error.message}`);
        });
      if (Number(heard) > 0) return;
    }
    throw new PeerUnavailable(`node ${nodeId} cannot be reached`);
  }
}

/** undefined: it is none. */
function read(text: string): Envelope | undefined {
  try {
    const envelope: unknown = JSON.parse(text);
    const isOurs = typeof envelope === "object" && envelope !== null && "v" in envelope;
    return isOurs && envelope.v === 1 ? (envelope as Envelope) : undefined;
  } catch {
    return undefined;
  }
}

function topicOf(host: RedisHost, nodeId: string): string {
  return host.key("node", `:${nodeId}`);
}
