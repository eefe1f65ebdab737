import { createHash } from "node:crypto";
import { describe, expect, test } from "vitest";
import type { Statistics } from "../node.js";
import { type Report, sampleSize, together } from "./statistics.js";

const quiet: Statistics = {
  connections: 0,
  subscriptions: 0,
  channels: 0,
  published: 0,
  delivered: 0,
  publishedPerSecond: 0,
  deliveredPerSecond: 0,
};

/** What a node says that has these channels, numbered. */
function report(from: number, to: number, rest: Partial<Statistics> = {}): Report {
  const numbers: number[] = [];
  for (let n = from; n < to; n++) {
    numbers.push(createHash("sha1").update(`/app/public/${n}`).digest().readUInt32BE());
  }
  numbers.sort((one, other) => one - other);
  const statistics = { ...quiet, ...rest, channels: to - from };
  return { statistics, channels: numbers.slice(0, sampleSize) };
}

describe("statistics of several nodes", () => {
  test("are the sums, rates as exact as they are shown", () => {
    const one = { ...quiet, connections: 2, subscriptions: 3, publishedPerSecond: 0.1 };
    const two = { ...quiet, connections: 5, published: 7, delivered: 9, publishedPerSecond: 0.2 };
    const parts = [one, two].map((statistics) => ({ statistics, channels: [] }));
    expect(together(parts)).toEqual({
      ...quiet,
      connections: 7,
      subscriptions: 3,
      published: 7,
      delivered: 9,
      publishedPerSecond: 0.3,
    });
    expect(together([])).toEqual(quiet);
  });

  test("count each channel once, exactly where a node has no more than it tells of", () => {
    const { channels } = together([report(0, 900), report(600, 1_600), report(0, 10)]);
    expect(channels).toBe(1_600);
  });

  test("count the channels of one node exactly, however many", () => {
    expect(together([report(0, 50_000), report(0, 0)]).channels).toBe(50_000);
  });

  test("count more channels within a few percent", () => {
    for (const [parts, exact] of [
      [[report(0, 50_000), report(25_000, 75_000), report(70_000, 70_010)], 75_000],
      [[report(0, 50_000), report(0, 50_000)], 50_000],
      [[report(0, 1_001), report(500, 1_501)], 1_501],
    ] as const) {
      const { channels } = together(parts);
      expect(Math.abs(channels - exact) / exact).toBeLessThan(0.1);
    }
  });
});
