/** @param {import("knex").Knex} knex */
export async function up(knex) {
  await knex.schema.alterTable("keys", (table) => {
    table.dateTime("last_used");
    table.integer("use_count");
  });
}

/** knex demands it; migrations only go forward. */
export function down() {
  return Promise.reject(new Error("Migrations only go forward: restore a backup instead"));
}
