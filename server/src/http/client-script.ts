import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { constants, gzipSync } from "node:zlib";
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
    const digest = createHash("sha256").update(content).digest("base64url").slice(0, 20);
    // Compressed once, at start. RFC 9110, section 8.8.3.3: each encoding has a tag of its own.
    const plain = { body: content, headers: { etag: `"${digest}"` } };
    const gzipped = {
      body: gzipSync(content, { level: constants.Z_BEST_COMPRESSION }),
      headers: { etag: `"${digest}-gzip"`, "content-encoding": "gzip" },
    };
    const headers = {
      "content-type": type,
      "x-content-type-options": "nosniff",
      // A page that checks the script's integrity needs to be allowed to see it.
      "access-control-allow-origin": "*",
      // Kept, but asked for each time: pages get a new version with the server's.
      "cache-control": "public, no-cache",
      vary: "Accept-Encoding",
    };
    app.get(url, (request, reply) => {
      const form = acceptsGzip(request.headers["accept-encoding"]) ? gzipped : plain;
      reply.headers({ ...headers, ...form.headers });
      return isKnown(form.headers.etag, request.headers["if-none-match"])
        ? reply.code(304).send()
        : reply.send(form.body);
    });
  }
}

/** RFC 9110, section 12.5.3: a weight of 0 refuses. */
function acceptsGzip(accepted = ""): boolean {
  const gzip = listOf(accepted).find((coding) => /^gzip\s*(?:;|$)/i.test(coding));
  return gzip !== undefined && !/;\s*q=0(?:\.0*)?$/i.test(gzip);
}

/** A cache that has both encodings asks for both. */
function isKnown(etag: string, known = ""): boolean {
  return listOf(known).some((tag) => tag.replace(/^W\//, "") === etag);
}

function listOf(header: string): string[] {
  return header.split(",").map((item) => item.trim());
}
