/** What a load test counts, in each process and in all of them together. */

/** Four steps in a hundred between two buckets: a percentile is right within two percent. */
const logStep = Math.log(1.04);

/** Durations in ms, of which percentiles are asked. Small however many there are. */
export class Durations {
  private count = 0;
  private maxMs = 0;
  private readonly buckets = new Map<number, number>();

  add(ms: number): void {
    // In µs: what takes less than one counts as one.
    const bucket = Math.round(Math.log(Math.max(1, ms * 1000)) / logStep);
    this.buckets.set(bucket, (this.buckets.get(bucket) ?? 0) + 1);
    this.count++;
    this.maxMs = Math.max(this.maxMs, ms);
  }

  merge({ maxMs, buckets }: PackedDurations): void {
    for (const [bucket, count] of buckets) {
      this.buckets.set(bucket, (this.buckets.get(bucket) ?? 0) + count);
      this.count += count;
    }
    this.maxMs = Math.max(this.maxMs, maxMs);
  }

  pack(): PackedDurations {
    return { maxMs: this.maxMs, buckets: [...this.buckets] };
  }

  /** undefined: there were none. */
  summary(): DurationSummary | undefined {
    if (this.count === 0) return undefined;
    const [p50, p90, p99] = [0.5, 0.9, 0.99].map((part) => this.percentile(part));
    return { p50: p50 ?? 0, p90: p90 ?? 0, p99: p99 ?? 0, max: rounded(this.maxMs) };
  }

  private percentile(part: number): number {
    const wanted = Math.ceil(this.count * part);
    let seen = 0;
    for (const [bucket, count] of [...this.buckets].sort(([a], [b]) => a - b)) {
      seen += count;
      if (seen >= wanted) return rounded(Math.min(this.maxMs, Math.exp(bucket * logStep) / 1000));
    }
    return rounded(this.maxMs);
  }
}

export interface PackedDurations {
  readonly maxMs: number;
  /** Bucket and how many are in it. */
  readonly buckets: readonly (readonly [number, number])[];
}

/** In ms. */
export interface DurationSummary {
  readonly p50: number;
  readonly p90: number;
  readonly p99: number;
  readonly max: number;
}

function rounded(ms: number): number {
  return ms < 10 ? Math.round(ms * 100) / 100 : Math.round(ms * 10) / 10;
}

const counts = {
  /** Users that were subscribed once. */
  opened: 0,
  /** Users that never were. */
  unopened: 0,
  /** Users that have a connection now. */
  connected: 0,
  /** How often a user lost its connection, and came back or tries to. */
  reconnects: 0,
  /** How often a user came back and the server did not know its session any more. */
  newSessions: 0,
  /** Publishes that the server has confirmed. */
  published: 0,
  /** Publishes that it refused, or did not answer. */
  unpublished: 0,
  /** Messages that came, each user's first of each. */
  received: 0,
  duplicated: 0,
};

export type Counts = typeof counts;

/** Kinds of errors that are told apart. */
const maxKinds = 20;

export class Figures {
  readonly counts: Counts = { ...counts };
  /** From opening a connection to the last subscribe's reply. */
  readonly connecting = new Durations();
  /** From sending a publish to the server's answer. */
  readonly publishing = new Durations();
  /** From sending a publish to receiving it, on a channel of one user. */
  readonly deliveringOwn = new Durations();
  /** The same on the channel that all hear. */
  readonly deliveringShared = new Durations();
  /** How often what went wrong. */
  readonly errors = new Map<string, number>();

  error(text: string, times = 1): void {
    const isKnown = this.errors.has(text) || this.errors.size < maxKinds;
    const kind = isKnown ? text : "others";
    this.errors.set(kind, (this.errors.get(kind) ?? 0) + times);
  }

  merge(packed: PackedFigures): void {
    for (const name of Object.keys(this.counts) as (keyof Counts)[]) {
      this.counts[name] += packed.counts[name];
    }
    this.connecting.merge(packed.connecting);
    this.publishing.merge(packed.publishing);
    this.deliveringOwn.merge(packed.deliveringOwn);
    this.deliveringShared.merge(packed.deliveringShared);
    for (const [text, times] of packed.errors) this.error(text, times);
  }

  /** For another process. */
  pack(): PackedFigures {
    return {
      counts: this.counts,
      connecting: this.connecting.pack(),
      publishing: this.publishing.pack(),
      deliveringOwn: this.deliveringOwn.pack(),
      deliveringShared: this.deliveringShared.pack(),
      errors: [...this.errors],
    };
  }
}

export interface PackedFigures {
  readonly counts: Counts;
  readonly connecting: PackedDurations;
  readonly publishing: PackedDurations;
  readonly deliveringOwn: PackedDurations;
  readonly deliveringShared: PackedDurations;
  readonly errors: readonly (readonly [string, number])[];
}

/**
 * Microseconds on a clock that all processes of this machine share, and that nobody sets: so the
 * time between sending in one process and receiving in another is a difference of two of these.
 */
export function nowUs(): number {
  return Number(process.hrtime.bigint() / 1000n);
}

/** What a user has heard of one channel, whose messages are numbered from 0 on. */
export class Heard {
  private highest = -1;
  /** Below the highest. */
  private readonly missing = new Set<number>();

  /** @returns whether it came for the first time */
  add(number: number): boolean {
    if (number <= this.highest) return this.missing.delete(number);
    for (let each = this.highest + 1; each < number; each++) this.missing.add(each);
    this.highest = number;
    return true;
  }

  has(number: number): boolean {
    return number <= this.highest && !this.missing.has(number);
  }

  /** How many of the first `sent` did not come, but for those that were not taken. */
  lost({ sent, failed }: Sent): number {
    let lost = this.missing.size + Math.max(0, sent - 1 - this.highest);
    for (const number of failed) if (!this.has(number)) lost--;
    return lost;
  }
}

/** What was published to one channel. */
export interface Sent {
  readonly sent: number;
  /** Numbers of those that were not confirmed: they may come or not. */
  readonly failed: readonly number[];
}
