/** What nodes that share Redis hosts remember together, each request on the host of its channel. */
import { setTimeout as delay } from "node:timers/promises";
import { Refusal } from "../errors.js";
import { randomText } from "../random-text.js";
import { HostUnavailable, type Log, luaUrl, type RedisHosts, readScript } from "../redis/hosts.js";
import type { Claim, Idempotency, IdempotencyTimes } from "./idempotency.js";
import { fingerprint, leaseMs, rememberMs } from "./idempotency.js";

/** How often a request is looked at that another node may have under way. */
const pollMs = 50;
/** Faults of a host that are no outages are logged at most this often. */
const complaintMs = 10_000;

const claimScript = readScript(luaUrl("time"), luaUrl("claim"));
const settleScript = readScript(luaUrl("settle"));

export function createRedisIdempotency(
  hosts: RedisHosts,
  log: Log,
  times: IdempotencyTimes = { rememberMs, leaseMs },
): Idempotency {
  let complainedAt = Number.NEGATIVE_INFINITY;
  const complain = (error: unknown): void => {
    if (error instanceof HostUnavailable || performance.now() - complainedAt < complaintMs) return;
    complainedAt = performance.now();
    log("error", "Redis refuses to remember requests", { err: error });
  };

  return {
    async claim({ appId, keyId, name, channel, fingerprint: request }): Promise<Claim> {
      const host = hosts.hostOf(channel);
      const record = host.key(appId, `:once:${fingerprint(keyId, name)}`);
      const owner = randomText(12);
      const rememberText = String(times.rememberMs);
      const args = [request, owner, String(times.leaseMs), rememberText];
      let reply: unknown;
      try {
        reply = await host.run(claimScript, [record], args);
      } catch (error) {
        complain(error);
        throw new Refusal("brokerUnavailable", [channel]);
      }
      const [state, text] = reply as [Claim["state"], string?];
      switch (state) {
        case "done":
          return { state, text: text ?? "" };
        case "pending":
          return { state, changed: delay(pollMs) };
        case "different":
          return { state };
        case "mine":
          return {
            state,
            ...(text === undefined ? {} : { earlier: text }),
            async settle(outcome) {
              const ended = [owner, rememberText];
              if (outcome !== undefined) ended.push(outcome.isFinal ? "1" : "0", outcome.text);
              // The claim runs out by itself.
              await host.run(settleScript, [record], ended).catch(complain);
            },
          };
      }
    },
  };
}
