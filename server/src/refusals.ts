/** What was refused in each application lately, for its admins to see what goes wrong. */
import { type AppId, ownText } from "@pandapush/protocol";
import type { ErrorCode, Refusal } from "./errors.js";

/** What was tried: over Bayeux, with a REST publish, or with another request of a back end. */
export type RefusedAction = "subscribe" | "publish" | "rest_publish" | "rest";

/** Equal refusals, counted. Times are in ms since 1970. */
export interface Refused {
  readonly action: RefusedAction;
  /** As it was asked for, cut when it is long; null where it was not about a channel. */
  readonly channel: string | null;
  readonly message: string;
  /** What can be done about it, the last time. */
  readonly details: string;
  /** The application's key that was used, the last time. */
  readonly keyId: string | null;
  readonly firstAt: number;
  readonly lastAt: number;
  readonly count: number;
}

type Entry = { -readonly [K in keyof Refused]: Refused[K] } & {
  readonly code: ErrorCode;
  /** The channel with whatever was in it: it is compared and not shown. */
  readonly asked: string | null;
  /** In the order in which they happened last. */
  turn: number;
};

/** Kept for one application; those that happened again least lately go first. */
export const maxRefusals = 100;
/** Applications for which any are kept; those where nothing was refused for longest go first. */
const maxApps = 500;
/** Characters kept of a channel and of what can be done about it. */
const maxTextLength = 256;
/** In this time an application gets no more new entries than it can keep: a flood is cheap. */
const windowMs = 1_000;

/** What ended meanwhile: whoever asks for it is told so, and goes on. */
const untold: ReadonlySet<ErrorCode> = new Set(["unknownClient", "noSuchResource"]);
/** Their particulars quote what was sent, where a secret may be. */
const quoting: ReadonlySet<ErrorCode> = new Set(["malformedJson"]);

export class RefusalLog {
  private readonly apps = new Map<AppId, AppLog>();
  private turns = 0;

  /**
   * @param known.hasApp nothing is kept for applications that do not exist
   * @param known.hasKey nor are the keys of others, which somebody tried here
   */
  constructor(
    private readonly known: {
      readonly hasApp: (appId: AppId) => boolean;
      readonly hasKey: (appId: AppId, keyId: string) => boolean;
    },
  ) {}

  /** @param channel as it was asked for; it tells the application, so without one nothing is kept */
  addForChannel(action: RefusedAction, channel: unknown, refusal: Refusal): void {
    if (typeof channel !== "string") return;
    const end = channel.indexOf("/", 1);
    const appId = channel.slice(1, end === -1 ? undefined : end) as AppId;
    this.add(appId, action, channel, refusal);
  }

  add(appId: AppId, action: RefusedAction, channel: string | null, refusal: Refusal): void {
    if (untold.has(refusal.code)) return;
    let log = this.apps.get(appId);
    if (log === undefined) {
      if (!this.known.hasApp(appId)) return;
      log = new AppLog();
      if (this.apps.size >= maxApps) forgetOldest(this.apps);
      this.apps.set(ownText(appId), log);
    }
    log.turn = ++this.turns;
    const { keyId } = refusal;
    const ownKey = keyId !== undefined && this.known.hasKey(appId, keyId) ? keyId : undefined;
    log.add(action, channel === null ? null : cut(channel), refusal, ownKey);
  }

  /** The last first. */
  list(appId: AppId): Refused[] {
    return this.apps.get(appId)?.list() ?? [];
  }

  forget(appId: AppId): void {
    this.apps.delete(appId);
  }
}

/** One application's. */
class AppLog {
  turn = 0;
  /** By what makes refusals equal. */
  private readonly entries = new Map<string, Entry>();
  /** A flood mostly repeats itself. */
  private last: Entry | undefined;
  private windowEnd = 0;
  private madeInWindow = 0;

  add(
    action: RefusedAction,
    asked: string | null,
    refusal: Refusal,
    keyId: string | undefined,
  ): void {
    const now = Date.now();
    const last = this.last;
    const entry =
      last?.code === refusal.code && last.action === action && last.asked === asked
        ? last
        : this.entry(action, asked, refusal, now);
    if (entry === undefined) return;
    this.last = entry;
    entry.count++;
    entry.lastAt = now;
    entry.turn = this.turn;
    entry.details = cut(quoting.has(refusal.code) ? refusal.usualHelp : refusal.help);
    entry.keyId = keyId ?? entry.keyId;
  }

  list(): Refused[] {
    const entries = [...this.entries.values()].sort((one, other) => other.turn - one.turn);
    return entries.map(({ code: _code, asked: _asked, turn: _turn, ...shown }) => shown);
  }

  /** undefined: so many were new lately that no more are made. */
  private entry(
    action: RefusedAction,
    asked: string | null,
    { code, message }: Refusal,
    now: number,
  ): Entry | undefined {
    const name = `${action} ${code} ${asked ?? ""}`;
    const known = this.entries.get(name);
    if (known !== undefined) return known;
    if (now >= this.windowEnd) {
      this.windowEnd = now + windowMs;
      this.madeInWindow = 0;
    }
    if (this.madeInWindow >= maxRefusals) return undefined;
    this.madeInWindow++;
    const entry: Entry = {
      action,
      code,
      asked: asked === null ? null : ownText(asked),
      channel: asked === null ? null : ownText(withoutToken(asked)),
      message,
      details: "",
      keyId: null,
      firstAt: now,
      lastAt: now,
      count: 0,
      turn: this.turn,
    };
    this.entries.set(name, entry);
    if (this.entries.size > maxRefusals) forgetOldest(this.entries);
    return entry;
  }
}

/** No channel holds a `?` or a `.`; who writes a token there by mistake has it shown to nobody. */
function withoutToken(channel: string): string {
  return channel.replace(/\?.*/s, "?…").replace(/eyJ[\w-]*\.[\w.-]*/g, "…");
}

function cut(text: string): string {
  return text.length > maxTextLength ? `${text.slice(0, maxTextLength - 1)}…` : text;
}

function forgetOldest<K>(items: Map<K, { readonly turn: number }>): void {
  let oldest: readonly [K, { readonly turn: number }] | undefined;
  for (const item of items)
    if (oldest === undefined || item[1].turn < oldest[1].turn) oldest = item;
  if (oldest !== undefined) items.delete(oldest[0]);
}
