/**
 * As driver-sim.test.ts, with originals, stores and the disk of the journals not answering for a while, also while the
 * driver dies, is stopped or upgraded, and during operations of the API. No caller waits without end for a medium that it
 * does not use, and late answers harm nothing.
 */
import { test } from "uvu";
import * as assert from "uvu/assert";
import { STEPS, testThatFinds } from "./found-faults.js";
import { PLANTED_HANGS } from "./planted-hangs.js";
import { runSeeds } from "./seeds.js";

test("hangs: what does not need the medium that hangs continues", async () => {
  const totals = await runSeeds(6, STEPS, { deathOneIn: 240, hasHangs: true });
  if (totals === undefined) return;
  // A behaviour that did not occur was not tested.
  assert.ok(totals.operations > 9000, `${totals.operations} operations`);
  for (const whats of [
    ...[["original-hang"], ["store-hang"], ["files-hang"], ["long-hang"], ["losses"], ["outlived"]],
    ["cut-after-files"],
    ["detached-in-hang", "destroyed-in-hang"],
    ["stop-in-hang", "upgrade-in-hang"],
  ]) {
    const count = whats.reduce((sum, what) => sum + totals.seen(what), 0);
    assert.ok(count > 0, `${count} times ${whats.join(", ")}`);
  }
});

testThatFinds(PLANTED_HANGS, () => ({ deathOneIn: 240, hasHangs: true }));

test.run();
