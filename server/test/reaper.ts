/**
 * Ends the processes of tests, whatever becomes of the process that runs these: a worker is ended
 * by a signal, and then nothing of its own runs any more.
 */
import { type ChildProcess, spawn } from "node:child_process";
import type { Socket } from "node:net";

/** Reads `+ <pid>` and `- <pid>`; when whoever writes is gone, it kills all that are left. */
const script = `
while read -r what pid; do
  rest=
  for each in $all; do [ "$each" = "$pid" ] || rest="$rest $each"; done
  all=$rest
  [ "$what" = - ] || all="$all $pid"
done
[ -z "$all" ] || kill -9 $all
`;

export class Reaper {
  private readonly orders: Socket;

  constructor() {
    // A group of its own: what ends this process together with its children spares it.
    const reaper = spawn("sh", ["-c", script], {
      stdio: ["pipe", "ignore", "ignore"],
      detached: true,
    });
    reaper.unref();
    this.orders = reaper.stdin as Socket;
    this.orders.unref();
    // Somebody ended it: then nobody is watched.
    this.orders.on("error", () => undefined);
  }

  /** The child does not outlive this reaper. */
  watch(child: ChildProcess): void {
    this.orders.write(`+ ${child.pid}\n`);
    child.once("exit", () => this.orders.write(`- ${child.pid}\n`));
  }

  /** What the end of this process does. */
  letGo(): void {
    this.orders.end();
  }
}

let reaper: Reaper | undefined;

/** The child, which has just been started, does not outlive this process. */
export function reap(child: ChildProcess): void {
  if (child.pid === undefined) return;
  reaper ??= new Reaper();
  reaper.watch(child);
}
