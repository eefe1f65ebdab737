import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { AppId, KeyId } from "@pandapush/protocol";
import Database from "libsql";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { openStore } from "../storage/sql.js";
import { StorageUnavailable, type Store } from "../storage/store.js";
import { KeyTable, type Revoked } from "./keys.js";

const appId = "app" as AppId;
const keyId = "key" as KeyId;

/** The table polls twice a second; what is noticed is noticed well within this. */
const soon = { timeout: 5000, interval: 20 };

let folder: string;
let store: Store;
/** What another process, such as the command line, has open. */
let other: Store;
let keys: KeyTable;
let problems: string[];

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "pandapush-keys-"));
  store = await openStore({ path: join(folder, "db.sqlite") });
  other = await openStore({ path: join(folder, "db.sqlite") });
  await other.addApplication({ id: appId, name: null, createdBy: "ann" });
  problems = [];
  keys = await loadTable();
});

afterEach(async () => {
  vi.useRealTimers();
  vi.restoreAllMocks();
  await keys.close();
  await other.close();
  await store.close();
  await rm(folder, { recursive: true });
});

const report = (problem: string) => problems.push(problem);

async function loadTable({ reloadMs = 60_000, usageMs = 60_000 } = {}): Promise<KeyTable> {
  const table = new KeyTable(store, { reloadMs, usageMs, report });
  await table.load();
  return table;
}

function addKey(id = keyId, secret = "secret") {
  return other.addKey({ id, secret, appId, createdBy: "ann", expires: null, purpose: null });
}

async function addKnownKey() {
  await addKey();
  await keys.changed();
}

describe("the table of live keys", () => {
  test("answers in the same turn what it has loaded", async () => {
    await addKnownKey();
    expect(keys.hasApp(appId)).toBe(true);
    expect(keys.find(appId, keyId)).toMatchObject({ id: keyId, appId });
  });

  test("finds a key from the moment another process has made it", async () => {
    await addKey();
    expect(await keys.find(appId, keyId)).toMatchObject({ id: keyId });
    expect(keys.find(appId, keyId)).toMatchObject({ id: keyId });
  });

  test("finds a new application and its key from the moment they exist", async () => {
    const newApp = "newapp" as AppId;
    await other.addApplication({ id: newApp, name: null, createdBy: "ann" });
    const { id } = await other.addKey({
      appId: newApp,
      createdBy: "ann",
      expires: null,
      purpose: null,
    });
    expect(await keys.find(newApp, id)).toMatchObject({ id });
    expect(keys.hasApp(newApp)).toBe(true);
  });

  test("asks the database once for an id that does not exist, and soon again", async () => {
    expect(await keys.find(appId, keyId)).toBeUndefined();
    expect(keys.find(appId, keyId)).toBeUndefined();
    expect(await keys.hasApp("nobody" as AppId)).toBe(false);
    expect(keys.hasApp("nobody" as AppId)).toBe(false);
    await addKey();
    await expect.poll(() => keys.find(appId, keyId), soon).toMatchObject({ id: keyId });
  });

  test("[AUTH-16] finds a key and an application that were asked for before they existed", async () => {
    // No reload comes to help: time goes on by hand.
    vi.useFakeTimers({ toFake: ["setInterval", "performance"] });
    const table = await loadTable();
    const newApp = "newapp" as AppId;
    expect(await table.find(appId, keyId)).toBeUndefined();
    expect(await table.find(newApp, keyId)).toBeUndefined();
    vi.advanceTimersByTime(100);
    await addKey();
    expect(await table.find(appId, keyId)).toMatchObject({ id: keyId });
    await other.addApplication({ id: newApp, name: null, createdBy: "ann" });
    vi.advanceTimersByTime(100);
    expect(await table.hasApp(newApp)).toBe(true);
    await table.close();
  });

  test("asks the database for its version, and nothing else, about ids that do not exist still", async () => {
    vi.useFakeTimers({ toFake: ["setInterval", "performance"] });
    const table = await loadTable();
    // The first two find out the version that the absence belongs to.
    for (let i = 0; i < 2; i++) {
      expect(await table.find(appId, keyId)).toBeUndefined();
      vi.advanceTimersByTime(100);
    }
    const lookups = vi.spyOn(store, "findKey");
    const versions = vi.spyOn(store, "version");
    const asked = Array.from({ length: 100 }, async () => table.find(appId, keyId));
    expect(new Set(await Promise.all(asked))).toEqual(new Set([undefined]));
    expect(table.find(appId, keyId)).toBeUndefined();
    expect([lookups.mock.calls.length, versions.mock.calls.length]).toEqual([0, 1]);
    await table.close();
  });

  test("forgets at once, when told of a change, that an id did not exist", async () => {
    expect(await keys.find(appId, keyId)).toBeUndefined();
    await store.addKey({ id: keyId, appId, createdBy: "ann", expires: null, purpose: null });
    await keys.changed();
    expect(keys.find(appId, keyId)).toMatchObject({ id: keyId });
  });

  test("gives everybody who waits for the same id the same answer", async () => {
    const lookups = [keys.find(appId, keyId), keys.find(appId, keyId)];
    await addKey();
    const [first, second] = await Promise.all(lookups);
    expect(first).toBe(second);
  });

  test("a key that another process deletes stops working, and its end is told", async () => {
    await addKnownKey();
    const revoked: Revoked[] = [];
    keys.onRevoked((what) => revoked.push(what));
    await other.removeKey(appId, keyId);
    await expect.poll(() => keys.find(appId, keyId), soon).toBeUndefined();
    expect(revoked).toEqual([{ appIds: [], keyIds: [keyId] }]);
  });

  test("a key that another process revokes stays, revoked, and its end is told once", async () => {
    await addKnownKey();
    const revoked: Revoked[] = [];
    keys.onRevoked((what) => revoked.push(what));
    await other.revokeKey(appId, keyId);
    await expect.poll(() => keys.find(appId, keyId), soon).toMatchObject({ isRevoked: true });
    await other.removeKey(appId, keyId);
    await expect.poll(() => keys.find(appId, keyId), soon).toBeUndefined();
    expect(revoked).toEqual([{ appIds: [], keyIds: [keyId] }]);
  });

  test("a key whose secret is rotated ends nothing", async () => {
    await addKnownKey();
    const revoked: Revoked[] = [];
    keys.onRevoked((what) => revoked.push(what));
    await store.rotateKey(appId, keyId, 60_000);
    await keys.changed();
    expect(keys.find(appId, keyId)).toMatchObject({ previous: [{ until: expect.any(Number) }] });
    expect(revoked).toEqual([]);
  });

  test("an application that another process deletes ends with its keys", async () => {
    await addKnownKey();
    const revoked = new Promise<Revoked>((resolve) => keys.onRevoked(resolve));
    await other.removeApplication(appId);
    expect(await revoked).toEqual({ appIds: [appId], keyIds: [keyId] });
    expect(await keys.hasApp(appId)).toBe(false);
  });

  test("a reload keeps a key as it is, and replaces one whose secret is another", async () => {
    await addKnownKey();
    const before = keys.find(appId, keyId);
    await keys.changed();
    expect(keys.find(appId, keyId)).toBe(before);
    await other.removeKey(appId, keyId);
    await addKey(keyId, "another secret");
    await keys.changed();
    expect(keys.find(appId, keyId)).not.toBe(before);
  });

  test("a key made while a load is under way is not taken for a revoked one", async () => {
    const revoked: Revoked[] = [];
    keys.onRevoked((what) => revoked.push(what));
    const loading = keys.changed();
    await addKey();
    expect(await keys.find(appId, keyId)).toMatchObject({ id: keyId });
    await loading;
    expect(keys.find(appId, keyId)).toMatchObject({ id: keyId });
    expect(revoked).toEqual([]);
  });

  test("ids that objects inherit are not keys", async () => {
    expect(await keys.find(appId, "__proto__" as KeyId)).toBeUndefined();
    expect(await keys.find(appId, "constructor" as KeyId)).toBeUndefined();
    expect(await keys.hasApp("__proto__" as AppId)).toBe(false);
  });

  test("a flood of unknown keys of one application is refused and leaves another alone", async () => {
    await other.addApplication({ id: "other" as AppId, name: null, createdBy: "ann" });
    await keys.changed();
    const flood = Array.from({ length: 3000 }, async (_, i) => keys.find(appId, `k${i}` as KeyId));
    const results = await Promise.allSettled(flood);
    const refused = results.filter((result) => result.status === "rejected");
    expect(refused[0]?.reason).toMatchObject({ code: "unavailable" });
    expect(await keys.find("other" as AppId, keyId)).toBeUndefined();
  });

  test("while the database is down, known keys work and unknown ones are unavailable", async () => {
    await addKnownKey();
    await store.close();
    expect(keys.find(appId, keyId)).toMatchObject({ id: keyId });
    await expect(keys.find(appId, "nokey" as KeyId)).rejects.toMatchObject({ code: "unavailable" });
    await keys.changed();
    expect(keys.find(appId, keyId)).toMatchObject({ id: keyId });
    expect(keys.isFailing).toBe(true);
  });

  test("a failure is reported once, until all is well again", async () => {
    const fault = new StorageUnavailable(new Error("gone"));
    const version = vi.spyOn(store, "version").mockRejectedValue(fault);
    const recovered = vi.fn();
    const table = new KeyTable(store, {
      reloadMs: 60_000,
      usageMs: 60_000,
      report,
      recovered,
    });
    await table.load();
    expect([table.isLoaded, table.isFailing]).toEqual([false, true]);
    await table.changed();
    expect(problems).toEqual(["Keys cannot be loaded: the database is not available"]);
    expect(await table.hasApp(appId)).toBe(true);
    version.mockRestore();
    await expect.poll(() => recovered.mock.calls.length, soon).toBe(1);
    expect([table.isLoaded, table.isFailing]).toEqual([true, false]);
    await table.close();
  });

  test("what must be in the database is seen to before the first load, and only then", async () => {
    const prepare = vi.fn(async () => {
      await addKey();
    });
    const table = new KeyTable(store, { reloadMs: 60_000, usageMs: 60_000, report, prepare });
    await table.load();
    expect(table.find(appId, keyId)).toMatchObject({ id: keyId });
    await table.changed();
    expect(prepare).toHaveBeenCalledTimes(1);
    await table.close();
  });

  test("a database that does not answer is asked by one poll at a time", async () => {
    vi.useFakeTimers({ toFake: ["setInterval", "performance"] });
    const table = await loadTable();
    const version = vi.spyOn(store, "version").mockReturnValue(new Promise(() => undefined));
    for (let i = 0; i < 10; i++) vi.advanceTimersByTime(500);
    expect(version.mock.calls.length).toBe(1);
    expect(table.isLoaded).toBe(true);
  });

  test("a first load that fails is the caller's to hear", async () => {
    await store.close();
    await expect(loadTable()).rejects.toThrow();
  });

  test("uses are added up and written together", async () => {
    await addKnownKey();
    const table = await loadTable({ usageMs: 20 });
    for (let i = 0; i < 1000; i++) table.countUse(keyId);
    await expect.poll(async () => (await other.findKey(appId, keyId))?.useCount, soon).toBe(1000);
    table.countUse(keyId);
    await table.close();
    const key = await other.findKey(appId, keyId);
    expect(key?.useCount).toBe(1001);
    expect(Math.abs(Date.now() - (key?.lastUsed?.getTime() ?? 0))).toBeLessThan(60_000);
  });

  test("uses that cannot be written are kept for the next time", async () => {
    await addKnownKey();
    const table = await loadTable({ usageMs: 20 });
    const outside = new Database(join(folder, "db.sqlite"));
    outside.exec("ALTER TABLE keys RENAME TO hidden");
    table.countUse(keyId);
    await expect
      .poll(() => problems, soon)
      .toContain("Usage of keys cannot be written; it is kept for the next time");
    outside.exec("ALTER TABLE hidden RENAME TO keys");
    outside.close();
    await expect.poll(async () => (await other.findKey(appId, keyId))?.useCount, soon).toBe(1);
    await table.close();
  });
});
