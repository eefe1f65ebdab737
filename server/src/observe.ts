/** Logging, given to the other parts as small functions. */
import { type Logger, pino } from "pino";
import pretty from "pino-pretty";
import type { Config } from "./config.js";
import { openLogFile } from "./log-file.js";

export type Log = Logger;

/** JSON lines to standard output or a file; readable ones in a terminal. */
export function createLog({ level, file }: Config["log"]): Log {
  if (file !== undefined) return pino({ level }, openLogFile(file));
  if (process.stdout.isTTY) {
    return pino(
      { level },
      pretty({ ignore: "pid,hostname", translateTime: "HH:MM:ss", sync: true }),
    );
  }
  return pino({ level }, pino.destination({ dest: 1, sync: false }));
}
