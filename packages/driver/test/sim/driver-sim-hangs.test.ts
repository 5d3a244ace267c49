/**
 * As driver-sim.test.ts, with originals, stores and the disk of the journals not answering for a while, also while the
 * driver dies. Nobody waits for a medium that is not his without an end, and what comes late harms nothing.
 */
import { test } from "uvu";
import * as assert from "uvu/assert";
import { STEPS, testThatFinds } from "./found-faults.js";
import { PLANTED_HANGS } from "./planted-hangs.js";
import { runSeeds } from "./seeds.js";

test("hangs: what needs no medium that hangs continues", async () => {
  const totals = await runSeeds(4, STEPS, { deathOneIn: 240, hasHangs: true });
  if (totals === undefined) return;
  // What did not happen was not tested.
  assert.ok(totals.operations > 9000, `${totals.operations} operations`);
  for (const what of ["original-hang", "store-hang", "files-hang", "losses", "outlived"]) {
    assert.ok(totals.seen(what) > 0, `${totals.seen(what)} times ${what}`);
  }
});

testThatFinds(PLANTED_HANGS, () => ({ deathOneIn: 240, hasHangs: true }));

test.run();
