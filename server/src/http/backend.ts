/** `/api/<applicationId>/…`: for back ends, who come with a key and its secret. */
import { setImmediate as nextTurn } from "node:timers/promises";
import type { AppId, Channel, KeyId } from "@pandapush/protocol";
import type { FastifyInstance, FastifyRequest } from "fastify";
import type { z } from "zod";
import { isCrossSite } from "../auth/admin.js";
import type { IdentifyKey } from "../auth/authorize.js";
import { type ErrorCode, KeyRefusal, Refusal } from "../errors.js";
import { sliceMs } from "../slices.js";
import { challenge, isSecure } from "./admin.js";
import * as shapes from "./admin-shapes.js";
import { type LiveParts, liveRoutes } from "./live-routes.js";
import { dataTexts, jsonOf } from "./payload.js";
import { basicCredentials, inTime, type PublishParts } from "./publish.js";
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

type Outcome = z.input<typeof shapes.published>["results"][number];

function publishRoute(parts: BackendParts): Route<BackendUser> {
  const { authorize, publish, publishTimeoutMs, batchMessages, refusals, log } = parts;

  const failed = (channel: string, error: unknown, keyId: string): Outcome => {
    const refusal = error instanceof Refusal ? error : new Refusal("internal");
    if (error !== refusal) log("error", "Publishing failed", { err: error });
    refusal.keyId ??= keyId;
    refusals?.addForChannel("rest_publish", channel, refusal);
    const { params, ...rest } = refusal.toRest();
    return { channel, successful: false, error: { ...rest, params: [...params] } };
  };

  return appRoute(
    {
      method: "POST",
      path: "/publish",
      summary: `Publish to several channels; each is answered by itself, in their order. At most MAX_BATCH_MESSAGES publications and MAX_MESSAGE_BYTES bytes`,
      body: shapes.publishing,
      answer: shapes.published,
    },
    async ({ credentials }: BackendUser, { request, body }) => {
      const texts = dataTexts(bodyTexts.get(request) ?? "");
      const publications = body.messages.flatMap(({ channel, channels = [] }, index) =>
        (channel === undefined ? channels : [channel]).map((name) => ({
          channel: name,
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
      const outcomes: (Outcome | Promise<Outcome>)[] = [];
      let sliceEnd = performance.now() + sliceMs;
      // In their order: nothing is handed to the broker before what stands in front of it.
      for (const { channel, data } of publications) {
        try {
          const grant = await authorize("publish", channel, credentials);
          const taken = publish(grant, channel as Channel, data);
          const done: Outcome = { channel, successful: true };
          outcomes.push(
            taken instanceof Promise
              ? inTime(taken, publishTimeoutMs).then(
                  () => done,
                  (error: unknown) => failed(channel, error, credentials.key),
                )
              : done,
          );
        } catch (error) {
          outcomes.push(failed(channel, error, credentials.key));
        }
        if (performance.now() < sliceEnd) continue;
        await nextTurn();
        sliceEnd = performance.now() + sliceMs;
      }
      return { results: await Promise.all(outcomes) };
    },
  );
}
