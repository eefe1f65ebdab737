import { readFileSync } from "node:fs";
import { describe, expect, test } from "vitest";
import {
  type Channel,
  covers,
  expand,
  isBayeuxName,
  isBayeuxPattern,
  maxChannelLength,
  maxChannelSegments,
  parseChannel,
} from "./channel.js";

interface Vector<Given, Expected> {
  readonly name: string;
  readonly given: Given;
  readonly expect: Expected;
}

function vectors<Given, Expected>(file: string): Vector<Given, Expected>[] {
  return JSON.parse(readFileSync(new URL(`../vectors/${file}`, import.meta.url), "utf8"));
}

const channels = vectors<
  string,
  {
    readonly channel: { appId: string; kind: string; isPattern: boolean } | null;
    readonly bayeux: "name" | "pattern" | null;
  }
>("channels.json");

const permissions = vectors<{ granted: string; requested: string }, boolean>("covers.json");
const expansions = vectors<string, string[]>("expand.json");

describe("[CH-2] a channel or pattern", () => {
  test.each(channels)("$name", ({ given, expect: expected }) => {
    const parsed = parseChannel(given);
    if (expected.channel === null) expect(parsed).toBeUndefined();
    else expect(parsed).toEqual({ ...expected.channel, name: given });
  });
});

describe("[CH-1] a name or pattern of Bayeux", () => {
  test.each(channels)("$name", ({ given, expect: { bayeux } }) => {
    expect([isBayeuxName(given), isBayeuxPattern(given)]).toEqual([
      bayeux === "name",
      bayeux === "pattern",
    ]);
  });
});

test("[CH-5] the limits are those that are documented", () => {
  expect([maxChannelLength, maxChannelSegments]).toEqual([512, 32]);
});

test("a name that would make a careless expression run for ever is refused quickly", () => {
  const start = performance.now();
  for (const text of [
    "/a/public".padEnd(1_000_000, "/a"),
    `/${"a".repeat(100_000)}!`,
    "/".repeat(1e6),
  ]) {
    expect(parseChannel(text)).toBeUndefined();
    isBayeuxName(text);
    isBayeuxPattern(text);
  }
  expect(performance.now() - start).toBeLessThan(1_000);
});

describe("[CH-4] a publish is heard by", () => {
  test.each(expansions)("$name", ({ given, expect: expected }) => {
    expect([...expand(given as Channel)].sort()).toEqual([...expected].sort());
  });
});

describe("[CH-3] the table of wildcards", () => {
  test.each([
    ["/app/public/users/1", false, false],
    ["/app/public/users/1/foo", true, true],
    ["/app/public/users/1/foo/bar", false, true],
  ])("%s", (channel, heardByOne, heardByAll) => {
    const heard: readonly string[] = expand(channel as Channel);
    expect(heard.includes("/app/public/users/1/*")).toBe(heardByOne);
    expect(heard.includes("/app/public/users/1/**")).toBe(heardByAll);
  });
});

describe("[CH-6] a permission", () => {
  test.each(permissions)("$name", ({ given: { granted, requested }, expect: expected }) => {
    expect(covers(granted, requested)).toBe(expected);
  });
});

describe("[CH-6] delivery and permission agree", () => {
  const names = channels.filter(({ expect: { channel } }) => channel !== null);
  const patterns = names.filter(({ expect: { channel } }) => channel?.isPattern === true);
  const concrete = names.filter(({ expect: { channel } }) => channel?.isPattern === false);

  test.each(concrete)("on who hears $given", ({ given: channel }) => {
    const heardBy = new Set<string>(expand(channel as Channel));
    for (const pattern of heardBy) expect(covers(pattern, channel), pattern).toBe(true);
    for (const { given: pattern } of patterns) {
      expect(heardBy.has(pattern), pattern).toBe(covers(pattern, channel));
    }
  });

  test("whoever may hear a pattern may hear all that it hears", () => {
    const all = permissions.flatMap(({ given: { granted, requested } }) => [granted, requested]);
    for (const granted of all) {
      for (const between of all.filter((name) => covers(granted, name))) {
        for (const requested of all.filter((name) => covers(between, name))) {
          expect(covers(granted, requested), `${granted} ${between} ${requested}`).toBe(true);
        }
      }
    }
  });
});
