/** `npm run dev`: the server, built and started again whenever a source file changes. */
import { cli, launch, prepare, runScript, say, signal, tsc } from "./prepare.mjs";

/** What has not ended this long after it was asked to is killed, in ms. */
const patienceMs = 10_000;

await runScript(async () => {
  await prepare();
  say("Watching for changes; Ctrl-C ends.");
  const parts = [
    [tsc, "-b", "server", "--watch", "--preserveWatchOutput"],
    ["--watch", "--watch-preserve-output", cli, "start", ...process.argv.slice(2)],
  ].map((args) => launch(process.execPath, args));
  const asked = new Promise((resolve) => process.once("SIGINT", resolve).once("SIGTERM", resolve));
  // One part without the other would look alive and do nothing.
  await Promise.race([asked, ...parts.map(({ ended }) => ended)]);
  for (const { child } of parts) signal(child, "SIGTERM");
  const killing = setTimeout(() => {
    for (const { child } of parts) signal(child, "SIGKILL");
  }, patienceMs);
  await Promise.all(parts.map(({ ended }) => ended));
  clearTimeout(killing);
});
