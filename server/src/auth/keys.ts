import type { AppId, KeyId } from "@pandapush/protocol";
import { Refusal } from "../errors.js";
import type { MaybePromise } from "../maybe-promise.js";
import { type AppLimits, type Key, StorageUnavailable, type Store } from "../storage/store.js";
import { tokenVerifier, type VerifyToken } from "./token.js";

/** One of the secrets that count for a key. */
export interface LiveSecret {
  readonly secret: Buffer;
  readonly verifyToken: VerifyToken;
}

/** A key as decisions need it. Stays the same object as long as what it holds does. */
export interface LiveKey extends LiveSecret {
  readonly id: KeyId;
  readonly appId: AppId;
  /** ms since 1970; Infinity: never expires. */
  readonly expiresAt: number;
  readonly isRevoked: boolean;
  /** Secrets from before rotations count as well, each until its time; the newest first. */
  readonly previous: readonly PreviousLiveSecret[];
}

interface PreviousLiveSecret extends LiveSecret {
  /** ms since 1970 */
  readonly until: number;
}

export interface Revoked {
  readonly appIds: readonly AppId[];
  readonly keyIds: readonly KeyId[];
}

interface Options {
  /** Time between two reloads. */
  readonly reloadMs: number;
  /** Time between two writes of usage counts. */
  readonly usageMs: number;
  /** Told of failures that no caller hears of; the table goes on with what it has. */
  readonly report: (problem: string, error: unknown) => void;
  /** Told when all is well again after such a failure. */
  readonly recovered?: () => void;
  /** Sees to what must be in the database before the first load. */
  readonly prepare?: () => Promise<void>;
}

/** How soon a change made by another process is noticed, where the database can tell. */
const pollMs = 500;

/** Reasons of one row of failures that are reported. */
const maxReported = 5;

/** Lookups a second for one application; the unknown ones share one count. About 60 µs each. */
const maxLookups = 500;
const lookupWindowMs = 1000;

/** How long at most, and for how many ids, "there is none" is remembered. */
const absentMs = 1000;
const maxAbsent = 10_000;
/** How long it is believed without asking the database whether another process has written. */
const believedMs = 10;

/** Longer ids are not in the database, whose columns end there. */
const maxIdLength = 255;

interface LiveApp {
  readonly limits: AppLimits;
  readonly keys: Map<KeyId, LiveKey>;
}

type Table = Map<AppId, LiveApp>;

/**
 * All keys of all applications, and what these may do, in memory.
 *
 * Loaded whole and replaced, so what was deleted is gone: within a second where the database
 * tells of changes, else after `reloadMs`. What is not in it is looked up, so a key works from
 * the moment it exists. When the database is down, what is known goes on working.
 */
export class KeyTable {
  private table: Table = new Map();
  private version: number | undefined;
  private loading: Promise<void> | undefined;
  /** Something was written since the running load began: what it reads may be older. */
  private isLoadOutdated = false;
  private loaded = false;
  private failing = false;
  /** Why it is failing. */
  private readonly reported = new Set<string>();
  private polling: Promise<void> | undefined;
  /** Tells a lookup that the database was changed while it was under way. */
  private generation = 0;

  private readonly lookups = new Map<string, Promise<void>>();
  private readonly lookupCounts = new Map<string, number>();
  private lookupWindowEnd = 0;
  /** When an id was found not to exist, in a database that was of this version or an older one. */
  private readonly absent = new Map<string, number>();
  private absentVersion: number | undefined;
  private absentCheckedAt = 0;
  private checking: Promise<void> | undefined;

  private readonly revokedListeners: ((revoked: Revoked) => void)[] = [];
  private uses = new Map<KeyId, { count: number; lastUsed: number }>();
  private writing: Promise<void> | undefined;
  private readonly timers: NodeJS.Timeout[] = [];

  constructor(
    private readonly store: Store,
    private readonly options: Options,
  ) {}

  /**
   * Loads the table and keeps it up to date until `close()`. While the database is down, that
   * begins when it is back; until then each key is looked up by itself.
   *
   * Rejects when the first load fails otherwise.
   */
  async load(): Promise<void> {
    try {
      await this.read();
    } catch (error) {
      if (!(error instanceof StorageUnavailable)) throw error;
      this.fail("Keys cannot be loaded: the database is not available", error);
    }
    this.every(this.options.reloadMs, () => this.changed());
    this.every(this.options.usageMs, () => this.writeUses());
    this.every(pollMs, () => this.poll());
  }

  /** Whether the table has ever been complete. */
  get isLoaded(): boolean {
    return this.loaded;
  }

  /** Whether the database failed when it was asked last, which is less than a second ago. */
  get isFailing(): boolean {
    return this.failing;
  }

  /**
   * At once when the application is known.
   * @throws Refusal `unavailable` (or a promise rejected with it) when the database cannot tell
   */
  hasApp(appId: AppId): MaybePromise<boolean> {
    if (this.table.has(appId)) return true;
    const lookup = this.lookUp(appId, appId, async () => {
      const app = await this.store.findApplication(appId);
      return app && (() => this.table.set(app.id, { limits: app.limits, keys: new Map() }));
    });
    return lookup === undefined ? false : lookup.then(() => this.table.has(appId));
  }

  /** Whether the application is known, without asking the database. */
  knowsApp(appId: AppId): boolean {
    return this.table.has(appId);
  }

  /** Whether this is known to be a key of this application, without asking the database. */
  knowsKey(appId: AppId, keyId: string): boolean {
    return this.table.get(appId)?.keys.has(keyId as KeyId) === true;
  }

  /** Of an application that is known; undefined of others. */
  limitsOf(appId: AppId): AppLimits | undefined {
    return this.table.get(appId)?.limits;
  }

  /**
   * A key of this application. At once when it is known.
   * @throws Refusal `unavailable` (or a promise rejected with it) when the database cannot tell
   */
  find(appId: AppId, keyId: KeyId): MaybePromise<LiveKey | undefined> {
    const app = this.table.get(appId);
    if (app === undefined) return this.findInUnknownApp(appId, keyId);
    const known = app.keys.get(keyId);
    if (known !== undefined) return known;
    // An application's id has no slash, so the names of keys and applications differ.
    const lookup = this.lookUp(`${appId}/${keyId}`, appId, async () => {
      const key = await this.store.findKey(appId, keyId);
      return key && (() => this.table.get(appId)?.keys.set(keyId, toLiveKey(key)));
    });
    return lookup?.then(() => this.table.get(appId)?.keys.get(keyId));
  }

  /**
   * Whether what a key permitted goes on; without a key, what is permitted to everybody. So it does
   * while the database cannot tell.
   */
  async isInForce(appId: AppId, keyId: KeyId | undefined): Promise<boolean> {
    try {
      if (keyId === undefined) return await this.hasApp(appId);
      const key = await this.find(appId, keyId);
      return key !== undefined && !key.isRevoked;
    } catch (error) {
      if (error instanceof Refusal) return true;
      throw error;
    }
  }

  /**
   * Reloads: to be called after this process wrote to the store. Resolves when the table holds
   * what was written, or when the reload failed, which is reported and tried again soon.
   */
  changed(): Promise<void> {
    if (this.loading !== undefined) {
      this.isLoadOutdated = true;
      return this.loading;
    }
    this.loading = this.reload().finally(() => {
      this.loading = undefined;
    });
    return this.loading;
  }

  /** `listener` is told what a reload no longer found, or found revoked. */
  onRevoked(listener: (revoked: Revoked) => void): void {
    this.revokedListeners.push(listener);
  }

  /** Counts one authorised subscribe or publish. */
  countUse(keyId: KeyId): void {
    const use = this.uses.get(keyId);
    if (use === undefined) {
      this.uses.set(keyId, { count: 1, lastUsed: Date.now() });
    } else {
      use.count++;
      use.lastUsed = Date.now();
    }
  }

  /** Writes the usage counts that are left. The store stays open. */
  async close(): Promise<void> {
    for (const timer of this.timers) clearInterval(timer);
    await this.loading;
    await this.writing;
    await this.writeUses();
  }

  private every(ms: number, work: () => Promise<void>): void {
    // Each of these reports its failures itself and never rejects.
    const timer = setInterval(() => void work(), ms);
    timer.unref();
    this.timers.push(timer);
  }

  /** One at a time: a database that does not answer is not asked again and again. */
  private poll(): Promise<void> {
    this.polling ??= this.runPoll().finally(() => {
      this.polling = undefined;
    });
    return this.polling;
  }

  private async runPoll(): Promise<void> {
    if (this.loading !== undefined) return;
    try {
      if (!this.failing && (await this.store.version()) === this.version) return;
    } catch (error) {
      this.fail("It cannot be found out whether there are new keys", error);
      return;
    }
    await this.changed();
  }

  private async reload(): Promise<void> {
    try {
      await this.read();
    } catch (error) {
      this.fail("Keys cannot be reloaded", error);
      return;
    }
    if (!this.failing) return;
    this.failing = false;
    this.options.recovered?.();
  }

  /** Reports each reason once in a row of failures: polling would repeat it twice a second. */
  private fail(problem: string, error: unknown): void {
    if (!this.failing) this.reported.clear();
    this.failing = true;
    const reason = error instanceof StorageUnavailable ? error.reason : String(error);
    if (this.reported.has(reason) || this.reported.size >= maxReported) return;
    this.reported.add(reason);
    this.options.report(problem, error);
  }

  private async read(): Promise<void> {
    if (!this.loaded) await this.options.prepare?.();
    let next: Table;
    do {
      this.isLoadOutdated = false;
      // The version first: what is written after it shows as another version.
      this.version = await this.store.version();
      // The keys first: one whose application is gone by the second query is left out.
      const keys = await this.store.keys();
      const apps = await this.store.applications();
      next = new Map(apps.map(({ id, limits }) => [id, { limits, keys: new Map() }]));
      for (const key of keys) next.get(key.appId)?.keys.set(key.id, this.keepOrMake(key));
    } while (this.isLoadOutdated);
    this.replace(next);
    this.loaded = true;
  }

  private keepOrMake(key: Key): LiveKey {
    const fresh = toLiveKey(key);
    const live = this.table.get(key.appId)?.keys.get(key.id);
    return live !== undefined && isSameKey(live, fresh) ? live : fresh;
  }

  private replace(next: Table): void {
    const appIds: AppId[] = [];
    const keyIds: KeyId[] = [];
    for (const [appId, { keys }] of this.table) {
      const nextKeys = next.get(appId)?.keys;
      if (nextKeys === undefined) appIds.push(appId);
      for (const { id, isRevoked } of keys.values()) {
        if (!isRevoked && (nextKeys?.get(id)?.isRevoked ?? true)) keyIds.push(id);
      }
    }
    this.table = next;
    this.generation++;
    this.absent.clear();
    if (appIds.length === 0 && keyIds.length === 0) return;
    for (const listener of this.revokedListeners) listener({ appIds, keyIds });
  }

  private findInUnknownApp(appId: AppId, keyId: KeyId): MaybePromise<LiveKey | undefined> {
    const has = this.hasApp(appId);
    if (typeof has === "boolean") return undefined;
    return has.then((found) => (found ? this.find(appId, keyId) : undefined));
  }

  /**
   * Asks the database for one id, once however many wait for it.
   *
   * @param query resolves to a function that puts what was found into the table
   * @returns undefined when the id is known not to exist, else when the table holds the answer
   */
  private lookUp(
    name: string,
    appId: AppId,
    query: () => Promise<(() => void) | undefined>,
  ): Promise<void> | undefined {
    const running = this.lookups.get(name);
    if (running !== undefined) return running;
    if (name.length > appId.length + 1 + maxIdLength || appId.length > maxIdLength)
      return undefined;
    const now = performance.now();
    const absentAt = this.absent.get(name);
    if (absentAt !== undefined && now < absentAt + absentMs) {
      if (now < Math.max(absentAt, this.absentCheckedAt) + believedMs) return undefined;
      return this.checkAbsent().then(() =>
        this.absent.has(name) ? undefined : this.lookUp(name, appId, query),
      );
    }
    this.countLookup(appId, now);
    const lookup = this.runLookup(name, query).finally(() => this.lookups.delete(name));
    this.lookups.set(name, lookup);
    return lookup;
  }

  private async runLookup(
    name: string,
    query: () => Promise<(() => void) | undefined>,
  ): Promise<void> {
    for (;;) {
      const { generation } = this;
      const startedAt = performance.now();
      let put: (() => void) | undefined;
      try {
        put = await query();
      } catch (error) {
        this.fail("A key cannot be looked up", error);
        throw new Refusal("unavailable");
      }
      // A table that came meanwhile may know better, in either direction.
      if (generation !== this.generation) continue;
      if (put === undefined) {
        if (this.absent.size >= maxAbsent) this.absent.clear();
        this.absent.set(name, startedAt);
      } else {
        put();
        // A load that read before this id was made would take it for a revoked one.
        this.isLoadOutdated = true;
      }
      return;
    }
  }

  /** Forgets what did not exist when another process has written since. */
  private checkAbsent(): Promise<void> {
    this.checking ??= this.runCheck().finally(() => {
      this.checking = undefined;
    });
    return this.checking;
  }

  private async runCheck(): Promise<void> {
    const startedAt = performance.now();
    let version: number | undefined;
    try {
      version = await this.store.version();
    } catch (error) {
      this.fail("It cannot be found out whether there are new keys", error);
      throw new Refusal("unavailable");
    }
    this.absentCheckedAt = startedAt;
    if (version === this.absentVersion) return;
    this.absentVersion = version;
    this.absent.clear();
    this.generation++;
  }

  private countLookup(appId: AppId, now: number): void {
    if (now >= this.lookupWindowEnd) {
      this.lookupCounts.clear();
      this.lookupWindowEnd = now + lookupWindowMs;
    }
    const bucket = this.table.has(appId) ? appId : "";
    const count = (this.lookupCounts.get(bucket) ?? 0) + 1;
    if (count > maxLookups) {
      throw new Refusal(
        "unavailable",
        [],
        "Too many unknown applications or keys are being asked for; try again in a second.",
      );
    }
    this.lookupCounts.set(bucket, count);
  }

  private writeUses(): Promise<void> {
    if (this.writing !== undefined || this.uses.size === 0) return Promise.resolve();
    const uses = this.uses;
    this.uses = new Map();
    this.writing = this.store
      .recordUse(
        Array.from(uses, ([keyId, { count, lastUsed }]) => ({
          keyId,
          count,
          lastUsed: new Date(lastUsed),
        })),
      )
      .catch((error: unknown) => {
        this.options.report("Usage of keys cannot be written; it is kept for the next time", error);
        this.takeBack(uses);
      })
      .finally(() => {
        this.writing = undefined;
      });
    return this.writing;
  }

  private takeBack(uses: ReadonlyMap<KeyId, { count: number; lastUsed: number }>): void {
    for (const [keyId, { count, lastUsed }] of uses) {
      const since = this.uses.get(keyId);
      if (since === undefined) this.uses.set(keyId, { count, lastUsed });
      else since.count += count;
    }
  }
}

function toLiveKey(key: Key): LiveKey {
  return Object.assign(toLiveSecret(key.secret), {
    id: key.id,
    appId: key.appId,
    expiresAt: key.expires?.getTime() ?? Number.POSITIVE_INFINITY,
    isRevoked: key.revokedAt !== null,
    previous: key.previous.map(({ secret, until }) =>
      Object.assign(toLiveSecret(secret), { until: until.getTime() }),
    ),
  });
}

function toLiveSecret(secret: string): LiveSecret {
  let verify: VerifyToken | undefined;
  return {
    secret: Buffer.from(secret),
    // Most keys of a large table are never used on this node: made when needed.
    get verifyToken() {
      verify ??= tokenVerifier(secret);
      return verify;
    },
  };
}

function isSameKey(one: LiveKey, other: LiveKey): boolean {
  return (
    one.expiresAt === other.expiresAt &&
    one.isRevoked === other.isRevoked &&
    one.secret.equals(other.secret) &&
    one.previous.length === other.previous.length &&
    one.previous.every(({ until, secret }, index) => {
      const counterpart = other.previous[index];
      return until === counterpart?.until && secret.equals(counterpart.secret);
    })
  );
}
