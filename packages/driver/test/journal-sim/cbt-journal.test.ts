/** The journal of a persistent tracker, on a medium whose power is cut at any moment. */

import { Dice } from "@blksnap/testing";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { assertFound } from "./assert-found.js";
import type { Plant, SimOptions } from "./sim-options.js";
import { TrackerSim } from "./tracker-sim.js";

const test = suite("cbt-journal");

const TURNS = 600;
const SEEDS = Number(process.env["CBT_JOURNAL_SEEDS"] ?? 150);
const CUT_EVERY_TURNS = 5;

interface Outcome {
  readonly problem: string | undefined;
  readonly sim: TrackerSim;
}

function optionsOf(seed: number, plant: Plant): SimOptions {
  const dice = new Dice(seed ^ 0x5eed);
  return {
    blockCount: dice.pick([33, 200, 1000]),
    logSectors: dice.pick([4, 12, 40]),
    faultChance: dice.pick([0, 0, 0.002, 0.02]),
    plant,
  };
}

function runSeed(seed: number, plant: Plant): Outcome {
  const dice = new Dice(seed);
  const sim = new TrackerSim(dice, optionsOf(seed, plant));
  for (let turn = 0; turn < TURNS; turn++) {
    sim.turn();
    if (turn % CUT_EVERY_TURNS !== 0) continue;
    const problem = sim.judge();
    if (problem !== undefined) return { problem: `seed ${seed}, turn ${turn}: ${problem}`, sim };
  }
  sim.drain();
  const problem = sim.judge();
  sim.journal.drop();
  return { problem, sim };
}

test(`no power cut makes the journal forget a write, from ${SEEDS} seeds`, () => {
  const seen = { takes: 0, rotations: 0, failures: 0 };
  for (let seed = 1; seed <= SEEDS; seed++) {
    const { problem, sim } = runSeed(seed, "none");
    assert.is(problem, undefined);
    seen.takes += sim.takes;
    seen.rotations += sim.rotations;
    seen.failures += sim.failures;
  }
  // A behaviour that did not occur was not tested.
  for (const [what, count] of Object.entries(seen)) assert.ok(count > SEEDS / 10, what);
});

const PLANTS: readonly Plant[] = [
  "admit before the commit",
  "durable bits kept over a take",
  "blocks ahead kept over a rotation",
  "mirror that misses a commit",
  "checkpoint older than the mirror",
  "take told before it is on record",
  "medium that does not sync",
  "image writes not on record",
  "lost data not waited for",
];

for (const plant of PLANTS) {
  test(`the judge finds: ${plant}`, () => {
    assertFound(400, (seed) => runSeed(seed, plant).problem);
  });
}

test.run();
