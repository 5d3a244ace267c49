/** As driver-sim.test.ts, where users write in sequence: what follows is copied ahead of such writes. */
import { test } from "uvu";
import * as assert from "uvu/assert";
import { AHEAD_FAULT } from "./planted-faults.js";
import { runSeeds } from "./seeds.js";
import { Simulation } from "./simulation.js";

const SEEDS_MAX = 40;
const STEPS = 1500;

for (const deathOneIn of [60, 240]) {
  test(`in sequence, a death in ${deathOneIn}: nothing is lost`, async () => {
    const totals = await runSeeds(4, STEPS, { deathOneIn, hasSequences: true });
    if (totals === undefined) return;
    assert.ok(totals.operations > 9000, `${totals.operations} operations`);
    assert.ok(totals.seen("take") > 4, `${totals.seen("take")} takes`);
  });
}

test(`found: ${AHEAD_FAULT.what}`, async () => {
  const takeOut = AHEAD_FAULT.plant();
  try {
    for (let seed = 1; seed <= SEEDS_MAX; seed++) {
      const options = { seed, deathOneIn: 300, limitMs: 20_000, hasSequences: true };
      const found = await new Simulation(options).run(STEPS).then(
        () => undefined,
        (error: Error) => error.message,
      );
      if (found === undefined) continue;
      assert.match(found, /image/);
      return;
    }
    assert.unreachable("not found");
  } finally {
    takeOut();
  }
});

test.run();
