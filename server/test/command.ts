/** Runs the built `pandapush` command in a folder and an environment of its own. */
import { execFile } from "node:child_process";
import { repositoryPath } from "../src/docs.js";

export const command = repositoryPath("server/dist/cli.js");

export interface Result {
  readonly code: number;
  readonly out: string;
  readonly err: string;
}

/** @param input what it reads from standard input */
export function runCommand(
  folder: string,
  args: readonly string[],
  env: NodeJS.ProcessEnv = {},
  input = "",
): Promise<Result> {
  const options = { cwd: folder, env: { PATH: process.env.PATH, ...env } };
  return new Promise((resolve) => {
    const child = execFile(process.execPath, [command, ...args], options, (error, out, err) => {
      resolve({ code: typeof error?.code === "number" ? error.code : error ? -1 : 0, out, err });
    });
    // It may end without reading it.
    child.stdin?.on("error", () => undefined).end(input);
  });
}
