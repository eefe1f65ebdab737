import { expect, test } from "vitest";
import { msOf } from "./time.js";

test("seconds become the milliseconds of a timer, which counts to 24 days", () => {
  expect([0, 0.1, 60, 3e6, Number.POSITIVE_INFINITY].map(msOf)).toEqual([
    0,
    100,
    60_000,
    2 ** 31 - 1,
    2 ** 31 - 1,
  ]);
});
