import type { AppId, Channel } from "@pandapush/protocol";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { Refusal } from "../errors.js";
import type { Position } from "../session.js";
import { maxListLength, type Presence, type PresenceLimits } from "./presence.js";

/** An announcement, and where it stands. */
export interface Announced {
  readonly data: string;
  readonly position: Position;
}

/** Two nodes that share what is present; of a presence that knows no others, the same one twice. */
export interface Subject {
  readonly one: Presence;
  readonly two: Presence;
  /** What was announced of the channel since it was first asked for, in order, up to now. */
  announced(appId: AppId, channel: Channel): Promise<readonly Announced[]>;
  close(): Promise<void>;
}

const limits: PresenceLimits = { presenceBytes: 200_000, presenceMembers: 40 };
const app = "app" as AppId;
let rooms = 0;

export const joined = (id: string, json = jsonOf(id)): string =>
  `{"subscribe":{${JSON.stringify(id)}:${json}}}`;
export const left = (id: string): string => `{"unsubscribe":{${JSON.stringify(id)}:null}}`;
export const jsonOf = (id: string): string => JSON.stringify({ id });

/** The promises that every implementation keeps. */
export function presenceSuite(create: (limits: PresenceLimits) => Promise<Subject>): void {
  let subject: Subject;
  let room: Channel;
  beforeEach(async () => {
    subject = await create(limits);
    room = `/app/presence/room${++rooms}` as Channel;
    await subject.announced(app, room);
  });
  afterEach(async () => {
    await subject.close();
  });

  /** The list, or the code of the refusal. */
  async function join(
    id: string,
    clientId = id,
    json = jsonOf(id),
    allowed = maxListLength,
    presence = subject.one,
  ): Promise<string> {
    try {
      return (await presence.join(app, room, clientId, { id, json }, allowed)).list;
    } catch (error) {
      if (error instanceof Refusal) return error.code;
      throw error;
    }
  }

  async function said(): Promise<string[]> {
    return (await subject.announced(app, room)).map(({ data }) => data);
  }

  async function membersOf(presence: Presence): Promise<Record<string, unknown>> {
    return JSON.parse(await presence.members(app, room)) as Record<string, unknown>;
  }

  test("[PRES-5] [PRES-6] one join and one leave for each id, however many sessions, wherever", async () => {
    const { one, two } = subject;
    await join("a", "tab1");
    await join("a", "tab2", undefined, undefined, two);
    await join("b", "tab3", undefined, undefined, two);
    await join("a", "tab1");
    expect(await membersOf(two)).toEqual({ a: { id: "a" }, b: { id: "b" } });
    expect(await one.counts(app, [room, "/app/presence/nobody" as Channel])).toEqual([2, 0]);
    await one.leave(app, room, "tab1");
    await one.leave(app, room, "tab1");
    await one.leave(app, room, "stranger");
    expect(await membersOf(one)).toHaveProperty("a");
    await two.leave(app, room, "tab2");
    await two.leave(app, room, "tab3");
    expect(await membersOf(one)).toEqual({});
    expect(await said()).toEqual([joined("a"), joined("b"), left("a"), left("b")]);
  });

  test("[PRES-2] any text is an id, and any object goes with it", async () => {
    const ids = ["", " ", "a b", "__proto__", 'q"\\', "é☃𝄞", "\ud800", "length", "1\n2", "null"];
    for (const id of ids) await join(id);
    const list = JSON.parse(await join("last", "last", '{"id":"last","x":"é☃𝄞"}'));
    expect(Object.keys(list).sort()).toEqual(
      [...ids, "last"].map((id) => JSON.parse(JSON.stringify(id)) as string).sort(),
    );
    for (const id of ids) await subject.one.leave(app, room, id);
    expect(await membersOf(subject.two)).toEqual({ last: { id: "last", x: "é☃𝄞" } });
    expect((await said()).slice(-ids.length)).toEqual(ids.map(left));
  });

  test("[PRES-5] the newest object is kept, and not announced", async () => {
    await join("a", "tab1", '{"id":"a","mood":"old"}');
    const list = await join("a", "tab2", '{"id":"a","mood":"new"}', undefined, subject.two);
    expect(list).toBe('{"a":{"id":"a","mood":"new"}}');
    await subject.two.leave(app, room, "tab2");
    expect(await subject.one.members(app, room)).toBe(list);
    expect(await said()).toEqual([joined("a", '{"id":"a","mood":"old"}')]);
  });

  test("[PRES-7] another id leaves the first", async () => {
    await join("a", "tab");
    expect(await join("b", "tab")).toBe('{"b":{"id":"b"}}');
    await join("c", "other");
    await join("c", "tab");
    await subject.one.leave(app, room, "other");
    expect(await membersOf(subject.one)).toEqual({ c: { id: "c" } });
    expect(await said()).toEqual([joined("a"), left("a"), joined("b"), joined("c"), left("b")]);
  });

  test("[PRES-4] the list is that of its position: with the changes behind it, it is right", async () => {
    const { one, two } = subject;
    const joins = Array.from({ length: 30 }, (_, index) => {
      const presence = index % 2 === 0 ? one : two;
      const id = `m${index}`;
      return presence.join(app, room, id, { id, json: jsonOf(id) }, maxListLength);
    });
    const snapshots = await Promise.all(joins);
    await one.leave(app, room, "m0");
    const changes = await subject.announced(app, room);
    for (const { list, position } of snapshots) {
      const members = new Set(Object.keys(JSON.parse(list) as object));
      for (const change of changes) {
        expect(change.position.epoch).toBe(position?.epoch);
        if (change.position.seq <= (position?.seq ?? 0)) continue;
        const { subscribe = {}, unsubscribe = {} } = JSON.parse(change.data) as {
          subscribe?: object;
          unsubscribe?: object;
        };
        for (const id of Object.keys(subscribe)) members.add(id);
        for (const id of Object.keys(unsubscribe)) members.delete(id);
      }
      expect([...members].sort()).toEqual(Object.keys(await membersOf(one)).sort());
    }
  });

  test("a session that another node takes over is not announced, and is that one's from then on", async () => {
    const { one, two } = subject;
    await join("a", "tab");
    const member = { id: "a", json: jsonOf("a") };
    await two.adopt(app, room, "tab", member);
    one.forget(app, room, "tab");
    if (one !== two) await one.leave(app, room, "tab");
    expect(await membersOf(one)).toEqual({ a: { id: "a" } });
    expect(await said()).toEqual([joined("a")]);
    // It may go back and forth.
    await one.adopt(app, room, "tab", member);
    two.forget(app, room, "tab");
    await one.leave(app, room, "tab");
    expect(await membersOf(one)).toEqual({});
    // It is no longer there, for whatever reason.
    await two.adopt(app, room, "tab", member);
    await two.leave(app, room, "tab");
    expect(await said()).toEqual([joined("a"), left("a"), joined("a"), left("a")]);
  });

  describe("limits", () => {
    /** A list is full before a channel has all its members. */
    const large = (id: string): string => JSON.stringify({ id, about: "x".repeat(100_000) });

    test("[LIM-7] on objects and members", async () => {
      expect(await join("big", "big", JSON.stringify("é".repeat(100_000)))).toBe(
        "presenceTooLarge",
      );
      for (let index = 0; index < limits.presenceMembers; index++) await join(`m${index}`);
      expect(await join("late")).toBe("presenceFull");
      expect(await join("m1", "tab")).toContain('"m1"');
      // One who would make room by another id comes when there is room.
      expect(await join("late", "m2")).toBe("presenceFull");
      await subject.one.leave(app, room, "m3");
      expect(await join("late", "m2")).toContain('"late"');
      expect(await subject.one.counts(app, [room])).toEqual([limits.presenceMembers - 1]);
      expect(await said()).toHaveLength(limits.presenceMembers + 3);
    });

    test("[LIM-7] a list is only made when it is no longer than this request may be answered with", async () => {
      const ids = ["one", "__proto__", 'q"', "é☃𝄞"];
      let list = "";
      for (const id of ids) list = await join(id);
      const before = (await said()).length;
      // Whoever is there already gets the same list, if it fits.
      expect(await join("one", "tab", undefined, list.length)).toHaveLength(list.length);
      expect(await join("one", "tab", undefined, list.length - 1)).toBe("batchTooLong");
      expect(await join("new", "new", undefined, list.length)).toBe("batchTooLong");
      expect(await said()).toHaveLength(before);
      expect(await join("watcher")).not.toContain('"new"');
    });

    test("[LIM-7] a list is measured as it is, however members came, changed and left", async () => {
      await join("one");
      for (const mood of ["", "x".repeat(100), "yy", "é☃𝄞"]) {
        const list = await join("other", "other", JSON.stringify({ id: "other", mood }));
        expect(await join("one", "one", undefined, list.length)).toHaveLength(list.length);
        expect(await join("one", "one", undefined, list.length - 1)).toBe("batchTooLong");
      }
      await join("third", "other");
      await subject.one.leave(app, room, "other");
      const list = '{"one":{"id":"one"}}';
      expect(await join("one", "one", undefined, list.length)).toBe(list);
      expect(await join("one", "one", undefined, list.length - 1)).toBe("batchTooLong");
      await subject.one.leave(app, room, "one");
      expect(await join("one", "one", undefined, list.length)).toBe(list);
    });

    test("[LIM-7] a list is never longer than one request may be answered with: the channel is full before", async () => {
      let members = 0;
      let list = "";
      for (; members < limits.presenceMembers; members++) {
        const result = await join(`m${members}`, undefined, large(`m${members}`));
        if (result === "presenceFull") break;
        list = result;
      }
      expect(list.length).toBeLessThanOrEqual(maxListLength);
      expect(Object.keys(JSON.parse(list) as object)).toHaveLength(members);
      expect(members).toBeGreaterThan(28);
      // Who is there stays there, and one who leaves makes room.
      expect(await join("m0", "tab", large("m0"))).toHaveLength(list.length);
      await subject.one.leave(app, room, "m1");
      expect(await join("m1", "m1", large("m1"))).toHaveLength(list.length);
    });
  });
}
