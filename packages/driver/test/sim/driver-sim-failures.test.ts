/**
 * As driver-sim.test.ts, with stores that are too small, and originals, stores and the disk of the journals that fail
 * for a while. Fronts return the errors of their originals; images lose blocks and report that.
 */
import { test } from "uvu";
import * as assert from "uvu/assert";
import { STEPS, testThatFinds } from "./found-faults.js";
import { PLANTED_FAILURES } from "./planted-failures.js";
import { runSeeds } from "./seeds.js";

test("failures: fronts continue, images lose what could not be saved", async () => {
  const totals = await runSeeds(5, STEPS, { deathOneIn: 240, hasFailures: true });
  if (totals === undefined) return;
  // A behaviour that did not occur was not tested.
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

testThatFinds(PLANTED_FAILURES, () => ({ deathOneIn: 300, hasFailures: true }));

test.run();
