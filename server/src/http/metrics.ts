/** `GET /metrics`, for Prometheus. */
import { createHash, timingSafeEqual } from "node:crypto";
import type { FastifyInstance } from "fastify";
import { Refusal } from "../errors.js";

export interface MetricsParts {
  /** In Prometheus' text format. */
  readonly exposition: () => Promise<string>;
  /** What whoever asks has to send as `Authorization: Bearer`. */
  readonly token: string | undefined;
  /** Why they are not here, for people; undefined: they are. */
  readonly elsewhere?: string | undefined;
}

const contentType = "text/plain; version=0.0.4; charset=utf-8";

/**
 * 200 with the metrics, 401 without their token, 404 where they are elsewhere. Applications' ids and
 * sizes are among them: whoever has no token must have reached a port that is not public.
 */
export function routeMetrics(
  app: FastifyInstance,
  { exposition, token, elsewhere }: MetricsParts,
): void {
  const expected = token === undefined ? undefined : digest(token);
  app.get("/metrics", async (request, reply) => {
    if (elsewhere !== undefined) throw new Refusal("notFound", [], elsewhere);
    if (expected !== undefined) {
      const given = /^bearer +(\S+)$/i.exec(request.headers.authorization?.trim() ?? "")?.[1];
      // Digests are of one length, whatever was sent.
      if (given === undefined || !timingSafeEqual(digest(given), expected)) {
        reply.header("www-authenticate", 'Bearer realm="metrics"');
        throw new Refusal("metricsToken");
      }
    }
    return reply
      .header("cache-control", "no-store")
      .type(contentType)
      .send(await exposition());
  });
}

function digest(token: string): Buffer {
  return createHash("sha256").update(token).digest();
}
