/** `start` and `migrate`. */
import { exitCodes, print, program, withNewStore } from "./core.js";

program
  .command("start")
  .description("run the server")
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
