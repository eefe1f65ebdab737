/** `admin`: who administers applications, and how the first of them logs in. */
import type { AppId } from "@pandapush/protocol";
import { resetPassword } from "../auth/password.js";
import type { Store } from "../storage/store.js";
import {
  commandLine,
  commandName,
  Failure,
  print,
  program,
  requireApp,
  withStore,
} from "./core.js";

const admin = program
  .command("admin")
  .description("who administers applications, and how they log in");

admin
  .command("reset-password")
  .description("make a new password for the admin of AUTH_METHOD=basic; all sessions end")
  .action(() =>
    withStore(async (store, { config }) => {
      const { method, username, password: configured } = config.admin;
      if (method === "none") {
        throw new Failure("The console is closed (AUTH_METHOD is none): nobody can log in.");
      }
      if (method !== "basic") {
        throw new Failure(`Passwords are the provider's business (AUTH_METHOD is ${method}).`);
      }
      if (configured !== undefined) {
        throw new Failure("The password is the one in ADMIN_PASSWORD: change it there.");
      }
      const password = await resetPassword(store, commandLine);
      print({ username, password }, [
        `Admin ${username}`,
        `  password  ${password}`,
        "",
        "Keep it now: it is not shown again. A running server takes it at once,",
        "unless it was started with an ADMIN_PASSWORD of its own: then that counts.",
      ]);
    }),
  );

admin
  .command("list")
  .description("show who administers an application, besides the root admins")
  .argument("<appId>", "the application's id")
  .action((appId: string) =>
    withStore(async (store) => {
      await requireApp(store, appId);
      const admins = await store.admins(appId as AppId);
      print(
        admins,
        admins.length > 0
          ? admins
          : ["Nobody but the root admins.", "", `  ${commandName()} admin add ${appId} USER`],
      );
    }),
  );

admin
  .command("add")
  .description("let a user administer an application")
  .argument("<appId>", "the application's id")
  .argument("<user>", "the name that the user logs in with")
  .action((appId: string, user: string) =>
    withStore(async (store) => {
      const admins = await adminsOf(store, appId);
      if (user.trim() === "") throw new Failure("A user name is not blank.");
      if (admins.includes(user)) throw new Failure(`${user} administers ${appId} already.`);
      await setAdmins(store, appId, [...admins, user]);
      print({ application_id: appId, user }, [`${user} administers application ${appId}.`]);
    }),
  );

admin
  .command("remove")
  .description("let a user administer an application no longer")
  .argument("<appId>", "the application's id")
  .argument("<user>", "the user's name")
  .action((appId: string, user: string) =>
    withStore(async (store) => {
      const admins = await adminsOf(store, appId);
      if (!admins.includes(user)) throw new Failure(`${user} does not administer ${appId}.`);
      await setAdmins(
        store,
        appId,
        admins.filter((each) => each !== user),
      );
      print({ application_id: appId, user }, [
        `${user} administers application ${appId} no longer.`,
      ]);
    }),
  );

async function adminsOf(store: Store, appId: string): Promise<string[]> {
  await requireApp(store, appId);
  return store.admins(appId as AppId);
}

async function setAdmins(store: Store, appId: string, admins: readonly string[]): Promise<void> {
  await store.updateApplication(appId as AppId, { admins }, commandLine);
}
