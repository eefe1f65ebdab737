/** `start` and `migrate`. */
import { exitCodes, print, program, withNewStore } from "./core.js";

program
  .command("start")
  .description("run the server")
  .addHelpText(
    "after",
    `
Environment variables and the .env file of the working directory configure it
(docs/configuration.md has them all); nothing has to be set. Where NODE_ENV is
not production it shows a first channel, key and login. SIGTERM and Ctrl-C end
it: clients are told, and other nodes take their sessions.

Exit code: 0 when it was ended, 1 when it could not start.

Examples:
  pandapush start
  PORT=4000 DATABASE_PATH=/var/lib/pandapush/db.sqlite pandapush start`,
  )
  .action(async () => {
    const { main } = await import("../main.js");
    const exitCode = await main();
    // When it is 0 the server runs; how it ends is its own to say.
    if (exitCode !== exitCodes.ok) process.exitCode = exitCode;
  });

program
  .command("migrate")
  .description("create or update the tables of the database; the server does it at start, too")
  .action(() =>
    withNewStore(async (_store, { config: { database }, databaseName }) => {
      const name = "path" in database ? database.path : databaseName;
      print({ database: name }, [`${name} is up to date.`]);
    }),
  );
