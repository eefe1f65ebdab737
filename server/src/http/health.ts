import type { FastifyInstance } from "fastify";

/** Which build is running; `rev` and `built` are "dev" in a checkout. */
export interface BuildInfo {
  readonly version: string;
  readonly rev: string;
  readonly built: string;
}

/**
 * What must be in order before a node is sent clients, by the name of the part that knows. Each
 * gives a reason against it, or undefined. It is asked with each request and answers at once,
 * from what its part knows already. Everybody can read the reason: no addresses, no names.
 */
export type ReadinessChecks = Readonly<Record<string, () => string | undefined>>;

/**
 * - `GET /health_check.json` → `{"version":"3.0.0","rev":"dev","built":"dev"}`: which build this is
 * - `GET /live` → `{"live":true}`: this process answers; nothing else is looked at
 * - `GET /ready` → `{"ready":true}`, or 503 `{"ready":false,"reasons":["database: …"]}`.
 *   `?exclude=database` leaves a check out; several are separated by commas.
 */
export function routeHealth(
  app: FastifyInstance,
  { version, rev, built }: BuildInfo,
  checks: ReadinessChecks,
): void {
  app.get("/health_check.json", () => ({ version, rev, built }));
  app.get("/live", (_request, reply) =>
    reply.header("cache-control", "no-store").send({ live: true }),
  );
  app.get<{ Querystring: { exclude?: string | string[] } }>("/ready", (request, reply) => {
    const excluded = new Set(String(request.query.exclude ?? "").split(","));
    const reasons = Object.entries(checks).flatMap(([name, check]) => {
      const reason = excluded.has(name) ? undefined : check();
      return reason === undefined ? [] : [`${name}: ${reason}`];
    });
    reply.header("cache-control", "no-store");
    if (reasons.length === 0) return reply.send({ ready: true });
    return reply.code(503).send({ ready: false, reasons });
  });
}
