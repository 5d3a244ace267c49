/**
 * As driver-sim.test.ts, with originals that become larger: fronts follow under their users, at a look or a take, and
 * deaths at each step of that lose nothing.
 */
import { test } from "uvu";
import * as assert from "uvu/assert";
import { testThatFinds } from "./found-faults.js";
import { PLANTED_GROWTHS } from "./planted-growths.js";
import { runSeeds } from "./seeds.js";

test("originals that grow: users have all of them, and nothing is lost", async () => {
  const totals = await runSeeds(2, 1000, { deathOneIn: 120, hasGrowth: true });
  if (totals === undefined) return;
  // A behaviour that did not occur was not tested.
  assert.ok(totals.operations > 2500, `${totals.operations} operations`);
  for (const what of ["growth", "grown", "take", "diff"]) {
    assert.ok(totals.seen(what) > 0, `${totals.seen(what)} times ${what}`);
  }
  const deaths = [...totals.deaths].filter((point) => point.startsWith("grow."));
  assert.ok(deaths.length > 0, "no deaths while a front grew");
});

testThatFinds(PLANTED_GROWTHS, () => ({ deathOneIn: 120, hasGrowth: true }));

test.run();
