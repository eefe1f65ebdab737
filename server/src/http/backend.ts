/** `/api/<applicationId>/…`: for back ends, who come with a key and its secret. */
import { setImmediate as nextTurn } from "node:timers/promises";
import type { AppId, Channel, KeyId } from "@pandapush/protocol";
import type { FastifyInstance, FastifyRequest } from "fastify";
import type { z } from "zod";
import { isCrossSite } from "../auth/admin.js";
import type { IdentifyKey } from "../auth/authorize.js";
import { type ErrorCode, KeyRefusal, Refusal } from "../errors.js";
import { fingerprint, once, readName } from "../idempotency/idempotency.js";
import { sliceMs } from "../slices.js";
import { challenge, isSecure } from "./admin.js";
import * as shapes from "./admin-shapes.js";
import { type LiveParts, liveRoutes } from "./live-routes.js";
import { dataTexts, jsonOf } from "./payload.js";
import {
  basicCredentials,
  idempotencyHeader,
  inTime,
  type PublishParts,
  replayedHeader,
} from "./publish.js";
import { type AppUser, appRoute, type Route } from "./route.js";

export interface BackendParts extends LiveParts, PublishParts {
  readonly identifyKey: IdentifyKey;
  /** Publications in one request. */
  readonly batchMessages: number;
  /** Called for faults that are the server's own; never with credentials. */
  readonly log: (level: "error" | "warn", message: string, fields: object) => void;
}

interface BackendUser extends AppUser {
  readonly credentials: { readonly key: string; readonly secret: string };
}

export const backendPrefix = "/api/:app";

/** What is wrong with a key rather than with what it asks. */
const keyFaults: ReadonlySet<ErrorCode> = new Set([
  "unknownApplication",
  "noTokenOrKey",
  "unknownKey",
  "invalidSecret",
  "expiredKey",
  "revokedKey",
]);

/** Bodies as they were sent, for what is carried unchanged. */
const bodyTexts = new WeakMap<FastifyRequest, string>();

export function backendRoutes(parts: BackendParts): Route<BackendUser>[] {
  return [...liveRoutes(parts), publishRoute(parts)];
}

export function routeBackend(
  app: FastifyInstance,
  routes: readonly Route<BackendUser>[],
  { identifyKey, maxBodyBytes, refusals }: BackendParts,
): void {
  app.register(
    async (scope) => {
      scope.removeAllContentTypeParsers();
      const json = { parseAs: "buffer", bodyLimit: maxBodyBytes } as const;
      scope.addContentTypeParser("application/json", json, (_request, body, done) =>
        done(null, body),
      );
      scope.addHook("onRequest", async (request, reply) => {
        reply.headers({ "cache-control": "no-store", "x-content-type-options": "nosniff" });
        // A browser adds the credentials that it remembers by itself.
        const isSafe = request.method === "GET" || request.method === "HEAD";
        const { headers } = request;
        if (!isSafe && isCrossSite({ headers, isSecure: isSecure(request) })) {
          throw new Refusal("crossSite");
        }
      });
      const users = new WeakMap<FastifyRequest, BackendUser>();
      // Many clients lose an answer that comes while they still send; parsing comes after it, so
      // that strangers cause no work.
      scope.addHook("preHandler", async (request, reply) => {
        try {
          users.set(request, await identify(request, identifyKey));
        } catch (error) {
          if (error instanceof Refusal && error.http === 401) challenge(request, reply);
          throw error;
        }
        if (!(request.body instanceof Buffer)) return;
        const text = jsonOf(request.body);
        bodyTexts.set(request, text);
        request.body = JSON.parse(text);
      });
      scope.addHook("onError", async (request, _reply, error) => {
        if (!(error instanceof Refusal)) return;
        error.keyId ??= users.get(request)?.credentials.key;
        refusals?.add(appIdOf(request), "rest", null, error);
      });
      scope.setNotFoundHandler(() => {
        throw new Refusal("noSuchResource", [], "Nothing is here; docs/rest.md has what is.");
      });
      for (const { method, path, run } of routes) {
        scope.route({
          method,
          url: path,
          handler: (request, reply) => run(users.get(request) as BackendUser, request, reply),
        });
      }
    },
    { prefix: backendPrefix },
  );
}

/** @throws Refusal */
async function identify(request: FastifyRequest, identifyKey: IdentifyKey): Promise<BackendUser> {
  const appId = appIdOf(request);
  const value = /^basic +(\S+)$/i.exec(request.headers.authorization?.trim() ?? "")?.[1];
  if (value === undefined) throw new Refusal("keyRequired");
  try {
    const credentials = basicCredentials(value);
    await identifyKey(appId, credentials.key as KeyId, credentials.secret);
    return { appId, credentials };
  } catch (error) {
    if (error instanceof Refusal && keyFaults.has(error.code)) throw new KeyRefusal(error);
    throw error;
  }
}

function appIdOf({ params }: FastifyRequest): AppId {
  return (params as { app?: string }).app as AppId;
}

type Result = z.input<typeof shapes.published>["results"][number];
type Fault = z.input<typeof shapes.refusal>;

interface Publication {
  readonly channel: string;
  readonly data: string;
}

function publishRoute(parts: BackendParts): Route<BackendUser> {
  const { idempotency, batchMessages } = parts;
  return appRoute(
    {
      method: "POST",
      path: "/publish",
      summary: `Publish to several channels; each is answered by itself, in their order. At most MAX_BATCH_MESSAGES publications and MAX_MESSAGE_BYTES bytes. With the header Idempotency-Key done once, however often it is sent`,
      body: shapes.publishing,
      answer: shapes.published,
    },
    async ({ appId, credentials }: BackendUser, { request, reply, body }) => {
      const name = readName(request.headers[idempotencyHeader]);
      const text = bodyTexts.get(request) ?? "";
      const texts = dataTexts(text);
      const publications = body.messages.flatMap(({ channel, channels = [] }, index) =>
        (channel === undefined ? channels : [channel]).map((each) => ({
          channel: each,
          data: texts[index] ?? "null",
        })),
      );
      if (publications.length > batchMessages) {
        throw new Refusal(
          "batchTooLong",
          [String(batchMessages)],
          `A request may publish ${batchMessages} times, counting each channel (MAX_BATCH_MESSAGES).`,
        );
      }
      if (name === undefined) {
        return resultsOf(publications, await publishAll(parts, publications, credentials));
      }
      const named = {
        appId,
        keyId: credentials.key as KeyId,
        name,
        channel: publications[0]?.channel ?? "",
        fingerprint: fingerprint(text),
      };
      const { text: faults, isRepeated } = await once(idempotency, named, async (earlier) => {
        const before = earlier === undefined ? undefined : readFaults(earlier);
        const now = await publishAll(parts, publications, credentials, before);
        return { text: JSON.stringify([...now]), isFinal: ![...now.values()].some(isPassing) };
      });
      if (isRepeated) reply.header(replayedHeader, "true");
      return resultsOf(publications, readFaults(faults));
    },
  );
}

/** Why publications were not taken, by their places. The others were. */
type Faults = ReadonlyMap<number, Fault>;

function readFaults(text: string): Faults {
  return new Map(JSON.parse(text) as [number, Fault][]);
}

/** Whether it may be taken when it is sent again. */
function isPassing({ code }: Fault): boolean {
  return code !== null && (code === 429 || code >= 500);
}

function resultsOf(publications: readonly Publication[], faults: Faults): { results: Result[] } {
  const results = publications.map(({ channel }, index): Result => {
    const error = faults.get(index);
    return error === undefined
      ? { channel, successful: true }
      : { channel, successful: false, error };
  });
  return { results };
}

/**
 * In their order: nothing is handed to the broker before what stands in front of it.
 * @param before of an earlier attempt: what it did not fail for the time being stays as it is
 */
async function publishAll(
  parts: BackendParts,
  publications: readonly Publication[],
  credentials: BackendUser["credentials"],
  before?: Faults,
): Promise<Faults> {
  const { authorize, publish, publishTimeoutMs, refusals, onRefusal, log } = parts;
  const faults = new Map<number, Fault>();
  const fail = (index: number, channel: string, error: unknown): void => {
    const refusal = error instanceof Refusal ? error : new Refusal("internal");
    if (error !== refusal) log("error", "Publishing failed", { err: error });
    refusal.keyId ??= credentials.key;
    refusals?.addForChannel("rest_publish", channel, refusal);
    onRefusal?.(refusal);
    const { params, ...rest } = refusal.toRest();
    faults.set(index, { ...rest, params: [...params] });
  };
  const waits: Promise<void>[] = [];
  let sliceEnd = performance.now() + sliceMs;
  for (const [index, { channel, data }] of publications.entries()) {
    const fault = before?.get(index);
    if (before !== undefined && (fault === undefined || !isPassing(fault))) {
      if (fault !== undefined) faults.set(index, fault);
      continue;
    }
    try {
      const grant = await authorize("publish", channel, credentials);
      const taken = publish(grant, channel as Channel, data);
      if (taken instanceof Promise) {
        const refused = (error: unknown): void => fail(index, channel, error);
        waits.push(inTime(taken, publishTimeoutMs).then(() => undefined, refused));
      }
    } catch (error) {
      fail(index, channel, error);
    }
    if (performance.now() < sliceEnd) continue;
    await nextTurn();
    sliceEnd = performance.now() + sliceMs;
  }
  await Promise.all(waits);
  return faults;
}
