import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { Reconnect } from "./reconnect.js";

const longestMs = 20_000;

describe("the wait before the next attempt", () => {
  beforeEach(() => {
    vi.useFakeTimers({ now: 1_000_000 });
  });
  afterEach(() => {
    vi.useRealTimers();
    vi.restoreAllMocks();
  });

  test("lies between nothing and the base after the first failure", () => {
    const waits = Array.from({ length: 500 }, () => new Reconnect(1_000).nextDelayMs());
    expect(Math.min(...waits)).toBeGreaterThanOrEqual(0);
    expect(Math.max(...waits)).toBeLessThan(1_000);
  });

  test("is spread over the whole range, so that clients do not come back together", () => {
    const waits = Array.from({ length: 500 }, () => new Reconnect(1_000).nextDelayMs());
    for (const from of [0, 250, 500, 750]) {
      expect(waits.some((wait) => wait >= from && wait < from + 250)).toBe(true);
    }
  });

  test("may double with each failure, up to a limit", () => {
    vi.spyOn(Math, "random").mockReturnValue(1);
    const reconnect = new Reconnect(1_000);
    const waits = Array.from({ length: 7 }, () => reconnect.nextDelayMs());
    expect(waits).toEqual([1_000, 2_000, 4_000, 8_000, 16_000, longestMs, longestMs]);
  });

  test("stays within its limit after very many failures", () => {
    vi.spyOn(Math, "random").mockReturnValue(1);
    const reconnect = new Reconnect(1_000);
    for (let i = 0; i < 2_000; i++) reconnect.nextDelayMs();
    expect(reconnect.nextDelayMs()).toBe(longestMs);
  });

  test("begins anew after a connection that lasted", () => {
    vi.spyOn(Math, "random").mockReturnValue(1);
    const reconnect = new Reconnect(1_000);
    reconnect.nextDelayMs();
    reconnect.nextDelayMs();
    reconnect.connected();
    vi.advanceTimersByTime(10_000);
    expect(reconnect.nextDelayMs()).toBe(1_000);
  });

  test("goes on growing after connections that were lost at once", () => {
    vi.spyOn(Math, "random").mockReturnValue(1);
    const reconnect = new Reconnect(1_000);
    reconnect.nextDelayMs();
    reconnect.connected();
    vi.advanceTimersByTime(9_999);
    expect(reconnect.nextDelayMs()).toBe(2_000);
    // Nor does a connection of long ago count for the failures after it.
    vi.advanceTimersByTime(60_000);
    expect(reconnect.nextDelayMs()).toBe(4_000);
  });
});
