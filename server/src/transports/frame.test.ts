import { expect, test } from "vitest";
import { textFrame } from "./frame.js";

test.each([
  { length: 0, header: [0x81, 0] },
  { length: 1, header: [0x81, 1] },
  { length: 125, header: [0x81, 125] },
  { length: 126, header: [0x81, 126, 0, 126] },
  { length: 65_535, header: [0x81, 126, 0xff, 0xff] },
  { length: 65_536, header: [0x81, 127, 0, 0, 0, 0, 0, 1, 0, 0] },
])("$length bytes get the shortest header that can say so", ({ length, header }) => {
  const text = "x".repeat(length);
  const frame = textFrame(text);
  expect([...frame.subarray(0, header.length)]).toEqual(header);
  expect(frame.subarray(header.length).toString()).toBe(text);
});

test("lengths count bytes of UTF-8, not characters", () => {
  // 42 characters of 3 bytes each are 126 bytes.
  const frame = textFrame("☃".repeat(42));
  expect([...frame.subarray(0, 4)]).toEqual([0x81, 126, 0, 126]);
  expect(frame.length).toBe(4 + 126);
  expect(textFrame("é").toString("hex")).toBe("8102c3a9");
});

test("what is no Unicode becomes a replacement character: the frame is always valid UTF-8", () => {
  expect(textFrame("\ud800").subarray(2).toString("hex")).toBe("efbfbd");
  expect(textFrame("\ud83d\ude00").subarray(2).toString("hex")).toBe("f09f9880");
});
