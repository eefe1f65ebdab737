/**
 * Turns the body of a REST publish into the JSON text that subscribers receive.
 *
 * JSON is checked and then carried as the text it arrived as: number formats, key order, escapes
 * and inner white space unchanged (REST-5). Only white space around it, a byte order mark and a
 * top-level `__auth` are removed.
 */
import { isUtf8 } from "node:buffer";
import { elementSpans, stripAuth, visitMembers } from "@pandapush/protocol";
import { type ParseError, parse as parseTolerantly, printParseErrorCode } from "jsonc-parser";
import { parse as parseQuery } from "qs";
import { Refusal } from "../errors.js";

export type BodyType = "json" | "form";

/** RFC 6839, section 3.1: what ends in `+json` is JSON. */
const jsonSubtype = /^application\/[^\s/]+\+json$/;

/** A `Content-Type` header without its parameters; undefined for types that cannot be published. */
export function bodyType(contentType: string | undefined): BodyType | undefined {
  if (contentType === "application/json") return "json";
  if (contentType === undefined) return undefined;
  const mediaType = (contentType.split(";", 1)[0] ?? "").trim().toLowerCase();
  if (mediaType === "application/json" || jsonSubtype.test(mediaType)) return "json";
  return mediaType === "application/x-www-form-urlencoded" ? "form" : undefined;
}

/**
 * @returns one JSON value as text
 * @throws Refusal emptyBody, malformedJson or malformedForm
 */
export function dataOf(type: BodyType, body: Buffer): string {
  const text = textOf(type, body);
  return stripAuth(type === "json" ? jsonData(text) : formData(text));
}

/**
 * @returns one JSON value as text, without white space around it
 * @throws Refusal emptyBody or malformedJson
 */
export function jsonOf(body: Buffer): string {
  return jsonData(textOf("json", body));
}

/**
 * The `data` of each of the messages in `{"messages":[{"data":…},…]}`, as the text that it was
 * sent as.
 * @param envelope valid JSON of this form, without white space around it
 */
export function dataTexts(envelope: string): string[] {
  let start = 0;
  visitMembers(envelope, 0, (name, _memberStart, valueStart) => {
    if (name === "messages") start = valueStart;
  });
  return elementSpans(envelope, start).map((message) => {
    let data = "";
    visitMembers(envelope, message.start, (name, _memberStart, from, to) => {
      if (name === "data") data = envelope.slice(from, to);
    });
    return stripAuth(data);
  });
}

function textOf(type: BodyType, body: Buffer): string {
  if (!isUtf8(body)) throw notUtf8(type);
  const text = body.toString("utf8");
  // RFC 8259, section 8.1: a parser may ignore a byte order mark.
  return text.charCodeAt(0) === 0xfeff ? text.slice(1) : text;
}

function jsonData(text: string): string {
  try {
    JSON.parse(text);
  } catch {
    throw text.trim() === "" ? new Refusal("emptyBody") : malformedJson(text);
  }
  // Whatever surrounds valid JSON is one of its four white space characters.
  return text.trim();
}

function notUtf8(type: BodyType): Refusal {
  return new Refusal(
    type === "json" ? "malformedJson" : "malformedForm",
    [],
    "The body is not valid UTF-8.",
  );
}

// Faults in JSON

const faults: Readonly<Record<string, string>> = {
  InvalidSymbol: "Unexpected text",
  InvalidNumberFormat: "Malformed number",
  PropertyNameExpected: "A name in double quotes was expected",
  ValueExpected: "A value was expected",
  ColonExpected: "A colon was expected",
  CommaExpected: "A comma was expected",
  CloseBraceExpected: "} was expected",
  CloseBracketExpected: "] was expected",
  EndOfFileExpected: "Text after the end of the value",
  InvalidCommentToken: "JSON has no comments",
  UnexpectedEndOfComment: "JSON has no comments",
  UnexpectedEndOfString: "The string has no closing quote",
  UnexpectedEndOfNumber: "The number is not complete",
  InvalidUnicode: "Malformed \\u escape in the string",
  InvalidEscapeCharacter: "Malformed escape in the string",
  InvalidCharacter: "Unescaped control character in the string",
};

/**
 * The first fault with its place: params are line, column (from 1) and offset (from 0), in
 * UTF-16 units of the body as sent.
 *
 * The words of `JSON.parse` are not used: they differ between versions of Node, often lack the
 * place, and can quote the whole body.
 */
function malformedJson(text: string): Refusal {
  const fault = firstFault(text);
  if (fault === undefined) return new Refusal("malformedJson");
  const before = text.slice(0, fault.offset);
  const line = before.split("\n").length;
  const column = fault.offset - before.lastIndexOf("\n");
  const place = `at line ${line}, column ${column} (offset ${fault.offset})`;
  return new Refusal(
    "malformedJson",
    [String(line), String(column), String(fault.offset)],
    `${faults[printParseErrorCode(fault.error)] ?? "Unexpected text"} ${place}.${hint(text, fault.offset)}`,
  );
}

/** undefined when the text is nested too deeply for the parser that knows places. */
function firstFault(text: string): ParseError | undefined {
  const errors: ParseError[] = [];
  try {
    parseTolerantly(text, errors, { disallowComments: true, allowTrailingComma: false });
  } catch (error) {
    if (error instanceof RangeError) return undefined;
    throw error;
  }
  return errors.reduce<ParseError | undefined>(
    (first, each) => (first === undefined || each.offset < first.offset ? each : first),
    undefined,
  );
}

const unquotedName = /^[A-Za-z_$][\w$-]*(?=\s*:)/;
const unquotedNames = /([{,]\s*)([A-Za-z_$][\w$-]*)(?=\s*:)/g;
/** A corrected body up to this many characters is shown whole. */
const maxShownBody = 200;

/** What people most often mean: names without quotes, as JavaScript allows, or single quotes. */
function hint(text: string, offset: number): string {
  const rest = text.slice(offset, offset + maxShownBody);
  if (rest.startsWith("'")) return " Use double quotes instead of single ones.";
  const name = unquotedName.exec(rest)?.[0];
  if (name === undefined) return "";
  const corrected = text.trim().replace(unquotedNames, '$1"$2"');
  const isShown = corrected.length <= maxShownBody && isJson(corrected);
  return ` Quote the name: ${isShown ? corrected : `"${name}"`}`;
}

function isJson(text: string): boolean {
  try {
    JSON.parse(text);
    return true;
  } catch {
    return false;
  }
}

// Forms

/** Bounds of one form; the size of the body is bounded before. */
const maxFields = 1000;
const maxDepth = 32;

function formData(text: string): string {
  if (text.trim() === "") throw new Refusal("emptyBody");
  if (looksLikeJson(text)) {
    throw new Refusal(
      "malformedForm",
      [],
      "The body looks like JSON, but its Content-Type says it is a form. Add -H 'Content-Type: application/json'.",
    );
  }
  const fields = parseForm(text);
  if (Object.keys(fields).length === 0) throw new Refusal("emptyBody");
  return JSON.stringify(fields);
}

/** `curl -d` says "form" unless told otherwise, whatever it sends. */
function looksLikeJson(text: string): boolean {
  return /^\s*[[{"]/.test(text) || (!text.includes("=") && isJson(text));
}

function parseForm(text: string): object {
  try {
    return parseQuery(numberLists(text), {
      // Objects without a prototype: a field called __proto__ or toString is nobody's method.
      plainObjects: true,
      parameterLimit: maxFields,
      arrayLimit: maxFields,
      depth: maxDepth,
      strictDepth: true,
      throwOnLimitExceeded: true,
      decoder: decodeField,
    });
  } catch (error) {
    if (error instanceof URIError) throw new Refusal("malformedForm");
    if (!(error instanceof RangeError)) throw error;
    throw new Refusal(
      "malformedForm",
      [],
      `A form has at most ${maxFields} fields, nested at most ${maxDepth} deep.`,
    );
  }
}

/** Throws URIError on what is no percent-encoded UTF-8, where the default would let it through. */
function decodeField(text: string): string {
  return decodeURIComponent(text.replaceAll("+", " "));
}

/**
 * Ruby writes a list of objects as `a[][x]=1&a[][y]=2&a[][x]=3`: a new object begins where a
 * name occurs again. Rewritten as PHP writes it: `a[0][x]=1&a[0][y]=2&a[1][x]=3`.
 */
function numberLists(text: string): string {
  if (!/(?:\[|%5B)(?:\]|%5D)(?:\[|%5B)/i.test(text)) return text;
  const lists = new Map<string, { index: number; names: Set<string> }>();
  return text
    .split("&")
    .map((field) => {
      const equals = field.indexOf("=");
      const key = equals === -1 ? field : field.slice(0, equals);
      const path = key.replace(/%5B/gi, "[").replace(/%5D/gi, "]");
      const at = path.indexOf("[][");
      if (at === -1) return field;
      const prefix = path.slice(0, at);
      const name = path.slice(at + 2);
      const list = lists.get(prefix) ?? { index: 0, names: new Set<string>() };
      lists.set(prefix, list);
      if (list.names.has(name) && !name.endsWith("[]")) {
        list.index++;
        list.names.clear();
      }
      list.names.add(name);
      return `${prefix}[${list.index}]${name}${equals === -1 ? "" : field.slice(equals)}`;
    })
    .join("&");
}
