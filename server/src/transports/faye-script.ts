/** Faye's own browser build, under the names that pages written for Faye load it by. */
import { createHash } from "node:crypto";
import { readFileSync, statSync } from "node:fs";
import type { IncomingMessage, ServerResponse } from "node:http";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";

interface Script {
  readonly body: Buffer;
  readonly type: string;
  readonly etag: string;
  readonly modified: Date;
}

const files = {
  "client.js": "faye-browser-min.js",
  "push.js": "faye-browser-min.js",
  "faye-browser.js": "faye-browser.js",
  "faye-browser.js.map": "faye-browser.js.map",
  "faye-browser-min.js": "faye-browser-min.js",
  "faye-browser-min.js.map": "faye-browser-min.js.map",
};

const folder = join(dirname(createRequire(import.meta.url).resolve("faye/package.json")), "client");
const scripts = new Map(Object.entries(files).map(([name, file]) => [name, read(file)]));

export function isScriptPath(path: string): boolean {
  return /\.(?:js|map)$/.test(path);
}

/** Serves any path that ends in one of the names. Methods are not checked. TR-STATIC-1 */
export function serveScript(
  path: string,
  request: IncomingMessage,
  response: ServerResponse,
): void {
  const script = scripts.get(path.slice(path.lastIndexOf("/") + 1));
  if (script === undefined) {
    response.writeHead(404).end();
    return;
  }
  const { body, type, etag, modified } = script;
  const headers = { "Content-Type": type, ETag: etag, "Last-Modified": modified.toUTCString() };
  if (isFresh(request, script)) {
    response.writeHead(304, headers).end();
    return;
  }
  response.writeHead(200, { ...headers, "Content-Length": body.length }).end(body);
}

function isFresh({ headers }: IncomingMessage, { etag, modified }: Script): boolean {
  if (headers["if-none-match"] !== undefined) return headers["if-none-match"] === etag;
  const since = Date.parse(headers["if-modified-since"] ?? "");
  return since >= modified.getTime();
}

function read(file: string): Script {
  const path = join(folder, file);
  const body = readFileSync(path);
  const type = file.endsWith(".map") ? "application/json" : "text/javascript";
  // The header knows whole seconds only; a fraction would make every comparison fail.
  const modified = new Date(Math.floor(statSync(path).mtimeMs / 1000) * 1000);
  const etag = createHash("sha1").update(body).digest("hex");
  return { body, type: `${type}; charset=utf-8`, etag, modified };
}
