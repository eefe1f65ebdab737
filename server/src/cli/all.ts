/** The whole command, for running it and for its documentation. The order is that of the help. */
import type { Command } from "commander";
import { commandName, program } from "./core.js";
import "./server.js";
import "./check.js";
import "./applications.js";
import "./keys.js";
import "./admin.js";
import "./token.js";
import "./messages.js";
import "./load.js";
import "./legacy.js";

program
  .description("Self-hosted, multi-tenant web pub/sub.")
  .option("--json", "print the result as JSON")
  // Commander itself shows help instead of the fault when a wrong command has --help behind it.
  .addHelpText("beforeAll", ({ command }) => {
    refuseUnknown(command);
    return "";
  })
  .addHelpText(
    "after",
    `
Examples:
  pandapush start
  pandapush app add "My shop"
  pandapush key add APP_ID --purpose "web shop" --expires P1Y
  pandapush token APP_ID KEY_ID "/APP_ID/private/*" --sub --expires PT8H
  pandapush subscribe public/news
  pandapush publish public/news '{"text":"hello"}'

What a command takes: pandapush <command> --help

The same environment variables, and the same .env file in the working
directory, as for the server say which database is meant: DATABASE_PATH, or
DATABASE=postgres with DATABASE_ADDRESS and others.`,
  );

program
  .command("docs", { hidden: true })
  .description("write the generated pages of this repository")
  .action(async () => {
    const { writeDocs } = await import("../docs.js");
    for (const path of await writeDocs()) console.log(path);
  });

// Only here the names alone, which leave room for their descriptions.
program.configureHelp({ showGlobalOptions: true, subcommandTerm: (command) => command.name() });
pointToHelp(program, commandName());

export { program };

/** What a fault in usage ends with; the whole help would push the fault off the screen. */
function pointToHelp(command: Command, name: string): void {
  command.showHelpAfterError(`See: ${name} --help`);
  for (const sub of command.commands) pointToHelp(sub, `${name} ${sub.name()}`);
}

function refuseUnknown(command: Command): void {
  const [first, second] = command.args;
  const name = (first === "help" ? second : first) ?? "";
  if (command.commands.length === 0 || name === "" || name === "help") return;
  if (name.startsWith("-") || command.commands.some((sub) => sub.name() === name)) return;
  command.error(`error: unknown command '${name}'`);
}
