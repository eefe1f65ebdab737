import type { AppId, Channel } from "@pandapush/protocol";
import { describe, expect, test } from "vitest";
import { Refusal } from "../errors.js";
import { createMemoryPresence } from "./memory.js";
import { maxListLength, type Presence, type Snapshot } from "./presence.js";

const app = "app" as AppId;
const room = "/app/presence/room" as Channel;
const limits = { presenceBytes: 4_096, presenceMembers: 10_000 };

/** Objects of about 4000 characters: a list is full before a channel has all its members. */
const large = (id: string): string => JSON.stringify({ id, about: "x".repeat(4_000) });

class Channels {
  readonly announced: string[] = [];
  readonly presence: Presence = createMemoryPresence(limits, (_appId, _channel, data) => {
    this.announced.push(data);
    return undefined;
  });

  /** The list, or the code of the refusal. */
  join(id: string, clientId = id, json = `{"id":${JSON.stringify(id)}}`, allowed = maxListLength) {
    try {
      return (this.presence.join(app, room, clientId, { id, json }, allowed) as Snapshot).list;
    } catch (error) {
      if (error instanceof Refusal) return error.code;
      throw error;
    }
  }

  leave(clientId: string): void {
    void this.presence.leave(app, room, clientId);
  }
}

describe("the list of a channel's members", () => {
  test("[LIM-7] is only made when it is no longer than this request may be answered with", () => {
    const channels = new Channels();
    const ids = ["one", "__proto__", 'q"', "é☃"];
    let list = "";
    for (const id of ids) list = channels.join(id);
    channels.announced.length = 0;
    // Whoever is there already gets the same list, if it fits.
    expect(channels.join("one", "tab", undefined, list.length)).toBe(list);
    expect(channels.join("one", "tab", undefined, list.length - 1)).toBe("batchTooLong");
    expect(channels.join("new", "new", undefined, list.length)).toBe("batchTooLong");
    expect(channels.announced).toEqual([]);
    expect(channels.join("watcher")).not.toContain('"new"');
  });

  test("[LIM-7] is measured as it is, however members came, changed and left", () => {
    const channels = new Channels();
    channels.join("one");
    for (const mood of ["", "x".repeat(100), "yy"]) {
      const list = channels.join("other", "other", JSON.stringify({ id: "other", mood }));
      expect(channels.join("one", "one", undefined, list.length)).toBe(list);
      expect(channels.join("one", "one", undefined, list.length - 1)).toBe("batchTooLong");
    }
    channels.join("third", "other");
    channels.leave("other");
    expect(channels.join("one", "one", undefined, '{"one":{"id":"one"}}'.length)).toBe(
      '{"one":{"id":"one"}}',
    );
    expect(channels.join("one", "one", undefined, 19)).toBe("batchTooLong");
    channels.leave("one");
    expect(channels.join("one", "one", undefined, 20)).toBe('{"one":{"id":"one"}}');
  });

  test("[LIM-7] is never longer than one request may be answered with: the channel is full before", () => {
    const channels = new Channels();
    let members = 0;
    let list = "";
    for (; members < 1_000; members++) {
      const joined = channels.join(`m${members}`, undefined, large(`m${members}`));
      if (joined === "presenceFull") break;
      list = joined;
    }
    expect(list.length).toBeLessThanOrEqual(maxListLength);
    expect(Object.keys(JSON.parse(list)).length).toBe(members);
    expect(members).toBeGreaterThan(700);
    // Who is there stays there, and one who leaves makes room.
    expect(channels.join("m0", "tab", large("m0"))).toBe(list);
    channels.leave("m1");
    expect(channels.join("m1", "m1", large("m1"))).toHaveLength(list.length);
  });
});
