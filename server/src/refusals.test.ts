import type { AppId } from "@pandapush/protocol";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { Refusal } from "./errors.js";
import { maxRefusals, RefusalLog } from "./refusals.js";

const app = "app" as AppId;
const denied = () => new Refusal("noAuth");

let log: RefusalLog;
beforeEach(() => {
  vi.useFakeTimers();
  log = new RefusalLog({
    hasApp: (appId) => appId.startsWith("app"),
    hasKey: (_appId, keyId) => keyId.startsWith("PSID"),
  });
});
afterEach(() => {
  vi.useRealTimers();
});

function refuse(name: string | number, refusal = denied()): void {
  log.addForChannel("publish", `/${app}/private/${name}`, refusal);
}

const listed = () => log.list(app).map(({ channel, count }) => [channel?.split("/").at(-1), count]);

describe("refusals", () => {
  test("are counted when they are equal, and listed by when they happened last", () => {
    for (const name of ["a", "b", "a", "a", "c"]) refuse(name);
    log.addForChannel("subscribe", `/${app}/private/a`, denied());
    refuse("a", new Refusal("invalidSecret"));
    refuse("b");
    expect(listed()).toEqual([
      ["b", 2],
      ["a", 1],
      ["a", 1],
      ["c", 1],
      ["a", 3],
    ]);
  });

  test("tell when they happened first and last, and what was known the last time", () => {
    const start = Date.now();
    const first = new Refusal("tooLarge", [], "first");
    first.keyId = "PSIDone";
    refuse("a", first);
    vi.advanceTimersByTime(500);
    refuse("a", new Refusal("tooLarge", [], "last"));
    expect(log.list(app)).toEqual([
      {
        action: "publish",
        channel: "/app/private/a",
        message: "Message too large",
        details: "last",
        keyId: "PSIDone",
        firstAt: start,
        lastAt: start + 500,
        count: 2,
      },
    ]);
  });

  test("do not show the key of another application", () => {
    const foreign = new Refusal("unknownKey");
    foreign.keyId = "another";
    refuse("a", foreign);
    expect(log.list(app)).toMatchObject([{ keyId: null }]);
  });

  test("are kept up to a number; those that happened again least lately go first", () => {
    for (let n = 0; n < maxRefusals; n++) refuse(n);
    refuse(0);
    vi.advanceTimersByTime(1_000);
    refuse("new");
    const names = listed().map(([name]) => name);
    expect(names).toHaveLength(maxRefusals);
    expect(names.slice(0, 2)).toEqual(["new", "0"]);
    expect(names).not.toContain("1");
    expect(names).toContain("2");
  });

  test("of a flood make no more entries than are kept, and go on to be counted", () => {
    for (let n = 0; n < 10 * maxRefusals; n++) refuse(n);
    expect(listed()[0]).toEqual([`${maxRefusals - 1}`, 1]);
    refuse(7);
    expect(listed()[0]).toEqual(["7", 2]);
    vi.advanceTimersByTime(1_000);
    refuse("later");
    expect(listed()[0]).toEqual(["later", 1]);
  });

  test("are kept for a number of applications, and for none that does not exist", () => {
    const refuseIn = (appId: string) =>
      log.addForChannel("publish", `/${appId}/public/a`, denied());
    for (let n = 0; n < 500; n++) refuseIn(`app${n}`);
    refuseIn("app0");
    refuseIn("app500");
    expect(log.list("app0" as AppId)).toHaveLength(1);
    expect(log.list("app1" as AppId)).toEqual([]);
    expect(log.list("app500" as AppId)).toHaveLength(1);
    refuseIn("nobody");
    expect(log.list("nobody" as AppId)).toEqual([]);
  });

  test.each([undefined, null, 7, {}, "", "/", "app", "app/x"])(
    "of the channel %j are no application's",
    (channel) => {
      log.addForChannel("publish", channel, denied());
      expect(log.list(app)).toEqual([]);
    },
  );

  test("keep what is long for so long only", () => {
    refuse("x".repeat(5_000), new Refusal("tooLarge", [], "y".repeat(5_000)));
    const [entry] = log.list(app);
    expect([entry?.channel?.length, entry?.details.length]).toEqual([256, 256]);
  });
});
