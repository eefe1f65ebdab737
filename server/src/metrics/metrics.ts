/**
 * What an operator sees of a node. Most of it is read from what the parts count anyway, when
 * somebody asks; they say what nobody could count later. Nothing here is done for each delivery.
 */
import type { AppId } from "@pandapush/protocol";
import type { Activity, Census, Node } from "../node.js";
import type { EndReason } from "../session.js";
import type { TransportKind } from "../transports/transport.js";
import { LargestApps, type Risen, risen, type Shown } from "./largest.js";
import { Prometheus } from "./prometheus.js";
import { Statsd, type StatsdOptions } from "./statsd.js";
import type { NamesOf } from "./table.js";

/** What is asked when somebody wants to know. */
export interface MetricsSources {
  readonly node: Pick<Node, "activities" | "backlog" | "census" | "sessionCount" | "totals">;
  /** Open WebSockets. */
  readonly websockets: () => number;
  readonly brokers: () => Iterable<{ readonly name: string; readonly isUp: boolean }>;
  /** How many live. */
  readonly nodes: () => number;
  /** As of `/ready`. */
  readonly checks: Readonly<Record<string, () => string | undefined>>;
}

export interface MetricsOptions {
  readonly version: string;
  readonly rev: string;
  /** How many have series of their own. */
  readonly applications: number;
  readonly statsd: (StatsdOptions & { readonly intervalMs: number }) | undefined;
  readonly logError: (error: unknown, what: string) => void;
  readonly warn: (message: string, fields: object) => void;
}

const lagIntervalMs = 100;
const endReasons = [
  "disconnect",
  "expiry",
  "overflow",
  "shutdown",
  "moved",
  "lost",
] as const satisfies readonly EndReason[];
const pushing = ["websocket", "eventsource"] as const satisfies readonly TransportKind[];

export class Metrics {
  private readonly prometheus = new Prometheus();
  private readonly largest: LargestApps;
  private readonly statsd: Statsd | undefined;
  private readonly timers: NodeJS.Timeout[] = [];
  private sources: MetricsSources | undefined;
  private ended = 0;
  private running: Promise<string> | undefined;
  private counting: Promise<Census> | undefined;
  /** How far statsd was told: the names of its counts, and of applications. */
  private readonly told = new Map<string, number>();
  private readonly responses = new Map<number, number>();
  private toldApps: ReadonlyMap<AppId, Risen> = new Map();

  constructor(private readonly options: MetricsOptions) {
    const { version, rev, applications, statsd } = options;
    this.prometheus.setEach("build", [[1, { version, rev }]]);
    this.prometheus.set("started", Math.round(Date.now() / 1000 - process.uptime()));
    for (const reason of endReasons) this.prometheus.add("sessionsEnded", { reason }, 0);
    for (const transport of pushing) this.prometheus.add("slowConsumers", { transport }, 0);
    this.largest = new LargestApps(applications);
    this.statsd =
      statsd &&
      new Statsd(statsd, (reason) => options.warn("statsd cannot be reached", { reason }));
  }

  /** Call once, before anybody asks. */
  watch(sources: MetricsSources): void {
    this.sources = sources;
    let last = performance.now();
    this.every(lagIntervalMs, () => {
      const now = performance.now();
      this.prometheus.observe("lag", Math.max(0, now - last - lagIntervalMs) / 1000);
      last = now;
    });
    const { statsd } = this;
    const { statsd: settings, logError } = this.options;
    if (statsd === undefined || settings === undefined) return;
    this.every(settings.intervalMs, () => {
      this.census()
        .then((census) => this.report(statsd, sources, census))
        .catch((error: unknown) => logError(error, "report to statsd"));
    });
  }

  // What the parts tell.

  sessionEnded(reason: EndReason): void {
    this.prometheus.add("sessionsEnded", { reason });
    if (reason !== "moved") this.ended++;
  }

  /** @param action what was refused: a kind of request, `batch` or `http` */
  refused(action: string, reason: string): void {
    this.prometheus.add("refusals", { action, reason });
  }

  responded(api: string, status: number, ms: number): void {
    this.prometheus.add("responses", { api, status });
    this.prometheus.observe("durations", ms / 1000, { api });
    if (this.statsd === undefined) return;
    this.responses.set(status, (this.responses.get(status) ?? 0) + 1);
    this.statsd.add("duration.all", Math.round(ms), "ms");
  }

  delivering(publications: number): void {
    this.prometheus.observe("batches", publications);
  }

  slowConsumer(transport: (typeof pushing)[number]): void {
    this.prometheus.add("slowConsumers", { transport });
  }

  losing(): void {
    this.prometheus.add("lost");
  }

  brokerTook(host: string, ms: number): void {
    this.prometheus.observe("brokerDurations", ms / 1000, { host });
  }

  /** In Prometheus' text format. Whoever asks meanwhile gets the same. */
  exposition(): Promise<string> {
    this.running ??= this.expose().finally(() => {
      this.running = undefined;
    });
    return this.running;
  }

  /** Tells statsd what has happened since the last time. */
  async close(): Promise<void> {
    for (const timer of this.timers) clearInterval(timer);
    if (this.statsd === undefined) return;
    if (this.sources !== undefined) this.report(this.statsd, this.sources);
    await this.statsd.close();
  }

  private async expose(): Promise<string> {
    const { sources } = this;
    if (sources === undefined) throw new Error("Nothing is watched yet");
    this.readNode(sources, await this.census());
    this.readSurroundings(sources);
    this.readProcess();
    return this.prometheus.text();
  }

  private census(): Promise<Census> {
    const { sources } = this;
    if (sources === undefined) throw new Error("Nothing is watched yet");
    this.counting ??= sources.node.census().finally(() => {
      this.counting = undefined;
    });
    return this.counting;
  }

  private readNode(sources: MetricsSources, census: Census): void {
    const { prometheus } = this;
    const { node } = sources;
    const { begun, subscribed, unsubscribed, published, missed } = node.totals;
    const { backlog } = node;
    const activities = node.activities();
    const sums = { subscriptions: 0, channels: 0, delivered: 0 };
    for (const each of activities.values()) {
      sums.subscriptions += each.subscriptions;
      sums.channels += each.channels;
      sums.delivered += each.delivered;
    }
    prometheus.set("sessions", node.sessionCount);
    prometheus.setEach(
      "connections",
      connectionsOf(sources, census).map(([transport, number]) => [number, { transport }]),
    );
    prometheus.set("sessionsBegun", begun);
    prometheus.set("subscriptions", sums.subscriptions);
    prometheus.set("subscribed", subscribed);
    prometheus.set("unsubscribed", unsubscribed);
    prometheus.set("channels", sums.channels);
    prometheus.set("published", published);
    prometheus.set("delivered", sums.delivered);
    prometheus.set("missed", missed);
    prometheus.set("backlogPublications", backlog.publications);
    prometheus.set("backlogBytes", backlog.length);
    prometheus.set("outboxBytes", census.waitingLength);
    prometheus.set("largestOutbox", census.longestWaiting);
    this.readApps(this.largest.count(activities));
  }

  private readApps(apps: ReadonlyMap<string, Shown>): void {
    const read = (metric: NamesOf<"counter" | "gauge">, value: (shown: Shown) => number): void =>
      this.prometheus.setEach(
        metric,
        Array.from(apps, ([name, shown]) => [value(shown), { app: name }]),
      );
    read("appConnections", ({ connections }) => connections);
    read("appSubscriptions", ({ subscriptions }) => subscriptions);
    read("appChannels", ({ channels }) => channels);
    read("appPublished", ({ published }) => published);
    read("appDelivered", ({ delivered }) => delivered);
    read("appSubscribed", ({ subscribed }) => subscribed);
    read("appUnsubscribed", ({ unsubscribed }) => unsubscribed);
  }

  private readSurroundings({ brokers, nodes, checks }: MetricsSources): void {
    const { prometheus } = this;
    prometheus.set("nodes", nodes());
    prometheus.setEach(
      "brokerUp",
      Array.from(brokers(), ({ name, isUp }) => [Number(isUp), { host: name }]),
    );
    prometheus.setEach(
      "ready",
      Object.entries(checks).map(([name, check]) => [
        Number(check() === undefined),
        { check: name },
      ]),
    );
  }

  private readProcess(): void {
    const { prometheus } = this;
    const { user, system } = process.cpuUsage();
    const { rss, heapUsed } = process.memoryUsage();
    prometheus.set("cpu", (user + system) / 1e6);
    prometheus.set("memory", rss);
    prometheus.set("heap", heapUsed);
  }

  /** @param census absent: nobody is counted any more */
  private report(statsd: Statsd, sources: MetricsSources, census?: Census): void {
    const { begun, subscribed, unsubscribed, published } = sources.node.totals;
    const count = (name: string, value: number): void => {
      if (value > 0) statsd.add(name, value, "c");
    };
    const countSince = (name: string, total: number): void => {
      count(name, total - (this.told.get(name) ?? 0));
      this.told.set(name, total);
    };
    countSince("handshake", begun);
    countSince("close", this.ended);
    countSince("disconnect", this.ended);
    countSince("subscribe", subscribed);
    countSince("unsubscribe", unsubscribed);
    countSince("publish", published);
    const activities = sources.node.activities();
    for (const [appId, activity] of activities) {
      const before: Partial<Activity> = this.toldApps.get(appId) ?? {};
      const name = (last: string): string => `apps.${appId}.${last}`;
      count(name("subscribe"), risen(activity.subscribed, before.subscribed));
      count(name("unsubscribe"), risen(activity.unsubscribed, before.unsubscribed));
      count(name("publish"), risen(activity.published, before.published));
    }
    this.toldApps = activities;
    for (const [status, number] of this.responses) count(`responses.all.${status}`, number);
    this.responses.clear();
    if (census !== undefined) {
      let http = 0;
      for (const [transport, number] of connectionsOf(sources, census)) {
        if (transport === "websocket") statsd.add("connections.ws", number, "g");
        else http += number;
      }
      statsd.add("connections.http", http, "g");
    }
    statsd.flush();
  }

  private every(ms: number, work: () => void): void {
    const timer = setInterval(work, ms);
    timer.unref();
    this.timers.push(timer);
  }
}

function connectionsOf(
  { websockets }: MetricsSources,
  { transports }: Census,
): readonly (readonly [TransportKind, number])[] {
  const connections = { ...transports, websocket: websockets() };
  return Object.entries(connections) as [TransportKind, number][];
}
