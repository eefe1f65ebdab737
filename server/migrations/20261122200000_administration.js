/** @param {import("knex").Knex} knex */
export async function up(knex) {
  await knex.schema.alterTable("keys", (table) => {
    table.dateTime("revoked_at");
    table.string("revoked_by");
    table.string("previous_secret", 1024);
    table.dateTime("previous_until");
  });
  await knex.schema.createTable("audit", (table) => {
    table.increments("id");
    table.dateTime("created_at");
    table.string("user_id");
    table.string("action");
    // No reference: the entries outlive the application.
    table.string("application_id").index();
    table.text("details");
  });
  await knex.schema.createTable("settings", (table) => {
    table.string("name");
    table.text("value");
    table.primary(["name"]);
  });
}

/** knex demands it; migrations only go forward. */
export function down() {
  return Promise.reject(new Error("Migrations only go forward: restore a backup instead"));
}
