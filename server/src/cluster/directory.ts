/** Which node a session lives at, found out with as little asking as possible. */
import { createHash } from "node:crypto";
import { Refusal } from "../errors.js";
import type { Log, RedisHosts } from "../redis/hosts.js";
import type { Membership } from "./membership.js";

/** Characters of a node's id, which every clientId that was made there begins with. */
export const nodeIdLength = 8;
/** How many nodes are asked, one after the other, for a session that moves from one to the next. */
const maxHops = 6;
/** Of what other nodes told us, and of those that went from here. */
const maxKnown = 100_000;
const knownMs = 60_000;

/**
 * What a node answers that does not have a session. `moved`: ask that node. `unknown`: nobody there
 * knows where it went. `unreachable`: it may live there all the same.
 */
export type Elsewhere =
  | { readonly moved: string }
  | { readonly unknown: true }
  | { readonly unreachable: true };

/** What a node answers that is asked for a session. */
export type Sought<T> = { readonly done: T } | Elsewhere;

export class Directory {
  /** Where sessions were found or went to; the oldest first. */
  private readonly known = new Map<string, { readonly nodeId: string; readonly at: number }>();

  constructor(
    private readonly hosts: RedisHosts,
    private readonly membership: Membership,
    /** How long it is remembered that a session moved, unless `moved` is said again. */
    private readonly lifeMs: number,
    private readonly log: Log,
  ) {}

  /**
   * Another node that the session lives at, or did a moment ago; undefined when it lives nowhere, or
   * here.
   * @throws Refusal `brokerUnavailable` when nobody knows at the moment
   */
  async locate(clientId: string): Promise<string | undefined> {
    const known = this.recall(clientId);
    if (known !== undefined) return known;
    for await (const owner of this.lookUp(clientId)) return owner;
    return undefined;
  }

  /**
   * Asks node after node for the session, this one last: it may come here meanwhile. Whoever once
   * had it says where it went; so a place that was right when it was read leads to it, however often
   * the session moves.
   * @returns undefined when it lives nowhere
   * @throws Refusal `unavailable` when it may live where nobody can be asked,
   *   `brokerUnavailable` when nobody knows where to ask, and whatever `ask` throws
   */
  async seek<T>(
    clientId: string,
    ask: (nodeId: string) => Promise<Sought<T>>,
  ): Promise<{ readonly done: T; readonly owner: string } | undefined> {
    const { membership } = this;
    const silent = new Set<string>();
    let isLost = false;
    const follow = async (first: string) => {
      let owner = first;
      for (let hops = 0; hops < maxHops; hops++) {
        if (silent.has(owner)) return undefined;
        const answer = await ask(owner);
        if ("done" in answer) return { done: answer.done, owner };
        if ("moved" in answer) {
          owner = answer.moved;
          continue;
        }
        // What may live where nobody can ask is not forgotten.
        if ("unreachable" in answer && (await membership.isAlive(owner))) silent.add(owner);
        else if (this.recall(clientId) === owner) this.forget(clientId);
        return undefined;
      }
      isLost = true;
      return undefined;
    };
    const known = this.recall(clientId);
    let found = known === undefined ? undefined : await follow(known);
    if (found !== undefined) return found;
    for await (const owner of this.lookUp(clientId)) {
      found = await follow(owner);
      if (found !== undefined) return found;
    }
    found = await follow(membership.id);
    if (found === undefined && (isLost || silent.size > 0)) {
      throw new Refusal("unavailable", [clientId]);
    }
    return found;
  }

  /** Other nodes that live and may have it, whatever is remembered; the likeliest first. */
  private async *lookUp(clientId: string): AsyncGenerator<string> {
    if (!/^[a-z0-9]{36,64}$/.test(clientId)) return;
    const noted = await this.readMoved(clientId);
    for (const owner of new Set([...noted, clientId.slice(0, nodeIdLength)])) {
      if (owner !== this.membership.id && (await this.membership.isAlive(owner))) yield owner;
    }
  }

  /** The session was found there, or went there. */
  remember(clientId: string, nodeId: string): void {
    this.known.delete(clientId);
    this.known.set(clientId, { nodeId, at: performance.now() });
    if (this.known.size <= maxKnown) return;
    const [oldest] = this.known.keys();
    if (oldest !== undefined) this.known.delete(oldest);
  }

  recall(clientId: string): string | undefined {
    const known = this.known.get(clientId);
    if (known === undefined) return undefined;
    if (performance.now() - known.at < knownMs) return known.nodeId;
    this.known.delete(clientId);
    return undefined;
  }

  forget(clientId: string): void {
    this.known.delete(clientId);
  }

  /** The session, born at another node, lives here. Every node finds it when this resolves. */
  async moved(clientId: string): Promise<void> {
    const life = String(this.lifeMs);
    const writes = this.hosts.all.map((host) =>
      host.command("SET", host.key("moved", keyOf(clientId)), this.membership.id, "PX", life),
    );
    const results = await Promise.allSettled(writes);
    if (results.some(({ status }) => status === "fulfilled")) return;
    this.log("warn", "a moved session was not noted: no Redis host is up", {});
  }

  /** It has ended. */
  ended(clientId: string): void {
    for (const host of this.hosts.all) {
      // It goes by itself.
      host.command("DEL", host.key("moved", keyOf(clientId))).catch(() => undefined);
    }
  }

  /** On all hosts: one that was down when it was written knows an older place, or none. */
  private async readMoved(clientId: string): Promise<string[]> {
    const reads = this.hosts.all.map((host) =>
      host.command("GET", host.key("moved", keyOf(clientId))),
    );
    const results = await Promise.allSettled(reads);
    const answers = results.filter((result) => result.status === "fulfilled");
    if (answers.length === 0) throw new Refusal("brokerUnavailable", [clientId]);
    return answers.flatMap(({ value }) => (typeof value === "string" ? [value] : []));
  }
}

/** The id itself proves who a client is: it is not written down. */
function keyOf(clientId: string): string {
  return `:${createHash("sha256").update(clientId).digest("base64url")}`;
}
