/**
 * Sessions of the console that ended before their time. A row is needed until then: later the
 * session is over by itself.
 *
 * @param {import("knex").Knex} knex
 */
export async function up(knex) {
  await knex.schema.createTable("ended_sessions", (table) => {
    table.string("id");
    table.dateTime("until").index();
    table.primary(["id"]);
  });
}

/** knex demands it; migrations only go forward. */
export function down() {
  return Promise.reject(new Error("Migrations only go forward: restore a backup instead"));
}
