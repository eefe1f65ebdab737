/** Reads Prometheus' text format, and finds fault with it. */
import { expect } from "vitest";
import type { TestServer } from "./harness.js";
import { type Answer, http } from "./protocol/peers.js";

export const metricsToken = "a-token-of-the-tests";

interface Series {
  /** Of the metric; a histogram's have `_bucket`, `_sum` or `_count` behind it. */
  readonly name: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly value: number;
}

export interface Family {
  readonly name: string;
  readonly type: string;
  readonly help: string;
  readonly series: readonly Series[];
}

/** @throws whatever is not as the format has it */
export function parseExposition(text: string): Map<string, Family> {
  expect(text.endsWith("\n"), "the last line ends").toBe(true);
  const families = new Map<string, Family & { readonly series: Series[] }>();
  const seen = new Set<string>();
  let help = "";
  let family: (Family & { readonly series: Series[] }) | undefined;
  for (const line of text.split("\n")) {
    if (line === "") continue;
    const [, keyword, named, rest] = /^# (HELP|TYPE) ([a-z][a-z0-9_]*) (.+)$/.exec(line) ?? [];
    if (keyword === "HELP") {
      help = rest ?? "";
    } else if (keyword === "TYPE") {
      family = { name: named ?? "", type: rest ?? "", help, series: [] };
      expect(families.has(family.name), `${family.name} comes twice`).toBe(false);
      families.set(family.name, family);
    } else {
      const series = parseSeries(line);
      const own = family?.type === "histogram" ? /_(?:bucket|sum|count)$/ : /$^/;
      expect(series.name.replace(own, ""), line).toBe(family?.name);
      const identity = line.slice(0, line.lastIndexOf(" "));
      expect(seen.has(identity), `${identity} comes twice`).toBe(false);
      seen.add(identity);
      family?.series.push(series);
    }
  }
  for (const each of families.values()) if (each.type === "histogram") checkHistogram(each);
  return families;
}

function parseSeries(line: string): Series {
  const [, name = "", labels = "", value = ""] =
    /^([a-z][a-z0-9_]*)(?:\{(.*)\})? (\S+)$/.exec(line) ?? [];
  expect(name, line).not.toBe("");
  const pairs = [...labels.matchAll(/([a-z_]+)="((?:[^"\\\n]|\\[\\"n])*)"(?:,|$)/g)];
  expect(pairs.map(([whole]) => whole).join(""), line).toBe(labels);
  expect(Number.isFinite(Number(value)), line).toBe(true);
  return {
    name,
    labels: Object.fromEntries(pairs.map(([, label = "", text = ""]) => [label, text])),
    value: Number(value),
  };
}

function checkHistogram({ name, series }: Family): void {
  const groups = new Map<string, Series[]>();
  for (const each of series) {
    const { le: _le, ...labels } = each.labels;
    const key = JSON.stringify(labels);
    groups.set(key, [...(groups.get(key) ?? []), each]);
  }
  for (const group of groups.values()) {
    const buckets = group.filter((each) => each.name === `${name}_bucket`);
    const count = group.find((each) => each.name === `${name}_count`)?.value;
    const bounds = buckets.map(({ labels }) => Number(labels.le?.replace("+Inf", "Infinity")));
    expect(bounds, name).toEqual([...bounds].sort((a, b) => a - b));
    const counts = buckets.map(({ value }) => value);
    expect(counts, name).toEqual([...counts].sort((a, b) => a - b));
    expect(bounds.at(-1), name).toBe(Number.POSITIVE_INFINITY);
    expect(counts.at(-1), name).toBe(count);
    expect(
      group.some((each) => each.name === `${name}_sum`),
      name,
    ).toBe(true);
  }
}

export function askMetrics(
  server: { readonly url: string },
  token: string | undefined = metricsToken,
): Promise<Answer> {
  return http(server, "/metrics", { headers: { authorization: `Bearer ${token}` } });
}

/** What a server's metrics are at this moment. */
export class Scrape {
  private constructor(
    readonly text: string,
    readonly families: ReadonlyMap<string, Family>,
  ) {}

  static async of(server: Pick<TestServer, "url">): Promise<Scrape> {
    const { status, headers, body } = await askMetrics(server);
    expect(status, body).toBe(200);
    expect(headers["content-type"]).toBe("text/plain; version=0.0.4; charset=utf-8");
    return new Scrape(body, parseExposition(body));
  }

  /** The sum of all series that have these labels, of what is called so; 0 without any. */
  value(name: string, labels: Readonly<Record<string, string>> = {}): number {
    let sum = 0;
    for (const series of this.seriesOf(name)) {
      const fits = Object.entries(labels).every(([key, text]) => series.labels[key] === text);
      if (fits) sum += series.value;
    }
    return sum;
  }

  /** Which values this label has. */
  labelsOf(name: string, label: string): string[] {
    return [...new Set(this.seriesOf(name).map(({ labels }) => labels[label] ?? ""))].sort();
  }

  private seriesOf(name: string): readonly Series[] {
    const family =
      this.families.get(name) ?? this.families.get(name.replace(/_(?:bucket|sum|count)$/, ""));
    expect(family, `there is no ${name}`).toBeDefined();
    return (family?.series ?? []).filter((series) => series.name === name);
  }
}
