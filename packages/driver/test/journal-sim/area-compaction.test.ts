/** The journal of an area is compacted while it is written, on a medium whose power is cut at any moment. */

import { Dice } from "@blksnap/testing";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { type AreaPlant, AreaSim } from "./area-sim.js";
import { assertFound } from "./assert-found.js";
import { FakeReactor } from "./medium.js";
import { PackedKernel } from "./packed-kernel.js";

const test = suite("area-compaction");

/** `npm run test:all` has three times as many. */
const SEEDS = Number(process.env["AREA_COMPACTION_SEEDS"] ?? 20);
/** The log's length repeats with each renewal. `npm run test:all` has ten times as many. */
const COMMITS = Number(process.env["AREA_COMPACTION_COMMITS"] ?? 100_000);
const TURNS = 4000;
const CUT_EVERY_TURNS = 7;
const CUTS = 100;
const SECTOR_BYTES = 512;

interface Outcome {
  readonly problem: string | undefined;
  readonly sim: AreaSim;
  /**
   * Chains that the kernel accepted in part or had no memory for: they are submitted again, without harm to the
   * journal.
   */
  readonly torn: number;
  readonly shortages: number;
}

/** The ring's operations complete in any order, and the main thread runs at random times. */
function runSeed(seed: number, plant: AreaPlant): Outcome {
  const dice = new Dice(seed);
  const kernel = new FakeReactor(dice);
  kernel.tearChance = dice.pick([0, 0, 0.05, 0.3]);
  kernel.shortChance = dice.pick([0, 0, 0.02, 0.3]);
  kernel.runsTornRest = plant === "torn chain that continues";
  const sim = new AreaSim(kernel, dice, {
    chunkCount: dice.pick([3, 40, 200]),
    chunkShift: dice.pick([13, 16, 19]),
    logBytes: SECTOR_BYTES * dice.pick([100, 130, 200]),
    discards: dice.pick([0, 5, 30]),
    copies: 40,
    plant,
  });
  const end = (problem: string | undefined): Outcome => {
    const { torn, shortages } = kernel;
    return { problem, sim, torn, shortages };
  };
  for (let turn = 0; turn < TURNS; turn++) {
    const die = dice.below(10);
    if (die < 6) kernel.step();
    else if (die < 9) sim.act();
    else sim.tend();
    if (turn % CUT_EVERY_TURNS !== 0) continue;
    const problem = sim.judge();
    if (problem !== undefined) return end(`seed ${seed}, turn ${turn}: ${problem}`);
  }
  for (let turn = 0; turn < 10_000 && !(kernel.isIdle && sim.isIdle); turn++) {
    kernel.step();
    sim.tend();
  }
  if (!sim.isIdle) return end(`seed ${seed}: something waits for ever`);
  const problem = sim.judge();
  sim.journal.drop();
  if (kernel.filesOpen > 0) return end(`seed ${seed}: files are left open`);
  return end(problem);
}

test(`no power cut makes the journal forget a saved block, from ${SEEDS} seeds`, () => {
  const seen = { commits: 0, renewals: 0, growths: 0, torn: 0, shortages: 0 };
  for (let seed = 1; seed <= SEEDS; seed++) {
    const { problem, sim, torn, shortages } = runSeed(seed, "none");
    assert.is(problem, undefined);
    seen.commits += sim.commits;
    seen.renewals += sim.renewals;
    seen.growths += sim.growths;
    seen.torn += torn;
    seen.shortages += shortages;
  }
  // A behaviour that did not occur was not tested.
  for (const [what, count] of Object.entries(seen))
    assert.ok(count > SEEDS / 4, `${what} ${count}`);
});

const PLANTS: readonly AreaPlant[] = [
  "successor named before it is complete",
  "successor that misses a part",
  "old journal continues alone after the rename",
  "parts that are older than their commit",
  "a store that is not synced",
  "torn chain that continues",
];

for (const plant of PLANTS) {
  test(`the judge finds: ${plant}`, () => {
    assertFound(200, (seed) => runSeed(seed, plant).problem);
  });
}

test(`in ${COMMITS} commits, one at a time, the log stays in bounds, and no cut loses anything`, () => {
  const dice = new Dice(10);
  const kernel = new PackedKernel();
  const chunkCount = 2 ** 11;
  const sim = new AreaSim(kernel, dice, {
    chunkCount,
    chunkShift: 18,
    logBytes: 2 ** 20,
    discards: 2,
    copies: 10,
    plant: "none",
  });
  const problems: string[] = [];
  let cuts = 0;
  kernel.onCut = () => {
    cuts++;
    const problem = sim.judge();
    if (problem !== undefined) problems.push(`operation ${kernel.operations}: ${problem}`);
  };
  for (let turn = 0; sim.commits < COMMITS; turn++) {
    if (kernel.operations > kernel.cutAt && sim.commits >= (cuts * COMMITS) / CUTS) {
      kernel.cutAt = kernel.operations + dice.below(20);
    }
    sim.act();
    while (kernel.step());
    if (turn % 4 === 0) sim.tend();
    if (problems.length > 0) break;
  }
  assert.equal(problems, []);
  assert.ok(cuts >= CUTS - 1, `${cuts} cuts`);
  assert.ok(sim.renewals > COMMITS / 1e5, `${sim.renewals} renewals`);
  // A few MiB, and about ten times the entries of the map.
  const boundBytes = 3 * 2 ** 20 + 10 * sim.largestBase * SECTOR_BYTES;
  assert.ok(sim.largestLogBytes < boundBytes, `${sim.largestLogBytes} of ${boundBytes} bytes`);
});

test.run();
