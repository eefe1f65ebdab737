/**
 * The broker of nodes that share one or several Redis hosts.
 *
 * A publication is one script call on one host, which says it on the topic of its channel and on
 * those of all patterns over it: nodes subscribe only to what their sessions subscribe to, and
 * Redis compares no patterns. Channels are shared out over the hosts; a pattern's channels can be
 * on any of them, so its topic is subscribed to on all. ADR 0008
 */
import type { AppId, Channel, Pattern } from "@pandapush/protocol";
import { expand } from "@pandapush/protocol";
import { Refusal } from "../errors.js";
import type { Log, RedisHost, RedisHosts, TopicListener } from "../redis/hosts.js";
import { HostUnavailable, readScript } from "../redis/hosts.js";
import type { Position, Publication } from "../session.js";
import type { Broker, BrokerHandler } from "./broker.js";

/** How long a subscription may wait for a host that is down. */
const subscribeWaitMs = 5_000;
/** Faults of a host that are no outages are logged at most this often. */
const complaintMs = 10_000;

const publishScript = readScript(new URL("../../lua/publish.lua", import.meta.url));

export function createRedisBroker(hosts: RedisHosts, handler: BrokerHandler, log: Log): Broker {
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
      return host
        .run(publishScript, [host.key(appId, ":sequence")], args)
        .then(readPosition, (error: Error) => refuse(channel, error));
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

/** Whoever writes nonsense to the topics fills neither memory nor log. */
const maxUnknown = 20;
const maxVersionLength = 20;
const version = "1";

/**
 * A line of words, then the texts of data and ext as they are:
 *
 *     1 <epoch> <number> <id> <channel> <length of data> [membership]
 *     <data><ext>
 *
 * The script writes the first three. Lengths are in UTF-16 units. Readers skip words behind those
 * that they know: what a later release adds there is no new version.
 */
function encode({ id, channel, data, ext = "", isMembership }: Publication): string {
  const words = isMembership === true ? " membership" : "";
  return `${id} ${channel} ${data.length}${words}\n${data}${ext}`;
}

interface Said {
  readonly appId: AppId;
  readonly publication: Publication;
  readonly position: Position;
}

/** @returns the version when it is not ours, or when the message is none at all */
function decode(message: string): Said | string {
  const end = message.indexOf("\n");
  const words = message.slice(0, end === -1 ? maxVersionLength : end).split(" ");
  const [given = "", epoch = "", number, id, channel, length, ...others] = words;
  const dataEnd = end + 1 + Number(length);
  if (given !== version || id === undefined || channel === undefined || !(dataEnd > end)) {
    return given.slice(0, maxVersionLength);
  }
  const ext = message.slice(dataEnd);
  return {
    appId: channel.slice(1, channel.indexOf("/", 1)) as AppId,
    publication: {
      id,
      channel: channel as Channel,
      data: message.slice(end + 1, dataEnd),
      ext: ext === "" ? undefined : ext,
      isMembership: others.includes("membership"),
    },
    position: { epoch, seq: Number(number) },
  };
}

function readPosition(reply: unknown): Position {
  const [epoch = "", number] = String(reply).split(" ");
  return { epoch, seq: Number(number) };
}

/** `/app/public/news` → `<prefix>{app}/public/news` */
function topicOf(host: RedisHost, appId: AppId, name: Channel | Pattern): string {
  return host.key(appId, name.slice(appId.length + 1));
}

function readTopic(topic: string): [AppId, Channel | Pattern] {
  const [appId = "", rest = ""] = topic.slice(topic.indexOf("{") + 1).split("}");
  return [appId as AppId, `/${appId}${rest}` as Channel | Pattern];
}
