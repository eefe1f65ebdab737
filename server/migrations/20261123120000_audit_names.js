/**
 * What an application was called when it was changed: its entries are read when it may be gone.
 *
 * @param {import("knex").Knex} knex
 */
export async function up(knex) {
  await knex.schema.alterTable("audit", (table) => {
    table.string("application_name");
  });
}

/** knex demands it; migrations only go forward. */
export function down() {
  return Promise.reject(new Error("Migrations only go forward: restore a backup instead"));
}
