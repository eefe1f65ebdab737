/** A log file that is set aside from time to time. */
import { closeSync, mkdirSync, openSync, renameSync, statSync } from "node:fs";
import { dirname } from "node:path";
import { pino } from "pino";

export interface LogFileOptions {
  readonly path: string;
  /** A new file is begun whenever such a span begins, counted from midnight UTC; 0: never. */
  readonly everyMs: number;
  /** And when it has so many bytes. */
  readonly maxBytes: number;
  /** Former files that are kept: `<path>.0` is the latest. */
  readonly kept: number;
}

/** Lines in memory while the disk does not take them, in bytes; what comes beyond is dropped. */
const maxWaitingBytes = 16 * 1024 * 1024;
/** How often it is said that the disk takes nothing, in ms. */
const complainMs = 60_000;

/** What `openLogFile` gives pino to write to. */
export type Destination = ReturnType<typeof pino.destination>;

/**
 * Appends to the file, and makes its folder. Whatever the disk does, the process lives: what went
 * wrong is said on standard error, and lines wait until the disk takes them again.
 *
 * @throws Error of the file system, when the file cannot be opened at first
 */
export function openLogFile(options: LogFileOptions): Destination {
  const { path, everyMs, maxBytes } = options;
  mkdirSync(dirname(path), { recursive: true });
  const found = statSync(path, { throwIfNoEntry: false });
  let size = found?.size ?? 0;
  let span = spanOf(found?.mtimeMs ?? Date.now(), everyMs);
  if (isOver()) setAside(options, complain);
  // Whoever starts the server hears at once what is wrong; afterwards nobody waits for the disk.
  closeSync(openSync(path, "a"));
  const file = pino.destination({ dest: path, sync: false, maxLength: maxWaitingBytes });

  /** Whether the next line belongs into the next file. */
  function isOver(): boolean {
    const now = spanOf(Date.now(), everyMs);
    if (now === span && size < maxBytes) return false;
    const isEmpty = size === 0;
    span = now;
    size = 0;
    return !isEmpty;
  }

  let complainedAt = Number.NEGATIVE_INFINITY;
  function complain(problem: string): void {
    const now = performance.now();
    if (now - complainedAt < complainMs) return;
    complainedAt = now;
    process.stderr.write(`Log file ${path}: ${problem}\n`);
  }

  file.on("write", (bytes: number) => {
    size += bytes;
    // Between two writes, so that no line is torn.
    if (isOver()) {
      setAside(options, complain);
      file.reopen();
    }
  });
  file.on("error", (error: Error) => complain(`${error.message}; lines wait`));
  file.on("drop", () => complain("the disk takes nothing; lines are dropped"));
  return file;
}

function spanOf(ms: number, everyMs: number): number {
  return everyMs === 0 ? 0 : Math.floor(ms / everyMs);
}

function setAside({ path, kept }: LogFileOptions, complain: (problem: string) => void): void {
  for (let n = kept - 1; n >= 0; n--) {
    const from = n === 0 ? path : `${path}.${n - 1}`;
    try {
      renameSync(from, `${path}.${n}`);
    } catch (error) {
      const { code, message } = error as NodeJS.ErrnoException;
      if (code !== "ENOENT") complain(message);
    }
  }
}
