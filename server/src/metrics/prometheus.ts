/** The table's metrics as Prometheus reads them. */
import { Counter, Gauge, Histogram, Registry } from "prom-client";
import { type Metric, type NamesOf, table } from "./table.js";

export type Labels = Readonly<Record<string, string | number>>;

export class Prometheus {
  private readonly registry = new Registry();
  private readonly numbers = new Map<string, Counter | Gauge>();
  private readonly histograms = new Map<string, Histogram>();

  constructor() {
    for (const [key, metric] of Object.entries<Metric>(table)) {
      const { name, help, type, labels = {}, buckets = [] } = metric;
      const settings = { name, help, labelNames: Object.keys(labels), registers: [this.registry] };
      if (type === "counter") this.numbers.set(key, new Counter(settings));
      else if (type === "gauge") this.numbers.set(key, new Gauge(settings));
      else this.histograms.set(key, new Histogram({ ...settings, buckets: [...buckets] }));
    }
  }

  /** For what nobody else counts. Adding 0 makes a series, so that its first rise is seen as one. */
  add(name: NamesOf<"counter">, labels: Labels = {}, value = 1): void {
    this.numbers.get(name)?.inc(labels, value);
  }

  observe(name: NamesOf<"histogram">, value: number, labels: Labels = {}): void {
    this.histograms.get(name)?.observe(labels, value);
  }

  /** For what was counted elsewhere. */
  set(name: NamesOf<"counter" | "gauge">, value: number): void {
    this.setEach(name, [[value, {}]]);
  }

  /** The metric has these series, and no others any more. */
  setEach(
    name: NamesOf<"counter" | "gauge">,
    series: Iterable<readonly [value: number, labels: Labels]>,
  ): void {
    const metric = this.numbers.get(name);
    metric?.reset();
    for (const [value, labels] of series) metric?.inc(labels, value);
  }

  /** In Prometheus' text format. */
  text(): Promise<string> {
    return this.registry.metrics();
  }
}
