import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { expect, test } from "vitest";
import { Reaper } from "./reaper.js";

test("children end with whoever started them, frozen ones too; those that have ended are let alone", async () => {
  const reaper = new Reaper();
  const start = (): ChildProcess => {
    const child = spawn("sleep", ["60"]);
    reaper.watch(child);
    return child;
  };
  const [ended, running, frozen] = [start(), start(), start()];
  frozen.kill("SIGSTOP");
  ended.kill("SIGTERM");
  expect(await once(ended, "exit")).toEqual([null, "SIGTERM"]);
  const exits = [once(running, "exit"), once(frozen, "exit")];
  reaper.letGo();
  for (const exit of exits) expect(await exit).toEqual([null, "SIGKILL"]);
});
