/**
 * Finds members inside JSON text, so that a publisher's `data` can be carried as the text it
 * arrived as: number formats, key order, escapes and white space unchanged.
 *
 * Everything here expects text that `JSON.parse` has already accepted; it does not validate.
 */

const QUOTE = 34;
const COMMA = 44;
const COLON = 58;
const BACKSLASH = 92;
const OPEN_BRACKET = 91;
const CLOSE_BRACKET = 93;
const OPEN_BRACE = 123;
const CLOSE_BRACE = 125;

/** A part of a text, `text.slice(start, end)`. */
export interface Span {
  readonly start: number;
  readonly end: number;
}

/** Where each element of the array that begins at `start` lies; the value itself if it is no array. */
export function elementSpans(text: string, start = 0): Span[] {
  let at = skipSpace(text, start);
  if (text.charCodeAt(at) !== OPEN_BRACKET) return [{ start: at, end: skipValue(text, at) }];
  const spans: Span[] = [];
  at = skipSpace(text, at + 1);
  while (text.charCodeAt(at) !== CLOSE_BRACKET) {
    const end = skipValue(text, at);
    spans.push({ start: at, end });
    at = skipSpace(text, end);
    if (text.charCodeAt(at) === COMMA) at = skipSpace(text, at + 1);
  }
  return spans;
}

/**
 * Calls `visit` for each member of the object that begins at `start`.
 *
 * As in `JSON.parse`, a name may occur twice and its last value counts: visit all of them.
 */
export function visitMembers(
  text: string,
  start: number,
  visit: (name: string, memberStart: number, valueStart: number, valueEnd: number) => void,
): void {
  let at = skipSpace(text, start + 1);
  while (text.charCodeAt(at) === QUOTE) {
    const memberStart = at;
    const nameEnd = skipString(text, at);
    const raw = text.slice(at + 1, nameEnd - 1);
    const name = raw.includes("\\") ? (JSON.parse(`"${raw}"`) as string) : raw;
    at = skipSpace(text, nameEnd);
    if (text.charCodeAt(at) === COLON) at = skipSpace(text, at + 1);
    const end = skipValue(text, at);
    visit(name, memberStart, at, end);
    at = skipSpace(text, end);
    if (text.charCodeAt(at) === COMMA) at = skipSpace(text, at + 1);
  }
}

/**
 * The object's text without the members called `name`, however their names are escaped.
 * The text of all other members is unchanged; without such a member so is the whole text.
 */
export function withoutMember(objectText: string, name: string): string {
  const kept: string[] = [];
  let found = false;
  visitMembers(objectText, 0, (member, memberStart, _valueStart, valueEnd) => {
    if (member === name) found = true;
    else kept.push(objectText.slice(memberStart, valueEnd));
  });
  return found ? `{${kept.join(",")}}` : objectText;
}

/**
 * A publication's data without credentials: the top-level `__auth` that old clients put there.
 *
 * @param text valid JSON without space around it; anything but an object is returned as it is
 */
export function stripAuth(text: string): string {
  if (text.charCodeAt(0) !== OPEN_BRACE || !mayName(text, "__auth")) return text;
  return withoutMember(text, "__auth");
}

/** Cheap first look; an escape could spell any name. */
function mayName(text: string, name: string): boolean {
  return text.includes(name) || text.includes("\\u");
}

/**
 * The same text, which keeps no other alive: V8 lets a part of a text hold the whole of it, so
 * that 20 characters out of a frame would cost what the frame does, for as long as they are kept.
 */
export function ownText<T extends string>(text: T): T {
  // What is joined anew is copied when it is cut; unlike any encoding, that alters no character.
  return ` ${text}`.slice(1) as T;
}

function skipSpace(text: string, start: number): number {
  let at = start;
  let code = text.charCodeAt(at);
  while (code === 32 || code === 10 || code === 13 || code === 9) code = text.charCodeAt(++at);
  return at;
}

/** @returns the index behind the closing quote of the string that opens at `start` */
function skipString(text: string, start: number): number {
  let at = start + 1;
  for (;;) {
    const quote = text.indexOf('"', at);
    if (quote === -1) return text.length;
    let backslashes = 0;
    while (text.charCodeAt(quote - 1 - backslashes) === BACKSLASH) backslashes++;
    if (backslashes % 2 === 0) return quote + 1;
    at = quote + 1;
  }
}

function skipValue(text: string, start: number): number {
  const first = text.charCodeAt(start);
  if (first === QUOTE) return skipString(text, start);
  if (first !== OPEN_BRACE && first !== OPEN_BRACKET) return skipLiteral(text, start);
  let depth = 0;
  let at = start;
  while (at < text.length) {
    const code = text.charCodeAt(at);
    if (code === QUOTE) {
      at = skipString(text, at);
      continue;
    }
    if (code === OPEN_BRACE || code === OPEN_BRACKET) depth++;
    else if ((code === CLOSE_BRACE || code === CLOSE_BRACKET) && --depth === 0) return at + 1;
    at++;
  }
  return at;
}

/** A number, true, false or null ends at a comma, a closing bracket, space or the text's end. */
function skipLiteral(text: string, start: number): number {
  let at = start;
  while (at < text.length) {
    const code = text.charCodeAt(at);
    if (code === COMMA || code === CLOSE_BRACE || code === CLOSE_BRACKET || code <= 32) return at;
    at++;
  }
  return at;
}
