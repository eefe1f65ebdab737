import type { AppId, Channel } from "@pandapush/protocol";
import type { MaybePromise } from "../maybe-promise.js";

/** A user on a presence channel, present by one or more sessions. */
export interface Member {
  readonly id: string;
  /** The presence object as JSON text. */
  readonly json: string;
}

/**
 * Characters of the lists of members in the replies to one request, and so of one channel's list.
 * Fewer than a connection may leave unread: who joins is no slow consumer. LIM-7
 */
export const maxListLength = 3 * 1_048_576;

/** Publishes a change of membership, `{"subscribe":{…}}` or `{"unsubscribe":{…}}`, as JSON text. */
export type Announce = (appId: AppId, channel: Channel, data: string) => void;

/** Who is on which presence channel. PRES-1 to PRES-8 */
export interface Presence {
  /**
   * The session becomes present as `member`; the change and its announcement are one step.
   * Announced only when nobody with this id was present; the newest presence object is kept.
   * A session that was present under another id leaves it first.
   * @param listLength how long the list may be that it returns; nothing is changed for a longer one
   * @returns all members, the new one included, as JSON text: `{"<id>":{…},…}`
   * @throws Refusal `presenceTooLarge`, `presenceFull`, `batchTooLong`
   */
  join(
    appId: AppId,
    channel: Channel,
    clientId: string,
    member: Member,
    listLength: number,
  ): MaybePromise<string>;
  /** Announced when this was the id's last session. Harmless for a session that is not present. */
  leave(appId: AppId, channel: Channel, clientId: string): MaybePromise<void>;
  /** Everyone on the channel, as `join` returns it. */
  members(appId: AppId, channel: Channel): MaybePromise<string>;
  /** How many ids are on each of the channels, in their order. */
  counts(appId: AppId, channels: readonly Channel[]): MaybePromise<readonly number[]>;
}
