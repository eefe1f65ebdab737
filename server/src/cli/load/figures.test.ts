import { expect, test } from "vitest";
import { Durations, Figures, Heard } from "./figures.js";

test("percentiles are right within two percent, also of several processes together", () => {
  const [one, other] = [new Durations(), new Durations()];
  for (let ms = 1; ms <= 1000; ms++) (ms % 2 === 0 ? one : other).add(ms);
  one.merge(JSON.parse(JSON.stringify(other.pack())));
  const { p50 = 0, p90 = 0, p99 = 0, max } = one.summary() ?? {};
  expect(Math.abs(p50 / 500 - 1)).toBeLessThan(0.021);
  expect(Math.abs(p90 / 900 - 1)).toBeLessThan(0.021);
  expect(Math.abs(p99 / 990 - 1)).toBeLessThan(0.021);
  expect(max).toBe(1000);
});

test("there are no percentiles of nothing, and of one time they are that time", () => {
  const durations = new Durations();
  expect(durations.summary()).toBeUndefined();
  durations.add(0.25);
  const { p50 = 0, p99 = 0, max } = durations.summary() ?? {};
  expect(max).toBe(0.25);
  for (const each of [p50, p99]) expect(Math.abs(each / 0.25 - 1)).toBeLessThan(0.041);
});

test("a message counts the first time, in whatever order", () => {
  const heard = new Heard();
  expect([0, 3, 1, 1, 3, 2].map((number) => heard.add(number))).toEqual([
    true,
    true,
    true,
    false,
    false,
    true,
  ]);
});

test("lost is what was confirmed and did not come", () => {
  const heard = new Heard();
  expect(heard.lost({ sent: 3, failed: [1] })).toBe(2);
  for (const number of [0, 2, 5]) heard.add(number);
  // 1, 3, 4 and 6 did not come; of those 3 and 6 were not confirmed, nor was 5, which came.
  expect(heard.lost({ sent: 7, failed: [3, 5, 6] })).toBe(2);
  for (const number of [1, 4]) heard.add(number);
  expect(heard.lost({ sent: 7, failed: [3, 5, 6] })).toBe(0);
});

test("figures of several processes add up, and errors are of a few kinds", () => {
  const [one, all] = [new Figures(), new Figures()];
  one.counts.received = 2;
  for (let kind = 0; kind < 30; kind++) one.error(`error ${kind}`);
  all.merge(JSON.parse(JSON.stringify(one.pack())));
  all.merge(one.pack());
  expect(all.counts.received).toBe(4);
  expect(all.errors.size).toBe(21);
  expect([...all.errors.values()].reduce((sum, each) => sum + each, 0)).toBe(60);
});
