/**
 * The broker of nodes that share one or several Redis hosts.
 *
 * A publication is one script call on one host, which says it on the topic of its channel and on
 * those of all patterns over it: nodes subscribe only to what their sessions subscribe to, and
 * Redis compares no patterns. Channels are shared out over the hosts; a pattern's channels can be
 * on any of them, so its topic is subscribed to on all. ADR 0008
 */
import type { Channel, Pattern } from "@pandapush/protocol";
import { expand } from "@pandapush/protocol";
import { Refusal } from "../errors.js";
import type { Log, RedisHost, RedisHosts, TopicListener } from "../redis/hosts.js";
import { HostUnavailable, luaUrl, readScript } from "../redis/hosts.js";
import type { Broker, BrokerHandler } from "./broker.js";
import { decode, encode, readPosition, readTopic, topicOf } from "./wire.js";

/** How long a subscription may wait for a host that is down. */
const subscribeWaitMs = 5_000;
/** Faults of a host that are no outages are logged at most this often. */
const complaintMs = 10_000;

const publishScript = readScript(luaUrl("say"), luaUrl("publish"));
/** Whoever writes nonsense to the topics fills neither memory nor log. */
const maxUnknown = 20;

/** @param onTaken told how long a host took for a publication */
export function createRedisBroker(
  hosts: RedisHosts,
  handler: BrokerHandler,
  log: Log,
  onTaken: (host: string, ms: number) => void = () => {},
): Broker {
  const listeners = new Map<RedisHost, HostListener>();
  for (const host of hosts.all) listeners.set(host, new HostListener(handler, host.name, log));
  const everywhere = [...listeners];
  let complainedAt = Number.NEGATIVE_INFINITY;

  const listenersOf = (name: Channel | Pattern): readonly [RedisHost, HostListener][] => {
    if (name.endsWith("*")) return everywhere;
    const host = hosts.hostOf(name);
    return everywhere.filter(([each]) => each === host);
  };
  const refuse = (name: Channel | Pattern, error: Error): never => {
    if (!(error instanceof HostUnavailable) && performance.now() - complainedAt > complaintMs) {
      complainedAt = performance.now();
      log("error", "Redis refuses to publish", { err: error });
    }
    throw new Refusal("brokerUnavailable", [name]);
  };

  return {
    publish(appId, publication) {
      const { channel } = publication;
      const host = hosts.hostOf(channel);
      // Also while only its topics are not heard: our own sessions would miss it.
      if (!host.isUp) return Promise.reject(new Refusal("brokerUnavailable", [channel]));
      const args = [encode(publication)];
      for (const name of expand(channel)) args.push(topicOf(host, appId, name));
      const givenAt = performance.now();
      return host.run(publishScript, [host.key(appId, ":sequence")], args).then(
        (reply) => {
          onTaken(host.name, performance.now() - givenAt);
          return readPosition(String(reply));
        },
        (error: Error) => refuse(channel, error),
      );
    },

    subscribe(appId, name) {
      const waits: Promise<void>[] = [];
      for (const [host, listener] of listenersOf(name)) {
        const done = host.subscribe(topicOf(host, appId, name), listener, subscribeWaitMs);
        if (done instanceof Promise) waits.push(done);
      }
      if (waits.length === 0) return;
      return Promise.all(waits).then(
        () => undefined,
        (error: Error) => refuse(name, error),
      );
    },

    unsubscribe(appId, name) {
      for (const [host] of listenersOf(name)) host.unsubscribe(topicOf(host, appId, name));
    },

    async caughtUp() {
      const all = await Promise.all(hosts.all.map((host) => host.caughtUp()));
      return all.every((hasHeard) => hasHeard);
    },

    async close() {
      for (const listener of listeners.values()) listener.isClosed = true;
    },
  };
}

/** What one host says. */
class HostListener implements TopicListener {
  isClosed = false;
  /**
   * A script runs as a whole, so the copies of a publication, one for each of its topics that this
   * node hears, follow each other: to remember one id is enough to hear each once.
   */
  private lastId: string | undefined;
  /** Versions that were complained about. */
  private readonly unknown = new Set<string>();

  constructor(
    private readonly handler: BrokerHandler,
    private readonly host: string,
    private readonly log: Log,
  ) {}

  message(message: string): void {
    if (this.isClosed) return;
    const said = decode(message);
    if (typeof said === "string") {
      this.ignore(said);
      return;
    }
    const { appId, publication, position } = said;
    if (publication.id === this.lastId) return;
    this.lastId = publication.id;
    this.handler.received(appId, publication, position);
  }

  missed(topic: string): void {
    if (this.isClosed) return;
    const [appId, name] = readTopic(topic);
    this.handler.missed(appId, name);
  }

  /** Of a release to come, or of another program. */
  private ignore(version: string): void {
    if (this.unknown.has(version) || this.unknown.size === maxUnknown) return;
    this.unknown.add(version);
    this.log("warn", "ignored messages that are not understood", { host: this.host, version });
  }
}
