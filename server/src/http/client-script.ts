import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import type { FastifyInstance } from "fastify";
import { routeFile, staticFile } from "./static-file.js";

const bundle = createRequire(import.meta.url).resolve("pandapush-client/pandapush.min.js");

const files = [
  { url: "/client.js", path: bundle, type: "text/javascript; charset=utf-8" },
  // Where the script itself says that its source map is.
  { url: "/pandapush.min.js.map", path: `${bundle}.map`, type: "application/json; charset=utf-8" },
];

/** `/client.js`: the Pandapush client for pages, with the global `Pandapush`. */
export function routeClientScript(app: FastifyInstance): void {
  for (const { url, path, type } of files) {
    const headers = {
      "content-type": type,
      "x-content-type-options": "nosniff",
      // A page that checks the script's integrity needs to be allowed to see it.
      "access-control-allow-origin": "*",
      // Kept, but asked for each time: pages get a new version with the server's.
      "cache-control": "public, no-cache",
    };
    routeFile(app, url, staticFile(readFileSync(path), headers));
  }
}
