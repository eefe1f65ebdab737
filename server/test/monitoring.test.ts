/** The dashboard and the alarms that operators are given speak of metrics that there are. */
import { readFile } from "node:fs/promises";
import { beforeAll, describe, expect, test } from "vitest";
import { parse } from "yaml";
import { repositoryPath } from "../src/docs.js";
import { catalogue } from "../src/errors.js";
import { type Metric, table } from "../src/metrics/table.js";

const metrics = new Map(Object.values<Metric>(table).map((metric) => [metric.name, metric]));
/** Of Prometheus itself: whether a scrape succeeded. */
const own = ["up"];
/** Labels that Prometheus adds. */
const added = ["job", "instance"];

interface Named {
  readonly metric: Metric | undefined;
  readonly name: string;
  readonly suffix: string;
  readonly matchers: string;
}

/** Whatever an expression names that is followed by what only stands behind a metric. */
function metricsIn(expression: string): Named[] {
  const found = expression.matchAll(/\b([a-z]\w*)\b(?!\s*\()(?:\{([^}]*)\})?/g);
  return [...found]
    .map(([, whole = "", matchers = ""]) => {
      const histogram = metrics.get(whole.replace(/_(?:bucket|sum|count)$/, ""));
      const isPart = histogram?.type === "histogram" && histogram.name !== whole;
      const name = isPart ? histogram.name : whole;
      return { metric: metrics.get(name), name, suffix: whole.slice(name.length), matchers };
    })
    .filter(({ name }) => name.includes("_") && !/^__|^humanize/.test(name));
}

function checkExpression(expression: string): void {
  const named = metricsIn(expression);
  const isOwn = own.some((name) => new RegExp(`\\b${name}\\{`).test(expression));
  expect(named.length > 0 || isOwn, expression).toBe(true);
  for (const { metric, name, suffix, matchers } of named) {
    expect(metric, `${name} in ${expression}`).toBeDefined();
    const labels = [...Object.keys(metric?.labels ?? {}), ...added];
    for (const [, label = "", values = ""] of matchers.matchAll(/(\w+)(?:=~|!=|!~|=)"([^"]*)"/g)) {
      expect(labels, `${label} in ${expression}`).toContain(label);
      const named = label === "reason" && name === "pandapush_refusals_total" ? [values] : [];
      for (const code of named) expect(Object.keys(catalogue)).toContain(code);
    }
    for (const [, by = ""] of expression.matchAll(/\bby \(([^)]*)\)/g)) {
      for (const label of by.split(",").map((each) => each.trim())) {
        expect([...labels, "le"], `${label} in ${expression}`).toContain(label);
      }
    }
    if (metric?.type === "histogram") expect(suffix, expression).toMatch(/^_(bucket|sum|count)$/);
    // A counter as it is says how long its node runs.
    const isRising = metric?.type !== "gauge" && !name.startsWith("process_start");
    if (isRising) expect(expression).toMatch(new RegExp(`(?:rate|increase)\\(\\s*${name}`));
  }
}

describe("docs/alerts.yaml", () => {
  interface Rule {
    readonly alert: string;
    readonly expr: string;
    readonly labels: Readonly<Record<string, string>>;
    readonly annotations: Readonly<Record<string, string>>;
  }
  let rules: readonly Rule[];
  beforeAll(async () => {
    const text = await readFile(repositoryPath("docs/alerts.yaml"), "utf8");
    const { groups } = parse(text) as { groups: { rules: Rule[] }[] };
    rules = groups.flatMap((group) => group.rules);
  });

  test("names metrics and labels of the table, and refusals of the catalogue", () => {
    expect(rules.length).toBeGreaterThan(10);
    for (const { expr } of rules) checkExpression(expr);
  });

  test("has a name, a severity and a sentence for each alarm", () => {
    expect(new Set(rules.map(({ alert }) => alert)).size).toBe(rules.length);
    for (const { alert, labels, annotations } of rules) {
      expect(alert).toMatch(/^Pandapush\w+$/);
      expect(labels.severity).toMatch(/^(?:critical|warning)$/);
      expect(annotations.summary).toMatch(/\w/);
    }
  });

  test("is explained in docs/operating.md", async () => {
    const text = await readFile(repositoryPath("docs/operating.md"), "utf8");
    for (const { alert } of rules) expect(text).toContain(`\`${alert}\``);
  });
});

describe("docs/grafana.json", () => {
  interface Panel {
    readonly id: number;
    readonly type: string;
    readonly title: string;
    readonly gridPos: { readonly x: number; readonly y: number; readonly w: number };
    readonly targets?: readonly { readonly expr: string }[];
  }
  let panels: readonly Panel[];
  beforeAll(async () => {
    const text = await readFile(repositoryPath("docs/grafana.json"), "utf8");
    ({ panels } = JSON.parse(text) as { panels: Panel[] });
  });

  test("names metrics and labels of the table, of the chosen nodes", () => {
    const expressions = panels.flatMap(({ targets = [] }) => targets.map(({ expr }) => expr));
    expect(expressions.length).toBeGreaterThan(20);
    for (const expression of expressions) {
      checkExpression(expression);
      expect(expression).toContain('{job="$job",instance=~"$instance"');
    }
  });

  test("shows each metric of the table somewhere", () => {
    const shown = JSON.stringify(panels);
    for (const name of metrics.keys()) expect(shown).toContain(name);
  });

  test("has its panels beside each other", () => {
    expect(new Set(panels.map(({ id }) => id)).size).toBe(panels.length);
    const places = panels.map(({ gridPos: { x, y } }) => `${x},${y}`);
    expect(new Set(places).size).toBe(panels.length);
    for (const { gridPos } of panels) expect(gridPos.x + gridPos.w).toBeLessThanOrEqual(24);
  });
});
