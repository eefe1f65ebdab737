/**
 * `npm start`: installs and builds if needed, then is the server. Arguments are those of
 * `pandapush start`.
 */
import { pathToFileURL } from "node:url";
import { cli, prepare, runScript } from "./prepare.mjs";

await runScript(async () => {
  await prepare();
  // In this very process: signals and the exit code are the server's own, with nobody between.
  process.argv = [process.execPath, cli, "start", ...process.argv.slice(2)];
  await import(pathToFileURL(cli).href);
});
