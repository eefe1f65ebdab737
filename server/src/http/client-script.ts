import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import type { FastifyInstance } from "fastify";

const bundle = createRequire(import.meta.url).resolve("pandapush-client/pandapush.min.js");

const files = [
  { url: "/client.js", path: bundle, type: "text/javascript; charset=utf-8" },
  // Where the script itself says that its source map is.
  { url: "/pandapush.min.js.map", path: `${bundle}.map`, type: "application/json; charset=utf-8" },
];

/** `/client.js`: the Pandapush client for pages, with the global `Pandapush`. */
export function routeClientScript(app: FastifyInstance): void {
  for (const { url, path, type } of files) {
    const content = readFileSync(path);
    const etag = `"${createHash("sha256").update(content).digest("base64url").slice(0, 20)}"`;
    const headers = {
      "content-type": type,
      "x-content-type-options": "nosniff",
      // A page that checks the script's integrity needs to be allowed to see it.
      "access-control-allow-origin": "*",
      // Kept, but asked for each time: pages get a new version with the server's.
      "cache-control": "public, no-cache",
      etag,
    };
    app.get(url, (request, reply) => {
      reply.headers(headers);
      return request.headers["if-none-match"] === etag
        ? reply.code(304).send()
        : reply.send(content);
    });
  }
}
