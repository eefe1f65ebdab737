import { expect, test } from "vitest";
import { Arrivals } from "./arrivals.js";

const event = (id?: string) => ({ channel: "/a", data: 1, ...(id !== undefined && { id }) });

test("a publication of Pandapush, which counts what it sends, is no news when it comes again", () => {
  const arrivals = new Arrivals();
  arrivals.isBehind(0);
  expect(arrivals.isNews(event("n-1"))).toBe(true);
  expect(arrivals.isNews(event("n-2"))).toBe(true);
  expect(arrivals.isNews(event("n-1"))).toBe(false);
});

test("ids of other servers' publishers may repeat", () => {
  const arrivals = new Arrivals();
  for (const id of ["n-1", "n-1", undefined, undefined]) {
    expect(arrivals.isNews(event(id))).toBe(true);
  }
});

test("the last two thousand publications are remembered, not all", () => {
  const arrivals = new Arrivals();
  arrivals.isBehind(0);
  for (let n = 0; n < 2_049; n++) arrivals.isNews(event(`n-${n}`));
  expect(arrivals.isNews(event("n-1"))).toBe(false);
  expect(arrivals.isNews(event("n-0"))).toBe(true);
});

test("something is missing when the server has sent more than came, which is told once", () => {
  const arrivals = new Arrivals();
  arrivals.isBehind(0);
  arrivals.isNews(event("n-1"));
  arrivals.isNews(event("n-1"));
  arrivals.isNews({ channel: "/meta/subscribe", successful: false });
  arrivals.isNews({ channel: "/meta/connect", id: "late", successful: true });
  expect(arrivals.isBehind(2)).toBe(false);
  expect(arrivals.isBehind(3)).toBe(true);
  expect(arrivals.isBehind(3)).toBe(false);
  arrivals.newSession();
  expect(arrivals.isBehind(0)).toBe(false);
  expect(arrivals.isBehind(1)).toBe(true);
});
