import { execFile } from "node:child_process";
import { existsSync } from "node:fs";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import type { AppId, KeyId } from "@pandapush/protocol";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { createAuthorize } from "../src/auth/authorize.js";
import { KeyTable } from "../src/auth/keys.js";
import { basicLogin } from "../src/auth/password.js";
import { openStore } from "../src/storage/sql.js";
import { command, type Result, runCommand } from "./command.js";

let folder: string;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "pandapush-cli-"));
});

afterAll(() => rm(folder, { recursive: true }));

/** With a database of this file's own. */
function run(args: readonly string[], env: NodeJS.ProcessEnv = {}): Promise<Result> {
  return runCommand(folder, args, { DATABASE_PATH: "db.sqlite", ...env });
}

async function runJson<T>(...args: string[]): Promise<T> {
  const { code, out, err } = await run(args);
  expect({ code, err }).toEqual({ code: 0, err: "" });
  return JSON.parse(out) as T;
}

const addApp = async () => (await runJson<{ id: string }>("app", "add", "Shop", "--json")).id;

describe("pandapush", () => {
  test("ends quietly when nobody reads its output any more", async () => {
    const line = `"${process.execPath}" "${command}" --help | true; echo "\${PIPESTATUS[0]}"`;
    const child = await promisify(execFile)("bash", ["-c", line], { cwd: folder });
    expect(child).toEqual({ stdout: "0\n", stderr: "" });
  });
});

describe("pandapush app", () => {
  test("add makes an application and says what comes next", async () => {
    const { code, out, err } = await run(["app", "add", "My shop", "--id", "shop"]);
    expect({ code, err }).toEqual({ code: 0, err: "" });
    expect(out).toMatch(/Application My shop\n {2}id {8}shop\n/);
    expect(out).toContain(`  database  ${join(folder, "db.sqlite")}\n`);
    expect(out).toMatch(/node \S*cli\.js key add shop --purpose/);
  });

  test("add refuses an id that is taken, and one that fits no channel", async () => {
    const id = await addApp();
    expect(await run(["app", "add", "Again", "--id", id])).toMatchObject({
      code: 1,
      err: `An application with the id ${id} exists already.\n`,
    });
    const bad = await run(["app", "add", "Bad", "--id", "a/b"]);
    expect(bad.code).toBe(2);
    expect(bad.err).toContain("letters, digits, - _ ~");
  });

  test.each(["", "  ", "x".repeat(256)])("add refuses %j as a name", async (name) => {
    expect(await run(["app", "add", name])).toMatchObject({
      code: 2,
      err: expect.stringContaining("A name has 1 to 255 characters"),
    });
  });

  test("list shows them, delete removes one", async () => {
    const id = await addApp();
    const listed = await run(["app", "list"]);
    expect(listed.out).toMatch(/^ID +NAME +CREATED BY +CREATED\n/);
    expect(listed.out).toMatch(new RegExp(`${id} +Shop +admin +\\d{4}-\\d{2}-\\d{2}\n`));
    expect(await run(["app", "delete", id])).toMatchObject({ code: 0 });
    expect((await run(["app", "list"])).out).not.toContain(id);
    expect(await run(["app", "delete", id])).toMatchObject({
      code: 1,
      err: expect.stringContaining(`No application has the id ${id}. See: `),
    });
  });
});

describe("pandapush key", () => {
  test("add shows the secret once, with a curl line that uses it", async () => {
    const id = await addApp();
    const added = await run(["key", "add", id, "--purpose", "web", "--expires", "P1Y"], {
      PORT: "4000",
    });
    expect(added.code).toBe(0);
    const [, keyId] = /^Key (PSID\w{16}) of application/.exec(added.out) ?? [];
    const [, secret] = /secret {3}(\w{256})\n/.exec(added.out) ?? [];
    expect(added.out).toContain(`curl -u ${keyId}:${secret} \\\n`);
    expect(added.out).toContain(`http://localhost:4000/channel/${id}/public/`);
    expect(added.out).not.toContain("default port");
    const listed = await run(["key", "list", id]);
    expect(listed.out).toMatch(new RegExp(`${keyId} +web +\\S+ +\\d{4}-\\d\\d-\\d\\d +0 +-\n`));
    expect(listed.out).not.toContain(secret);
  });

  test("add is in the audit as done here, whoever it is for", async () => {
    const id = await addApp();
    await run(["key", "add", id, "--user", "ann", "--purpose", "web"]);
    await run(["addKey", id, "ben", "batch"]);
    const old = await run(["add", "Old", "zoe"]);
    const store = await openStore({ path: join(folder, "db.sqlite") });
    const { items } = await store.audit({ limit: 4 });
    expect(items.map(({ user, action }) => [user, action])).toEqual(
      ["application", "key", "key", "application"].map((noun) => [
        "command line",
        `${noun}.create`,
      ]),
    );
    expect((await store.findKeys(id as AppId, {})).items.map((key) => key.createdBy)).toEqual([
      "ann",
      "ben",
    ]);
    expect(await store.admins(id as AppId)).toEqual(["admin"]);
    expect(await store.admins(JSON.parse(old.out).id)).toEqual(["zoe"]);
    await store.close();
  });

  test("add says that its curl line has the default port when no other is configured", async () => {
    const { out } = await run(["key", "add", await addApp()]);
    expect(out).toMatch(
      /http:\/\/localhost:3000\/\S+\n {2}\(3000 is the default port: use the one your server runs on\)\n/,
    );
  });

  test("add refuses an unknown application, and an end that is past or no date", async () => {
    expect(await run(["key", "add", "nobody"])).toMatchObject({ code: 1 });
    for (const end of ["yesterday", "2020-01-01"]) {
      expect(await run(["key", "add", await addApp(), "--expires", end])).toMatchObject({
        code: 2,
      });
    }
  });

  test("delete removes a key of this application only", async () => {
    const [id, other] = [await addApp(), await addApp()];
    const key = await runJson<{ id: string }>("key", "add", id, "--json");
    expect(await run(["key", "delete", other, key.id])).toMatchObject({ code: 1 });
    expect(await run(["key", "delete", id, key.id])).toMatchObject({ code: 0 });
    expect(await runJson("key", "list", id, "--json")).toEqual([]);
  });
});

describe("pandapush key revoke and rotate", () => {
  const addKey = async () => {
    const id = await addApp();
    const key = await runJson<{ id: string; secret: string }>("key", "add", id, "--json");
    return { id, key };
  };
  const stored = async (id: string, keyId: string) => {
    const store = await openStore({ path: join(folder, "db.sqlite") });
    const key = await store.findKey(id as AppId, keyId as KeyId);
    const { items } = await store.audit({ appId: id as AppId, limit: 1 });
    await store.close();
    return { key, audit: items[0] };
  };

  test("revoke ends a key once, and keeps it to be seen", async () => {
    const { id, key } = await addKey();
    expect(await run(["key", "revoke", id, key.id])).toEqual({
      code: 0,
      out: `Key ${key.id} is revoked.\n`,
      err: "",
    });
    const { key: after, audit } = await stored(id, key.id);
    expect(after).toMatchObject({ revokedAt: expect.any(Date), revokedBy: "command line" });
    expect(audit).toMatchObject({ user: "command line", action: "key.revoke" });
    expect(await run(["key", "revoke", id, key.id])).toMatchObject({
      code: 1,
      err: `Key ${key.id} was revoked before.\n`,
    });
    expect(await run(["key", "revoke", id, "nokey"])).toMatchObject({ code: 1 });
    expect(await run(["key", "rotate", id, key.id])).toMatchObject({
      code: 1,
      err: `Key ${key.id} was revoked.\n`,
    });
  });

  test("rotate shows the new secret, and lets the old one work for a day", async () => {
    const { id, key } = await addKey();
    const { code, out } = await run(["key", "rotate", id, key.id]);
    expect(code).toBe(0);
    const [, secret] = /new secret {2}(\w{256})\n/.exec(out) ?? [];
    const { key: after } = await stored(id, key.id);
    expect(after?.secret).toBe(secret);
    expect(after?.secret).not.toBe(key.secret);
    const [previous] = after?.previous ?? [];
    expect(previous?.secret).toBe(key.secret);
    const leftMs = (previous?.until.getTime() ?? 0) - Date.now();
    expect(leftMs).toBeGreaterThan(86_000_000);
    expect(leftMs).toBeLessThanOrEqual(86_400_000);
    expect(out).toMatch(/old secret {2}works until \d{4}-/);
  });

  test("rotate ends the old secret at once with --overlap PT0S", async () => {
    const { id, key } = await addKey();
    const args = ["key", "rotate", id, key.id, "--overlap", "PT0S", "--json"];
    const rotated = await runJson<{ secret: string }>(...args);
    const { key: after } = await stored(id, key.id);
    expect(after).toMatchObject({ secret: rotated.secret, previous: [] });
  });

  test("rotate refuses an overlap that is none, or longer than a year", async () => {
    const { id, key } = await addKey();
    for (const overlap of ["soon", "P2Y"]) {
      expect(await run(["key", "rotate", id, key.id, "--overlap", overlap])).toMatchObject({
        code: 2,
      });
    }
  });

  test("rotate says why it cannot be done a sixth time", async () => {
    const { id, key } = await addKey();
    for (let i = 0; i < 5; i++) await runJson("key", "rotate", id, key.id, "--json");
    expect(await run(["key", "rotate", id, key.id])).toMatchObject({
      code: 1,
      err: expect.stringMatching(/^5 former secrets of this key still work, .* --overlap PT0S/),
    });
  });
});

describe("tokens", () => {
  /** What a server that shares the database makes of it. */
  async function authorize(token: string, channel: string, action: "subscribe" | "publish") {
    const store = await openStore({ path: join(folder, "db.sqlite") });
    const problems: unknown[] = [];
    const keys = new KeyTable(store, {
      reloadMs: 60_000,
      usageMs: 60_000,
      report: (_problem, error) => problems.push(error),
    });
    try {
      await keys.load();
      return await createAuthorize(keys)(action, channel, { token });
    } finally {
      await keys.close();
      await store.close();
      expect(problems).toEqual([]);
    }
  }

  test("a token does what its options say, and no more", async () => {
    const id = await addApp();
    const key = await runJson<{ id: string }>("key", "add", id, "--json");
    const channel = `/${id}/presence/*`;
    const presence = '{"id":"u1","name":"Ann"}';
    const made = await run(["token", id, key.id, channel, "--sub", "--presence", presence]);
    expect(made).toMatchObject({ code: 0, err: "" });
    const token = made.out.trim();
    const room = `/${id}/presence/room`;
    const grant = await authorize(token, room, "subscribe");
    expect(grant).toMatchObject({ keyId: key.id, presence: { id: "u1", json: presence } });
    const hour = (grant.expiresAt ?? 0) - Date.now();
    expect(hour).toBeGreaterThan(3_500_000);
    expect(hour).toBeLessThanOrEqual(3_600_000);
    await expect(authorize(token, room, "publish")).rejects.toMatchObject({ code: "tokenPub" });
  });

  test("a token is refused that nobody could use", async () => {
    const id = await addApp();
    const key = await runJson<{ id: string }>("key", "add", id, "--json");
    const channel = `/${id}/private/a`;
    expect(await run(["token", id, key.id, channel])).toMatchObject({ code: 2 });
    expect(await run(["token", id, key.id, "/other/private/a", "--sub"])).toMatchObject({
      code: 1,
    });
    expect(await run(["token", id, "nokey", channel, "--sub"])).toMatchObject({ code: 1 });
    expect(await run(["token", id, key.id, channel, "--sub", "--presence", "[]"])).toMatchObject({
      code: 2,
    });
  });

  test("a presence that is no JSON is refused with its fault and the way to the help", async () => {
    const args = ["token", "app", "key", "/app/presence/a", "--sub", "--presence", "bad"];
    const { code, out, err } = await run(args);
    expect({ code, out }).toEqual({ code: 2, out: "" });
    expect(err).toMatch(
      /^error: option '--presence <json>' argument 'bad' is invalid\. It is not JSON: (?!SyntaxError).*\nSee: node \S+cli\.js token --help\n$/,
    );
  });

  test("the commands of Pandapush 2.2 work as they were called", async () => {
    const added = await runJson<{ id: string }>("add", "Old shop", "ann");
    expect(added).toMatchObject({ name: "Old shop", created_by: "ann", updated_at: null });
    expect(await runJson<{ id: string }[]>("show")).toContainEqual(added);
    const key = await runJson<{ id: string; secret: string }>(
      "addKey",
      added.id,
      "ann",
      "web",
      "-e",
      "P1Y",
    );
    expect(key).toMatchObject({ application_id: added.id, created_by: "ann", purpose: "web" });
    expect(key.secret).toHaveLength(256);
    const channel = `/${added.id}/private/a`;
    const made = await run(["genToken", added.id, key.id, channel, "-p", "-s", "-e", "PT5M"]);
    expect(made).toMatchObject({ code: 0, err: "" });
    for (const action of ["publish", "subscribe"] as const) {
      expect(await authorize(made.out.trim(), channel, action)).toMatchObject({ keyId: key.id });
    }
  });
});

describe("pandapush admin", () => {
  test("add, list and remove who administers an application", async () => {
    const id = await addApp();
    expect(await run(["admin", "add", id, "ann"])).toEqual({
      code: 0,
      out: `ann administers application ${id}.\n`,
      err: "",
    });
    expect(await runJson("admin", "list", id, "--json")).toEqual(["admin", "ann"]);
    expect(await run(["admin", "add", id, "ann"])).toMatchObject({ code: 1 });
    expect(await run(["admin", "remove", id, "admin"])).toMatchObject({ code: 0 });
    expect((await run(["admin", "list", id])).out).toBe("ann\n");
    expect(await run(["admin", "remove", id, "admin"])).toMatchObject({ code: 1 });
    expect(await run(["admin", "list", "nobody"])).toMatchObject({
      code: 1,
      err: expect.stringContaining("No application has the id nobody."),
    });
  });

  const reset = (env: NodeJS.ProcessEnv = {}) => run(["admin", "reset-password"], env);

  test("reset-password makes a password that logs in, in place of the one before", async () => {
    await addApp();
    const passwords: string[] = [];
    for (const { code, out, err } of [await reset(), await reset()]) {
      expect({ code, err }).toEqual({ code: 0, err: "" });
      const password = /^Admin admin\n {2}password {2}((?:[a-z2-9]{4}-){3}[a-z2-9]{4})\n/.exec(out);
      passwords.push(password?.[1] ?? "");
    }
    const store = await openStore({ path: join(folder, "db.sqlite") });
    const login = basicLogin(store, { username: "admin" });
    const results = passwords.map((password) => login.checkPassword?.("admin", password));
    expect(await Promise.all(results)).toEqual([false, true]);
    const { items } = await store.audit({ limit: 1 });
    expect(items).toMatchObject([{ user: "command line", action: "admin.reset-password" }]);
    await store.close();
  });

  test("reset-password says where the password is when it is configured", async () => {
    await addApp();
    expect(await reset({ ADMIN_PASSWORD: "secret" })).toEqual({
      code: 1,
      out: "",
      err: "The password is the one in ADMIN_PASSWORD: change it there.\n",
    });
    expect(await reset({ AUTH_METHOD: "none" })).toMatchObject({ code: 1 });
    const okta = {
      AUTH_METHOD: "okta",
      OKTA_ISSUER: "https://example.okta.com",
      OKTA_CLIENT_ID: "id",
      OKTA_CLIENT_SECRET: "hidden",
      OKTA_REDIRECT_URI: "https://push.example.com/callback",
    };
    expect(await reset(okta)).toEqual({
      code: 1,
      out: "",
      err: "Passwords are the provider's business (AUTH_METHOD is okta).\n",
    });
  });

  test("key list and token know a revoked key", async () => {
    const id = await addApp();
    const key = await runJson<{ id: string }>("key", "add", id, "--json");
    const store = await openStore({ path: join(folder, "db.sqlite") });
    await store.revokeKey(id as AppId, key.id as KeyId);
    await store.close();
    expect((await run(["key", "list", id])).out).toContain("revoked");
    expect(await run(["token", id, key.id, `/${id}/private/a`, "--sub"])).toEqual({
      code: 1,
      out: "",
      err: `Key ${key.id} was revoked.\n`,
    });
  });
});

describe("the command", () => {
  test("makes the database when it is started for the first time, several times at once", async () => {
    const env = { DATABASE_PATH: "new/folder/db.sqlite" };
    const results = await Promise.all([1, 2, 3].map(() => run(["migrate"], env)));
    for (const result of results) {
      expect(result).toEqual({ code: 0, out: "new/folder/db.sqlite is up to date.\n", err: "" });
    }
    expect((await run(["app", "list"], env)).out).toContain(
      `No applications yet in ${join(folder, env.DATABASE_PATH)}.\n`,
    );
  });

  test.each([
    [["app", "list"]],
    [["app", "delete", "a"]],
    [["key", "list", "a"]],
    [["key", "add", "a"]],
    [["key", "delete", "a", "k"]],
    [["token", "a", "k", "/a/private/x", "--sub"]],
    [["admin", "reset-password"]],
    [["show"]],
    [["addKey", "a", "ann", "web"]],
    [["genToken", "a", "k", "/a/private/x", "-s"]],
  ])("%j makes no database where there is none, and says where it looked", async (args) => {
    const path = "elsewhere/db.sqlite";
    expect(await run(args, { DATABASE_PATH: path })).toEqual({
      code: 1,
      out: "",
      err: `No database at ${join(folder, path)}\nRun this in the folder where the server runs, or set DATABASE_PATH.\n`,
    });
    expect(existsSync(join(folder, "elsewhere"))).toBe(false);
  });

  test.each([
    [{ HOST: "192.0.2.1" }, /HOST is "192\.0\.2\.1", which is no address of this machine/],
    [{ DATABASE_PATH: "." }, /database \.: it is a folder\. Set DATABASE_PATH to .*db\.sqlite/],
    [{ DATABASE_PATH: "text" }, /database text: it is no SQLite database\. Set DATABASE_PATH/],
    [{ DATABASE_PATH: "text/db" }, /database text\/db: .*mkdir.*\. Set DATABASE_PATH/],
  ])("start fails with %j and says which variable to change", async (env, reason) => {
    await writeFile(join(folder, "text"), "This is not a database, but a text of some length.");
    const { code, err } = await run(["start"], { PORT: "0", ...env });
    expect(code).toBe(1);
    expect(err).toMatch(/^Pandapush cannot start: .*\n$/);
    expect(err).toMatch(reason);
  });

  test("reads the .env file of its folder", async () => {
    await writeFile(join(folder, ".env"), "DATABASE_PATH=from-file.sqlite\n");
    const { out } = await run(["migrate"], { DATABASE_PATH: undefined });
    await rm(join(folder, ".env"));
    expect(out).toBe("from-file.sqlite is up to date.\n");
  });

  test("lists the faults of the configuration and fails", async () => {
    const { code, err } = await run(["app", "list"], { PORT: "x", DATABASE: "oracle" });
    expect(code).toBe(1);
    expect(err).toMatch(/has 2 faults:\n {2}PORT is "x".*\n {2}DATABASE is "oracle"/);
  });

  test("says what it can do, with examples", async () => {
    const help = await run(["--help"]);
    expect(help.code).toBe(0);
    expect(help.out).toContain('pandapush app add "My shop"');
    expect(help.out).not.toContain("docs");
    expect(help.out).toMatch(/^Commands of Pandapush 2\.2, .*:\n {2}add .*\n {2}show /m);
    expect(help.out.split("\n").filter((line) => line.length > 80)).toEqual([]);
    expect((await run(["key", "add", "--help"])).out).toContain("ISO 8601");
  });

  test.each([[[]], [["app"]]])("%j is wrong usage and shows the help", async (args) => {
    const { code, out, err } = await run(args);
    expect({ code, out }).toEqual({ code: 2, out: "" });
    expect(err).toContain("Usage: pandapush");
  });

  test.each([
    [["fly"], "unknown command 'fly'", ""],
    [["fly", "--help"], "unknown command 'fly'", ""],
    [["help", "fly"], "unknown command 'fly'", ""],
    [["app", "fly", "--help"], "unknown command 'fly'", " app"],
    [["app", "add"], "missing required argument 'name'", " app add"],
    [["app", "list", "--fast"], "unknown option '--fast'", " app list"],
  ])("%j is wrong usage: the fault, and where the help is", async (args, fault, of) => {
    const { code, out, err } = await run(args);
    expect({ code, out }).toEqual({ code: 2, out: "" });
    const [first, second] = err.split("\n");
    expect(first).toBe(`error: ${fault}`);
    expect(second).toMatch(new RegExp(`^See: node \\S+cli\\.js${of} --help$`));
  });

  test("a key made while a server runs works there, and deleted no longer", async () => {
    const store = await openStore({ path: join(folder, "db.sqlite") });
    const keys = new KeyTable(store, {
      reloadMs: 60_000,
      usageMs: 60_000,
      report: () => undefined,
    });
    await keys.load();
    const id = (await addApp()) as AppId;
    const key = await runJson<{ id: KeyId; secret: string }>("key", "add", id, "--json");
    const authorize = createAuthorize(keys);
    const publish = async () =>
      authorize("publish", `/${id}/private/a`, { key: key.id, secret: key.secret });
    expect(await publish()).toMatchObject({ keyId: key.id });
    await run(["key", "delete", id, key.id]);
    const outcome = () => publish().then(String, (error: Error) => error.message);
    await expect.poll(outcome, { timeout: 5000 }).toBe("Could not find key");
    await keys.close();
    await store.close();
  });
});
