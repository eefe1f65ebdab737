import { expect, test } from "vitest";
import { parseEnd } from "./duration.js";

const start = new Date("2026-01-31T10:00:00.000Z");
const end = (text: string) => parseEnd(text, start)?.toISOString();

test.each([
  ["PT1H", "2026-01-31T11:00:00.000Z"],
  ["PT90M", "2026-01-31T11:30:00.000Z"],
  ["PT1H30M15S", "2026-01-31T11:30:15.000Z"],
  ["P1D", "2026-02-01T10:00:00.000Z"],
  ["P2W", "2026-02-14T10:00:00.000Z"],
  ["P1DT12H", "2026-02-01T22:00:00.000Z"],
  ["P1Y", "2027-01-31T10:00:00.000Z"],
  ["P1M", "2026-03-03T10:00:00.000Z"],
  ["p1y2m3dt4h5m6s", "2027-04-03T14:05:06.000Z"],
  ["2027-01-01", "2027-01-01T00:00:00.000Z"],
  ["2027-01-01T12:30", "2027-01-01T12:30:00.000Z"],
  ["2027-01-01T12:30:00+02:00", "2027-01-01T10:30:00.000Z"],
  ["2027-01-01T12:30:00.250Z", "2027-01-01T12:30:00.250Z"],
])("%s ends at %s", (text, expected) => {
  expect(end(text)).toBe(expected);
});

test.each([
  "",
  "P",
  "PT",
  "P1",
  "1H",
  "P1H",
  "PT1D",
  "P-1D",
  "P1.5D",
  "P1DT",
  "tomorrow",
  "2027",
  "2027-13-01",
  "2027-01-01 12:00",
  "P999999Y",
  "P8000Y",
])("%j is neither a duration nor a date", (text) => {
  expect(end(text)).toBeUndefined();
});
