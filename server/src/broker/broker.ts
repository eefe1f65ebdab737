import type { AppId, Channel, Pattern } from "@pandapush/protocol";
import type { MaybePromise } from "../maybe-promise.js";
import type { Publication } from "../session.js";

export type PublicationHandler = (appId: AppId, publication: Publication) => void;

/** Carries publications between nodes, the sender's own included. */
export interface Broker {
  /**
   * Takes a publication for every node that subscribes to its channel or to a pattern over it.
   *
   * Guarantee: once it returns (or resolves) the publication is taken, at most once; the
   * publications of one channel reach every node in the same order.
   * @throws Refusal `unavailable`
   */
  publish(appId: AppId, publication: Publication): MaybePromise<void>;
  /**
   * What is published from now on to this channel, or to a channel that this pattern covers,
   * reaches the handler. Effective once it returns (or resolves). Harmless twice.
   * @throws Refusal `unavailable`
   */
  subscribe(appId: AppId, name: Channel | Pattern): MaybePromise<void>;
  unsubscribe(appId: AppId, name: Channel | Pattern): void;
  close(): Promise<void>;
}
