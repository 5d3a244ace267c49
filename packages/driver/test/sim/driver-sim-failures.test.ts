/**
 * As driver-sim.test.ts, with stores that are too small for what is written, and originals, stores and the disk of
 * the journals failing for a while. Fronts give what their originals give; images lose blocks and say so.
 */
import { test } from "uvu";
import * as assert from "uvu/assert";
import { PLANTED_FAILURES } from "./planted-failures.js";
import { runSeeds } from "./seeds.js";
import { Simulation } from "./simulation.js";

const SEEDS_MAX = 40;
const STEPS = 1500;

test("failures: fronts continue, images lose what could not be saved", async () => {
  const totals = await runSeeds(5, STEPS, { deathOneIn: 240, hasFailures: true });
  if (totals === undefined) return;
  // What did not happen was not tested.
  assert.ok(totals.operations > 12_000, `${totals.operations} operations`);
  for (const what of [
    "original-failure",
    "store-failure",
    "files-failure",
    "failed",
    "refused",
    "losses",
  ]) {
    assert.ok(totals.seen(what) > 0, `${totals.seen(what)} times ${what}`);
  }
});

for (const { what, plant, seed: known = 1 } of PLANTED_FAILURES) {
  test(`found: ${what}`, async () => {
    const takeOut = plant();
    try {
      for (let tried = 0; tried < SEEDS_MAX; tried++) {
        const seed = 1 + ((known - 1 + tried) % SEEDS_MAX);
        const options = { seed, deathOneIn: 300, limitMs: 20_000, hasFailures: true };
        const found = await new Simulation(options).run(STEPS).then(
          () => undefined,
          (error: Error) => error.message,
        );
        if (found === undefined) continue;
        console.log(`seed ${seed}: ${what}: ${found.split("\n")[0]}`);
        return;
      }
      assert.unreachable(`not found: ${what}`);
    } finally {
      takeOut();
    }
  });
}

test.run();
