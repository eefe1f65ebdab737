/** One line for what was asked of this node, in words that give nothing away. */
import { type AppId, parseChannel, type Request } from "@pandapush/protocol";
import type { Refusal } from "./errors.js";
import type { Answered } from "./http/app.js";
import type { Log } from "./observe.js";
import { hashOf } from "./session.js";

/**
 * What was not done is worth a line, and so is what administrators and back ends changed; who wants
 * to see everything else asks for `debug`. URLs may hold tokens, and application ids that nobody
 * knows may be anything: neither is written.
 */
export function logAnswer(
  log: Log,
  { id, api, method, route, appId, status, ms, refusal }: Answered,
  knowsApp: (appId: AppId) => boolean,
): void {
  const level = levelOf(api, method, status);
  if (!log.isLevelEnabled(level)) return;
  const named = appId();
  const app = named !== undefined && knowsApp(named as AppId) ? named : undefined;
  const fields = { request: id, method, route, app, status, ms: Math.round(ms * 10) / 10 };
  log[level]({ ...fields, reason: refusal?.code }, "answered");
}

function levelOf(api: Answered["api"], method: string, status: number): "warn" | "info" | "debug" {
  if (status >= 500) return "warn";
  if (status >= 400) return "info";
  const changes = method !== "GET" && method !== "HEAD";
  return changes && (api === "admin" || api === "backend") ? "info" : "debug";
}

/** @param channel the one that it was about; as it came */
export function logRefusal(log: Log, refusal: Refusal, request: Request, channel: unknown): void {
  if (!log.isLevelEnabled("debug")) return;
  const { kind } = request;
  const clientId = "clientId" in request ? request.clientId : undefined;
  const client = typeof clientId === "string" ? hashOf(clientId) : undefined;
  const known = typeof channel === "string" ? parseChannel(channel) : undefined;
  const fields = { kind, client, app: known?.appId, channel: known?.name };
  log.debug({ ...fields, reason: refusal.code }, "message refused");
}
