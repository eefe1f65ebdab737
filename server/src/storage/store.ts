import type { AppId, KeyId } from "@pandapush/protocol";

export interface Application {
  readonly id: AppId;
  readonly name: string | null;
  readonly createdBy: string | null;
  readonly createdAt: Date | null;
  readonly updatedAt: Date | null;
  readonly limits: AppLimits;
}

/** What an application may do, at each node; null: no more than the server allows to all. LIM-11 */
export interface AppLimits {
  readonly maxPublishesPerSecond: number | null;
  /** Sessions that are subscribed to something of it. */
  readonly maxConnections: number | null;
  /** Sessions that begin to be. */
  readonly maxSessionsPerSecond: number | null;
  /** Of one publication. */
  readonly maxMessageBytes: number | null;
}

export interface Key {
  readonly id: KeyId;
  readonly appId: AppId;
  readonly secret: string;
  readonly createdBy: string | null;
  /** null: never expires. */
  readonly expires: Date | null;
  readonly purpose: string | null;
  readonly createdAt: Date | null;
  readonly updatedAt: Date | null;
  readonly lastUsed: Date | null;
  readonly useCount: number;
  /** A revoked key opens nothing any more; it stays to be seen. null: it was not revoked. */
  readonly revokedAt: Date | null;
  readonly revokedBy: string | null;
  /** Secrets from before rotations, which count as well, each until its time; the newest first. */
  readonly previous: readonly PreviousSecret[];
}

export interface PreviousSecret {
  readonly secret: string;
  readonly until: Date;
}

/** How many former secrets of one key count at once. */
export const maxPreviousSecrets = 5;

/** What the keys are for that the console signs its own tokens with. */
export const consolePurpose = "web console";

export interface NewKey {
  readonly id?: KeyId;
  readonly secret?: string;
  readonly appId: AppId;
  readonly createdBy: string;
  readonly expires: Date | null;
  readonly purpose: string | null;
}

/** A part of a list: from `offset` (0), at most `limit` (all). */
export interface Page {
  readonly offset?: number;
  readonly limit?: number;
}

export interface Found<T> {
  readonly items: T[];
  /** How many there are on all pages. */
  readonly total: number;
}

export interface AuditEntry {
  readonly id: number;
  readonly at: Date | null;
  /** `command line`: whoever may use it; null: not known. */
  readonly user: string | null;
  /** `<noun>.<verb>`, such as `key.revoke`. */
  readonly action: string;
  readonly appId: AppId | null;
  /** The application's name at that time. */
  readonly appName: string | null;
  /** JSON without secrets; of a key with its purpose at that time. */
  readonly details: Readonly<Record<string, unknown>>;
}

/** How often a key was used since the last time, and when at last. */
export interface KeyUse {
  readonly keyId: KeyId;
  readonly count: number;
  readonly lastUsed: Date;
}

/**
 * The database cannot be reached, does not answer in time, or has no time: the same call may
 * succeed later. A write may have been done all the same, when only its confirmation was lost.
 */
export class StorageUnavailable extends Error {
  override readonly name = "StorageUnavailable";

  constructor(cause: unknown) {
    super("The database is not available", { cause });
  }

  /** What it came to, in the words of the database, its driver or the network; without secrets. */
  get reason(): string {
    const { cause } = this;
    // Each address of a host was tried, in vain.
    if (cause instanceof AggregateError) return cause.errors.map(messageOf).join(", ");
    return messageOf(cause);
  }
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

/** A key that is to be rotated has `maxPreviousSecrets` that still count. Nothing was changed. */
export class TooManySecrets extends Error {
  override readonly name = "TooManySecrets";

  /** @param until when the first of them ends */
  constructor(readonly until: Date) {
    super(`${maxPreviousSecrets} former secrets still count`);
  }
}

/** What was to be done in an application that does not exist, or not any more. */
export class NoSuchApplication extends Error {
  override readonly name = "NoSuchApplication";
}

/**
 * Applications, their admins and keys, in SQL. Every call ends in bounded time. All methods reject
 * with `StorageUnavailable` when the database is down.
 *
 * A method that changes an application or a key writes its audit entry in the same transaction;
 * `by` is the user it is done for; where something is made, its creator unless given.
 */
export interface Store {
  applications(): Promise<Application[]>;
  findApplication(id: AppId): Promise<Application | undefined>;
  /**
   * In the order in which they were made.
   * @param filter.user only those that this user administers
   * @param filter.search only those with this text in name or id; upper and lower case are the
   *   same, in every alphabet
   */
  findApplications(filter: { user?: string; search?: string } & Page): Promise<Found<Application>>;
  /** User names, sorted. */
  admins(id: AppId): Promise<string[]>;
  isAdmin(id: AppId, user: string): Promise<boolean>;
  /** Creates it and makes the creator its first admin. The id is made here unless given. */
  addApplication(
    app: { id?: AppId; name: string | null; createdBy: string },
    by?: string,
  ): Promise<Application>;
  /**
   * Changes what is given; `admins` replaces all of them, and the keys with which the console signs
   * for those who are not among them any more are revoked. Other limits have an audit entry of their
   * own, with those before. false: there is none.
   */
  updateApplication(
    id: AppId,
    change: {
      name?: string | null;
      admins?: readonly string[];
      limits?: Partial<AppLimits>;
    },
    by?: string,
  ): Promise<boolean>;
  /** Removes it with its keys and admins. false: there was none. */
  removeApplication(id: AppId, by?: string): Promise<boolean>;
  /** Those of all applications, the revoked ones too. */
  keys(): Promise<Key[]>;
  /** @param filter.search only those with this text in purpose or id, as in `findApplications` */
  findKeys(appId: AppId, filter: { search?: string } & Page): Promise<Found<Key>>;
  findKey(appId: AppId, id: KeyId): Promise<Key | undefined>;
  /**
   * Id (`PSID` + 16 characters) and secret (256 alphanumerics) are made here unless given.
   * @throws NoSuchApplication
   */
  addKey(key: NewKey, by?: string): Promise<Key>;
  /**
   * The key with which the console signs for this user, of `consolePurpose`, made when there is
   * none that is of use: the same for all who ask at once.
   * @throws NoSuchApplication
   */
  consoleKey(appId: AppId, user: string): Promise<{ readonly key: Key; readonly isNew: boolean }>;
  /** false: there is none, or it was revoked before. */
  revokeKey(appId: AppId, id: KeyId, by?: string): Promise<boolean>;
  /**
   * Gives it a new secret, and lets the old one count for `overlapMs` more. Those that were
   * replaced before count until their time, whatever is rotated since.
   *
   * @returns the key with its new secret; undefined: there is none, or it was revoked
   * @throws TooManySecrets
   */
  rotateKey(appId: AppId, id: KeyId, overlapMs: number, by?: string): Promise<Key | undefined>;
  removeKey(appId: AppId, id: KeyId, by?: string): Promise<boolean>;
  /** Adds to `use_count`, and to `last_used` what is later than it, of all or of none. */
  recordUse(uses: readonly KeyUse[]): Promise<void>;
  /** For what is no change of an application or key. */
  addAudit(entry: Omit<AuditEntry, "id" | "at" | "appName">): Promise<void>;
  /**
   * The newest first.
   * @param filter.user only entries of the applications that this user administers
   */
  audit(filter: { appId?: AppId; user?: string } & Page): Promise<Found<AuditEntry>>;
  /** Something that all nodes share, such as the key that signs sessions. */
  setting(name: string): Promise<string | undefined>;
  setSetting(name: string, value: string): Promise<void>;
  /** Sets it unless it is set. Resolves to what it is then: the same for all who try at once. */
  addSetting(name: string, value: string): Promise<string>;
  /** Remembers that a session of the console has ended, until the time when it would have. */
  endSession(id: string, until: Date): Promise<void>;
  isSessionEnded(id: string): Promise<boolean>;
  /**
   * Changes whenever another process has changed applications or keys; undefined where the database
   * cannot tell.
   */
  version(): Promise<number | undefined>;
  close(): Promise<void>;
}
