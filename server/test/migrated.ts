/** A database as an earlier state of this server left it. */
import type { Knex } from "knex";
import createKnex from "knex";

/** Makes its tables, up to the migration of this name. The caller destroys what it gets. */
export async function migratedUpTo(config: Knex.Config, last: string): Promise<Knex> {
  const knex = createKnex(config);
  for (;;) {
    const [, [path = ""]] = (await knex.migrate.up()) as [number, string[]];
    if (path.endsWith(last)) return knex;
    if (path === "") throw new Error(`There is no migration ${last}`);
  }
}

/** Adds an application with a key that was rotated when only one former secret was kept. */
export async function addRotatedKey(knex: Knex, until: Date): Promise<void> {
  await knex("applications").insert({ id: "app", name: "shop" });
  await knex("keys").insert({
    id: "key",
    application_id: "app",
    secret: "new",
    previous_secret: "old",
    previous_until: until.toISOString(),
  });
  await knex("keys").insert({ id: "other", application_id: "app", secret: "secret" });
}
