/** Other programs delete fronts and images while the driver is in the middle of operations. */
import { test } from "uvu";
import * as assert from "uvu/assert";
import { testThatFinds } from "./found-faults.js";
import { PLANTED_DELETIONS } from "./planted-deletions.js";
import { runSeeds } from "./seeds.js";

const SEEDS = 8;
const STEPS = 1500;

test("a front or an image that another program deletes harms nothing else, and can be ended", async () => {
  const totals = await runSeeds(SEEDS, STEPS, { deathOneIn: 60, hasDeletions: true });
  if (totals === undefined) return;
  for (const what of ["front-deleted", "image-deleted", "excused"]) {
    assert.ok(totals.seen(what) > 0, `no ${what}`);
  }
});

testThatFinds(PLANTED_DELETIONS, () => ({ deathOneIn: 60, hasDeletions: true }));

test.run();
