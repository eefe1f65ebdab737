import { execFileSync } from "node:child_process";
import { readFileSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import os from "node:os";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { brokerRows, brokerTurn, clusterRows, idleTurn } from "./broker.mjs";
import { Server } from "./processes.mjs";
import {
  forwardRows,
  forwardTurn,
  killRows,
  killTurn,
  presenceRows,
  presenceTurn,
} from "./sessions.mjs";
import { tenantRounds, tenantRows } from "./tenants.mjs";
import { comparisons, growth, growthTurn, Load } from "./works.mjs";

const BENCH = path.dirname(fileURLToPath(import.meta.url));
const names = comparisons
  .map(({ name }) => name)
  .concat("growth", "tenants", "broker", "cluster", "presence", "kill", "forward");

const { values: options, positionals: wanted } = parseArgs({
  allowPositionals: true,
  options: {
    quick: { type: "boolean", default: false },
    self: { type: "boolean", default: false },
    profile: { type: "boolean", default: false },
    help: { type: "boolean", default: false },
  },
});
const unknown = wanted.filter((name) => !names.includes(name));
if (options.help || unknown.length > 0) {
  if (unknown.length > 0) console.error(`Unknown: ${unknown.join(", ")}.`);
  console.error(`npm run bench -- [${names.join("|")}]… [--quick] [--self] [--profile]`);
  process.exit(unknown.length > 0 ? 2 : 0);
}
/** The last section of the page: a complete run writes it anew. */
const RESULTS_HEADING = "## Last results";
const isWanted = (name) => wanted.length === 0 || wanted.includes(name);

function median(numbers) {
  const sorted = [...numbers].sort((a, b) => a - b);
  const middle = Math.floor(sorted.length / 2);
  return sorted.length % 2 === 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}

const round = (value, digits = 0) =>
  Number.isFinite(value)
    ? value.toLocaleString("en", { maximumFractionDigits: digits, minimumFractionDigits: digits })
    : "–";
const percent = (part) => `${Math.round(part * 100)} %`;
const latency = ({ p50Ms, p99Ms }) =>
  p50Ms === undefined ? "–" : `${round(p50Ms, 1)} / ${round(p99Ms, 1)}`;

function describe(turn) {
  const parts = [`${round(turn.value)}`];
  if (turn.perSecond !== undefined) {
    parts.push(
      `${round(turn.perSecond)}/s`,
      `server ${percent(turn.serverLoad)}`,
      `generator ${percent(turn.generatorLoad)}`,
    );
  }
  if (turn.p50Ms !== undefined) parts.push(`p50/p99 ${latency(turn)} ms`);
  return parts.join(", ");
}

/** The median over turns of each figure that every turn has, or of each of its list of figures. */
function medians(turns) {
  const medianOf = (values) =>
    Array.isArray(values[0])
      ? values[0].map((_, index) => median(values.map((each) => each[index])))
      : median(values);
  const keys = Object.keys(turns[0]);
  return Object.fromEntries(keys.map((key) => [key, medianOf(turns.map((turn) => turn[key]))]));
}

/** Turns in the order ours, theirs, ours, theirs …; the ratio is taken within each pair. */
async function compare(work) {
  console.log(`\n${work.name}: ${work.question} (${work.unit})`);
  const rounds = options.quick ? Math.min(3, work.rounds) : work.rounds;
  const sides = [
    { label: options.self ? work.rival : "pandapush", turns: [] },
    { label: work.rival, turns: [] },
  ];
  const start = (side, index) =>
    Server.start(side.label, { isProfiled: options.profile && index === 0 });
  const profile = [];
  const retire = async (side) => {
    profile.push(...((await side.server?.stop()) ?? []));
    side.server = undefined;
  };
  const load = new Load();
  try {
    if (!work.isFresh) {
      for (const [index, side] of sides.entries()) side.server = await start(side, index);
    }
    for (let round = 1; round <= rounds; round++) {
      for (const [index, side] of sides.entries()) {
        if (work.isFresh) side.server = await start(side, index);
        const turn = await work.turn(load, side.server, options.quick);
        side.turns.push(turn);
        console.log(`  ${round}/${rounds} ${side.label.padEnd(9)} ${describe(turn)}`);
        if (work.isFresh) await retire(side);
      }
    }
  } catch (error) {
    for (const side of sides) {
      if (side.server?.output) console.error(`${side.label} said:\n${side.server.output}`);
    }
    throw error;
  } finally {
    load.stop();
    for (const side of sides) await retire(side);
  }
  const [ours, theirs] = sides.map((side) => medians(side.turns));
  const ratios = sides[0].turns.map((turn, index) => turn.value / sides[1].turns[index].value);
  const ratio = median(ratios);
  const { atLeast, atMost } = work;
  const isReached = atLeast !== undefined ? ratio >= atLeast : ratio <= atMost;
  console.log(`  ratio ${round(ratio, 2)} (${ratios.map((r) => round(r, 2)).join(", ")})`);
  if (profile.length > 0) console.log(`  own time of functions:\n  ${profile.join("\n  ")}`);
  const { name, question, unit, rival } = work;
  return { name, question, unit, rival, ratio, ratios, atLeast, atMost, isReached, ours, theirs };
}

async function measureGrowth(rows) {
  console.log("\ngrowth: server CPU per delivery");
  for (const row of growth) {
    // Generators of its own for each row: thousands of sockets leave their mark on a process.
    const load = new Load();
    try {
      const turn = await growthTurn(load, row, options.quick);
      rows.push({ name: row.name, ...turn });
      console.log(`  ${row.name}: ${round(turn.costUs, 2)} µs (${describe(turn)})`);
    } finally {
      load.stop();
    }
  }
}

async function measureBrokers(heading, rows, found) {
  console.log(`\n${heading}`);
  for (const row of rows) {
    const load = new Load();
    try {
      const turn = await brokerTurn(load, row, options.quick);
      found.push({ name: row.name, ...turn });
      console.log(
        `  ${row.name}: ${round(turn.publishesPerSecond)}/s, ` +
          `nodes ${round(turn.nodesUs, 1)} µs, Redis ${round(turn.redisUs, 1)} µs, ` +
          `${round(turn.commands, 3)} commands, ${round(turn.bytesIn)} bytes in, ` +
          `${round(turn.bytesOut)} out, p50/p99 ${latency(turn)} ms`,
      );
    } finally {
      load.stop();
    }
  }
}

async function measureIdleChannels(found) {
  const load = new Load();
  try {
    const turn = await idleTurn(load);
    found.push(turn);
    console.log(`  ${turn.name}: confirmed in ${round(turn.seconds, 2)} s`);
  } finally {
    load.stop();
  }
}

/**
 * Each row is a turn of a cluster of its own, with figures of its cost. All rows take their turns
 * `rounds` times; the medians are the result.
 */
async function measureCosts({ heading, rows, rounds = 1, turnOf }, found) {
  console.log(`\n${heading}`);
  const turns = rows.map(() => []);
  for (let round = 1; round <= (options.quick ? 1 : rounds); round++) {
    for (const [index, row] of rows.entries()) {
      const load = new Load();
      try {
        const turn = await turnOf(load, row, options.quick);
        turns[index].push(turn);
        console.log(`  ${row.name}: ${describeCost(turn)}`);
      } finally {
        load.stop();
      }
    }
  }
  found.push(...rows.map(({ name }, index) => ({ name, ...medians(turns[index]) })));
}

function describeCost(turn) {
  return [
    `${round(turn.perSecond)}/s`,
    `nodes ${ownCosts(turn)} µs`,
    `Redis ${round(turn.redisUs, 1)} µs`,
    `${round(turn.commands, 2)} scripts`,
    `${round(turn.bytesIn)} bytes in`,
    `${round(turn.bytesOut)} out`,
    `p50/p99 ${latency(turn)} ms`,
  ].join(", ");
}

const ownCosts = ({ ownUs }) => ownUs.map((us) => round(us, 1)).join(" + ");
const spread = (numbers) =>
  [Math.min(...numbers), median(numbers), Math.max(...numbers)].map((s) => round(s, 1)).join(" / ");

async function measureKills(found) {
  console.log(
    "\nkill: seconds from the end of a node to the leaves of its members, at another node",
  );
  for (const count of killRows) {
    const load = new Load();
    try {
      const turn = await killTurn(load, count, options.quick);
      found.push(turn);
      console.log(`  ${turn.name}: first ${spread(turn.first)}, last ${spread(turn.last)}`);
    } finally {
      load.stop();
    }
  }
}

/** The ratios are to the turn without noise of the same round; figures are medians over rounds. */
async function measureTenants(found) {
  console.log("\ntenants: a quiet tenant, while a noisy one");
  const report = ({ name }, turn) =>
    console.log(
      `  ${name}: p50/p99 ${latency(turn)} ms, ${round(turn.deliveries)} deliveries/s, ` +
        `noise ${round(turn.noiseTaken)}/s taken, ${round(turn.noiseRefused)}/s refused, ` +
        `server ${percent(turn.serverLoad)}`,
    );
  const rounds = await tenantRounds(options.quick ? 2 : 5, options.quick ? 1500 : 4000, report);
  for (const [index, { name }] of tenantRows.entries()) {
    const turns = rounds.map((turns) => {
      const [alone] = turns;
      const turn = turns[index];
      return {
        ...turn,
        p50Ratio: turn.p50Ms / alone.p50Ms,
        p99Ratio: turn.p99Ms / alone.p99Ms,
        deliveriesRatio: turn.deliveries / alone.deliveries,
      };
    });
    found.push({ name, ...medians(turns) });
  }
}

/** A work that fails is told and missed in the result; the others still run. */
async function attempt(work) {
  try {
    await work();
  } catch (error) {
    console.error(error);
    process.exitCode = 1;
  }
}

const table = (head, rows) =>
  [head, head.map(() => "---"), ...rows].map((cells) => `| ${cells.join(" | ")} |`).join("\n");

function comparisonTable(results) {
  const head = ["work", "unit", "Pandapush", "compared with", "ratio", "target", "reached"];
  head.push("p50 / p99 ms", "theirs", "server CPU", "generator CPU");
  return table(
    head,
    results.map((r) => [
      `${r.name}: ${r.question}`,
      r.unit,
      round(r.ours.value),
      `${r.rival} ${round(r.theirs.value)}`,
      `**${round(r.ratio, 2)}**`,
      r.atLeast === undefined ? `≤ ${r.atMost}` : `≥ ${r.atLeast}`,
      r.isReached ? "yes" : "**no**",
      latency(r.ours),
      latency(r.theirs),
      r.ours.serverLoad === undefined ? "–" : percent(r.ours.serverLoad),
      r.ours.generatorLoad === undefined ? "–" : percent(r.ours.generatorLoad),
    ]),
  );
}

const growthTable = (rows) =>
  table(
    ["what grows", "µs of server CPU per delivery", "deliveries per second", "p50 / p99 ms"],
    rows.map((row) => [row.name, round(row.costUs, 2), round(row.perSecond), latency(row)]),
  );

const tenantTable = (rows) =>
  table(
    [
      "tenants: the noisy one",
      "its publishes taken per second",
      "refused per second",
      "the quiet one's p50 / p99 ms",
      "ratio to without noise",
      "its deliveries per second",
      "ratio",
      "server CPU",
    ],
    rows.map((row) => [
      row.name,
      round(row.noiseTaken),
      round(row.noiseRefused),
      latency(row),
      `${round(row.p50Ratio, 1)} / ${round(row.p99Ratio, 1)}`,
      round(row.deliveries),
      round(row.deliveriesRatio, 2),
      percent(row.serverLoad),
    ]),
  );

const brokerTable = (what, rows) =>
  table(
    [
      what,
      "publishes per second",
      "µs of CPU of the nodes",
      "of Redis",
      "commands per publish",
      "bytes to Redis",
      "bytes from Redis",
      "p50 / p99 ms",
    ],
    rows.map((row) => [
      row.name,
      round(row.publishesPerSecond),
      round(row.nodesUs, 1),
      round(row.redisUs, 1),
      round(row.commands, 2),
      round(row.bytesIn),
      round(row.bytesOut),
      latency(row),
    ]),
  );

const costTable = (what, each, rows) =>
  table(
    [what, "per second", `µs of CPU per ${each}, of each node`, "of Redis"].concat([
      "scripts",
      "bytes to Redis",
      "bytes from Redis",
      "p50 / p99 ms",
    ]),
    rows.map((row) => [
      row.name,
      round(row.perSecond),
      ownCosts(row),
      round(row.redisUs, 1),
      round(row.commands, 2),
      round(row.bytesIn),
      round(row.bytesOut),
      latency(row),
    ]),
  );

const killTable = (turns) =>
  table(
    ["kill -9 of a node with", "runs", "s to the first leave: min / median / max", "to the last"],
    turns.map(({ name, first, last }) => [name, first.length, spread(first), spread(last)]),
  );

const idleTable = (turns) =>
  table(
    ["idle", "bytes of memory each", "µs of CPU to subscribe, each", "a core's share while idle"],
    turns.flatMap(({ name, seconds, node, host }) =>
      [
        [`${name}, all confirmed in ${round(seconds, 2)} s: node`, node],
        ["Redis", host],
      ].map(([label, { bytes, subscribeUs, idleShare, idleShareBefore }]) => [
        label,
        round(bytes),
        round(subscribeUs, 1),
        `${round(idleShare * 100, 1)} % (without them ${round(idleShareBefore * 100, 1)} %)`,
      ]),
    ),
  );

const cpus = os.cpus();
const machine = {
  date: new Date().toISOString().slice(0, 10),
  cpu: cpus[0]?.model ?? "unknown",
  cores: cpus.length,
  memoryGiB: Math.round(os.totalmem() / 2 ** 30),
  node: process.version,
  system: `${os.type()} ${os.release()}`,
};
const where = `${machine.date}, ${machine.cpu}, ${machine.cores} cores, ${machine.memoryGiB} GiB, Node ${machine.node}, ${machine.system}`;

console.log(where);
const results = [];
for (const work of comparisons) {
  // Against itself, a comparison shows how far from 1 chance alone takes the ratio.
  if (isWanted(work.name)) await attempt(async () => results.push(await compare(work)));
}
const growthRows = [];
if (isWanted("growth") && !options.self) await attempt(() => measureGrowth(growthRows));

const tenantResults = [];
if (isWanted("tenants") && !options.self) await attempt(() => measureTenants(tenantResults));

const brokerResults = [];
if (isWanted("broker") && !options.self) {
  const heading = "broker: publishes through Redis and in memory";
  await attempt(() => measureBrokers(heading, brokerRows, brokerResults));
}
const [clusterResults, idleResults] = [[], []];
if (isWanted("cluster") && !options.self) {
  const heading = "cluster: the same load on one, two and three nodes";
  await attempt(() => measureBrokers(heading, clusterRows, clusterResults));
  await attempt(() => measureIdleChannels(idleResults));
}
const [presenceResults, killResults, forwardResults] = [[], [], []];
if (isWanted("presence") && !options.self) {
  const heading = "presence: joins of rooms that fill";
  const work = { heading, rows: presenceRows, rounds: 3, turnOf: presenceTurn };
  await attempt(() => measureCosts(work, presenceResults));
}
if (isWanted("kill") && !options.self) await attempt(() => measureKills(killResults));
if (isWanted("forward") && !options.self) {
  const heading = "forward: sessions of another node (the owner + the other node)";
  const work = { heading, rows: forwardRows, rounds: 3, turnOf: forwardTurn };
  await attempt(() => measureCosts(work, forwardResults));
}

const tables = [];
if (results.length > 0) tables.push(comparisonTable(results));
if (growthRows.length > 0) tables.push(growthTable(growthRows));
if (tenantResults.length > 0) tables.push(tenantTable(tenantResults));
if (brokerResults.length > 0) tables.push(brokerTable("broker, 1 publisher", brokerResults));
if (clusterResults.length > 0)
  tables.push(brokerTable("cluster, 1 publisher at each node", clusterResults));
if (idleResults.length > 0) tables.push(idleTable(idleResults));
if (presenceResults.length > 0) tables.push(costTable("presence", "join", presenceResults));
if (killResults.length > 0) tables.push(killTable(killResults));
if (forwardResults.length > 0)
  tables.push(costTable("forward, the owner + the other node", "poll or socket", forwardResults));
console.log(`\n${where}\n\n${tables.join("\n\n")}`);

if (!options.self && !options.profile) {
  const written = [path.join(BENCH, "results.json")];
  const found = {
    machine,
    quick: options.quick,
    results,
    growth: growthRows,
    tenants: tenantResults,
    brokers: brokerResults,
    cluster: clusterResults,
    idle: idleResults,
    presence: presenceResults,
    kill: killResults,
    forward: forwardResults,
  };
  writeFileSync(written[0], JSON.stringify(found));
  // The page shows complete runs only.
  if (wanted.length === 0 && !options.quick && process.exitCode === undefined) {
    const page = path.join(BENCH, "README.md");
    const text = readFileSync(page, "utf8");
    const head = text.slice(0, text.indexOf(RESULTS_HEADING) + RESULTS_HEADING.length);
    writeFileSync(page, `${head}\n\n${where}\n\n${tables.join("\n\n")}\n`);
    written.push(page);
  }
  // Both are kept in the repository, where the formatter checks them.
  const biome = createRequire(import.meta.url).resolve("@biomejs/biome/bin/biome");
  execFileSync(process.execPath, [biome, "format", "--write", ...written], { stdio: "ignore" });
}
if (!options.self && results.some((result) => !result.isReached)) process.exitCode = 1;
