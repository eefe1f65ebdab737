import { describe, expect, test } from "vitest";
import { batchesOf, type Parcel, parse } from "./transport.js";

const parcels = (count: number, data: unknown = 0): Parcel[] =>
  Array.from({ length: count }, (_, id) => ({
    channel: "/a",
    id: String(id),
    text: JSON.stringify({ id, data }),
  }));

describe("batchesOf", () => {
  test("T25 gives an empty batch for no message", () => {
    expect(batchesOf([])).toEqual([{ parcels: [], text: "[]" }]);
  });

  test("puts a few messages into one batch, as JSON", () => {
    const all = parcels(3, "ä");
    const batches = batchesOf(all);
    expect(batches.map((batch) => batch.parcels)).toEqual([all]);
    expect(batches.map((batch) => JSON.parse(batch.text))).toEqual([
      [0, 1, 2].map((id) => ({ id, data: "ä" })),
    ]);
  });

  test.each([
    [100, [100]],
    [101, [100, 1]],
    [500, [100, 100, 100, 100, 100]],
  ])("cuts %i messages into batches of at most 100", (count, sizes) => {
    expect(batchesOf(parcels(count)).map((batch) => batch.parcels.length)).toEqual(sizes);
  });

  test("cuts where a batch would be longer than 64 Ki characters", () => {
    const all = parcels(9, "x".repeat(20_000));
    const batches = batchesOf(all);
    expect(batches.map((batch) => batch.parcels.length)).toEqual([3, 3, 3]);
    for (const { text } of batches) expect(text.length).toBeLessThan(65_536 + 200);
  });

  test("gives a message that is too long a batch of its own", () => {
    const [first, last] = parcels(2);
    const [long] = parcels(1, "x".repeat(100_000));
    const batches = batchesOf([first, long, last] as Parcel[]);
    expect(batches.map((batch) => batch.parcels)).toEqual([[first], [long], [last]]);
  });

  test("puts each message into a batch of its own for a server that takes no more", () => {
    const all = parcels(3);
    expect(batchesOf(all, 1).map((batch) => batch.parcels)).toEqual(all.map((each) => [each]));
  });

  test("keeps the order", () => {
    const ids = batchesOf(parcels(250)).flatMap((batch) => batch.parcels.map(({ id }) => id));
    expect(ids).toEqual(parcels(250).map(({ id }) => id));
  });
});

describe("parse", () => {
  test("reads an array, and one message alone", () => {
    expect(parse('[{"channel":"/a"},{"channel":"/b"}]')).toHaveLength(2);
    expect(parse('{"channel":"/a"}')).toEqual([{ channel: "/a" }]);
    expect(parse("[]")).toEqual([]);
  });

  test("passes over what is no message", () => {
    expect(parse('[null, 1, "x", {"channel":"/a"}]')).toEqual([{ channel: "/a" }]);
  });

  test("throws on what is no JSON", () => {
    expect(() => parse("<html>")).toThrow(SyntaxError);
  });
});

test("fields of wrong types are mended or left out, and times are bounded", () => {
  const odd = {
    error: 7,
    ext: "text",
    supportedConnectionTypes: "websocket",
    advice: { reconnect: "retry", interval: 1e12, timeout: "soon" },
  };
  expect(parse(JSON.stringify([odd]))).toEqual([
    { error: "7", advice: { reconnect: "retry", interval: 3_600_000 } },
  ]);
  expect(parse('[{"advice":3},{"advice":{"interval":-5}}]')).toEqual([
    {},
    { advice: { interval: 0 } },
  ]);
});
