/** ISO 8601, "Durations": `P1Y`, `P30D`, `PT1H`, `P1DT12H`, `P2W`. */
const grammar =
  /^P(?=\d|T\d)(?:(\d{1,6})Y)?(?:(\d{1,6})M)?(?:(\d{1,6})W)?(?:(\d{1,6})D)?(?:T(?=\d)(?:(\d{1,9})H)?(?:(\d{1,9})M)?(?:(\d{1,9})S)?)?$/i;

/** A day, or a day with a time; without a zone it is UTC, whatever this machine's zone. */
const dateGrammar =
  /^\d{4}-\d{2}-\d{2}(?:T\d{2}:\d{2}(?::\d{2}(?:\.\d{1,3})?)?(Z|[+-]\d{2}:\d{2})?)?$/i;

/**
 * When something ends that is given as a duration from `start`, or as a date.
 *
 * Years and months follow the calendar, so `P1M` from 31 January ends on 3 March (2 in leap years).
 * @returns undefined when the text is neither, or the date is out of range
 */
export function parseEnd(text: string, start: Date): Date | undefined {
  const match = grammar.exec(text);
  return match === null ? parseDate(text) : valid(addDuration(start, match));
}

function addDuration(start: Date, match: RegExpExecArray): Date {
  const [years, months, weeks, days, hours, minutes, seconds] = match
    .slice(1)
    .map((digits) => Number(digits ?? 0));
  const end = new Date(start);
  end.setUTCFullYear(
    end.getUTCFullYear() + (years ?? 0),
    end.getUTCMonth() + (months ?? 0),
    end.getUTCDate() + (weeks ?? 0) * 7 + (days ?? 0),
  );
  const time = ((hours ?? 0) * 60 + (minutes ?? 0)) * 60 + (seconds ?? 0);
  return new Date(end.getTime() + time * 1000);
}

function parseDate(text: string): Date | undefined {
  const match = dateGrammar.exec(text);
  if (match === null) return undefined;
  const hasTime = text.length > 10;
  return valid(new Date(hasTime && match[1] === undefined ? `${text}Z` : text));
}

/** Years beyond 9999 have another form in ISO 8601, which not every reader of the database knows. */
function valid(date: Date): Date | undefined {
  const year = date.getUTCFullYear();
  return year >= 0 && year <= 9999 ? date : undefined;
}
