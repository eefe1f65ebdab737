import { randomUUID } from "node:crypto";
import type { AppId, KeyId } from "@pandapush/protocol";
import { afterEach, beforeEach, expect, test } from "vitest";
import type { Store } from "./store.js";

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
    await expect(addKey(noSuchApp)).rejects.toThrow();
  });

  test("a database error does not repeat a secret", async () => {
    const secret = `secret-${randomUUID()}`;
    const failure = await addKey(noSuchApp, { secret }).catch(String);
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

  test("two processes that write at once both succeed", async () => {
    const appId = await addApp();
    const key = { appId, createdBy: "ann", expires: null, purpose: null };
    await Promise.all(
      Array.from({ length: 40 }, (_, i) => (i % 2 === 0 ? store : other).addKey(key)),
    );
    expect(await store.keys()).toHaveLength(40);
  });
}
