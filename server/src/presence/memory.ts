import type { Channel } from "@pandapush/protocol";
import { Refusal } from "../errors.js";
import type { Announce, Presence } from "./presence.js";

export interface PresenceLimits {
  /** Bytes of one presence object as JSON. */
  readonly presenceBytes: number;
  /** Ids on one channel. */
  readonly presenceMembers: number;
}

interface Present {
  json: string;
  readonly sessions: Set<string>;
}

/** Maps throughout: ids such as `__proto__` are members like any other. */
interface Room {
  readonly members: Map<string, Present>;
  readonly idOfSession: Map<string, string>;
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
    if (room.members.size === 0) rooms.delete(channel);
    announce(appId, channel, `{"unsubscribe":{${JSON.stringify(id)}:null}}`);
  };

  return {
    join(appId, channel, clientId, member) {
      if (Buffer.byteLength(member.json) > limits.presenceBytes) {
        throw new Refusal(
          "presenceTooLarge",
          [],
          `The presence object may have ${limits.presenceBytes} bytes.`,
        );
      }
      const before = rooms.get(channel);
      const isNew = before?.members.has(member.id) !== true;
      if (isNew && (before?.members.size ?? 0) >= limits.presenceMembers) {
        throw new Refusal(
          "presenceFull",
          [],
          `A presence channel holds ${limits.presenceMembers} members.`,
        );
      }
      if (before?.idOfSession.get(clientId) !== member.id) leave(appId, channel, clientId);
      let room = rooms.get(channel);
      if (room === undefined) {
        room = { members: new Map(), idOfSession: new Map() };
        rooms.set(channel, room);
      }
      room.idOfSession.set(clientId, member.id);
      const present = room.members.get(member.id);
      if (present === undefined) {
        room.members.set(member.id, { json: member.json, sessions: new Set([clientId]) });
        announce(appId, channel, `{"subscribe":{${JSON.stringify(member.id)}:${member.json}}}`);
      } else {
        present.json = member.json;
        present.sessions.add(clientId);
      }
      const members: string[] = [];
      for (const [id, { json }] of room.members) members.push(`${JSON.stringify(id)}:${json}`);
      return `{${members.join(",")}}`;
    },
    leave,
  };
}
