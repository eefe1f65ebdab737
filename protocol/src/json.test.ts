import { describe, expect, test } from "vitest";
import { elementSpans, ownText, stripAuth, visitMembers, withoutMember } from "./json.js";

function members(text: string): [name: string, value: string][] {
  const found: [string, string][] = [];
  visitMembers(text, text.indexOf("{"), (name, _start, from, to) => {
    found.push([name, text.slice(from, to)]);
  });
  return found;
}

function elements(text: string): string[] {
  return elementSpans(text).map(({ start, end }) => text.slice(start, end));
}

describe("members of an object", () => {
  test.each<[string, [string, string][]]>([
    ["{}", []],
    ["{ \n}", []],
    ['{"a":1}', [["a", "1"]]],
    [
      '{ "a" :\t1 ,\n"b": [1, {"c":2}] }',
      [
        ["a", "1"],
        ["b", '[1, {"c":2}]'],
      ],
    ],
    ['{"":"" }', [["", '""']]],
    [
      '{"a":1,"a":2}',
      [
        ["a", "1"],
        ["a", "2"],
      ],
    ],
    [
      '{"\\u0061":1,"\\"":2,"\\\\":3}',
      [
        ["a", "1"],
        ['"', "2"],
        ["\\", "3"],
      ],
    ],
    [
      '{"a":"\\"}","b":"\\\\"}',
      [
        ["a", '"\\"}"'],
        ["b", '"\\\\"'],
      ],
    ],
    [
      '{"a":"{[,:]}","b":{"c":"}"}}',
      [
        ["a", '"{[,:]}"'],
        ["b", '{"c":"}"}'],
      ],
    ],
    ['{"é\u2028😀":"☃"}', [["é\u2028😀", '"☃"']]],
    [
      '{"__proto__":true,"x":-1.5e+3}',
      [
        ["__proto__", "true"],
        ["x", "-1.5e+3"],
      ],
    ],
  ])("%s", (text, expected) => {
    expect(members(text)).toEqual(expected);
  });
});

describe("elements of an array", () => {
  test.each<[string, string[]]>([
    ["[]", []],
    [" [ ] ", []],
    ["[1]", ["1"]],
    ["[ 1 , 2 ]", ["1", "2"]],
    ['["]",[["]"]],{"a":"]"}]', ['"]"', '[["]"]]', '{"a":"]"}']],
    ['[null,true,"\\\\","\\""]', ["null", "true", '"\\\\"', '"\\""']],
    ['  {"a":1} ', ['{"a":1}']],
    [" 5 ", ["5"]],
  ])("%s", (text, expected) => {
    expect(elements(text)).toEqual(expected);
  });
});

describe("an object without a member", () => {
  test.each([
    ['{"a":1}', '{"a":1}'],
    ['{ "a" : 1 }', '{ "a" : 1 }'],
    ['{"x":1}', "{}"],
    ['{ "x" : 1 , "a" : 2 , "b" : "\\u0041" }', '{"a" : 2,"b" : "\\u0041"}'],
    ['{"x":1,"a":{"x":2},"\\u0078":3}', '{"a":{"x":2}}'],
    ['{"x":{"y":"}"},"a":"x"}', '{"a":"x"}'],
  ])("%s", (text, expected) => {
    expect(withoutMember(text, "x")).toBe(expected);
  });
});

describe("[PUB-8] data without credentials", () => {
  test.each([
    ["null", "null"],
    ['"__auth"', '"__auth"'],
    ['["__auth",{"__auth":1}]', '["__auth",{"__auth":1}]'],
    ['{"a":"__auth"}', '{"a":"__auth"}'],
    ['{"a":{"__auth":1}}', '{"a":{"__auth":1}}'],
    ['{"__auth":{"key":"k"},"a":1.0}', '{"a":1.0}'],
    ['{"a":1.0,"__auth":null}', '{"a":1.0}'],
    ['{"\\u005f\\u005fauth":1,"a":"\\/"}', '{"a":"\\/"}'],
    ['{"_\\u005Fa\\u0075th":1}', "{}"],
    ['{"\\\\u005f_auth":1}', '{"\\\\u005f_auth":1}'],
    ['{"__auth ":1,"__AUTH":2}', '{"__auth ":1,"__AUTH":2}'],
  ])("%s", (text, expected) => {
    expect(stripAuth(text)).toBe(expected);
  });
});

/** mulberry32: small, and the same numbers for the same seed. */
function random(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** JSON text as nobody would write it: odd white space, escapes, repeated names, brackets in texts. */
class Writer {
  private readonly next: () => number;

  constructor(seed: number) {
    this.next = random(seed);
  }

  object(depth: number): string {
    const count = Math.floor(this.next() * 5);
    const all = Array.from(
      { length: count },
      () =>
        `${this.space()}${this.name()}${this.space()}:${this.space()}${this.value(depth - 1)}${this.space()}`,
    );
    return `{${all.join(",") || this.space()}}`;
  }

  array(depth: number): string {
    const count = Math.floor(this.next() * 4);
    const all = Array.from(
      { length: count },
      () => this.space() + this.value(depth - 1) + this.space(),
    );
    return `[${all.join(",") || this.space()}]`;
  }

  private value(depth: number): string {
    const kind = this.next();
    if (depth > 0 && kind < 0.25) return this.object(depth);
    if (depth > 0 && kind < 0.45) return this.array(depth);
    if (kind < 0.8) return this.text();
    return this.pick(["0", "-0", "1.50", "1e5", "-1E-2", "12345678901234567890", "true", "null"]);
  }

  private name(): string {
    return this.pick([
      '"a"',
      '"data"',
      '"__auth"',
      '"\\u005f\\u005fauth"',
      '"_\\u005fa\\u0075th"',
      '"__proto__"',
      '""',
      this.text(),
    ]);
  }

  private text(): string {
    const parts = [
      "a",
      "é",
      "\u2028",
      "😀",
      "{",
      "}",
      "[",
      "]",
      ",",
      ":",
      " ",
      '\\"',
      "\\\\",
      "\\/",
      "\\n",
      "\\ud83d",
      "\\u0022",
      "\\u005c",
      "__auth",
    ];
    const count = Math.floor(this.next() * 6);
    return `"${Array.from({ length: count }, () => this.pick(parts)).join("")}"`;
  }

  private space(): string {
    return this.pick(["", "", "", " ", "\n", "\t", "\r\n "]);
  }

  private pick<T>(items: readonly T[]): T {
    return items[Math.floor(this.next() * items.length)] as T;
  }
}

test.each([[1], [2], [3], [Date.now() % 1_000_000_007]])(
  "agrees with JSON.parse on texts of every kind (seed %i)",
  (seed) => {
    const writer = new Writer(seed);
    for (let round = 0; round < 2_000; round++) {
      const object = writer.object(4);
      const parsed = JSON.parse(object) as Record<string, unknown>;
      const last = new Map(members(object).map(([name, text]) => [name, JSON.parse(text)]));
      expect(Object.fromEntries(last), object).toEqual(parsed);

      const stripped = stripAuth(object);
      const expected = Object.entries(parsed).filter(([name]) => name !== "__auth");
      expect(Object.entries(JSON.parse(stripped)).sort(), object).toEqual(expected.sort());
      if (!Object.hasOwn(parsed, "__auth")) expect(stripped).toBe(object);

      const array = writer.array(4);
      expect(
        elements(array).map((text) => JSON.parse(text)),
        array,
      ).toEqual(JSON.parse(array));
    }
  },
);

test("a text of its own is the same text, lone surrogates and all", () => {
  const texts = [
    "",
    "a",
    '{"a":1.0}',
    "é☃😀",
    "\ud800",
    "\udc00 \ud83d",
    " x ".repeat(1_000),
    "\u0000",
  ];
  for (const text of texts) expect(ownText(text)).toBe(text);
});
