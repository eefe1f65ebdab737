/**
 * For Postgres: SQLite counts without end, and says by itself whether another process has written.
 *
 * Every change of an application or key, whoever makes it and with whatever program, counts up one
 * setting. Its row stays locked until the change is committed, so that counts are seen in their
 * order and none is overtaken. Counting how often a key is used is no change.
 *
 * @param {import("knex").Knex} knex
 */
export async function up(knex) {
  if (knex.client.dialect !== "postgresql") return;
  await knex.schema.alterTable("keys", (table) => {
    table.bigInteger("use_count").alter({ alterNullable: false });
  });
  await knex("settings").insert({ name: "keys.version", value: "1" });
  await knex.raw(`
    CREATE FUNCTION pandapush_keys_changed() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path FROM CURRENT
    AS $$
    BEGIN
      UPDATE settings SET value = value::bigint + 1 WHERE name = 'keys.version';
      RETURN NULL;
    END
    $$
  `);
  await knex.raw(`
    CREATE TRIGGER pandapush_keys_changed
    AFTER INSERT OR DELETE OR TRUNCATE
      OR UPDATE OF id, application_id, secret, expires, revoked_at, previous_secret, previous_until
    ON keys FOR EACH STATEMENT EXECUTE FUNCTION pandapush_keys_changed()
  `);
  await knex.raw(`
    CREATE TRIGGER pandapush_keys_changed
    AFTER INSERT OR DELETE OR TRUNCATE OR UPDATE OF id
    ON applications FOR EACH STATEMENT EXECUTE FUNCTION pandapush_keys_changed()
  `);
}

/** knex demands it; migrations only go forward. */
export function down() {
  return Promise.reject(new Error("Migrations only go forward: restore a backup instead"));
}
