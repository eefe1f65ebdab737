/** What makes several nodes one server: who lives, whose sessions live where, what all do together. */
import type { AppId, KeyId } from "@pandapush/protocol";
import type { Live, LocalLive } from "../live.js";
import type { MaybePromise } from "../maybe-promise.js";
import type { Node } from "../node.js";
import type { Log, RedisHost, RedisHosts } from "../redis/hosts.js";
import type { Encoder, Sessions } from "../session.js";
import { Directory } from "./directory.js";
import { ClusterLive } from "./live.js";
import { createMembership, type Membership, type OwnMembership } from "./membership.js";
import { Moves } from "./moves.js";
import { Peers } from "./peers.js";
import { ClusterSessions, RemoteSession } from "./sessions.js";
import { ClusterStatistics } from "./statistics.js";

/** A node that stood still for longer counts as dead; the others notice within this and a renewal. */
const leaseMs = 6_000;
const renewMs = 1_500;

export interface ClusterParts {
  /** Made with the membership of this cluster. */
  readonly node: Node;
  /** Writes events for sessions that come from other nodes. */
  readonly encoder: Encoder;
  /** Whether what this key permits goes on, as far as this node knows. */
  readonly isAllowed: (appId: AppId, keyId: KeyId | undefined) => MaybePromise<boolean>;
  readonly presence: {
    /** This node was declared dead: whoever was present by it is no longer. */
    lost(): void;
    /** Cleans up what a dead node kept of an application on that host. */
    clean(host: RedisHost, nodeId: string, appId: AppId): Promise<void>;
  };
  /** A session ends this long after its last handshake or connect. */
  readonly sessionExpiryMs: number;
  readonly statisticsIntervalMs: number;
  /** What goes on at this node. */
  readonly live: LocalLive;
}

/** How long another node may take to notice that this one has started. */
const introduceMs = 1_000;

/** What a node has of the others once it has joined them. */
interface Joined {
  readonly sessions: ClusterSessions;
  readonly moves: Moves;
  readonly statistics: ClusterStatistics;
}

export class Cluster {
  readonly membership: Membership;
  readonly peers: Peers;
  private readonly own: OwnMembership;
  private joined: Joined | undefined;
  private parts: ClusterParts | undefined;

  constructor(
    private readonly hosts: RedisHosts,
    private readonly log: Log,
  ) {
    const died = (nodeId: string): void => {
      this.peers.died(nodeId);
      this.joined?.sessions.died(nodeId);
    };
    const lost = (): void => {
      this.peers.rename(this.membership.id);
      this.parts?.presence.lost();
      this.parts?.node.endAll("lost");
    };
    const clean = async (host: RedisHost, nodeId: string, appId: AppId): Promise<void> =>
      this.parts?.presence.clean(host, nodeId, appId);
    this.own = createMembership(hosts, { died, lost, clean }, { leaseMs, renewMs }, log);
    this.membership = this.own;
    this.peers = new Peers(hosts, this.own.id, log);
    this.peers.serve("look", () => this.own.look());
  }

  /** Call once, before `start`. */
  join(parts: ClusterParts): { readonly sessions: Sessions; readonly live: Live } {
    const { node, encoder, isAllowed, sessionExpiryMs, statisticsIntervalMs } = parts;
    const { membership, peers } = this;
    const log = this.log;
    const directory = new Directory(this.hosts, membership, 3 * sessionExpiryMs, log);
    const moves = new Moves({
      node,
      directory,
      membership,
      peers,
      encoder,
      isAllowed,
      remote: (clientId) => new RemoteSession(clientId, sessions),
      noteMs: sessionExpiryMs,
      log,
    });
    const sessions = new ClusterSessions({
      node,
      directory,
      membership,
      peers,
      moves,
      isAllowed,
      outcomeMs: sessionExpiryMs,
    });
    for (const host of this.hosts.all) {
      host.onState(({ isUp }) => {
        if (isUp) void moves.noteAll();
      });
    }
    this.parts = parts;
    const statistics = new ClusterStatistics({
      node,
      hosts: this.hosts,
      membership,
      peers,
      intervalMs: statisticsIntervalMs,
      log,
    });
    this.joined = { sessions, moves, statistics };
    return { sessions, live: new ClusterLive({ local: parts.live, membership, peers }) };
  }

  /** Others know this node when it resolves, and can ask it, unless no host can be reached. */
  async start(): Promise<void> {
    await this.peers.listen();
    await this.own.start();
    const others = this.own.all.filter((id) => id !== this.own.id);
    // Who cannot be told finds out with its next renewal.
    await Promise.allSettled(others.map((id) => this.peers.ask(id, "look", {}, introduceMs)));
  }

  /** A session is here no more. */
  ended(clientId: string, hasMoved: boolean): void {
    this.joined?.moves.ended(clientId, hasMoved);
  }

  /** An interval of the statistics is over; those of these applications are heard here. */
  statisticsDue(heard: readonly AppId[]): void {
    this.joined?.statistics.due(heard);
  }

  /**
   * Gives what this node has to others, as far as there is time.
   * @returns how many sessions went
   */
  async drain(deadline: number): Promise<number> {
    if (this.joined === undefined) return 0;
    const { sessions, moves, statistics } = this.joined;
    await this.own.leave();
    statistics.leave();
    const moved = await moves.giveAway(deadline);
    sessions.drain();
    return moved;
  }

  async close(): Promise<void> {
    this.joined?.moves.close();
    this.peers.close();
    await this.own.close();
  }
}
