/** What applications may do at this node, where they have limits of their own. LIM-11 */
import type { AppId } from "@pandapush/protocol";
import { LimitReached, Refusal } from "./errors.js";
import type { AppLimits } from "./storage/store.js";

/** Nobody knows when another session leaves. */
const connectionRetrySeconds = 5;
/** Whoever may do nothing at all may ask again after this. */
const maxRetrySeconds = 60;

/** undefined: nothing is known of the application, and nothing is refused. */
export type LimitsOf = (appId: AppId) => AppLimits | undefined;

/** What was done lately in an application, as far as that is limited. */
interface Meters {
  publishes?: TokenBucket;
  sessions?: TokenBucket;
}

/**
 * Refuses what is beyond an application's limits. These are looked up each time, so that a change
 * counts at once; for an application without any that is all it costs.
 */
export class AppLimiter {
  /** Of applications that have limits. */
  private readonly meters = new Map<AppId, Meters>();

  /** @param now ms, from any beginning */
  constructor(
    private readonly limitsOf: LimitsOf,
    private readonly now: () => number = () => performance.now(),
  ) {}

  /**
   * @param data JSON text, and so is `ext`
   * @throws Refusal `messageLimit`
   */
  checkSize(appId: AppId, channel: string, data: string, ext = ""): void {
    const max = this.limitsOf(appId)?.maxMessageBytes ?? null;
    if (max === null) return;
    const bytes = Buffer.byteLength(data) + Buffer.byteLength(ext);
    if (bytes <= max) return;
    throw new Refusal(
      "messageLimit",
      [channel, String(max)],
      `A message of this application may have ${max} bytes (max_message_bytes); this one has ${bytes}.`,
    );
  }

  /** @throws Refusal `publishLimit`; then it is not counted */
  countPublish(appId: AppId, channel: string): void {
    const max = this.limitsOf(appId)?.maxPublishesPerSecond ?? null;
    if (max === null) return;
    const meters = this.metersOf(appId);
    meters.publishes ??= new TokenBucket(max, this.now());
    const waitMs = meters.publishes.take(max, this.now());
    if (waitMs === 0) return;
    const detail = `This application may publish ${times(max)} a second at each node (max_publishes_per_second)`;
    throw new LimitReached("publishLimit", channel, max, toSeconds(waitMs), detail);
  }

  /** Whether `countSession` might refuse any. */
  hasGate(appId: AppId): boolean {
    const limits = this.limitsOf(appId);
    return (
      limits !== undefined &&
      (limits.maxConnections !== null || limits.maxSessionsPerSecond !== null)
    );
  }

  /**
   * A session subscribes to something of the application for the first time.
   * @param others how many have done so
   * @throws Refusal `connectionLimit`, `sessionLimit`; then it is not counted
   */
  countSession(appId: AppId, channel: string, others: number): void {
    const limits = this.limitsOf(appId);
    const most = limits?.maxConnections ?? null;
    if (most !== null && others >= most) {
      const detail = `This application may have ${counted(most, "connection")} at each node (max_connections)`;
      throw new LimitReached("connectionLimit", channel, most, connectionRetrySeconds, detail);
    }
    const max = limits?.maxSessionsPerSecond ?? null;
    if (max === null) return;
    const meters = this.metersOf(appId);
    meters.sessions ??= new TokenBucket(max, this.now());
    const waitMs = meters.sessions.take(max, this.now());
    if (waitMs === 0) return;
    const detail = `This application may get ${counted(max, "new session")} a second at each node (max_sessions_per_second)`;
    throw new LimitReached("sessionLimit", channel, max, toSeconds(waitMs), detail);
  }

  /** It does not exist any more. */
  forget(appId: AppId): void {
    this.meters.delete(appId);
  }

  private metersOf(appId: AppId): Meters {
    let meters = this.meters.get(appId);
    if (meters === undefined) {
      meters = {};
      this.meters.set(appId, meters);
    }
    return meters;
  }
}

/** Holds what may be done in one second, and fills up evenly. */
class TokenBucket {
  constructor(
    private tokens: number,
    private filledAt: number,
  ) {}

  /** @returns 0 when there was a token, else the ms until there will be one */
  take(perSecond: number, now: number): number {
    const filled = this.tokens + ((now - this.filledAt) / 1000) * perSecond;
    this.tokens = Math.min(perSecond, filled);
    this.filledAt = now;
    if (this.tokens < 1) return ((1 - this.tokens) / perSecond) * 1000;
    this.tokens--;
    return 0;
  }
}

function toSeconds(ms: number): number {
  return Math.min(Math.max(Math.ceil(ms / 1000), 1), maxRetrySeconds);
}

function times(count: number): string {
  return count === 1 ? "once" : `${count} times`;
}

function counted(count: number, what: string): string {
  return count === 1 ? `one ${what}` : `${count} ${what}s`;
}
