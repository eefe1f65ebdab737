/** How a load test is told: a bar and live figures while it runs, and tables at its end. */
import type { DurationSummary, Figures } from "./figures.js";

export interface LoadResult {
  readonly users: number;
  readonly transport: string;
  readonly workers: number;
  readonly connects: {
    readonly opened: number;
    readonly failed: number;
    readonly seconds: number;
  };
  readonly reconnects: number;
  /** Of those, where the server did not know the session any more. */
  readonly new_sessions: number;
  readonly publishes: {
    readonly confirmed: number;
    readonly failed: number;
    readonly seconds: number;
    readonly per_second: number;
  };
  readonly deliveries: {
    readonly expected: number;
    readonly received: number;
    readonly lost: number;
    readonly duplicated: number;
  };
  readonly latency_ms: {
    readonly connect: DurationSummary | null;
    readonly publish: DurationSummary | null;
    readonly own_delivery: DurationSummary | null;
    readonly shared_delivery: DurationSummary | null;
  };
  readonly errors: Readonly<Record<string, number>>;
  /** What the server counted meanwhile; null: it did not tell, or was started again. */
  readonly server: {
    readonly connections: number;
    readonly published: number;
    readonly delivered: number;
  } | null;
  /** Whether every user was connected, every push was taken, and every message came once. */
  readonly ok: boolean;
}

const barWidth = 12;
const liveMs = 250;
/** Where nothing can be overwritten. */
const linesMs = 5_000;

/** Writes to standard error: what is printed at the end stands alone on standard output. */
export class Progress {
  private readonly isTerminal = process.stderr.isTTY === true;
  private readonly timer: NodeJS.Timeout;
  private stage: { readonly name: string; readonly part: (figures: Figures) => number } = {
    name: "",
    part: () => 0,
  };
  private before = { at: performance.now(), published: 0, received: 0 };
  private rates = { published: 0, received: 0 };

  constructor(private readonly figures: () => Figures) {
    this.timer = setInterval(() => this.show(), this.isTerminal ? liveMs : linesMs);
  }

  /** @param part how much of it is done, up to 1 */
  begin(name: string, part: (figures: Figures) => number): void {
    this.stage = { name, part };
    this.show();
  }

  end(): void {
    clearInterval(this.timer);
    this.show();
    if (this.isTerminal) process.stderr.write("\n");
  }

  private show(): void {
    const figures = this.figures();
    this.measure(figures);
    const { counts, errors, deliveringOwn, deliveringShared } = figures;
    const part = Math.max(0, Math.min(1, this.stage.part(figures)));
    const done = Math.round(part * barWidth);
    const wrong = [...errors.values()].reduce((sum, each) => sum + each, 0);
    // The first 80 characters say the most.
    const line = [
      `${this.stage.name.padEnd(10)} [${"#".repeat(done).padEnd(barWidth, "-")}] ${String(Math.floor(part * 100)).padStart(3)}%`,
      `${counts.connected} users`,
      `${this.rates.published}/s out`,
      `${this.rates.received}/s in`,
      `${wrong} errors`,
      `p99 ${ms((deliveringOwn.summary() ?? deliveringShared.summary())?.p99)}`,
    ].join("  ");
    if (!this.isTerminal) process.stderr.write(`${line}\n`);
    else process.stderr.write(`\r${line.slice(0, (process.stderr.columns || 80) - 1)}\u001b[K`);
  }

  private measure({ counts }: Figures): void {
    const { published, received } = counts;
    const at = performance.now();
    const seconds = (at - this.before.at) / 1000;
    // Figures of the processes come four times a second.
    if (seconds < 1) return;
    this.rates = {
      published: Math.round((published - this.before.published) / seconds),
      received: Math.round((received - this.before.received) / seconds),
    };
    this.before = { at, published, received };
  }
}

export function tables(result: LoadResult): string[] {
  const { connects, publishes, deliveries, latency_ms, server } = result;
  return [
    ...columns([
      [
        "CONNECTS",
        `${connects.opened} of ${result.users}`,
        `${connects.failed} failed, in ${connects.seconds} s`,
      ],
      ["RECONNECTS", `${result.reconnects}`, `${result.new_sessions} with a new session`],
      [
        "PUBLISHES",
        `${publishes.confirmed}`,
        `${publishes.failed} failed, ${publishes.per_second}/s`,
      ],
      [
        "DELIVERIES",
        `${deliveries.received} of ${deliveries.expected}`,
        `${deliveries.lost} lost, ${deliveries.duplicated} duplicated`,
      ],
    ]),
    "",
    ...columns([
      ["LATENCY", "p50", "p90", "p99", "max"],
      latencyRow("connect and subscribe", latency_ms.connect),
      latencyRow("publish until OK", latency_ms.publish),
      latencyRow("publish until received, own channel", latency_ms.own_delivery),
      latencyRow("publish until received, shared channel", latency_ms.shared_delivery),
    ]),
    "",
    ...(server === null
      ? ["The server's own figures did not come, or it was started again meanwhile."]
      : columns([
          ["COUNTED BY", "this command", "the server"],
          ["connections", `${connects.opened}`, `${server.connections}`],
          ["published", `${publishes.confirmed}`, `${server.published}`],
          ["delivered", `${deliveries.received}`, `${server.delivered}`],
        ])),
    ...Object.entries(result.errors).map(([text, times], i) =>
      i === 0 ? `\nERRORS\n${times} × ${text}` : `${times} × ${text}`,
    ),
    "",
    result.ok
      ? "Every user was connected, every push was taken, and every message came once."
      : "Not well: see failed, lost and duplicated above.",
  ];
}

function latencyRow(name: string, summary: DurationSummary | null): string[] {
  const { p50, p90, p99, max } = summary ?? {};
  return [name, ms(p50), ms(p90), ms(p99), ms(max)];
}

function ms(value: number | undefined): string {
  return value === undefined ? "-" : `${value} ms`;
}

function columns(rows: readonly (readonly string[])[]): string[] {
  const widths = (rows[0] ?? []).map((_, column) =>
    Math.max(...rows.map((row) => row[column]?.length ?? 0)),
  );
  return rows
    .map((row) =>
      row
        .map((cell, column) => cell.padEnd(widths[column] ?? 0))
        .join("  ")
        .trimEnd(),
    )
    .filter((line) => line !== "");
}
