import type { AppId, KeyId } from "@pandapush/protocol";

export interface Application {
  readonly id: AppId;
  readonly name: string | null;
  readonly createdBy: string | null;
  readonly createdAt: Date | null;
  readonly updatedAt: Date | null;
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
}

/** Applications and keys, in SQL. All methods reject with the database's error when it is down. */
export interface Store {
  applications(): Promise<Application[]>;
  findApplication(id: AppId): Promise<Application | undefined>;
  /** Creates it and makes the creator its first admin. The id is made here unless given. */
  addApplication(app: { id?: AppId; name: string | null; createdBy: string }): Promise<Application>;
  /** Removes it with its keys and admins. false: there was none. */
  removeApplication(id: AppId): Promise<boolean>;
  keys(): Promise<Key[]>;
  findKey(appId: AppId, id: KeyId): Promise<Key | undefined>;
  /** Id (`PSID` + 16 characters) and secret (256 alphanumerics) are made here unless given. */
  addKey(key: {
    id?: KeyId;
    secret?: string;
    appId: AppId;
    createdBy: string;
    expires: Date | null;
    purpose: string | null;
  }): Promise<Key>;
  removeKey(appId: AppId, id: KeyId): Promise<boolean>;
  /** Adds to `use_count` and sets `last_used`; one statement a key, in one transaction. */
  recordUse(uses: readonly { keyId: KeyId; count: number; lastUsed: Date }[]): Promise<void>;
  /** Changes whenever another process has written; undefined where the database cannot tell. */
  version(): Promise<number | undefined>;
  close(): Promise<void>;
}
