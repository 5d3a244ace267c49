/** As driver-sim.test.ts, with sequential writes, ahead of which blocks are copied. */
import { test } from "uvu";
import * as assert from "uvu/assert";
import { STEPS, testThatFinds } from "./found-faults.js";
import { AHEAD_FAULT } from "./planted-faults.js";
import { runSeeds } from "./seeds.js";

for (const deathOneIn of [60, 240]) {
  test(`sequential writes, a death in ${deathOneIn}: nothing is lost`, async () => {
    const totals = await runSeeds(4, STEPS, { deathOneIn, hasSequences: true });
    if (totals === undefined) return;
    assert.ok(totals.operations > 9000, `${totals.operations} operations`);
    assert.ok(totals.seen("take") > 4, `${totals.seen("take")} takes`);
  });
}

testThatFinds([AHEAD_FAULT], () => ({ deathOneIn: 300, hasSequences: true }), /image/);

test.run();
