import { randomUUID } from "node:crypto";
import type { AppId, KeyId } from "@pandapush/protocol";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { NoSuchApplication, type Store, TooManySecrets } from "./store.js";

const noSuchApp = "nobody" as AppId;
const noSuchKey = "PSIDnobody" as KeyId;

/**
 * What every store does.
 *
 * @param open two stores on the same empty database, as two processes would have them
 */
export function storeSuite(open: () => Promise<{ store: Store; other: Store }>): void {
  let store: Store;
  let other: Store;

  beforeEach(async () => {
    ({ store, other } = await open());
  });

  afterEach(async () => {
    await store.close();
    await other.close();
  });

  async function addApp(): Promise<AppId> {
    const app = await store.addApplication({ name: "shop", createdBy: "ann" });
    return app.id;
  }

  function addKey(appId: AppId, given: { id?: KeyId; secret?: string; expires?: Date } = {}) {
    return store.addKey({ appId, createdBy: "ann", expires: null, purpose: null, ...given });
  }

  test("an empty database has no applications and no keys", async () => {
    expect(await store.applications()).toEqual([]);
    expect(await store.keys()).toEqual([]);
    expect(await store.findApplication(noSuchApp)).toBeUndefined();
    expect(await store.findKey(noSuchApp, noSuchKey)).toBeUndefined();
  });

  test("an application is found by its id, with an id of its own", async () => {
    const app = await store.addApplication({ name: "shop", createdBy: "ann" });
    expect(app.id).toMatch(/^[A-Za-z0-9]{20}$/);
    expect(app).toMatchObject({ name: "shop", createdBy: "ann", updatedAt: null });
    expect(Math.abs(Date.now() - (app.createdAt?.getTime() ?? 0))).toBeLessThan(60_000);
    expect(await other.findApplication(app.id)).toEqual(app);
    expect(await other.applications()).toEqual([app]);
  });

  test("an application can be given its id, once", async () => {
    const id = "devapp" as AppId;
    expect(await store.addApplication({ id, name: null, createdBy: "ann" })).toMatchObject({ id });
    await expect(store.addApplication({ id, name: null, createdBy: "ann" })).rejects.toThrow();
    expect(await store.applications()).toHaveLength(1);
  });

  test("a key is found with the application it belongs to, and with no other", async () => {
    const appId = await addApp();
    const otherApp = await addApp();
    const key = await addKey(appId, { expires: new Date("2036-01-01T07:00:00.000Z") });
    expect(key.id).toMatch(/^PSID[A-Za-z0-9]{16}$/);
    expect(key.secret).toMatch(/^[A-Za-z0-9]{256}$/);
    expect(key).toMatchObject({ appId, createdBy: "ann", lastUsed: null, useCount: 0 });
    expect(await other.findKey(appId, key.id)).toEqual(key);
    expect(await other.keys()).toEqual([key]);
    expect(await other.findKey(otherApp, key.id)).toBeUndefined();
  });

  test("a secret has up to 1024 characters", async () => {
    const secret = "s".repeat(1024);
    const appId = await addApp();
    const { id } = await addKey(appId, { id: "devkey" as KeyId, secret });
    expect(await other.findKey(appId, id)).toMatchObject({ id: "devkey", secret });
  });

  test("a key needs an application", async () => {
    await expect(addKey(noSuchApp)).rejects.toBeInstanceOf(NoSuchApplication);
    await expect(store.consoleKey(noSuchApp, "ann")).rejects.toBeInstanceOf(NoSuchApplication);
  });

  test("a database error does not repeat a secret", async () => {
    const secret = `secret-${randomUUID()}`;
    const appId = await addApp();
    const { id } = await addKey(appId);
    const failure = await addKey(appId, { id, secret }).catch(String);
    expect(failure).toContain("keys");
    expect(failure).not.toContain(secret);
  });

  test("a removed key is gone; one of another application cannot be removed", async () => {
    const appId = await addApp();
    const otherApp = await addApp();
    const key = await addKey(appId);
    expect(await store.removeKey(otherApp, key.id)).toBe(false);
    expect(await store.removeKey(appId, key.id)).toBe(true);
    expect(await store.removeKey(appId, key.id)).toBe(false);
    expect(await other.findKey(appId, key.id)).toBeUndefined();
  });

  test("a removed application takes its keys with it, and no others", async () => {
    const appId = await addApp();
    const kept = await addKey(await addApp());
    await addKey(appId);
    expect(await store.removeApplication(appId)).toBe(true);
    expect(await store.removeApplication(appId)).toBe(false);
    expect(await other.findApplication(appId)).toBeUndefined();
    expect(await other.keys()).toEqual([kept]);
  });

  test("usage adds up over processes", async () => {
    const appId = await addApp();
    const [first, second] = [await addKey(appId), await addKey(appId)];
    const lastUsed = new Date("2030-01-02T03:04:05.678Z");
    const earlier = new Date("2030-01-02T03:04:00.000Z");
    await store.recordUse([
      { keyId: first.id, count: 3, lastUsed: earlier },
      { keyId: second.id, count: 1, lastUsed: earlier },
    ]);
    await other.recordUse([{ keyId: first.id, count: 4, lastUsed }]);
    expect(await store.findKey(appId, first.id)).toMatchObject({ useCount: 7, lastUsed });
    // Another node may write later what happened before.
    await store.recordUse([{ keyId: first.id, count: 1, lastUsed: earlier }]);
    expect(await store.findKey(appId, first.id)).toMatchObject({ useCount: 8, lastUsed });
    expect(await store.findKey(appId, second.id)).toMatchObject({ useCount: 1 });
  });

  test("usage of many keys, and of keys that are gone, is written", async () => {
    const appId = await addApp();
    const ids: KeyId[] = [];
    for (let i = 0; i < 250; i++) ids.push((await addKey(appId)).id);
    const lastUsed = new Date();
    await store.recordUse([noSuchKey, ...ids].map((keyId) => ({ keyId, count: 2, lastUsed })));
    expect((await store.keys()).map((key) => key.useCount)).toEqual(ids.map(() => 2));
  });

  test("a key may be used more often than 32 bits count", async () => {
    const { id, appId } = await addKey(await addApp());
    await store.recordUse([{ keyId: id, count: 3_000_000_000, lastUsed: new Date() }]);
    expect(await other.findKey(appId, id)).toMatchObject({ useCount: 3_000_000_000 });
  });

  test("two processes that count uses of the same keys at once both succeed", async () => {
    const appId = await addApp();
    const ids: KeyId[] = [];
    for (let i = 0; i < 20; i++) ids.push((await addKey(appId)).id);
    const uses = ids.map((keyId) => ({ keyId, count: 1, lastUsed: new Date() }));
    const backwards = [...uses].reverse();
    await Promise.all(
      Array.from({ length: 10 }, (_, i) =>
        i % 2 === 0 ? store.recordUse(uses) : other.recordUse(backwards),
      ),
    );
    expect((await store.keys()).map((key) => key.useCount)).toEqual(ids.map(() => 10));
  });

  test("two processes that write at once both succeed", async () => {
    const appId = await addApp();
    const key = { appId, createdBy: "ann", expires: null, purpose: null };
    await Promise.all(
      Array.from({ length: 40 }, (_, i) => (i % 2 === 0 ? store : other).addKey(key)),
    );
    expect(await store.keys()).toHaveLength(40);
  });

  test("an application is renamed and given other admins; what is not given stays", async () => {
    const id = await addApp();
    expect(await store.updateApplication(id, { admins: ["zoe", "ben", "zoe"] })).toBe(true);
    expect(await store.updateApplication(id, { name: "store" })).toBe(true);
    expect(await other.admins(id)).toEqual(["ben", "zoe"]);
    const app = await other.findApplication(id);
    expect(app).toMatchObject({ name: "store", createdBy: "ann", updatedAt: expect.any(Date) });
    expect(await other.isAdmin(id, "zoe")).toBe(true);
    expect(await other.isAdmin(id, "ann")).toBe(false);
    expect(await store.updateApplication(id, { admins: [] })).toBe(true);
    expect(await other.admins(id)).toEqual([]);
    expect(await store.updateApplication(noSuchApp, { name: "x" })).toBe(false);
  });

  test("an application has no limits until it is given some; what is not given stays", async () => {
    const id = await addApp();
    const none = {
      maxPublishesPerSecond: null,
      maxConnections: null,
      maxSessionsPerSecond: null,
      maxMessageBytes: null,
    };
    const limits = async () => (await other.findApplication(id))?.limits;
    expect(await limits()).toEqual(none);
    const some = { maxPublishesPerSecond: 10, maxMessageBytes: 1_000_000_000 };
    expect(await store.updateApplication(id, { limits: some }, "ann")).toBe(true);
    expect(await limits()).toEqual({ ...none, ...some });
    expect(await other.applications()).toMatchObject([{ limits: some }]);
    const limit = { maxPublishesPerSecond: null, maxConnections: 5 };
    expect(await store.updateApplication(id, { name: "store", limits: limit }, "ben")).toBe(true);
    expect(await limits()).toEqual({ ...none, ...some, ...limit });
    expect(await store.updateApplication(noSuchApp, { limits: some })).toBe(false);
    const { items } = await other.audit({ appId: id, limit: 3 });
    expect(items.map(({ user, action, details }) => [user, action, details])).toEqual([
      ["ben", "application.update", { name: "store" }],
      [
        "ben",
        "application.limits",
        {
          before: { max_publishes_per_second: 10, max_connections: null },
          after: { max_publishes_per_second: null, max_connections: 5 },
        },
      ],
      [
        "ann",
        "application.limits",
        {
          before: { max_publishes_per_second: null, max_message_bytes: null },
          after: { max_publishes_per_second: 10, max_message_bytes: 1_000_000_000 },
        },
      ],
    ]);
    await store.updateApplication(id, { limits: limit }, "ben");
    expect((await other.audit({ appId: id })).items[0]?.id).toBe(items[0]?.id);
  });

  test("who creates an application administers it", async () => {
    expect(await store.admins(await addApp())).toEqual(["ann"]);
  });

  test("applications are found by user and by a part of their name or id, page by page", async () => {
    for (const name of ["Apples", "Pears 100%", "Pineapples", null]) {
      await store.addApplication({ name, createdBy: name === "Pears 100%" ? "ben" : "ann" });
    }
    const named = async (filter: Parameters<Store["findApplications"]>[0]) => {
      const { items, total } = await other.findApplications(filter);
      return [items.map((app) => app.name), total];
    };
    expect((await named({}))[1]).toBe(4);
    expect(await named({ search: "APPLE" })).toEqual([["Apples", "Pineapples"], 2]);
    expect(await named({ search: "%" })).toEqual([["Pears 100%"], 1]);
    expect(await named({ search: "_" })).toEqual([[], 0]);
    expect(await named({ user: "ben" })).toEqual([["Pears 100%"], 1]);
    expect(await named({ user: "ben", search: "apple" })).toEqual([[], 0]);
    expect(await named({ search: "apple", offset: 1, limit: 1 })).toEqual([["Pineapples"], 2]);
    expect(await named({ search: "apple", offset: 2 })).toEqual([[], 2]);
    const [first] = (await other.findApplications({ limit: 1 })).items;
    expect(await named({ search: first?.id ?? "" })).toEqual([["Apples"], 1]);
  });

  test("the keys of one application are found by a part of their purpose or id", async () => {
    const appId = await addApp();
    const key = { createdBy: "ann", expires: null };
    const web = await store.addKey({ ...key, appId, purpose: "Web shop" });
    const batch = await store.addKey({ ...key, appId, purpose: "nightly batch" });
    await store.addKey({ ...key, appId: await addApp(), purpose: "web" });
    expect(await other.findKeys(appId, {})).toEqual({ items: [web, batch], total: 2 });
    expect(await other.findKeys(appId, { search: "web" })).toEqual({ items: [web], total: 1 });
    expect(await other.findKeys(appId, { search: batch.id })).toEqual({ items: [batch], total: 1 });
    const page = { offset: 1, limit: 5 };
    expect(await other.findKeys(appId, page)).toEqual({ items: [batch], total: 2 });
  });

  test("a search finds letters of all alphabets, in upper and lower case", async () => {
    for (const name of ["Überraschung", "STRASSE", "Ярмарка", "ΟΔΟΣ", "Cafe\u0301"]) {
      await store.addApplication({ name, createdBy: "ann" });
    }
    const named = async (search: string) =>
      (await other.findApplications({ search })).items.map(({ name }) => name);
    expect(await named("überr")).toEqual(["Überraschung"]);
    expect(await named("ÜBERR")).toEqual(["Überraschung"]);
    expect(await named("straße")).toEqual(["STRASSE"]);
    expect(await named("ярМ")).toEqual(["Ярмарка"]);
    expect(await named("οδος")).toEqual(["ΟΔΟΣ"]);
    expect(await named("οδοσ")).toEqual(["ΟΔΟΣ"]);
    expect(await named("CAFÉ")).toEqual(["Cafe\u0301"]);
    const appId = await addApp();
    const key = await store.addKey({
      appId,
      createdBy: "ann",
      expires: null,
      purpose: "Größe",
    });
    expect(await other.findKeys(appId, { search: "GRÖSS" })).toEqual({ items: [key], total: 1 });
    expect(await other.findKeys(appId, { search: "grosse" })).toEqual({ items: [], total: 0 });
  });

  test("a revoked key stays to be seen, with who revoked it; it is revoked once", async () => {
    const [appId, otherApp] = [await addApp(), await addApp()];
    const { id } = await addKey(appId);
    expect(await store.revokeKey(otherApp, id, "ben")).toBe(false);
    expect(await store.revokeKey(appId, id, "ben")).toBe(true);
    expect(await store.revokeKey(appId, id, "zoe")).toBe(false);
    const key = await other.findKey(appId, id);
    expect(key).toMatchObject({ revokedBy: "ben", revokedAt: expect.any(Date) });
    expect(await other.keys()).toEqual([key]);
  });

  test("a rotated key has a new secret, and each old one until its overlap is over", async () => {
    const appId = await addApp();
    const before = await addKey(appId);
    expect(before.previous).toEqual([]);
    const rotated = await store.rotateKey(appId, before.id, 60_000, "ann");
    expect(rotated?.secret).toMatch(/^[A-Za-z0-9]{256}$/);
    expect(rotated?.secret).not.toBe(before.secret);
    expect(rotated?.previous).toEqual([{ secret: before.secret, until: expect.any(Date) }]);
    const leftMs = (rotated?.previous[0]?.until.getTime() ?? 0) - Date.now();
    expect(leftMs).toBeGreaterThan(50_000);
    expect(leftMs).toBeLessThanOrEqual(60_000);
    expect(await other.findKey(appId, before.id)).toEqual(rotated);
    const again = await other.rotateKey(appId, before.id, 5_000, "ann");
    expect(again?.previous).toEqual([
      { secret: rotated?.secret, until: expect.any(Date) },
      ...(rotated?.previous ?? []),
    ]);
    // The secret that is replaced ends at once; the others were promised more.
    const last = await store.rotateKey(appId, before.id, 0, "ann");
    expect(last?.previous).toEqual(again?.previous);
    expect(await other.keys()).toEqual([last]);
  });

  test("a key has five former secrets at once, and more when some are over", async () => {
    const appId = await addApp();
    const { id } = await addKey(appId);
    const until = new Date((await store.rotateKey(appId, id, 1_000))?.previous[0]?.until ?? 0);
    for (let i = 0; i < 4; i++) await store.rotateKey(appId, id, 60_000);
    const full = await store.findKey(appId, id);
    await expect(other.rotateKey(appId, id, 60_000)).rejects.toEqual(new TooManySecrets(until));
    expect(await store.findKey(appId, id)).toEqual(full);
    expect(await other.rotateKey(appId, id, 0)).toMatchObject({ previous: full?.previous });
    vi.useFakeTimers({ toFake: ["Date"], now: until });
    try {
      const rotated = await store.rotateKey(appId, id, 60_000);
      expect(rotated?.previous).toHaveLength(5);
      expect(rotated?.previous.slice(1)).toEqual(full?.previous.slice(0, 4));
    } finally {
      vi.useRealTimers();
    }
  });

  test("a key that is revoked, of another application or absent is not rotated", async () => {
    const appId = await addApp();
    const { id } = await addKey(appId);
    expect(await store.rotateKey(await addApp(), id, 0)).toBeUndefined();
    expect(await store.rotateKey(appId, noSuchKey, 0)).toBeUndefined();
    await store.rotateKey(appId, id, 60_000);
    await store.revokeKey(appId, id);
    expect(await store.rotateKey(appId, id, 0)).toBeUndefined();
    expect(await store.findKey(appId, id)).toMatchObject({ previous: [] });
  });

  test("of rotations at once, one is the last, and all secrets before it count", async () => {
    const appId = await addApp();
    const { id, secret } = await addKey(appId);
    const rotated = await Promise.all([
      store.rotateKey(appId, id, 60_000),
      other.rotateKey(appId, id, 60_000),
      store.rotateKey(appId, id, 60_000),
    ]);
    const key = await store.findKey(appId, id);
    expect(new Set([secret, ...rotated.map((each) => each?.secret)])).toEqual(
      new Set([key?.secret, ...(key?.previous ?? []).map((each) => each.secret)]),
    );
  });

  test("an application that is removed while keys are made leaves none behind", async () => {
    const appId = await addApp();
    const failures: unknown[] = [];
    const adding = Array.from({ length: 20 }, () =>
      addKey(appId).catch((error: unknown) => failures.push(error)),
    );
    expect(await other.removeApplication(appId)).toBe(true);
    await Promise.all(adding);
    for (const failure of failures) expect(failure).toBeInstanceOf(NoSuchApplication);
    expect(await store.keys()).toEqual([]);
    expect(await store.findApplication(appId)).toBeUndefined();
  });

  test("no id is a text that no database holds", async () => {
    const appId = await addApp();
    await addKey(appId);
    for (const text of ["\0", "a\0b", "\ud800"]) {
      expect(await store.findApplication(text as AppId)).toBeUndefined();
      expect(await store.findKey(appId, text as KeyId)).toBeUndefined();
      expect(await store.removeKey(appId, text as KeyId)).toBe(false);
    }
  });

  test("every change is in the audit, the newest first, and without secrets", async () => {
    const appId = await addApp();
    const key = await addKey(appId);
    await store.updateApplication(appId, { name: "store", admins: ["ann", "ben"] }, "ann");
    const rotated = await store.rotateKey(appId, key.id, 0, "ben");
    await store.revokeKey(appId, key.id, "ben");
    await store.removeKey(appId, key.id, "zoe");
    await store.removeApplication(appId, "root");
    const { items, total } = await other.audit({ appId });
    const of = { key: key.id, purpose: null };
    expect(items.map(({ user, action, details }) => [user, action, details])).toEqual([
      ["root", "application.delete", { name: "store" }],
      ["zoe", "key.delete", of],
      ["ben", "key.revoke", of],
      ["ben", "key.rotate", { ...of, previous_until: null }],
      ["ann", "application.update", { name: "store", admins: ["ann", "ben"] }],
      ["ann", "key.create", { ...of, expires: null }],
      ["ann", "application.create", { name: "shop" }],
    ]);
    expect(items.map(({ appName }) => appName)).toEqual([
      ...["store", "store", "store", "store", "store"],
      ...["shop", "shop"],
    ]);
    expect(total).toBe(7);
    expect(Math.abs(Date.now() - (items[0]?.at?.getTime() ?? 0))).toBeLessThan(60_000);
    for (const { secret } of [key, rotated ?? key]) {
      expect(JSON.stringify(items)).not.toContain(secret);
    }
  });

  test("the audit names what was changed as it was called then, and who did it for whom", async () => {
    const { id: appId } = await store.addApplication({ name: "shop", createdBy: "ann" }, "ben");
    const given = { appId, createdBy: "ann", expires: null, purpose: "web" };
    const { id } = await store.addKey(given, "ben");
    expect(await store.admins(appId)).toEqual(["ann"]);
    await store.rotateKey(appId, id, 0, "ann");
    await store.updateApplication(appId, { name: "store" }, "ann");
    await store.addAudit({ user: "ann", action: "user.disconnect", appId, details: {} });
    await store.removeKey(appId, id, "ann");
    await store.removeApplication(appId, "ann");
    const { items } = await other.audit({ appId });
    expect(
      items.map(({ user, action, appName, details }) => [user, action, appName, details.purpose]),
    ).toEqual([
      ["ann", "application.delete", "store", undefined],
      ["ann", "key.delete", "store", "web"],
      ["ann", "user.disconnect", "store", undefined],
      ["ann", "application.update", "store", undefined],
      ["ann", "key.rotate", "shop", "web"],
      ["ben", "key.create", "shop", "web"],
      ["ben", "application.create", "shop", undefined],
    ]);
  });

  test("the console has one key for each user, however many ask at once", async () => {
    const appId = await addApp();
    const asked = await Promise.all(
      [store, other, store, other].map((each) => each.consoleKey(appId, "ann")),
    );
    expect(new Set(asked.map(({ key }) => key.id)).size).toBe(1);
    expect(asked.filter(({ isNew }) => isNew)).toHaveLength(1);
    const { key } = await store.consoleKey(appId, "ann");
    expect(key).toMatchObject({ appId, createdBy: "ann", purpose: "web console" });
    expect((await store.consoleKey(appId, "ben")).key.id).not.toBe(key.id);
    await store.revokeKey(appId, key.id);
    const fresh = await store.consoleKey(appId, "ann");
    expect([fresh.isNew, fresh.key.id === key.id]).toEqual([true, false]);
    vi.useFakeTimers({ toFake: ["Date"], now: fresh.key.expires ?? 0 });
    try {
      expect((await store.consoleKey(appId, "ann")).isNew).toBe(true);
    } finally {
      vi.useRealTimers();
    }
  });

  test("the console's keys of whoever is removed from an application are revoked", async () => {
    const [appId, otherApp] = [await addApp(), await addApp()];
    await store.updateApplication(appId, { admins: ["ann", "ben", "zoe"] });
    const kept = [
      (await store.consoleKey(appId, "ann")).key,
      (await store.consoleKey(appId, "root")).key,
      (await store.consoleKey(otherApp, "ben")).key,
      await store.addKey({ appId, createdBy: "ben", expires: null, purpose: "web" }),
    ];
    const ended = (await store.consoleKey(appId, "ben")).key;
    await store.updateApplication(appId, { name: "store", admins: ["ann", "zoe"] }, "ann");
    const isRevoked = async (id: KeyId) =>
      (await other.keys()).find((key) => key.id === id)?.revokedBy;
    for (const { id } of kept) expect(await isRevoked(id)).toBeNull();
    expect(await isRevoked(ended.id)).toBe("ann");
    const { items } = await other.audit({ appId, limit: 2 });
    expect(items.map(({ action, user }) => [action, user])).toEqual([
      ["key.revoke", "ann"],
      ["application.update", "ann"],
    ]);
  });

  test("what changed nothing is not in the audit", async () => {
    await store.updateApplication(noSuchApp, { name: "x" });
    await store.removeApplication(noSuchApp);
    await store.removeKey(noSuchApp, noSuchKey);
    await store.revokeKey(noSuchApp, noSuchKey);
    await addKey(noSuchApp).catch(() => undefined);
    expect(await store.audit({})).toEqual({ items: [], total: 0 });
  });

  test("the audit is listed page by page, and for the applications of one user", async () => {
    const appId = await addApp();
    await store.addApplication({ name: "theirs", createdBy: "ben" });
    await store.addAudit({ user: "root", action: "admin.login", appId: null, details: { n: 1 } });
    const actions = async (filter: Parameters<Store["audit"]>[0]) =>
      (await other.audit(filter)).items.map(({ user, action }) => `${user} ${action}`);
    expect(await actions({ limit: 2 })).toEqual(["root admin.login", "ben application.create"]);
    expect(await actions({ limit: 2, offset: 2 })).toEqual(["ann application.create"]);
    expect(await actions({ user: "ann" })).toEqual(["ann application.create"]);
    expect(await actions({ user: "ben", appId })).toEqual([]);
  });

  test("a setting is the same for all who add it at once, until it is set", async () => {
    expect(await store.setting("session.key")).toBeUndefined();
    const added = await Promise.all(
      [store, other, store].map((each, i) => each.addSetting("session.key", `value ${i}`)),
    );
    expect(new Set(added).size).toBe(1);
    expect(await other.setting("session.key")).toBe(added[0]);
    await store.setSetting("session.key", "another");
    await store.setSetting("password", "hash");
    expect(await other.setting("session.key")).toBe("another");
    expect(await other.addSetting("password", "later")).toBe("hash");
  });
}
