import { readFileSync } from "node:fs";
import { describe, expect, test } from "vitest";
import { PandapushError } from "./error.js";

describe("PandapushError", () => {
  test.each([
    ["402:data:Missing required parameter", 402, ["data"], "Missing required parameter"],
    ["405::Invalid channel", 405, [""], "Invalid channel"],
    ["301:a,b:Connection types not supported", 301, ["a", "b"], "Connection types not supported"],
    ["500::first\nsecond: third", 500, [""], "first\nsecond: third"],
    ["503::", 503, [""], ""],
  ])("T45 reads %j as code, parameters and text", (text, code, params, message) => {
    const error = PandapushError.parse(text);
    expect({ ...error, message: error.message }).toMatchObject({ code, params, message });
    expect(String(error)).toBe(text);
  });

  test.each(["Invalid token", "", "1:2", "4055:/a:Invalid", "40:/a:Invalid", "a:b:c"])(
    "T45 takes %j for a text alone",
    (text) => {
      const error = PandapushError.parse(text);
      expect(error).toMatchObject({ code: null, params: [], message: text });
      expect(String(error)).toBe(text);
    },
  );

  test("is an error with a name and a stack", () => {
    const error = PandapushError.parse("Invalid token");
    expect(error).toBeInstanceOf(Error);
    expect(error.name).toBe("PandapushError");
    expect(error.stack).toContain("error.test.ts");
  });

  test("has the reply's detail, when it is a text", () => {
    const reply = { channel: "/a", error: "Expired key" };
    expect(PandapushError.from({ ...reply, ext: { detail: "Make one" } }).detail).toBe("Make one");
    expect(PandapushError.from({ ...reply, ext: { detail: 1 } }).detail).toBeUndefined();
    expect(PandapushError.from(reply).detail).toBeUndefined();
  });

  test("has a reason that fits what docs/protocol.md says of permission", () => {
    const rules = readFileSync(new URL("../../docs/protocol.md", import.meta.url), "utf8");
    const rows = [...rules.matchAll(/^\| \*\*AUTH-(\d+)\*\* \|.*\| (.*) \|$/gm)].slice(2);
    expect(rows.map(([, number]) => Number(number))).toEqual([
      3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14,
    ]);
    for (const [, number, texts = ""] of rows) {
      const reason = Number(number) < 12 ? "unauthenticated" : "forbidden";
      const found = [...texts.matchAll(/`([^`]+)`/g)].map(([, text = ""]) => text);
      expect(found.length).toBeGreaterThan(0);
      for (const text of found)
        expect([text, PandapushError.parse(text).reason]).toEqual([text, reason]);
    }
  });

  test.each([
    ["401:c:Unknown client", "unauthenticated"],
    ["403:/meta/x:Forbidden channel", "forbidden"],
    ["405:/a:Invalid channel", "refused"],
    ["Invalid channel name", "refused"],
    ["Presence channel is full", "refused"],
  ])("has for %j the reason %j", (text, reason) => {
    expect(PandapushError.parse(text).reason).toBe(reason);
  });

  test("says so when the server gave no reason", () => {
    expect(PandapushError.from({ channel: "/a" }).message).toBe("The server gave no reason");
  });
});
