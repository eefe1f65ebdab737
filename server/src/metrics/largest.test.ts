import type { AppId } from "@pandapush/protocol";
import { expect, test } from "vitest";
import type { Activity } from "../node.js";
import { LargestApps, type Shown } from "./largest.js";

function activity(fields: Partial<Activity>): Activity {
  return {
    connections: 0,
    subscriptions: 0,
    channels: 0,
    published: 0,
    delivered: 0,
    publishedPerSecond: 0,
    deliveredPerSecond: 0,
    subscribed: 0,
    unsubscribed: 0,
    ...fields,
  };
}

function apps(all: Record<string, Partial<Activity>>): ReadonlyMap<AppId, Activity> {
  return new Map(Object.entries(all).map(([id, fields]) => [id as AppId, activity(fields)]));
}

/** What is shown of each. */
function shown(
  counted: ReadonlyMap<string, Shown>,
  ...fields: (keyof Shown)[]
): Record<string, number[]> {
  return Object.fromEntries(
    Array.from(counted, ([name, each]) => [name, fields.map((field) => each[field])]),
  );
}

test("the largest have a name, and the others are one", () => {
  const largest = new LargestApps(2);
  const counted = largest.count(
    apps({
      a: { connections: 1, channels: 1 },
      b: { connections: 20, channels: 2 },
      c: { connections: 3, channels: 3 },
      d: { publishedPerSecond: 9, channels: 4 },
    }),
  );
  expect(shown(counted, "connections", "channels")).toEqual({
    b: [20, 2],
    d: [0, 4],
    other: [4, 4],
  });
});

test("counters never fall, and add up, whoever is among the largest", () => {
  const largest = new LargestApps(1);
  const see = (a: Partial<Activity>, b: Partial<Activity>) =>
    shown(largest.count(apps({ a, b })), "published");
  expect(see({ connections: 9, published: 100 }, { published: 10 })).toEqual({
    a: [100],
    other: [10],
  });
  expect(see({ connections: 9, published: 110 }, { connections: 99, published: 15 })).toEqual({
    b: [5],
    other: [20],
  });
  expect(see({ connections: 999, published: 111 }, { published: 17 })).toEqual({
    a: [101],
    other: [22],
  });
});

test("one that is shown stays until another is clearly larger", () => {
  const largest = new LargestApps(1);
  const names = (a: number, b: number) => [
    ...largest.count(apps({ a: { connections: a }, b: { connections: b } })).keys(),
  ];
  expect(names(10, 9)).toEqual(["other", "a"]);
  expect(names(10, 14)).toEqual(["other", "a"]);
  expect(names(10, 16)).toEqual(["other", "b"]);
  expect(names(10, 9)).toEqual(["other", "b"]);
});

test("an application that was deleted and made again is counted from nothing", () => {
  const largest = new LargestApps(1);
  const see = (published: number) => shown(largest.count(apps({ a: { published } })), "published");
  expect(see(5)).toEqual({ other: [0], a: [5] });
  expect(see(2)).toEqual({ other: [0], a: [7] });
  expect(shown(largest.count(apps({})), "published")).toEqual({ other: [0] });
  expect(see(3)).toEqual({ other: [0], a: [3] });
});

test("an application that is called other is one of them", () => {
  const counted = new LargestApps(5).count(
    apps({ other: { connections: 9, published: 1 }, a: { published: 2 } }),
  );
  expect(shown(counted, "connections", "published")).toEqual({ a: [0, 2], other: [9, 1] });
});

test("without room for any, all are others", () => {
  const counted = new LargestApps(0).count(apps({ a: { published: 2 }, b: { published: 3 } }));
  expect(shown(counted, "published")).toEqual({ other: [5] });
});
