import { type AppId, type KeyId, type PresenceInfo, parseChannel } from "@pandapush/protocol";
import type { FastifyReply } from "fastify";
import { z } from "zod";
import type { AdminAuth, AdminRequest, AdminUser } from "../auth/admin.js";
import { signToken } from "../auth/token.js";
import { InvalidInput, Refusal } from "../errors.js";
import type { Live } from "../live.js";
import {
  type AppLimits,
  type Application,
  type Key,
  maxPreviousSecrets,
  type Store,
  TooManySecrets,
} from "../storage/store.js";
import * as shapes from "./admin-shapes.js";
import { liveRoutes } from "./live-routes.js";
import { below, openRoute, type Route, route } from "./route.js";

export interface RouteParts {
  readonly auth: AdminAuth;
  readonly store: Store;
  readonly live: Live;
  /** Brings a change of keys or applications to live traffic; resolves when it is there. */
  readonly changed: () => Promise<void>;
  /** For the console. */
  readonly deployment: {
    readonly environments: readonly { readonly name: string; readonly url: string }[];
    readonly environment: string;
    readonly version: string;
  };
}

const hourMs = 3_600_000;

export function adminRoutes(parts: RouteParts): Route[] {
  return [
    ...applicationRoutes(parts),
    ...keyRoutes(parts),
    ...auditRoutes(parts),
    ...liveRoutes(parts).map((each) =>
      below("/application/:id", each, async (admin, { id }) => ({
        appId: (await ownApplication(parts.store, admin, id)).id,
        admin,
      })),
    ),
  ];
}

/** Log in, log out, who am I. */
export function loginRoutes(
  { auth, deployment }: Pick<RouteParts, "auth" | "deployment">,
  describe: (request: Parameters<Route["run"]>[1]) => AdminRequest,
): Route[] {
  return [
    openRoute(
      {
        method: "POST",
        path: "/login",
        summary: "Begin a session, in a cookie",
        body: shapes.login,
        answer: shapes.user,
      },
      async (_user, { request, reply, body }) => {
        const { user, cookie } = await auth.logIn(body.username, body.password, describe(request));
        reply.header("set-cookie", cookie);
        return { username: user.name };
      },
    ),
    openRoute(
      { method: "POST", path: "/logout", summary: "End the session, at all nodes" },
      async (_user, { request, reply }) => {
        reply.header("set-cookie", await auth.endSession(describe(request)));
      },
    ),
    route(
      {
        method: "GET",
        path: "/info",
        summary: "Who is logged in, and where",
        answer: shapes.info,
      },
      async (user) => {
        const { environments, environment, version } = deployment;
        return { username: user.name, environments: [...environments], environment, version };
      },
    ),
  ];
}

function applicationRoutes({ store, changed }: Pick<RouteParts, "store" | "changed">): Route[] {
  return [
    route(
      {
        method: "GET",
        path: "/applications",
        summary: "The applications that you administer; all of them for root admins",
        query: shapes.page,
        answer: z.array(shapes.application),
        isPaged: true,
      },
      async (user, { query, reply }) => {
        const found = await store.findApplications(given({ ...query, ...onlyOwn(user) }));
        return listed(reply, found, shapes.toApplication);
      },
    ),
    route(
      {
        method: "POST",
        path: "/applications",
        summary: "Create an application, which you then administer",
        body: shapes.newApplication,
        answer: shapes.createdApplication,
        status: 201,
      },
      async (user, { body }) => {
        const app = await store.addApplication({ name: body.name ?? null, createdBy: user.name });
        await changed();
        return shapes.toApplication(app);
      },
    ),
    route(
      {
        method: "GET",
        path: "/application/:id",
        summary: "An application with its keys, admins and limits",
        answer: shapes.applicationDetail,
      },
      async (user, { params }) => {
        const app = await ownApplication(store, user, params.id);
        const { items } = await store.findKeys(app.id, {});
        return {
          ...shapes.toApplication(app),
          keys: items.map(shapes.toKey),
          admins: await store.admins(app.id),
          limits: shapes.toLimits(app.limits),
        };
      },
    ),
    route(
      {
        method: "POST",
        path: "/application/:id",
        summary: "Rename an application, choose its admins or its limits; what is absent stays",
        body: shapes.applicationChange,
        answer: shapes.id,
      },
      async (user, { params, body }) => {
        const { id } = await ownApplication(store, user, params.id);
        const { name, admins } = body;
        const limits = body.limits && readLimits(body.limits);
        const change = given({ name: name ?? undefined, admins, limits });
        if (!(await store.updateApplication(id, change, user.name))) throw noSuchResource();
        // What the console permitted those who were removed ends.
        if (admins !== undefined || limits !== undefined) await changed();
        return { id };
      },
    ),
    route(
      {
        method: "DELETE",
        path: "/application/:id",
        summary: "Delete an application with its keys; live subscriptions in it end",
      },
      async (user, { params }) => {
        const { id } = await ownApplication(store, user, params.id);
        if (!(await store.removeApplication(id, user.name))) throw noSuchResource();
        await changed();
      },
    ),
  ];
}

function keyRoutes({ store, changed }: Pick<RouteParts, "store" | "changed">): Route[] {
  const keyPath = "/application/:id/keys/:keyId";

  return [
    route(
      {
        method: "GET",
        path: "/application/:id/keys",
        summary: "The keys of an application, without their secrets",
        query: shapes.page,
        answer: z.array(shapes.key),
        isPaged: true,
      },
      async (user, { params, query, reply }) => {
        const { id } = await ownApplication(store, user, params.id);
        return listed(reply, await store.findKeys(id, given(query)), shapes.toKey);
      },
    ),
    route(
      {
        method: "POST",
        path: "/application/:id/keys",
        summary: "Create a key; only this answer shows its secret",
        body: shapes.newKey,
        answer: shapes.createdKey,
      },
      async (user, { params, body }) => {
        const { id } = await ownApplication(store, user, params.id);
        const key = await store.addKey({
          appId: id,
          createdBy: user.name,
          expires: shapes.toEnd(body.expires),
          purpose: body.purpose ?? null,
        });
        await changed();
        return { ...shapes.toKey(key), secret: key.secret };
      },
    ),
    route(
      { method: "DELETE", path: keyPath, summary: "Delete a key; what it permitted ends" },
      async (user, { params }) => {
        const { id } = await ownApplication(store, user, params.id);
        const isGone = await store.removeKey(id, params.keyId as KeyId, user.name);
        if (!isGone) throw new Refusal("noSuchKey");
        await changed();
      },
    ),
    route(
      {
        method: "POST",
        path: `${keyPath}/revoke`,
        summary: "Revoke a key; what it permitted ends, and the key stays to be seen",
        answer: shapes.key,
      },
      async (user, { params }) => {
        const { id } = await ownApplication(store, user, params.id);
        const keyId = params.keyId as KeyId;
        await store.revokeKey(id, keyId, user.name);
        await changed();
        return shapes.toKey(await existingKey(store, id, keyId));
      },
    ),
    route(
      {
        method: "POST",
        path: `${keyPath}/rotate`,
        summary:
          "Give a key a new secret, which only this answer shows; the old one counts for overlap_ms more (a day), and those from before until their time",
        body: shapes.rotation,
        answer: shapes.rotatedKey,
      },
      async (user, { params, body }) => {
        const { id } = await ownApplication(store, user, params.id);
        const { revokedAt, expires, ...old } = await existingKey(store, id, params.keyId as KeyId);
        if (revokedAt !== null) throw cannotRotate("It was revoked; create a new key.");
        if (shapes.isOver(expires)) throw cannotRotate("Its time is over; create a new key.");
        const key = await store.rotateKey(id, old.id, body.overlap_ms, user.name).catch(tooMany);
        if (key === undefined) throw new Refusal("noSuchKey");
        await changed();
        return { ...shapes.toKey(key), secret: key.secret };
      },
    ),
    route(
      {
        method: "POST",
        path: `${keyPath}/token`,
        summary: "Sign a channel token with a key; it is valid for an hour unless told otherwise",
        body: shapes.newToken,
        answer: shapes.token,
      },
      async (user, { params, body }) => {
        const { id } = await ownApplication(store, user, params.id);
        const key = await existingKey(store, id, params.keyId as KeyId);
        return { token: signWith(key, body) };
      },
    ),
    route(
      {
        method: "POST",
        path: "/application/:id/token",
        summary:
          "Sign a channel token with the console's key for you, which is made when it is missing; what it permitted ends when you do not administer the application any more",
        body: shapes.newToken,
        answer: shapes.token,
      },
      async (user, { params, body }) => {
        const { id } = await ownApplication(store, user, params.id);
        requireOwnChannel(id, body.channel);
        const { key, isNew } = await store.consoleKey(id, user.name);
        if (isNew) await changed();
        // Of whoever is removed later, the key is revoked.
        await ownApplication(store, user, id);
        return { token: signWith(key, body) };
      },
    ),
  ];
}

function auditRoutes({ store }: Pick<RouteParts, "store">): Route[] {
  return [
    route(
      {
        method: "GET",
        path: "/audit",
        summary: "Who changed what, the newest first, in the applications that you administer",
        query: shapes.auditPage,
        answer: z.array(shapes.auditEntry),
        isPaged: true,
      },
      async (user, { query, reply }) => {
        const found = await store.audit(given({ ...query, ...onlyOwn(user) }));
        return listed(reply, found, shapes.toAuditEntry);
      },
    ),
    route(
      {
        method: "GET",
        path: "/application/:id/audit",
        summary: "Who changed what in an application, the newest first",
        query: shapes.auditPage,
        answer: z.array(shapes.auditEntry),
        isPaged: true,
      },
      async (user, { params, query, reply }) => {
        const { id } = await ownApplication(store, user, params.id);
        const found = await store.audit(given({ ...query, appId: id }));
        return listed(reply, found, shapes.toAuditEntry);
      },
    ),
  ];
}

/** @throws Refusal noSuchResource, alike for what does not exist and what is another's */
async function ownApplication(
  store: Store,
  user: AdminUser,
  id: string | undefined,
): Promise<Application> {
  const app = await store.findApplication(id as AppId);
  if (app === undefined) throw noSuchResource();
  if (!user.isRoot && !(await store.isAdmin(app.id, user.name))) throw noSuchResource();
  return app;
}

async function existingKey(store: Store, appId: AppId, keyId: KeyId): Promise<Key> {
  const key = await store.findKey(appId, keyId);
  if (key === undefined) throw new Refusal("noSuchKey");
  return key;
}

function cannotRotate(help: string): Refusal {
  return new Refusal("cannotRotate", [], help);
}

function tooMany(error: unknown): never {
  if (!(error instanceof TooManySecrets)) throw error;
  throw cannotRotate(
    `${maxPreviousSecrets} former secrets of it still count, and there may be no more; the first of them ends at ${error.until.toISOString()}. With overlap_ms 0 the present secret ends at once; to end all of them, revoke the key.`,
  );
}

function signWith(key: Key, body: z.output<typeof shapes.newToken>): string {
  requireOwnChannel(key.appId, body.channel);
  if (key.revokedAt !== null) throw new Refusal("revokedKey");
  if (shapes.isOver(key.expires)) throw new Refusal("expiredKey");
  const { channel, presence, pub, sub } = body;
  const claims = {
    keyId: key.id,
    channel,
    pub: pub === true,
    sub: sub === true,
    // An id that is a number is taken, too.
    ...(presence === undefined || presence === null ? {} : { presence: presence as PresenceInfo }),
  };
  const end = shapes.toEnd(body.expires)?.getTime() ?? Date.now() + hourMs;
  return signToken(key.secret, claims, end);
}

/** @throws InvalidInput for a channel that no token of this application could open */
function requireOwnChannel(appId: AppId, channel: string): void {
  // A token may stand for all kinds of channels at once, which nobody can subscribe to.
  if (channel === `/${appId}/**` || parseChannel(channel)?.appId === appId) return;
  throw new InvalidInput({
    channel: `must be a channel of this application, such as /${appId}/private/news, or a pattern, such as /${appId}/private/*`,
  });
}

/** Those that are given. */
function readLimits(limits: z.output<typeof shapes.limitsChange>): Partial<AppLimits> {
  return given({
    maxPublishesPerSecond: limits.max_publishes_per_second,
    maxConnections: limits.max_connections,
    maxSessionsPerSecond: limits.max_sessions_per_second,
    maxMessageBytes: limits.max_message_bytes,
  });
}

function listed<T, Item>(
  reply: FastifyReply,
  { items, total }: { readonly items: readonly T[]; readonly total: number },
  toItem: (item: T) => Item,
): Item[] {
  reply.header("x-total-count", total);
  return items.map(toItem);
}

function onlyOwn(user: AdminUser): { user?: string } {
  return user.isRoot ? {} : { user: user.name };
}

function noSuchResource(): Refusal {
  return new Refusal("noSuchResource");
}

type Given<T> = { [K in keyof T]: Exclude<T[K], undefined> };

/** Leaves out what is undefined. */
function given<T extends object>(fields: T): Partial<Given<T>> {
  const entries = Object.entries(fields).filter(([, value]) => value !== undefined);
  return Object.fromEntries(entries) as Partial<Given<T>>;
}
