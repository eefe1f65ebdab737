/**
 * A key may be rotated again while former secrets still count: all of them are kept, each until
 * its own time, as JSON beside the secret that they belong to: `[{"secret":"…","until":"…"}]`.
 *
 * @param {import("knex").Knex} knex
 */
export async function up(knex) {
  const isPostgres = knex.client.dialect === "postgresql";
  await knex.schema.alterTable("keys", (table) => {
    table.text("previous_secrets");
  });
  const rotated = await knex("keys").whereNotNull("previous_secret").whereNotNull("previous_until");
  for (const { id, previous_secret: secret, previous_until: until } of rotated) {
    const previous = [{ secret, until: new Date(until).toISOString() }];
    await knex("keys")
      .where({ id })
      .update({ previous_secrets: JSON.stringify(previous) });
  }
  // It names the columns that are dropped.
  if (isPostgres) await knex.raw("DROP TRIGGER pandapush_keys_changed ON keys");
  // knex itself would make the table anew on SQLite, which loses what other tables refer to.
  await knex.raw("ALTER TABLE keys DROP COLUMN previous_secret");
  await knex.raw("ALTER TABLE keys DROP COLUMN previous_until");
  if (isPostgres) {
    await knex.raw(`
      CREATE TRIGGER pandapush_keys_changed
      AFTER INSERT OR DELETE OR TRUNCATE
        OR UPDATE OF id, application_id, secret, expires, revoked_at, previous_secrets
      ON keys FOR EACH STATEMENT EXECUTE FUNCTION pandapush_keys_changed()
    `);
  }
}

/** knex demands it; migrations only go forward. */
export function down() {
  return Promise.reject(new Error("Migrations only go forward: restore a backup instead"));
}
