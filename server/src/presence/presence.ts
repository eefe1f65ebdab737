import type { AppId, Channel } from "@pandapush/protocol";
import type { MaybePromise } from "../maybe-promise.js";
import type { Member, Position } from "../session.js";

/**
 * Characters of the lists of members in the replies to one request, and so of one channel's list.
 * Fewer than a connection may leave unread: who joins is no slow consumer. LIM-7
 */
export const maxListLength = 3 * 1_048_576;

/**
 * Publishes a change of membership, `{"subscribe":{…}}` or `{"unsubscribe":{…}}`, as JSON text.
 * @returns where it stands among the channel's publications; undefined when it could not be published
 */
export type Announce = (
  appId: AppId,
  channel: Channel,
  data: string,
) => MaybePromise<Position | undefined>;

/** Who is on a channel, at one moment. */
export interface Snapshot {
  /** All members as JSON text: `{"<id>":{…},…}` */
  readonly list: string;
  /** Changes announced up to here are in the list. */
  readonly position: Position | undefined;
}

/** Who is on which presence channel. PRES-1 to PRES-8 */
export interface Presence {
  /**
   * The session becomes present as `member`; the change and its announcement are one step.
   * Announced only when nobody with this id was present; the newest presence object is kept.
   * A session that was present under another id leaves it first.
   * @param listLength how long the list may be that it returns; nothing is changed for a longer one
   * @returns all members, the new one included
   * @throws Refusal `presenceTooLarge`, `presenceFull`, `batchTooLong`
   */
  join(
    appId: AppId,
    channel: Channel,
    clientId: string,
    member: Member,
    listLength: number,
  ): MaybePromise<Snapshot>;
  /** Announced when this was the id's last session. Harmless for a session that is not present. */
  leave(appId: AppId, channel: Channel, clientId: string): MaybePromise<unknown>;
  /**
   * The session comes from another node and stays present: nothing is announced, unless it was gone.
   * Only where there are other nodes.
   */
  adopt?(appId: AppId, channel: Channel, clientId: string, member: Member): MaybePromise<unknown>;
  /** The session goes to another node and stays present. Only where there are other nodes. */
  forget?(appId: AppId, channel: Channel, clientId: string): void;
  /** Everyone on the channel, as the list that `join` gives. */
  members(appId: AppId, channel: Channel): MaybePromise<string>;
  /** How many ids are on each of the channels, in their order. */
  counts(appId: AppId, channels: readonly Channel[]): MaybePromise<readonly number[]>;
}
