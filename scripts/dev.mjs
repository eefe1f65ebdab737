/**
 * `npm run dev`: server, client and console, built and started again whenever a source file changes.
 * `--part=server` is the server alone and `--part=assets` what browsers load, for two containers.
 * Other arguments are those of `pandapush start`.
 */
import { utimesSync, watch } from "node:fs";
import { join } from "node:path";
import {
  cli,
  launch,
  prepare,
  prepared,
  root,
  runScript,
  Stop,
  say,
  signal,
  tsc,
  vite,
} from "./prepare.mjs";

/** What has not ended this long after it was asked to is killed, in ms. */
const patienceMs = 10_000;

const partOption = "--part=";

await runScript(async () => {
  const args = process.argv.slice(2);
  const part = args.find((arg) => arg.startsWith(partOption))?.slice(partOption.length);
  if (part !== undefined && part !== "server" && part !== "assets") {
    throw new Stop(`There is no part "${part}": it can be server or assets.`);
  }
  const hasServer = part !== "assets";
  const hasAssets = part !== "server";
  // Two that build the same at the same time would be in each other's way.
  if (hasServer) await prepare();
  else await prepared();
  say("Watching for changes; Ctrl-C ends.");
  const own = args.filter((arg) => !arg.startsWith(partOption));
  const compiled = [...(hasServer ? ["server"] : []), ...(hasAssets ? ["client"] : [])];
  const parts = [
    [tsc, "-b", ...compiled, "--watch", "--preserveWatchOutput"],
    ...(hasAssets ? [[vite, "build", "console", "--watch", "--logLevel", "warn"]] : []),
    ...(hasServer ? [["--watch", "--watch-preserve-output", cli, "start", ...own]] : []),
  ].map((each) => launch(process.execPath, each));
  const watchers = [
    ...(hasServer ? watchFilesReadAtStart() : []),
    ...(hasAssets ? [watchClient()] : []),
  ];
  const asked = new Promise((resolve) => process.once("SIGINT", resolve).once("SIGTERM", resolve));
  // One part without the other would look alive and do nothing.
  await Promise.race([asked, ...parts.map(({ ended }) => ended)]);
  for (const watcher of watchers) watcher.close();
  for (const { child } of parts) signal(child, "SIGTERM");
  const killing = setTimeout(() => {
    for (const { child } of parts) signal(child, "SIGKILL");
  }, patienceMs);
  await Promise.all(parts.map(({ ended }) => ended));
  clearTimeout(killing);
});

/** What `tsc` compiles of the client is bundled again: pages, console and server take it from there. */
function watchClient() {
  const bundler = join(root, "client/build.mjs");
  let isRunning = false;
  return watch(join(root, "client/dist"), async () => {
    if (isRunning) return;
    isRunning = true;
    // Does nothing where nothing is new, such as after its own writing.
    await launch(process.execPath, [bundler]).ended;
    isRunning = false;
  });
}

/**
 * `node --watch` sees only what is imported, and `--watch-path` only what exists already. What the
 * server reads at its start, changed or new, counts as a change of its first module.
 */
function watchFilesReadAtStart() {
  const startAgain = () => utimesSync(cli, new Date(), new Date());
  return [
    watch(join(root, "server/public"), startAgain),
    watch(root, (_event, name) => {
      if (name === ".env") startAgain();
    }),
  ];
}
