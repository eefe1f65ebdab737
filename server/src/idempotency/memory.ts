/** What one node remembers of the requests it answered. */
import type { Claim, Idempotency, IdempotencyTimes, Named, Outcome } from "./idempotency.js";
import { fingerprint, leaseMs, rememberMs } from "./idempotency.js";

/** Beyond either, the oldest are forgotten before their time. */
export const defaultLimits = { requests: 100_000, textLength: 32 * 1024 * 1024 };

interface Pending {
  readonly fingerprint: string;
  readonly leasedUntil: number;
  readonly earlier: Settled | undefined;
  readonly changed: Promise<void>;
}

interface Settled extends Outcome {
  readonly fingerprint: string;
  readonly until: number;
}

export function createMemoryIdempotency(
  times: IdempotencyTimes = { rememberMs, leaseMs },
  limits = defaultLimits,
): Idempotency {
  /** As many as there are requests under way. */
  const pending = new Map<string, Pending>();
  /** In the order of `until`. */
  const settled = new Map<string, Settled>();
  let textLength = 0;

  const forget = (id: string, { text }: Settled): void => {
    settled.delete(id);
    textLength -= text.length;
  };
  const remember = (id: string, outcome: Settled): void => {
    settled.set(id, outcome);
    textLength += outcome.text.length;
    for (const [oldest, each] of settled) {
      if (settled.size <= limits.requests && textLength <= limits.textLength) break;
      forget(oldest, each);
    }
  };

  return {
    claim(request): Claim {
      const now = performance.now();
      for (const [id, each] of settled) {
        if (each.until > now) break;
        forget(id, each);
      }
      const id = idOf(request);
      const current = pending.get(id);
      const done = current === undefined ? settled.get(id) : current.earlier;
      const known = current ?? done;
      if (known !== undefined && known.fingerprint !== request.fingerprint) {
        return { state: "different" };
      }
      if (current !== undefined && current.leasedUntil > now) {
        return { state: "pending", changed: current.changed };
      }
      if (done?.isFinal === true) return { state: "done", text: done.text };
      if (done !== undefined && current === undefined) forget(id, done);

      let end = (): void => undefined;
      const mine: Pending = {
        fingerprint: request.fingerprint,
        leasedUntil: now + times.leaseMs,
        earlier: done,
        changed: new Promise((resolve) => {
          const timer = setTimeout(resolve, times.leaseMs).unref();
          end = () => {
            clearTimeout(timer);
            resolve();
          };
        }),
      };
      pending.set(id, mine);
      return {
        state: "mine",
        ...(done === undefined ? {} : { earlier: done.text }),
        settle(outcome) {
          end();
          // Others took it for dead.
          if (pending.get(id) !== mine) return;
          pending.delete(id);
          const kept = outcome ?? done;
          if (kept === undefined) return;
          const until = performance.now() + times.rememberMs;
          remember(id, { ...kept, fingerprint: request.fingerprint, until });
        },
      };
    },
  };
}

function idOf({ appId, keyId, name }: Named): string {
  return fingerprint(appId, keyId, name);
}
