/** Names that people gave: of any script, length and oddity. */

/**
 * As somebody would type it: without what cannot be seen, such as zero-width and direction marks,
 * and with single spaces. For comparing, not for keeping.
 */
export function readable(text: string): string {
  return text
    .normalize("NFKC")
    .replace(/\s+/gu, " ")
    .replace(/[\p{Default_Ignorable_Code_Point}\p{Cf}\p{Cc}]/gu, "")
    .replace(/ +/g, " ")
    .trim();
}

/** @returns the name, or `otherwise` in place of one that nobody could see */
export function nameOr(name: string | null, otherwise: string): string {
  return name === null || readable(name) === "" ? otherwise : name;
}

/** As much of a name as a sentence bears. */
export function shorten(name: string, length = 60): string {
  const characters = [...name];
  return characters.length > length ? `${characters.slice(0, length).join("")}…` : name;
}

/** For places that take no elements: its direction does not run into what is around it. */
export function isolate(text: string): string {
  return `\u2068${text}\u2069`;
}
