/** Which node a session lives at, found out with as little asking as possible. */
import { createHash } from "node:crypto";
import { Refusal } from "../errors.js";
import type { Log, RedisHosts } from "../redis/hosts.js";
import type { Membership } from "./membership.js";

/** Characters of a node's id, which every clientId that was made there begins with. */
export const nodeIdLength = 8;
/** Of what other nodes told us, and of those that went from here. */
const maxKnown = 100_000;
const knownMs = 60_000;

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
   * Another node that the session lives at, or did a moment ago; undefined when it lives nowhere.
   * @throws Refusal `brokerUnavailable` when nobody knows at the moment
   */
  async locate(clientId: string): Promise<string | undefined> {
    return this.recall(clientId) ?? (await this.lookUp(clientId));
  }

  /** The same, whatever is remembered. */
  async lookUp(clientId: string, except?: string): Promise<string | undefined> {
    if (!/^[a-z0-9]{36,64}$/.test(clientId)) return undefined;
    // A host that was down when it moved names another place than the others; it may be back, too.
    const birth = clientId.slice(0, nodeIdLength);
    for (const owner of new Set([...(await this.readMoved(clientId)), birth])) {
      if (owner === this.membership.id || owner === except) continue;
      if (!(await this.membership.isAlive(owner))) continue;
      this.remember(clientId, owner);
      return owner;
    }
    return undefined;
  }

  /**
   * Another place, when the node that was asked does not have it or cannot be reached; undefined
   * when it lives nowhere.
   * @throws Refusal `unavailable` when it may live there all the same, `brokerUnavailable` as above
   */
  async lookElsewhere(
    clientId: string,
    asked: string,
    isUnreachable: boolean,
  ): Promise<string | undefined> {
    const mayLiveThere = isUnreachable && (await this.membership.isAlive(asked));
    if (!mayLiveThere) this.forget(clientId);
    const found = await this.lookUp(clientId, asked);
    if (found !== undefined) return found;
    if (mayLiveThere) throw new Refusal("unavailable", [clientId]);
    return undefined;
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

  /** On any host: one that was down when it was written, or lost its data, does not know. */
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
