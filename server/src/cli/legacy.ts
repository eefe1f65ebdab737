/** Scripts of Pandapush 2.2 go on working. */
import { applicationJson } from "./applications.js";
import {
  commandLine,
  durationHelp,
  parseExpires,
  printJson,
  program,
  withNewStore,
  withStore,
} from "./core.js";
import { addKey, newKeyJson } from "./keys.js";
import { printToken } from "./token.js";

program.commandsGroup("Commands of Pandapush 2.2, which print JSON only:");

program
  .command("add")
  .description("make an application (now: app add)")
  .argument("<name>")
  .argument("<username>", "its creator and first admin")
  .action((name: string, username: string) =>
    withNewStore(async (store) => {
      const given = { name, createdBy: username };
      printJson(applicationJson(await store.addApplication(given, commandLine)));
    }),
  );

program
  .command("show")
  .description("show all applications (now: app list)")
  .action(() =>
    withStore(async (store) => printJson((await store.applications()).map(applicationJson))),
  );

program
  .command("addKey")
  .description("make a key (now: key add)")
  .argument("<applicationId>")
  .argument("<username>")
  .argument("<purpose>")
  .option("-e, --expires <end>", `${durationHelp} (default: never)`, parseExpires)
  .action((appId: string, username: string, purpose: string, { expires }: { expires?: Date }) =>
    withStore(async (store) => {
      const given = { createdBy: username, purpose, expires: expires ?? null };
      printJson(newKeyJson(await addKey(store, appId, given)));
    }),
  );

program
  .command("genToken")
  .description("sign a channel token, and print it (now: token)")
  .argument("<applicationId>")
  .argument("<keyId>")
  .argument("<channel>")
  .option("-p, --pub", "it may publish")
  .option("-s, --sub", "it may subscribe")
  .option("-e, --expires <end>", `${durationHelp} (default: PT1H)`, parseExpires)
  .action(printToken);
