import { readFileSync } from "node:fs";
import { describe, expect, test } from "vitest";
import {
  encodeBatch,
  encodeEvent,
  encodeReply,
  MalformedBatch,
  parseBatch,
  type Request,
  replyTo,
} from "./message.js";

interface Vector {
  readonly name: string;
  readonly given: string;
  /** The requests in it, without what is undefined; null: no batch at all. */
  readonly expect: readonly object[] | null;
}

const vectors = JSON.parse(
  readFileSync(new URL("../vectors/batch.json", import.meta.url), "utf8"),
) as Vector[];

describe("a batch", () => {
  test.each(vectors)("$name", ({ given, expect: expected }) => {
    if (expected === null) expect(() => parseBatch(given, 10)).toThrow(MalformedBatch);
    else expect(parseBatch(given, 10).map(withoutUndefined)).toEqual(expected);
  });

  test("[LIM-2] has no more messages than allowed", () => {
    const batch = (length: number) => `[${Array(length).fill("{}").join()}]`;
    expect(parseBatch(batch(10), 10).length).toBe(10);
    expect(() => parseBatch(batch(11), 10)).toThrow("at most 10");
    expect(() => parseBatch(`[${Array(11).fill("null").join()}]`, 10)).toThrow("at most 10");
  });

  test("that is malformed is not quoted, for it may hold secrets", () => {
    for (const text of ['{"secret":"s3cret"', '{"secret":"s3cret"} x', "s3cret", '"s3cret"']) {
      let message = "";
      try {
        parseBatch(text, 10);
      } catch (error) {
        message = String(error);
      }
      expect(message).toMatch(/^MalformedBatch: /);
      expect(message).not.toContain("s3cret");
    }
  });

  test("may be nested deeply where nothing of it is repeated", () => {
    const deep = "[".repeat(100_000) + "]".repeat(100_000);
    const [request] = parseBatch(`{"channel":"/a/public/b","data":${deep}}`, 10);
    expect(request).toMatchObject({ kind: "publish", data: deep });
  });

  test.each(["id", "clientId"])("whose %s cannot be repeated is malformed", (field) => {
    const deep = "[".repeat(100_000) + "]".repeat(100_000);
    expect(() => parseBatch(`{"channel":"/meta/connect","${field}":${deep}}`, 10)).toThrow(
      MalformedBatch,
    );
  });
});

describe("[MSG-3] a reply", () => {
  test("repeats what is truthy, in its type", () => {
    const [request] = parseBatch('{"id":{"a":1},"clientId":7,"channel":"/x"}', 1) as [Request];
    expect(encodeReply(replyTo(request))).toBe(
      '{"id":{"a":1},"clientId":7,"channel":"/x","successful":true}',
    );
    const [bare] = parseBatch('{"id":0,"clientId":"","channel":null}', 1) as [Request];
    expect(encodeReply(replyTo(bare))).toBe('{"successful":true}');
  });

  test("has its ext as it was made", () => {
    const ext = '{"presence":{"subscribe":{"__proto__":{"n":1.0}}}}';
    expect(encodeReply({ ...replyTo({}), ext })).toBe(`{"successful":true,"ext":${ext}}`);
  });
});

test("[EV-1] an event has its data and ext as texts", () => {
  expect(encodeEvent("/a/public/b", "1.0", "n-1")).toBe(
    '{"channel":"/a/public/b","data":1.0,"id":"n-1"}',
  );
  expect(encodeEvent("/a/public/b", "[ ]", "n-1", '{"x":1}')).toBe(
    '{"channel":"/a/public/b","data":[ ],"id":"n-1","ext":{"x":1}}',
  );
});

test("[MSG-1] a batch of replies is an array", () => {
  expect(encodeBatch([])).toBe("[]");
  expect(encodeBatch(['{"a":1}', "{}"])).toBe('[{"a":1},{}]');
});

function withoutUndefined(request: Request): object {
  return Object.fromEntries(Object.entries(request).filter(([, value]) => value !== undefined));
}
