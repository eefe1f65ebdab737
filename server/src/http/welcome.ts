import { readFileSync } from "node:fs";
import type { FastifyInstance } from "fastify";
import { routeFile, staticFile } from "./static-file.js";

const directory = new URL("../../public/", import.meta.url);

const files = [
  { url: "/", name: "index.html", type: "text/html; charset=utf-8" },
  { url: "/style.css", name: "style.css", type: "text/css; charset=utf-8" },
  { url: "/try.js", name: "try.js", type: "text/javascript; charset=utf-8" },
  // By this name browsers ask for it on every other page, such as that of /health_check.json.
  { url: "/favicon.ico", name: "favicon.svg", type: "image/svg+xml" },
];

/** Scripts and styles only from this server, so that a message shown on the page can run nothing. */
const contentSecurityPolicy = [
  "default-src 'none'",
  "script-src 'self'",
  "style-src 'self'",
  "connect-src 'self'",
  "img-src 'self'",
  "base-uri 'none'",
  "form-action 'self'",
  "frame-ancestors 'none'",
].join("; ");

/** `/`: a page that listens to the public channel in `?channel=` and shows how to publish to it. */
export function routeWelcome(app: FastifyInstance): void {
  for (const { url, name, type } of files) {
    const headers = {
      "content-type": type,
      "content-security-policy": contentSecurityPolicy,
      "x-content-type-options": "nosniff",
      "referrer-policy": "no-referrer",
      "cache-control": "public, max-age=0",
    };
    routeFile(app, url, staticFile(readFileSync(new URL(name, directory)), headers));
  }
}
