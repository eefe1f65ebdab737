/**
 * An application's statistics over all nodes. Of the nodes where somebody hears them, one asks all
 * others at each interval, and publishes the sums. Which one is settled on the Redis host that
 * carries them: it stays the same until it leaves, dies, or nobody hears them there any more.
 */
import { hash } from "node:crypto";
import type { AppId } from "@pandapush/protocol";
import { Best } from "../live.js";
import type { Node, Statistics } from "../node.js";
import type { Log, RedisHosts } from "../redis/hosts.js";
import { HostUnavailable, readScript } from "../redis/hosts.js";
import { inSlices } from "../slices.js";
import type { Membership } from "./membership.js";
import { type Peers, PeerUnavailable } from "./peers.js";

/** Another node takes over after this many intervals without a word, and counts that old go on. */
const patience = 2;
/** How long a node may take to answer, unless the next interval begins before. */
const answerMs = 1_000;
/** Applications that are asked for together. */
const askedTogether = 20;
/** Channels that a node tells of. */
export const sampleSize = 1_000;

const holdScript = readScript(new URL("../../lua/hold.lua", import.meta.url));

/** What one node says. */
export interface Report {
  readonly statistics: Statistics;
  /** Numbers that stand for the names of its channels: the smallest `sampleSize`. */
  readonly channels: readonly number[];
}

interface KnownReport {
  readonly at: number;
  readonly report: Report;
}

export interface ClusterStatisticsParts {
  readonly node: Node;
  readonly hosts: RedisHosts;
  readonly membership: Membership;
  readonly peers: Peers;
  readonly intervalMs: number;
  readonly log: Log;
}

export class ClusterStatistics {
  /** Applications whose statistics this node publishes, and what nodes last said of each. */
  private held = new Map<AppId, Map<string, KnownReport>>();
  private isReporting = false;
  private hasLeft = false;

  constructor(private readonly parts: ClusterStatisticsParts) {
    parts.peers.serve("statistics", async (appIds: readonly AppId[]) => this.reports(appIds));
  }

  /** An interval is over; those of these applications are heard here. */
  due(heard: readonly AppId[]): void {
    if (this.isReporting || this.hasLeft) return;
    this.isReporting = true;
    this.report(heard)
      .catch((error: unknown) =>
        this.parts.log("error", "publish statistics of the cluster", { err: error }),
      )
      .finally(() => {
        this.isReporting = false;
      });
  }

  /** Another node is to publish them. */
  leave(): void {
    this.hasLeft = true;
    for (const appId of this.held.keys()) void this.hold(appId, 0);
    this.held.clear();
  }

  private async report(heard: readonly AppId[]): Promise<void> {
    const holdMs = patience * this.parts.intervalMs;
    const end = performance.now() + holdMs;
    const heardHere = new Set(heard);
    for (const appId of [...this.held.keys()]) if (!heardHere.has(appId)) this.letGo(appId);
    await Promise.all(
      heard.map(async (appId) => {
        const isHeld = await this.hold(appId, holdMs);
        if (!isHeld) this.held.delete(appId);
        else if (!this.held.has(appId)) this.held.set(appId, new Map());
      }),
    );
    const silent = new Set<string>();
    const appIds = [...this.held.keys()];
    for (let at = 0; at < appIds.length; at += askedTogether) {
      const some = appIds.slice(at, at + askedTogether);
      await this.collect(some, silent);
      // By now another node may publish them.
      if (performance.now() >= end) return;
      for (const appId of some) this.publish(appId);
    }
  }

  private letGo(appId: AppId): void {
    this.held.delete(appId);
    void this.hold(appId, 0);
  }

  /** @returns whether this node, and no other, is the one to publish this application's */
  private async hold(appId: AppId, ms: number): Promise<boolean> {
    const { hosts, membership, log } = this.parts;
    // When it is down they cannot be published either.
    const host = hosts.hostOf(`/${appId}/meta/statistics`);
    const key = host.key(appId, ":statistics");
    try {
      const answer = await host.run(holdScript, [key], [membership.id, String(Math.ceil(ms))]);
      return answer === 1 && !this.hasLeft;
    } catch (error) {
      if (!(error instanceof HostUnavailable)) {
        log("error", "settle who publishes statistics", { host: host.name, err: error });
      }
      return false;
    }
  }

  /** @param silent nodes that do not answer; they are not waited for again */
  private async collect(appIds: readonly AppId[], silent: Set<string>): Promise<void> {
    const { membership, peers, intervalMs } = this.parts;
    const nodeIds = membership.all;
    const timeoutMs = Math.min(answerMs, intervalMs);
    const answers = nodeIds.map(async (nodeId) => {
      try {
        if (silent.has(nodeId)) return undefined;
        if (nodeId === membership.id) return await this.reports(appIds);
        return (await peers.ask(nodeId, "statistics", appIds, timeoutMs)) as readonly Report[];
      } catch (error) {
        if (!(error instanceof PeerUnavailable)) throw error;
        silent.add(nodeId);
        return undefined;
      }
    });
    const all = await Promise.all(answers);
    const now = performance.now();
    for (const [index, appId] of appIds.entries()) {
      const known = this.held.get(appId);
      for (const nodeId of known?.keys() ?? []) {
        const isOld = now - (known?.get(nodeId)?.at ?? 0) > patience * intervalMs;
        if (isOld || !nodeIds.includes(nodeId)) known?.delete(nodeId);
      }
      for (const [place, nodeId] of nodeIds.entries()) {
        const report = all[place]?.[index];
        if (report !== undefined) known?.set(nodeId, { at: now, report });
      }
    }
  }

  private publish(appId: AppId): void {
    const known = this.held.get(appId);
    if (known === undefined || known.size === 0) return;
    const reports = Array.from(known.values(), ({ report }) => report);
    this.parts.node.publishStatistics(appId, together(reports));
  }

  /** Of this node. */
  private async reports(appIds: readonly AppId[]): Promise<Report[]> {
    const { node } = this.parts;
    const reports: Report[] = [];
    for (const appId of appIds) {
      const smallest = new Best<number>(
        { offset: 0, limit: sampleSize },
        (each) => each,
        (one, other) => one - other,
      );
      const names = node.view(appId)?.channels.keys() ?? [];
      await inSlices(names, (name) => smallest.add(numberOf(name)), 64);
      reports.push({ statistics: node.statistics(appId), channels: smallest.items() });
    }
    return reports;
  }
}

/** The sums; of channels, how many different ones there are. */
export function together(reports: readonly Report[]): Statistics {
  const sum = (field: keyof Statistics): number => {
    const total = reports.reduce((before, { statistics }) => before + statistics[field], 0);
    return Math.round(total * 100) / 100;
  };
  return {
    connections: sum("connections"),
    subscriptions: sum("subscriptions"),
    channels: channelsOf(reports),
    published: sum("published"),
    delivered: sum("delivered"),
    publishedPerSecond: sum("publishedPerSecond"),
    deliveredPerSecond: sum("deliveredPerSecond"),
  };
}

/**
 * Exact as long as no node has more than `sampleSize`, or one has all; beyond that from how densely
 * the smallest numbers lie, within a few percent. That only grows with what is sent, not with what
 * there is: nodes need not send each other all names.
 */
function channelsOf(reports: readonly Report[]): number {
  const counts = reports.map(({ statistics }) => statistics.channels).filter((count) => count > 0);
  const most = Math.max(0, ...counts);
  if (counts.length <= 1) return most;
  const numbers = new Set(reports.flatMap(({ channels }) => channels));
  if (most <= sampleSize) return numbers.size;
  const last = [...numbers].sort((one, other) => one - other)[sampleSize - 1] ?? 0;
  const all = counts.reduce((before, count) => before + count, 0);
  const estimated = Math.round((sampleSize - 1) / (last / 2 ** 32));
  return Math.min(all, Math.max(most, estimated));
}

/** Evenly spread, the same on every node. */
function numberOf(name: string): number {
  return hash("sha1", name, "buffer").readUInt32BE();
}
