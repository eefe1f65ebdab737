/** `npm run dev`: the server, built and started again whenever a source file changes. */
import { spawn } from "node:child_process";
import { cli, endWith, prepare, root, runScript, say, tsc } from "./prepare.mjs";

/** A child that has not ended this long after it was asked to is killed, in ms. */
const patienceMs = 10_000;

await runScript(async () => {
  await prepare();
  say("Watching for changes; Ctrl-C ends.");
  const children = [
    [tsc, "-b", "server", "--watch", "--preserveWatchOutput"],
    ["--watch", "--watch-preserve-output", cli, "start", ...process.argv.slice(2)],
  ].map((args) =>
    spawn(process.execPath, args, { cwd: root, stdio: ["ignore", "inherit", "inherit"] }),
  );
  const release = endWith(children);
  const ends = children.map((child) => new Promise((resolve) => child.once("close", resolve)));
  // One without the other would look alive and do nothing.
  await Promise.race(ends);
  const killing = setTimeout(() => signal(children, "SIGKILL"), patienceMs);
  signal(children, "SIGTERM");
  await Promise.all(ends);
  clearTimeout(killing);
  release();
});

function signal(children, name) {
  for (const child of children) child.kill(name);
}
