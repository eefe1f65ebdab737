import type { AppId, Channel, Pattern } from "@pandapush/protocol";
import type { MaybePromise } from "../maybe-promise.js";
import type { Position, Publication } from "../session.js";

/** What a broker tells its node. */
export interface BrokerHandler {
  /**
   * A publication to something subscribed, each once, those of one channel in their order. There
   * may be others between them, to what nobody here subscribes to.
   */
  received(appId: AppId, publication: Publication, position: Position): void;
  /**
   * This node was cut off: what was published to `name` meanwhile, or to what it covers, may not
   * have been received, and will not be. Said when `name` is effective again.
   */
  missed(appId: AppId, name: Channel | Pattern): void;
}

/** Carries publications between nodes, the sender's own included. */
export interface Broker {
  /**
   * Takes a publication for every node that subscribes to its channel or to a pattern over it.
   *
   * Guarantee: once it returns (or resolves) the publication is taken, at most once; the
   * publications of one channel reach every node in the same order, which is that of their
   * positions and, for those of one node, of these calls.
   * @throws Refusal `brokerUnavailable`, at once or within a second; it may still be taken
   */
  publish(appId: AppId, publication: Publication): MaybePromise<Position>;
  /**
   * What is published from now on to this channel, or to a channel that this pattern covers,
   * reaches the handler. Effective, for publishers at every node, once it returns (or resolves).
   * It stays so, or becomes so again by itself, until `unsubscribe`. Harmless twice.
   * @throws Refusal `brokerUnavailable` after at most five seconds; it still becomes effective
   *   as soon as that is possible, unless it is given up
   */
  subscribe(appId: AppId, name: Channel | Pattern): MaybePromise<void>;
  /** Whoever still waits for `subscribe` waits no longer, as if it had come. Harmless twice. */
  unsubscribe(appId: AppId, name: Channel | Pattern): void;
  /**
   * Returns (or resolves, within a few seconds) when whatever was published before this call to
   * what this node subscribes to has been received.
   * @returns false when some of it may not have been received, and will not be
   */
  caughtUp(): MaybePromise<boolean>;
  /** Nothing is received any more. */
  close(): Promise<void>;
}
