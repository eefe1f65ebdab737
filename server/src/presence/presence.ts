import type { AppId, Channel } from "@pandapush/protocol";
import { Refusal } from "../errors.js";
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

export interface PresenceLimits {
  /** Bytes of one presence object as JSON. */
  readonly presenceBytes: number;
  /** Ids on one channel. */
  readonly presenceMembers: number;
}

/** Who is on which presence channel. PRES-1 to PRES-8 */
export interface Presence {
  /**
   * The session becomes present as `member`; the change and its announcement are one step.
   * Announced only when nobody with this id was present; the newest presence object is kept.
   * A session that was present under another id leaves it first.
   * @param listLength how long the list may be that it returns; nothing is changed for a longer one
   * @returns all members, the new one included
   * @throws Refusal `presenceTooLarge`, `presenceFull`, `batchTooLong`; or `brokerUnavailable`
   *   within about a second: the session then is what it was before, at the latest when what was
   *   unavailable is back
   */
  join(
    appId: AppId,
    channel: Channel,
    clientId: string,
    member: Member,
    listLength: number,
  ): MaybePromise<Snapshot>;
  /**
   * Announced when this was the id's last session. Harmless for a session that is not present.
   * What is unavailable now learns of it when it is back.
   */
  leave(appId: AppId, channel: Channel, clientId: string): MaybePromise<unknown>;
  /**
   * This node takes over a session from another, where it is present as `member`. Nothing is
   * announced, unless it is no longer present there: then it joins. Limits do not count. What is
   * unavailable now learns of it when it is back.
   */
  adopt(appId: AppId, channel: Channel, clientId: string, member: Member): MaybePromise<unknown>;
  /**
   * Another node takes over the session, now or within seconds: it is present by that one, and this
   * one no longer counts it as its own. When nobody takes it, it leaves. Nothing may be under way
   * for it here.
   */
  forget(appId: AppId, channel: Channel, clientId: string): void;
  /**
   * Everyone on the channel, as the list that `join` gives.
   * @throws Refusal `brokerUnavailable`
   */
  members(appId: AppId, channel: Channel): MaybePromise<string>;
  /**
   * How many ids are on each of the channels, in their order.
   * @throws Refusal `brokerUnavailable`
   */
  counts(appId: AppId, channels: readonly Channel[]): MaybePromise<readonly number[]>;
}

/** `"<id>":{…}`, as it stands in lists. */
export function entryOf({ id, json }: Member): string {
  return `${JSON.stringify(id)}:${json}`;
}

/** @throws Refusal `presenceTooLarge` */
export function requireAllowedSize({ json }: Member, { presenceBytes }: PresenceLimits): void {
  if (Buffer.byteLength(json) <= presenceBytes) return;
  throw new Refusal("presenceTooLarge", [], `The presence object may have ${presenceBytes} bytes.`);
}

export function tooManyMembers({ presenceMembers }: PresenceLimits): Refusal {
  return new Refusal("presenceFull", [], `A presence channel holds ${presenceMembers} members.`);
}

/** Longer than any reply. */
export function listTooLong(): Refusal {
  return new Refusal(
    "presenceFull",
    [],
    `The list of a presence channel's members may have ${maxListLength} characters.`,
  );
}

/** Longer than what is left of this reply. */
export function replyTooLong(): Refusal {
  return new Refusal(
    "batchTooLong",
    [],
    `The lists of members in the replies to one request may have ${maxListLength} characters; join in several.`,
  );
}
