/** Logins at an OpenID provider, and the way out: pages that send the browser on. */
import type { FastifyInstance, FastifyReply, FastifyRequest } from "fastify";
import {
  type AdminAuth,
  type AdminRequest,
  isCrossSite,
  readCookies,
  setCookie,
} from "../auth/admin.js";
import type { OidcLogin } from "../auth/oidc.js";
import { Refusal } from "../errors.js";
import { faultPage, readReturn, safetyHeaders, sendPage } from "./admin-page.js";

export interface LoginParts {
  readonly auth: AdminAuth;
  /** Absent: users have a password. */
  readonly oidc: OidcLogin | undefined;
  readonly describe: (request: FastifyRequest) => AdminRequest;
}

/** What the provider wants to see when its user logs out; sent to nothing but the logout. */
const idTokenCookie = "pandapush_id_token";
const logoutPath = "/admin/logout";
/** Browsers keep 4096 bytes of a cookie with its name; who has no token is asked at a logout. */
const maxIdTokenLength = 3800;

export function routeLogin(app: FastifyInstance, parts: LoginParts): void {
  app.register(async (scope) => {
    scope.addHook("onRequest", async (_request, reply) => {
      reply.headers({ ...safetyHeaders, "cache-control": "no-store" });
    });
    if (parts.oidc !== undefined) routeProvider(scope, { ...parts, oidc: parts.oidc });
    routeLogout(scope, parts);
  });
}

function routeProvider(
  app: FastifyInstance,
  { auth, oidc, describe }: LoginParts & { readonly oidc: OidcLogin },
): void {
  // A HEAD request would use up what the provider gave for one login.
  const once = { exposeHeadRoute: false };

  app.get("/admin/login/oidc", once, async (request, reply) => {
    const { return: asked, again } = request.query as Record<string, unknown>;
    const returnTo = readReturn(asked);
    // A page of another site shows ours, and a person decides there.
    if (isCrossSite(request.headers)) return reply.redirect(returnTo);
    const admin = describe(request);
    const work = async () => {
      auth.requireTries(admin);
      const { url, cookie } = await oidc.begin(returnTo, again !== undefined, admin);
      return reply.header("set-cookie", cookie).redirect(url);
    };
    return orFault(reply, () => returnTo, work);
  });

  app.get(oidc.callbackPath, once, async (request, reply) => {
    const admin = describe(request);
    const { search } = new URL(request.url, "http://console.invalid");
    let returnTo = "/admin";
    const work = async () => {
      const attempt = await oidc.resume(search, admin);
      returnTo = attempt?.returnTo ?? returnTo;
      auth.requireTries(admin);
      if (attempt === undefined) {
        auth.countFailure(admin);
        throw new Refusal("loginOver");
      }
      reply.header("set-cookie", oidc.endAttempt(attempt, admin));
      const user = await oidc.complete(attempt, search).catch((error: unknown) => {
        if (error instanceof Refusal && error.http < 500) auth.countFailure(admin);
        throw error;
      });
      const isSecure = oidc.isSecure(admin);
      reply.header("set-cookie", await auth.beginSession(user.name, { isSecure }));
      const isKept = user.idToken.length <= maxIdTokenLength;
      const options = { path: logoutPath, maxAgeMs: isKept ? auth.sessionMs : 0, isSecure };
      reply.header("set-cookie", setCookie(idTokenCookie, isKept ? user.idToken : "", options));
      return reply.redirect(returnTo);
    };
    return orFault(reply, () => returnTo, work);
  });
}

function routeLogout(app: FastifyInstance, { auth, oidc, describe }: LoginParts): void {
  const logOut = (request: FastifyRequest, reply: FastifyReply): boolean => {
    // Another site's page ends nobody's session.
    if (isCrossSite(request.headers)) return false;
    reply.header("set-cookie", auth.endSession(describe(request)));
    return true;
  };
  app.get(logoutPath, async (request, reply) => {
    if (!logOut(request, reply) || oidc === undefined) return reply.redirect("/admin");
    const [idToken] = readCookies(request.headers.cookie, idTokenCookie);
    const isSecure = oidc.isSecure(describe(request));
    const options = { path: logoutPath, maxAgeMs: 0, isSecure };
    reply.header("set-cookie", setCookie(idTokenCookie, "", options));
    return reply.redirect((await oidc.logoutUrl(idToken)) ?? "/admin");
  });
  // As Pandapush 2.2 had it. The ID token does not come here.
  app.get("/logout", async (request, reply) => {
    if (oidc !== undefined) return reply.redirect(logoutPath);
    logOut(request, reply);
    return reply.redirect("/");
  });
}

/** Shows a refusal as a page that leads on. */
async function orFault(
  reply: FastifyReply,
  returnTo: () => string,
  work: () => Promise<FastifyReply>,
): Promise<FastifyReply> {
  try {
    return await work();
  } catch (error) {
    if (!(error instanceof Refusal)) throw error;
    return sendPage(reply, error, faultPage(error, returnTo()));
  }
}
