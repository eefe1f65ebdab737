/** JSON as people read it: never more of it than a page can bear. */

export interface Shown {
  readonly text: string;
  /** Something was left out. */
  readonly isShortened: boolean;
}

export interface Limits {
  /** How many levels are shown: each indents all that is in it. */
  readonly depth: number;
  /** In characters, indentation included. */
  readonly length: number;
}

/** What is shown of a message. */
const usual: Limits = { depth: 20, length: 5_000 };

/** @returns JSON text; a remark for what is nested deeper than this browser can write */
export function jsonOf(value: unknown): string {
  try {
    return JSON.stringify(value);
  } catch {
    return '"… (nested too deeply for this browser)"';
  }
}

/**
 * Indents JSON text. It works as far as the limits reach and looks at no more: the cost does not
 * grow with the text.
 * @param json without white space between its parts, as JSON.stringify gives it
 */
export function pretty(json: string, { depth: maxDepth, length }: Limits = usual): Shown {
  let text = "";
  let depth = 0;
  let isShortened = false;
  const line = (): string => `\n${"  ".repeat(depth)}`;
  for (let at = 0; at < json.length; ) {
    if (text.length >= length) return { text: `${text.slice(0, length)} …`, isShortened: true };
    const char = json.charAt(at);
    const next = json.charAt(at + 1);
    const isEmpty = (char === "{" && next === "}") || (char === "[" && next === "]");
    if (char === '"') {
      const end = endOfString(json, at, at + length);
      text += json.slice(at, end);
      at = end;
    } else if (isEmpty) {
      text += char + next;
      at += 2;
    } else if (char === "{" || char === "[") {
      if (depth === maxDepth) {
        const end = endOfNested(json, at, at + 100 * length);
        text += char === "{" ? "{…}" : "[…]";
        isShortened = true;
        at = end;
      } else {
        depth += 1;
        text += char + line();
        at += 1;
      }
    } else if (char === "}" || char === "]") {
      depth -= 1;
      text += line() + char;
      at += 1;
    } else {
      text += char === "," ? `,${line()}` : char === ":" ? ": " : char;
      at += 1;
    }
  }
  return { text, isShortened };
}

/** In one line. */
export function brief(json: string, length = 200): Shown {
  const isShortened = json.length > length;
  return { text: isShortened ? `${json.slice(0, length)} …` : json, isShortened };
}

/** Behind the quotation mark that ends the string, or as far as is looked. */
function endOfString(json: string, start: number, most: number): number {
  let at = start + 1;
  while (at < most && at < json.length && json[at] !== '"') at += json[at] === "\\" ? 2 : 1;
  return Math.min(at + 1, json.length);
}

/** Behind the bracket that closes the one at `start`, or as far as is looked. */
function endOfNested(json: string, start: number, most: number): number {
  let depth = 0;
  for (let at = start; at < most && at < json.length; ) {
    const char = json[at];
    if (char === '"') {
      at = endOfString(json, at, most);
      continue;
    }
    at += 1;
    if (char === "{" || char === "[") depth += 1;
    if ((char === "}" || char === "]") && --depth === 0) return at;
  }
  return json.length;
}
