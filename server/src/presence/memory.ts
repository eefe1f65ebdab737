import type { AppId, Channel } from "@pandapush/protocol";
import { after, type MaybePromise } from "../maybe-promise.js";
import type { Member, Position } from "../session.js";
import {
  type Announce,
  entryOf,
  listTooLong,
  maxListLength,
  type Presence,
  type PresenceLimits,
  replyTooLong,
  requireAllowedSize,
  type Snapshot,
  tooManyMembers,
} from "./presence.js";

interface Present {
  /** `"<id>":{…}`, as it stands in lists. */
  entry: string;
  readonly sessions: Set<string>;
}

/** Maps throughout: ids such as `__proto__` are members like any other. */
interface Room {
  readonly members: Map<string, Present>;
  readonly idOfSession: Map<string, string>;
  /** Characters of the list of members. */
  listLength: number;
  /** Of the last change that was announced; the list has all up to there. */
  position: MaybePromise<Position | undefined>;
}

export function createMemoryPresence(limits: PresenceLimits, announce: Announce): Presence {
  const rooms = new Map<Channel, Room>();

  const leave: Presence["leave"] = (appId, channel, clientId) => {
    const room = rooms.get(channel);
    const id = room?.idOfSession.get(clientId);
    if (room === undefined || id === undefined) return;
    room.idOfSession.delete(clientId);
    const present = room.members.get(id);
    present?.sessions.delete(clientId);
    if (present?.sessions.size !== 0) return;
    room.members.delete(id);
    room.listLength -= lengthInList(present.entry);
    if (room.members.size === 0) rooms.delete(channel);
    room.position = announce(appId, channel, `{"unsubscribe":{${JSON.stringify(id)}:null}}`);
    return room.position;
  };

  const join = (
    appId: AppId,
    channel: Channel,
    clientId: string,
    member: Member,
    listLength: number,
  ): MaybePromise<Snapshot> => {
    requireAllowedSize(member, limits);
    const entry = entryOf(member);
    const before = rooms.get(channel);
    const known = before?.members.get(member.id);
    if (known === undefined && (before?.members.size ?? 0) >= limits.presenceMembers) {
      throw tooManyMembers(limits);
    }
    const growth = lengthInList(entry) - (known === undefined ? 0 : lengthInList(known.entry));
    requireAllowed((before?.listLength ?? emptyListLength) + growth, listLength);
    if (before?.idOfSession.get(clientId) !== member.id) leave(appId, channel, clientId);
    let room = rooms.get(channel);
    if (room === undefined) {
      room = {
        members: new Map(),
        idOfSession: new Map(),
        listLength: emptyListLength,
        position: undefined,
      };
      rooms.set(channel, room);
    }
    room.idOfSession.set(clientId, member.id);
    const present = room.members.get(member.id);
    if (present === undefined) {
      room.members.set(member.id, { entry, sessions: new Set([clientId]) });
      room.position = announce(appId, channel, `{"subscribe":{${entry}}}`);
    } else {
      present.entry = entry;
      present.sessions.add(clientId);
    }
    room.listLength += growth;
    // As it is now: whoever comes while the announcement is under way is announced behind it.
    const list = listOf(room);
    return after(room.position, (position) => ({ list, position }));
  };

  return {
    join,
    leave,
    // There is no other node: whom it could be taken from, and who could take it.
    adopt: (appId, channel, clientId, member) =>
      rooms.get(channel)?.idOfSession.get(clientId) === member.id
        ? undefined
        : join(appId, channel, clientId, member, maxListLength),
    forget: () => undefined,
    members: (_appId, channel) => listOf(rooms.get(channel)),
    counts: (_appId, channels) => channels.map((channel) => rooms.get(channel)?.members.size ?? 0),
  };
}

function listOf(room: Room | undefined): string {
  return `{${Array.from(room?.members.values() ?? [], ({ entry }) => entry).join(",")}}`;
}

/** `{` and `}`, less the comma that the first member has not. */
const emptyListLength = 1;

/** With the comma in front of it. */
function lengthInList(entry: string): number {
  return entry.length + 1;
}

/** @param allowed what this request may still be answered with */
function requireAllowed(listLength: number, allowed: number): void {
  if (listLength > maxListLength) throw listTooLong();
  if (listLength > allowed) throw replyTooLong();
}
