import type { FastifyInstance } from "fastify";

/** Which build is running; `rev` and `built` are "dev" in a checkout. */
export interface BuildInfo {
  readonly version: string;
  readonly rev: string;
  readonly built: string;
}

/** `GET /health_check.json` → `{"version":"3.0.0","rev":"dev","built":"dev"}`: this process answers. */
export function routeHealth(app: FastifyInstance, { version, rev, built }: BuildInfo): void {
  app.get("/health_check.json", () => ({ version, rev, built }));
}
