/**
 * Everything under `/admin`: the console and its sign-in page, and `/admin/api/…` for the console
 * and for programs.
 */
import type { IncomingMessage } from "node:http";
import type { TLSSocket } from "node:tls";
import type { FastifyError, FastifyInstance, FastifyRequest } from "fastify";
import { z } from "zod";
import { type AdminAuth, type AdminRequest, type AdminUser, isCrossSite } from "../auth/admin.js";
import type { OidcLogin } from "../auth/oidc.js";
import { Refusal } from "../errors.js";
import type { Store } from "../storage/store.js";
import { routePageFiles, safetyHeaders } from "./admin-page.js";
import { adminRoutes, loginRoutes, type RouteParts } from "./admin-routes.js";
import { routeConsole } from "./console.js";
import { routeLogin } from "./login.js";
import { type DescribedApi, describeApis } from "./openapi.js";
import { type Route, route } from "./route.js";

export interface AdminParts extends Pick<RouteParts, "changed" | "deployment" | "live"> {
  /** Absent: nobody can log in. */
  readonly auth: AdminAuth | undefined;
  /** Where users log in; absent: here. */
  readonly oidc?: OidcLogin;
  readonly store: Store;
  readonly addressOf: (request: IncomingMessage) => string | undefined;
  readonly version: string;
  /** Where the console's build is; absent: in its package. */
  readonly consoleDirectory?: string;
}

const prefix = "/admin/api";
const maxBodyBytes = 65_536;

const apiHeaders = {
  ...safetyHeaders,
  "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
  "cache-control": "no-store",
};

/** @param others APIs that are described beside this one */
export function routeAdmin(
  app: FastifyInstance,
  parts: AdminParts,
  others: readonly DescribedApi[],
): void {
  const { auth, oidc, addressOf, consoleDirectory: directory } = parts;
  const describe = (request: FastifyRequest) => describeRequest(request, addressOf);
  routeApi(app, parts, describe, others);
  routePageFiles(app);
  routeConsole(app, { auth, provider: oidc?.name, describe, directory });
  if (auth !== undefined) routeLogin(app, { auth, oidc, describe });
}

function routeApi(
  app: FastifyInstance,
  parts: AdminParts,
  describe: (request: FastifyRequest) => AdminRequest,
  others: readonly DescribedApi[],
): void {
  const { auth } = parts;
  app.register(
    async (scope) => {
      scope.removeAllContentTypeParsers();
      const json = { parseAs: "string", bodyLimit: maxBodyBytes } as const;
      scope.addContentTypeParser("application/json", json, (_request, body, done) => {
        try {
          done(null, parseBody(body.toString()));
        } catch (error) {
          done(error as Refusal);
        }
      });
      scope.setErrorHandler((error: FastifyError | Refusal) => {
        throw error.code === "FST_ERR_CTP_BODY_TOO_LARGE" ? tooLarge() : error;
      });
      scope.addHook("onRequest", async (_request, reply) => {
        reply.headers(apiHeaders);
        if (auth === undefined) throw new Refusal("consoleClosed");
      });
      // Else they would be pages of the console.
      for (const path of ["/", "/*"]) {
        scope.all(path, () => {
          throw new Refusal("noSuchResource");
        });
      }
      if (auth === undefined) return;
      const users = new WeakMap<FastifyRequest, AdminUser>();
      const routes = describedRoutes({ ...parts, auth }, describe, others);
      const open = new Set(routes.filter(({ isOpen }) => isOpen).map(({ path }) => prefix + path));
      scope.addHook("onRequest", async (request, reply) => {
        const isSafe = request.method === "GET" || request.method === "HEAD";
        if (!isSafe && isCrossSite(describe(request))) throw new Refusal("crossSite");
        if (open.has(request.routeOptions.url ?? "")) return;
        const user = await auth.identify(describe(request)).catch((error: unknown) => {
          challenge(request, reply);
          throw error;
        });
        if (user !== undefined) {
          users.set(request, user);
          return;
        }
        if (!auth.takesPasswords) throw new Refusal("notLoggedIn", [], "Sign in at /admin.");
        challenge(request, reply);
        throw new Refusal("notLoggedIn");
      });
      for (const { method, path, run } of routes) {
        scope.route({
          method,
          url: path,
          handler: (request, reply) => run(users.get(request), request, reply),
        });
      }
    },
    { prefix },
  );
}

function tooLarge(): Refusal {
  const help = `A request to ${prefix} has at most ${maxBodyBytes} bytes (64 KiB).`;
  return new Refusal("tooLarge", [String(maxBodyBytes)], help);
}

function describedRoutes(
  parts: AdminParts & { readonly auth: AdminAuth },
  describe: (request: FastifyRequest) => AdminRequest,
  others: readonly DescribedApi[],
): Route[] {
  const routes: Route[] = [...loginRoutes(parts, describe), ...adminRoutes(parts)];
  let description: Record<string, z.core.util.JSONType> | undefined;
  routes.push(
    route(
      {
        method: "GET",
        path: "/openapi.json",
        summary: "This description",
        answer: z.record(z.string(), z.json()),
      },
      async () => {
        description ??= JSON.parse(
          JSON.stringify(describeApis([{ prefix, routes, by: "admin" }, ...others], parts.version)),
        ) as Record<string, z.core.util.JSONType>;
        return description;
      },
    ),
  );
  return routes;
}

function describeRequest(
  request: FastifyRequest,
  addressOf: AdminParts["addressOf"],
): AdminRequest {
  const { raw, headers } = request;
  return { headers, address: addressOf(raw), isSecure: isSecure(request) };
}

/** Between the browser and the first of our machines. */
export function isSecure({ raw, headers }: FastifyRequest): boolean {
  // Whoever claims to come by TLS and does not gets a cookie that its browser will not send back.
  const forwarded = String(headers["x-forwarded-proto"] ?? "").split(",", 1)[0];
  return (raw.socket as TLSSocket).encrypted === true || forwarded?.trim() === "https";
}

/**
 * Asks programs for Basic credentials. A browser would ask its user, in a window of its own; where
 * it does not send Fetch Metadata, a page's script says `X-Requested-With`.
 */
export function challenge(
  { headers }: FastifyRequest,
  reply: { header(name: string, value: string): unknown },
): void {
  if (headers["sec-fetch-mode"] !== undefined || headers["x-requested-with"] !== undefined) return;
  reply.header("www-authenticate", 'Basic realm="Authorization Required"');
}

function parseBody(text: string): unknown {
  if (text.trim() === "") return undefined;
  try {
    return JSON.parse(text);
  } catch {
    throw new Refusal("malformedJson");
  }
}
