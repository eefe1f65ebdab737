import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { type Result, runCommand } from "./command.js";
import { environmentOf, Postgres } from "./postgres.js";
import { TestRedis } from "./redis.js";

let folder: string;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "pandapush-check-"));
});

afterAll(() => rm(folder, { recursive: true }));

const check = (env: NodeJS.ProcessEnv = {}, ...args: string[]): Promise<Result> =>
  runCommand(folder, ["check", ...args], { DATABASE_PATH: "db.sqlite", ...env });

describe("pandapush check", () => {
  test("changes nothing, and says that there is no database yet, and then that there is", async () => {
    const before = await check();
    expect(before).toMatchObject({ code: 0, err: "" });
    expect(before.out).toMatch(/^ok {5}configuration: all values are allowed\n/);
    expect(before.out).toContain(
      `note   database: SQLite, ${join(folder, "db.sqlite")}: it has no tables yet; `,
    );
    expect(before.out).toMatch(/\nok {5}Redis: .*: this node stands alone\n/);
    expect(before.out).toMatch(/\n\nThe server can start\.\n$/);
    expect((await check()).out).toBe(before.out);
    await runCommand(folder, ["migrate"], { DATABASE_PATH: "db.sqlite" });
    const after = await check({}, "--json");
    expect(JSON.parse(after.out)).toMatchObject({
      ok: true,
      findings: expect.arrayContaining([
        {
          level: "ok",
          subject: "database",
          text: `SQLite, ${join(folder, "db.sqlite")}: up to date`,
        },
      ]),
    });
  });

  test("lists all faults of the configuration at once, and its warnings", async () => {
    const faulty = await check({ PORT: "x", REDIS_HOSTS: ",", DATABASE: "oracle" });
    expect(faulty).toMatchObject({ code: 1, err: "" });
    expect(faulty.out.match(/^FAULT {2}configuration: .*/gm)).toHaveLength(3);
    expect(faulty.out).toMatch(/\n\n3 faults: /);
    const odd = await check({ DATABASE_PAHT: "x" });
    expect(odd).toMatchObject({ code: 0 });
    expect(odd.out).toContain(
      "note   configuration: DATABASE_PAHT is unknown; did you mean DATABASE_PATH?\n",
    );
  });

  test("says what is wrong with a database that cannot be opened", async () => {
    await writeFile(join(folder, "text"), "This is not a database, but a text of some length.");
    const { code, out } = await check({ DATABASE_PATH: "text" });
    expect(code).toBe(1);
    expect(out).toContain("FAULT  database: text: it is no SQLite database. Set DATABASE_PATH to");
  });
});

describe("pandapush check with Postgres", () => {
  test("knows whether its tables are up to date, and makes none", async () => {
    const postgres = await Postgres.start();
    const database = await postgres.createDatabase();
    const env = environmentOf(database);
    for (let i = 0; i < 2; i++) {
      const { code, out } = await check(env);
      expect(out).toMatch(/\nnote {3}database: PostgreSQL \d+.*: it has no tables yet; /);
      expect(code).toBe(0);
    }
    await runCommand(folder, ["migrate"], env);
    expect((await check(env)).out).toMatch(/\nok {5}database: PostgreSQL \d+.*: up to date\n/);
    await postgres.query("postgres", `DROP DATABASE ${database.name}`);
    const gone = await check(env);
    expect(gone.code).toBe(1);
    expect(gone.out).toMatch(
      /\nFAULT {2}database: .*does not exist. Create it, or set DATABASE_NAME\n/,
    );
    await postgres.remove();
  });
});

describe("pandapush check with Redis", () => {
  test("is well with a host that keeps everything", async () => {
    const redis = await TestRedis.start();
    const { code, out } = await check({ REDIS_HOSTS: redis.address });
    expect(out).toMatch(
      new RegExp(`\\nok {5}Redis host ${redis.address}: \\d+\\.\\d+\\S*; scripts run, and topics`),
    );
    expect(code).toBe(0);
    expect(await redis.command("DBSIZE")).toBe(0);
    await redis.stop();
  });

  test("finds a host that throws keys away, and one that would", async () => {
    const redis = await TestRedis.start("--maxmemory-policy", "allkeys-lru");
    const later = await check({ REDIS_HOSTS: redis.address });
    expect(later.code).toBe(0);
    expect(later.out).toMatch(/\nnote {3}Redis host .*allkeys-lru.* Set maxmemory-policy to noev/);
    await redis.command("CONFIG", "SET", "maxmemory", "100mb");
    const now = await check({ REDIS_HOSTS: redis.address });
    expect(now.code).toBe(1);
    expect(now.out).toMatch(/\nFAULT {2}Redis host .*when its memory is full it throws keys away/);
    await redis.stop();
  });

  test("says of each host what does not work, without its password", async () => {
    const [closed, primary] = await Promise.all([
      TestRedis.start("--requirepass", "hidden"),
      TestRedis.start(),
    ]);
    const replica = await TestRedis.start("--replicaof", "127.0.0.1", String(primary.port));
    const gone = await TestRedis.start();
    await gone.stop();
    const hosts = [
      closed.address,
      `redis://:secretword@${closed.address}/1`,
      `redis://:hidden@${closed.address}/2`,
      replica.address,
      gone.address,
    ];
    const { code, out } = await check({ REDIS_HOSTS: hosts.join() });
    expect(code).toBe(1);
    const lines = out.split("\n").filter((line) => line.includes("Redis host"));
    expect(lines).toEqual([
      expect.stringMatching(/^FAULT .*NOAUTH.*REDIS_HOSTS has user and password/),
      expect.stringMatching(/^FAULT .*\/1: .*WRONGPASS/),
      expect.stringMatching(/^ok .*\/2: /),
      expect.stringMatching(/^FAULT .*scripts: .*READONLY.*name its primary/),
      expect.stringMatching(/^FAULT .*ECONNREFUSED.*Start it/),
    ]);
    expect(out).not.toMatch(/hidden|secretword/);
    await Promise.all([closed.stop(), primary.stop(), replica.stop()]);
  });

  test("knows a user who may not hear topics", async () => {
    const redis = await TestRedis.start();
    await redis.command("ACL", "SETUSER", "app", "on", ">pass", "~*", "+@all", "resetchannels");
    const { code, out } = await check({ REDIS_HOSTS: `redis://app:pass@${redis.address}` });
    expect(code).toBe(1);
    expect(out).toMatch(/FAULT .*: topics: NOPERM.*topics that begin with REDIS_PREFIX/);
    await redis.stop();
  });
});
