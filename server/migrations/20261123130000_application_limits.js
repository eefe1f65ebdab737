const limits = [
  "max_publishes_per_second",
  "max_connections",
  "max_sessions_per_second",
  "max_message_bytes",
];

/**
 * What an application may do, beside what the server allows to all; null: no limit of its own.
 *
 * @param {import("knex").Knex} knex
 */
export async function up(knex) {
  await knex.schema.alterTable("applications", (table) => {
    for (const limit of limits) table.integer(limit);
  });
  if (knex.client.dialect !== "postgresql") return;
  await knex.raw("DROP TRIGGER pandapush_keys_changed ON applications");
  await knex.raw(`
    CREATE TRIGGER pandapush_keys_changed
    AFTER INSERT OR DELETE OR TRUNCATE OR UPDATE OF id, ${limits.join(", ")}
    ON applications FOR EACH STATEMENT EXECUTE FUNCTION pandapush_keys_changed()
  `);
}

/** knex demands it; migrations only go forward. */
export function down() {
  return Promise.reject(new Error("Migrations only go forward: restore a backup instead"));
}
