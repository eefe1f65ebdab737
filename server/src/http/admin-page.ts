/** The pages under `/admin` that are not the console: sign in, and what went wrong. */
import { readFileSync } from "node:fs";
import type { FastifyInstance, FastifyReply } from "fastify";
import { Refusal } from "../errors.js";
import { routeFile, staticFile } from "./static-file.js";

const directory = new URL("../../public/", import.meta.url);
const template = readFileSync(new URL("sign-in.html", directory), "utf8");

/** What every answer under `/admin` carries. */
export const safetyHeaders = {
  "x-content-type-options": "nosniff",
  "x-frame-options": "DENY",
  // With none at all a browser would send forms of ours with `Origin: null`.
  "referrer-policy": "same-origin",
  "cross-origin-opener-policy": "same-origin",
  "cross-origin-resource-policy": "same-origin",
};

const pagePolicy = [
  "default-src 'none'",
  "script-src 'self'",
  "style-src 'self'",
  "connect-src 'self'",
  "img-src 'self'",
  "base-uri 'none'",
  "form-action 'self'",
  "frame-ancestors 'none'",
].join("; ");

export interface Page {
  readonly title: string;
  /** HTML. */
  readonly content: string;
}

/** What the pages need beside their HTML; the only files that are served before a login. */
export function routePageFiles(app: FastifyInstance): void {
  const files = [
    { name: "sign-in.css", type: "text/css; charset=utf-8" },
    { name: "sign-in.js", type: "text/javascript; charset=utf-8" },
  ];
  for (const { name, type } of files) {
    const headers = {
      ...safetyHeaders,
      "content-type": type,
      "cache-control": "public, max-age=0",
    };
    const content = readFileSync(new URL(name, directory));
    routeFile(app, `/admin/${name}`, staticFile(content, headers));
  }
}

/** @param status the refusal's, where it is one that is shown */
export function sendPage(reply: FastifyReply, status: number | Refusal, page: Page): FastifyReply {
  const isRefusal = status instanceof Refusal;
  if (isRefusal && status.retryAfterSeconds !== undefined) {
    reply.header("retry-after", status.retryAfterSeconds);
  }
  const html = template
    .replace("<!-- title -->", () => escapeHtml(page.title))
    .replace("<!-- content -->", () => `${page.content}\n    `);
  return reply
    .code(isRefusal ? status.http : status)
    .headers({
      ...safetyHeaders,
      "content-type": "text/html; charset=utf-8",
      "content-security-policy": pagePolicy,
      "cache-control": "no-store",
    })
    .send(html);
}

/** For the user name and password of `AUTH_METHOD=basic`; its script loads the page again. */
export function passwordPage(fault?: Refusal): Page {
  // Without its script the form would be refused, and not put the password into the address.
  return {
    title: "Sign in",
    content: `
      <h1>Sign in</h1>
      <p class="lead">to the Pandapush console</p>
      <form id="sign-in" method="post" action="/admin/api/login">
        <label for="username">User name</label>
        <input id="username" name="username" autocomplete="username" autocapitalize="off"
          autocorrect="off" spellcheck="false" required autofocus />
        <label for="password">Password</label>
        <input id="password" name="password" type="password" autocomplete="current-password"
          aria-describedby="fault" required />
        <div id="fault" role="alert">${fault === undefined ? "" : faultText(fault)}</div>
        <button type="submit">Sign in</button>
      </form>
      <noscript><p class="note">Signing in needs JavaScript.</p></noscript>
      <script src="/admin/sign-in.js" defer></script>`,
  };
}

/** For users of a provider. */
export function providerPage(provider: string, returnTo: string): Page {
  return {
    title: "Sign in",
    content: `
      <h1>Sign in</h1>
      <p class="lead">to the Pandapush console</p>
      <a class="button" href="${escapeHtml(beginUrl(returnTo))}">Sign in with ${escapeHtml(provider)}</a>`,
  };
}

/** For a login at a provider that failed: it can begin again. */
export function faultPage(
  { code, message, help, retryAfterSeconds }: Refusal,
  returnTo: string,
): Page {
  // Whoever is logged in there as somebody who may not come in would be denied again.
  const url = beginUrl(returnTo, code === "loginDenied");
  const text = retryAfterSeconds === undefined ? "Sign in again" : "Try again";
  return {
    title: message,
    content: `
      <h1>${escapeHtml(message)}</h1>
      <p>${escapeHtml(help)}</p>
      <a class="button" href="${escapeHtml(url)}">${text}</a>`,
  };
}

export const signOutPage: Page = {
  title: "Sign out",
  content: `
      <h1>Sign out?</h1>
      <p class="lead">This ends your session in the Pandapush console.</p>
      <form method="post" action="/admin/logout">
        <button type="submit">Sign out</button>
      </form>
      <p class="note"><a href="/admin">Back to the console</a></p>`,
};

/** For a user who is signed out here; a browser goes on to the provider by itself. */
export function leavePage(provider: string, url: string): Page {
  return {
    title: "Signed out",
    content: `
      <h1>Signed out here</h1>
      <p>Next, ${escapeHtml(provider)} is asked to end its own session.</p>
      <a class="button" href="${escapeHtml(url)}">Sign out at ${escapeHtml(provider)}</a>`,
  };
}

export const closedPage: Page = {
  title: "The console is closed",
  content: `
      <h1>The console is closed</h1>
      <p><code>AUTH_METHOD</code> is <code>none</code>, so nobody can sign in here.</p>
      <p>
        To open it, start the server with <code>AUTH_METHOD=basic</code> for one user with a
        password, or with <code>okta</code> or <code>oidc</code> for the users of a provider;
        <code>docs/login.md</code> says how.
      </p>`,
};

export const notBuiltPage: Page = {
  title: "The console is not built",
  content: `
      <h1>The console is not built</h1>
      <p>
        You are signed in, but <code>console/dist</code> is missing where this server runs. Build
        it, then load this page again; the server can stay up:
      </p>
      <pre class="code"><code>npm run build</code></pre>
      <p class="actions">
        <a href="/admin/api/openapi.json">What the API can do</a>
        <a href="/admin/logout">Sign out</a>
      </p>`,
};

function beginUrl(returnTo: string, isAgain = false): string {
  const query = new URLSearchParams({ return: returnTo, ...(isAgain ? { again: "1" } : {}) });
  return `/admin/login/oidc?${query}`;
}

/**
 * Where to go after a login.
 *
 * @param text a path with its query, as anybody may have written it
 * @returns it, if it is a page of the console; else the console's first page
 */
export function readReturn(text: unknown): string {
  const base = "http://console.invalid";
  if (typeof text !== "string" || text.length > maxReturnLength || !URL.canParse(text, base)) {
    return "/admin";
  }
  const { origin, pathname, search, hash } = new URL(text, base);
  const isPage = /^\/admin(?:\/(?!api(?:\/|$)|log(?:in|out)(?:\/|$)).*)?$/.test(pathname);
  return origin === base && isPage ? pathname + search + hash : "/admin";
}

/** It is in a cookie, of which browsers keep 4096 bytes. */
const maxReturnLength = 2048;

function faultText({ message, help }: Refusal): string {
  return `<p><strong>${escapeHtml(message)}.</strong> ${escapeHtml(help)}</p>`;
}

function escapeHtml(text: string): string {
  return text
    .replaceAll("&", "&amp;")
    .replaceAll("<", "&lt;")
    .replaceAll(">", "&gt;")
    .replaceAll('"', "&quot;");
}
