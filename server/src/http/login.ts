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
import {
  faultPage,
  leavePage,
  readReturn,
  safetyHeaders,
  sendPage,
  signOutPage,
} from "./admin-page.js";

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
    const admin = describe(request);
    if (isCrossSite(admin)) return reply.redirect(returnTo);
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
      // That is nobody's failure: any page can have a picture with this address.
      if (attempt === undefined) throw new Refusal("loginOver");
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

/** A link of another site's page ends nobody's session: a person decides here, with a button. */
function routeLogout(app: FastifyInstance, { auth, oidc, describe }: LoginParts): void {
  app.get(logoutPath, (_request, reply) => sendPage(reply, 200, signOutPage));
  app.post(logoutPath, async (request, reply) => {
    const admin = describe(request);
    if (isCrossSite(admin)) throw new Refusal("crossSite");
    reply.header("set-cookie", await auth.endSession(admin));
    if (oidc === undefined) return reply.redirect("/admin", 303);
    const [idToken] = readCookies(request.headers.cookie, idTokenCookie);
    const options = { path: logoutPath, maxAgeMs: 0, isSecure: oidc.isSecure(admin) };
    reply.header("set-cookie", setCookie(idTokenCookie, "", options));
    const url = await oidc.logoutUrl(idToken);
    if (url === undefined) return reply.redirect("/admin", 303);
    // No redirect: `form-action` forbids one to another site for the answer to a form.
    return sendPage(reply.header("refresh", `0; url=${url}`), 200, leavePage(oidc.name, url));
  });
  // As Pandapush 2.2 had it. The ID token does not come here.
  app.get("/logout", (_request, reply) => reply.redirect(logoutPath));
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
