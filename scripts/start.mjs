/**
 * `npm start`: installs and builds if needed, then is the server. Arguments are those of
 * `pandapush start`.
 */
import { pathToFileURL } from "node:url";
import { cli, prepare, runScript } from "./prepare.mjs";

/** How often to look whether npm still lives, in ms. */
const parentPollMs = 500;

await runScript(async () => {
  await prepare();
  endWithParent();
  // In this very process: signals and the exit code are the server's own, with nobody between.
  process.argv = [process.execPath, cli, "start", ...process.argv.slice(2)];
  await import(pathToFileURL(cli).href);
});

/**
 * npm hands SIGTERM on to its shell, which dies of it without telling us: what a process manager
 * believes to have ended would keep the port.
 */
function endWithParent() {
  if (process.env.npm_lifecycle_event === undefined) return;
  const parent = process.ppid;
  const timer = setInterval(() => {
    if (process.ppid === parent) return;
    clearInterval(timer);
    process.kill(process.pid, "SIGTERM");
  }, parentPollMs);
  timer.unref();
}
