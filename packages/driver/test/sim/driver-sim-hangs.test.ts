/**
 * As driver-sim.test.ts, with originals, stores and the disk of the journals not answering for a while, also while the
 * driver dies, is stopped or upgraded, and while operations of the API are asked for. Nobody waits for a medium that is
 * not his without an end, and what comes late harms nothing.
 */
import { test } from "uvu";
import * as assert from "uvu/assert";
import { STEPS, testThatFinds } from "./found-faults.js";
import { PLANTED_HANGS } from "./planted-hangs.js";
import { runSeeds } from "./seeds.js";

test("hangs: what needs no medium that hangs continues", async () => {
  const totals = await runSeeds(6, STEPS, { deathOneIn: 240, hasHangs: true });
  if (totals === undefined) return;
  // What did not happen was not tested.
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
