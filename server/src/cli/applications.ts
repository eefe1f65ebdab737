/** `app`: applications, and who administers them. */
import type { AppId } from "@pandapush/protocol";
import { InvalidArgumentError } from "commander";
import type { Application } from "../storage/store.js";
import {
  commandLine,
  commandName,
  day,
  Failure,
  noSuchApp,
  print,
  program,
  table,
  withNewStore,
  withStore,
} from "./core.js";

const app = program.command("app").description("applications");

app
  .command("add")
  .description("make an application")
  .argument("<name>", "for people; need not be unique", parseName)
  .option("--id <id>", "its id, the first segment of its channels (default: made up)", parseId)
  .option("--user <user>", "its creator and first admin", "admin")
  .action((name: string, { id, user }: { id?: string; user: string }) =>
    withNewStore(async (store, { databaseName }) => {
      if (id !== undefined && (await store.findApplication(id as AppId)) !== undefined) {
        throw new Failure(`An application with the id ${id} exists already.`);
      }
      const given = { ...(id === undefined ? {} : { id: id as AppId }), name, createdBy: user };
      const added = await store.addApplication(given, commandLine);
      print(applicationJson(added), [
        `Application ${name}`,
        `  id        ${added.id}`,
        `  database  ${databaseName}`,
        "",
        "Next, make a key for it:",
        `  ${commandName()} key add ${added.id} --purpose "my first key"`,
      ]);
    }),
  );

app
  .command("list")
  .description("show all applications")
  .action(() =>
    withStore(async (store, { databaseName }) => {
      const applications = await store.applications();
      print(
        applications.map(applicationJson),
        applications.length === 0
          ? [
              `No applications yet in ${databaseName}.`,
              "",
              "Make one:",
              `  ${commandName()} app add "My shop"`,
            ]
          : table(
              ["ID", "NAME", "CREATED BY", "CREATED"],
              applications.map((a) => [a.id, a.name, a.createdBy, day(a.createdAt)]),
            ),
      );
    }),
  );

app
  .command("delete")
  .description("delete an application with its keys; a running server refuses them within a second")
  .argument("<id>", "its id")
  .action((id: string) =>
    withStore(async (store) => {
      if (!(await store.removeApplication(id as AppId, commandLine))) throw noSuchApp(id);
      print({ id }, [`Application ${id} and its keys are deleted.`]);
    }),
  );

function parseName(text: string): string {
  if (text.trim() !== "" && text.length <= 255) return text;
  throw new InvalidArgumentError("A name has 1 to 255 characters, and not only blanks.");
}

function parseId(text: string): string {
  if (/^[A-Za-z0-9_~-]{1,255}$/.test(text)) return text;
  throw new InvalidArgumentError("An id has 1 to 255 letters, digits, - _ ~.");
}

/** The names of Pandapush 2.2's admin API. */
export function applicationJson(application: Application) {
  return {
    id: application.id,
    name: application.name,
    created_by: application.createdBy,
    created_at: application.createdAt,
    updated_at: application.updatedAt,
  };
}
