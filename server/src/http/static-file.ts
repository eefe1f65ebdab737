import { createHash } from "node:crypto";
import { constants, gzipSync } from "node:zlib";
import type { FastifyInstance, FastifyReply, FastifyRequest } from "fastify";

/** A file as it is sent, with what was reckoned once for all requests. */
export interface StaticFile {
  readonly plain: SentForm;
  /** Absent where it would not be smaller. */
  readonly gzipped?: SentForm;
}

interface SentForm {
  readonly body: Buffer;
  readonly headers: Readonly<Record<string, string>>;
}

/** @param headers of every answer with this file */
export function staticFile(
  content: Buffer,
  headers: Readonly<Record<string, string>>,
  zipped = gzipSync(content, { level: constants.Z_BEST_COMPRESSION }),
): StaticFile {
  const digest = createHash("sha256").update(content).digest("base64url").slice(0, 20);
  // RFC 9110, section 8.8.3.3: each encoding has a tag of its own.
  const form = (body: Buffer, tag: string, encoding: object): SentForm => ({
    body,
    headers: { ...headers, vary: "Accept-Encoding", etag: `"${tag}"`, ...encoding },
  });
  const plain = form(content, digest, {});
  if (zipped.length >= content.length) return { plain };
  return { plain, gzipped: form(zipped, `${digest}-gzip`, { "content-encoding": "gzip" }) };
}

/** Sends the file, or says that the client has it already. */
export function sendFile(
  { headers }: FastifyRequest,
  reply: FastifyReply,
  { plain, gzipped = plain }: StaticFile,
): FastifyReply {
  const form = acceptsGzip(headers["accept-encoding"]) ? gzipped : plain;
  reply.headers(form.headers);
  return isKnown(form.headers.etag, headers["if-none-match"])
    ? reply.code(304).send()
    : reply.send(form.body);
}

export function routeFile(app: FastifyInstance, url: string, file: StaticFile): void {
  app.get(url, (request, reply) => sendFile(request, reply, file));
}

/** RFC 9110, section 12.5.3: a weight of 0 refuses. */
function acceptsGzip(accepted: string | string[] = ""): boolean {
  const gzip = listOf(String(accepted)).find((coding) => /^gzip\s*(?:;|$)/i.test(coding));
  return gzip !== undefined && !/;\s*q=0(?:\.0*)?$/i.test(gzip);
}

/** A cache that has both encodings asks for both; proxies that compress make weak tags of ours. */
function isKnown(etag: string | undefined, known = ""): boolean {
  return listOf(known).some((tag) => tag.replace(/^W\//, "") === etag);
}

function listOf(header: string): string[] {
  return header.split(",").map((item) => item.trim());
}
