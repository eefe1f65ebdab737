import { createHash } from "node:crypto";
import type { FastifyInstance, FastifyReply, FastifyRequest } from "fastify";

/** Sends the content, or says that the client has it already. */
export function sendUnlessKnown(
  { headers }: FastifyRequest,
  reply: FastifyReply,
  content: Buffer,
): FastifyReply {
  const etag = `"${createHash("sha256").update(content).digest("base64url").slice(0, 20)}"`;
  // Proxies that compress make weak ones of ours. RFC 9110, section 13.1.2
  const known = headers["if-none-match"]?.split(",").map((tag) => tag.trim().replace(/^W\//, ""));
  reply.header("etag", etag);
  return known?.includes(etag) === true ? reply.code(304).send() : reply.send(content);
}

/** A file that clients ask for again with each use: it may change with the server. */
export function routeFile(
  app: FastifyInstance,
  url: string,
  content: Buffer,
  headers: Readonly<Record<string, string>>,
): void {
  app.get(url, (request, reply) => sendUnlessKnown(request, reply.headers(headers), content));
}
