/**
 * As driver-sim.test.ts, with originals, stores and the disk of the journals not answering for a while, also while the
 * driver dies. Nobody waits for a medium that is not his without an end, and what comes late harms nothing.
 */
import { test } from "uvu";
import * as assert from "uvu/assert";
import { PLANTED_HANGS } from "./planted-hangs.js";
import { runSeeds } from "./seeds.js";
import { Simulation } from "./simulation.js";

const SEEDS_MAX = 40;
const STEPS = 1500;

test("hangs: what needs no medium that hangs continues", async () => {
  const totals = await runSeeds(4, STEPS, { deathOneIn: 240, hasHangs: true });
  if (totals === undefined) return;
  // What did not happen was not tested.
  assert.ok(totals.operations > 9000, `${totals.operations} operations`);
  for (const what of ["original-hang", "store-hang", "files-hang", "losses", "outlived"]) {
    assert.ok(totals.seen(what) > 0, `${totals.seen(what)} times ${what}`);
  }
});

for (const { what, plant, seed: known = 1 } of PLANTED_HANGS) {
  test(`found: ${what}`, async () => {
    const takeOut = plant();
    try {
      for (let tried = 0; tried < SEEDS_MAX; tried++) {
        const seed = 1 + ((known - 1 + tried) % SEEDS_MAX);
        const options = { seed, deathOneIn: 240, limitMs: 20_000, hasHangs: true };
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
