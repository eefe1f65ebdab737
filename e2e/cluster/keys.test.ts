/** Keys and applications, which nodes share by Postgres. */
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { appId, Socket } from "../../server/test/harness.js";
import { loadLegacy } from "../../server/test/postgres.js";
import { Cluster, type ClusterNode } from "./cluster.js";
import { ask, freshChannel, publish } from "./requests.js";

/** What a change may take until it acts everywhere. */
const actsWithin = { timeout: 1_000, interval: 20 };
const password = "password";

interface Key {
  readonly id: string;
  readonly secret: string;
}

function administer(node: ClusterNode | undefined, method: string, path: string, body?: object) {
  if (node === undefined) throw new Error("there is no such node");
  return ask(node, method, `/admin/api${path}`, ["admin", password], body);
}

async function makeKey(node: ClusterNode | undefined): Promise<Key> {
  const made = await administer(node, "POST", `/application/${appId}/keys`, { purpose: "test" });
  expect(made.status).toBe(200);
  return JSON.parse(made.text) as Key;
}

describe("of three nodes", () => {
  let cluster: Cluster;
  beforeAll(async () => {
    cluster = await Cluster.start({ nodes: 3, environment: { ADMIN_PASSWORD: password } });
  });
  afterAll(() => cluster?.stop());

  const statuses = ({ id, secret }: Key): Promise<number[]> =>
    Promise.all(
      cluster.nodes.map(async (node) => {
        return (await publish(node, freshChannel(), 1, [id, secret])).status;
      }),
    );

  test("[AUTH-16] a key works at each from the moment its creation is answered", async () => {
    for (let n = 0; n < 12; n++) {
      expect(await statuses(await makeKey(cluster.nodes[n % 3]))).toEqual([200, 200, 200]);
    }
  });

  test.each([
    [
      "revoked at another node",
      ({ id }: Key) =>
        administer(cluster.nodes[2], "POST", `/application/${appId}/keys/${id}/revoke`),
    ],
    [
      "deleted with psql",
      ({ id }: Key) =>
        cluster.postgres.query(cluster.database.name, `DELETE FROM keys WHERE id = '${id}'`),
    ],
  ])(
    "[AUTH-18] within a second each refuses a key that is %s, and ends what it opened",
    async (_, end) => {
      const key = await makeKey(cluster.nodes[0]);
      const channel = freshChannel("private");
      const listeners = await Promise.all(cluster.nodes.map((node) => Socket.connect(node)));
      for (const listener of listeners) {
        const reply = await listener.subscribe(channel, {
          auth: { key: key.id, secret: key.secret },
        });
        expect(reply.successful).toBe(true);
      }
      await end(key);
      const ended = listeners.map((listener) =>
        listener.next(({ error }) => error === "Revoked key", actsWithin.timeout),
      );
      await expect.poll(() => statuses(key), actsWithin).toEqual([400, 400, 400]);
      for (const { subscription } of await Promise.all(ended)) expect(subscription).toBe(channel);
      for (const listener of listeners) listener.close();
    },
  );
});

test("two nodes start at the same time on a database of Pandapush 2.2, which they leave as it was", async () => {
  const queries = [
    "SELECT id, name, created_by, created_at, updated_at FROM applications ORDER BY id",
    "SELECT * FROM application_users ORDER BY user_id",
    "SELECT id, application_id, secret, created_by, expires, purpose, created_at FROM keys ORDER BY id",
    "SELECT * FROM knex_migrations WHERE id <= 3 ORDER BY id",
    "SELECT * FROM knex_migrations_lock",
  ];
  const rows: unknown[] = [];
  const cluster = await Cluster.start({
    // None is added to what is there.
    environment: { DEV_APPLICATION_ID: "", DEV_KEY_ID: "", DEV_KEY_SECRET: "" },
    async prepare(postgres, database) {
      await loadLegacy(postgres, database);
      for (const sql of queries) rows.push(await postgres.query(database.name, sql));
    },
  });
  try {
    for (const node of cluster.nodes) {
      const listener = await Socket.connect(node);
      await listener.subscribe("/devapp/public/news");
      for (const [n, other] of cluster.nodes.entries()) {
        const key = ["devkey", "devsecret"] as const;
        expect((await publish(other, "/devapp/public/news", n, key)).status).toBe(200);
        expect((await listener.event()).data).toBe(n);
      }
      listener.close();
    }
    const { postgres, database } = cluster;
    for (const [n, sql] of queries.entries()) {
      expect(await postgres.query(database.name, sql)).toEqual(rows[n]);
    }
  } finally {
    await cluster.stop();
  }
});
