/** @param {import("knex").Knex} knex */
export async function up(knex) {
  await knex.schema.createTable("applications", (table) => {
    table.string("id");
    table.string("name");
    table.string("created_by");
    table.dateTime("created_at");
    table.dateTime("updated_at");
    table.primary(["id"]);
  });
  await knex.schema.createTable("application_users", (table) => {
    table.string("application_id").references("applications.id");
    table.string("user_id");
  });
  await knex.schema.createTable("keys", (table) => {
    table.string("id");
    table.string("application_id").references("applications.id");
    table.string("secret");
    table.string("created_by");
    table.dateTime("expires");
    table.string("purpose");
    table.dateTime("created_at");
    table.dateTime("updated_at");
    table.primary(["id"]);
  });
}

/** knex demands it; migrations only go forward. */
export function down() {
  return Promise.reject(new Error("Migrations only go forward: restore a backup instead"));
}
