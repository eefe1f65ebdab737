/** Values and messages that no honest client sends, as JSON text. */
import { createHmac } from "node:crypto";
import { appId, keyId, secret, token } from "../harness.js";

/** Deeper than what many JSON writers and recursive functions stand. */
export const nestedArray = (depth: number): string => "[".repeat(depth) + "]".repeat(depth);
const nestedObject = (depth: number): string => `${'{"a":'.repeat(depth)}1${"}".repeat(depth)}`;

/** In place of any field of any message. */
export const hostileValues: Readonly<Record<string, string>> = {
  null: "null",
  true: "true",
  zero: "0",
  "minus one": "-1",
  infinity: "1e999",
  "a long number": "9".repeat(400),
  "the empty string": '""',
  "the empty array": "[]",
  "an array of nothing": "[null,[],{}]",
  "the empty object": "{}",
  "a deep array": nestedArray(10_000),
  "a deep object": nestedObject(5_000),
  "an array as deep as few stand": nestedArray(1_000),
  __proto__: '"__proto__"',
  constructor: '"constructor"',
  "a member __proto__": '{"__proto__":{"polluted":true}}',
  "a member constructor": '{"constructor":{"prototype":{"polluted":true}}}',
  "an object that is no primitive": '{"toString":1,"valueOf":1}',
  "an array of objects that are no primitives": '[{"toString":null,"valueOf":null}]',
  "a member toJSON": '{"toJSON":1,"then":1,"length":-1}',
  "a long string": `"${"x".repeat(200_000)}"`,
  "a lone surrogate": '"\\ud800"',
  "line separators": '"\u2028\\u2029"',
  "a null character": '"\\u0000"',
  "a path": '"/../../etc/passwd"',
  "a channel of slashes": `"${"/".repeat(2_000)}"`,
  "a channel with a long segment": `"/${appId}/public/${"a".repeat(5_000)}"`,
  "a channel of many segments": `"/${appId}/public${"/a".repeat(2_000)}"`,
  "a wildcard in the middle": `"/${appId}/public/*/a/**/b"`,
  "line breaks": '"\\r\\n\\r\\nHTTP/1.1 200 OK"',
};

export interface Template {
  readonly name: string;
  readonly message: object;
  /** Each in turn is replaced, or added where it is missing. */
  readonly fields: readonly (readonly string[])[];
}

const common = [["channel"], ["clientId"], ["id"], ["ext"], ["advice"], ["error"], ["successful"]];

/** One of each kind of message, correct but for the field that is replaced. */
export function templates(clientId: string): Template[] {
  const channel = `/${appId}/public/hostile`;
  const presenceChannel = `/${appId}/presence/hostile`;
  const presence = { presence: { id: "1", name: "Joe" } };
  return [
    {
      name: "handshake",
      message: {
        channel: "/meta/handshake",
        version: "1.0",
        supportedConnectionTypes: ["websocket", "long-polling"],
      },
      fields: [
        ...common,
        ["version"],
        ["minimumVersion"],
        ["supportedConnectionTypes"],
        ["supportedConnectionTypes", "0"],
      ],
    },
    {
      name: "connect",
      message: {
        channel: "/meta/connect",
        clientId,
        connectionType: "long-polling",
        advice: { timeout: 0 },
      },
      fields: [...common, ["connectionType"], ["advice", "timeout"]],
    },
    {
      name: "subscribe",
      message: {
        channel: "/meta/subscribe",
        clientId,
        subscription: [`/${appId}/private/hostile`],
        ext: { auth: { token: token({ channel: `/${appId}/**`, sub: true }) } },
      },
      fields: [
        ...common,
        ["subscription"],
        ["subscription", "0"],
        ["ext", "auth"],
        ["ext", "auth", "token"],
        ["ext", "auth", "key"],
        ["ext", "auth", "secret"],
        ["ext", "presence"],
        ["data"],
      ],
    },
    {
      name: "subscribe to presence",
      message: {
        channel: "/meta/subscribe",
        clientId,
        subscription: presenceChannel,
        ext: { auth: { token: token({ channel: presenceChannel, sub: true, ...presence }) } },
      },
      fields: [["subscription"], ["ext", "presence"], ["ext", "presence", "id"]],
    },
    {
      name: "unsubscribe",
      message: { channel: "/meta/unsubscribe", clientId, subscription: [channel] },
      fields: [...common, ["subscription"], ["subscription", "0"]],
    },
    {
      name: "publish",
      message: { channel, clientId, data: { a: 1 }, ext: { auth: { key: keyId, secret } } },
      fields: [
        ...common,
        ["data"],
        ["data", "a"],
        ["data", "__auth"],
        ["data", "__auth", "token"],
        ["ext", "auth"],
        ["ext", "auth", "token"],
        ["ext", "auth", "key"],
        ["ext", "auth", "secret"],
        ["ext", "other"],
      ],
    },
    {
      name: "publish with credentials in data",
      message: { channel, data: { a: 1, __auth: { key: keyId, secret } } },
      fields: [
        ["data", "__auth"],
        ["data", "__auth", "key"],
        ["data", "__auth", "secret"],
      ],
    },
    {
      name: "disconnect",
      message: { channel: "/meta/disconnect", clientId: "nobody" },
      fields: common,
    },
  ];
}

const placeholder = "\u0001hostile\u0001";

/** The message's text with `value` (JSON text) at `path`. */
export function withValue(message: object, path: readonly string[], value: string): string {
  const copy: unknown = structuredClone(message);
  let at = copy as Record<string, unknown>;
  for (const step of path.slice(0, -1)) {
    const inner = at[step];
    if (typeof inner !== "object" || inner === null) at[step] = {};
    at = at[step] as Record<string, unknown>;
  }
  at[path.at(-1) ?? ""] = placeholder;
  return JSON.stringify(copy).replace(JSON.stringify(placeholder), () => value);
}

/** A token whose parts are any text, signed correctly. */
export function signed(header: string, payload: string): string {
  const content = [header, payload]
    .map((text) => Buffer.from(text).toString("base64url"))
    .join(".");
  return `${content}.${createHmac("sha256", secret).update(content).digest("base64url")}`;
}
