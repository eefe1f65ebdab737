/**
 * About a minute in `npm test`, with another seed each time; longer with `npm run test:chaos`.
 * `PANDAPUSH_CHAOS_SEED` repeats the choices of a run that failed, as far as processes let
 * themselves be repeated.
 */
import { expect, test } from "vitest";
import { runChaos } from "./chaos.suite.js";

const { PANDAPUSH_CHAOS_SEED, PANDAPUSH_CHAOS_MINUTES = "0.6" } = process.env;
const seed = Number(PANDAPUSH_CHAOS_SEED ?? Date.now() % 1_000_000_007);
const ms = Number(PANDAPUSH_CHAOS_MINUTES) * 60_000;

test(
  `whatever happens, nothing is lost unsaid, comes twice or in another order, and there are no ghosts (seed ${seed})`,
  async () => {
    console.log(`Chaos: PANDAPUSH_CHAOS_SEED=${seed}`);
    const { complaints, story, counts, logs } = await runChaos({ seed, ms });
    if (complaints.length > 0) console.log([...logs, ...story].join("\n"));
    console.log([...counts].map(([what, count]) => `${count} ${what}`).join("\n"));
    expect(complaints.slice(0, 20)).toEqual([]);
  },
  ms + 240_000,
);
