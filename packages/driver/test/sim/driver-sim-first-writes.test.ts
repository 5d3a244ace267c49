/**
 * As driver-sim.test.ts, with snapshots that do not persist, and deaths in the middle of copies: the next daemon
 * finishes copies behind their writes, and images never show new data meanwhile.
 */
import { test } from "uvu";
import * as assert from "uvu/assert";
import { testThatFinds } from "./found-faults.js";
import { PLANTED_BEHIND } from "./planted-behind.js";
import { runSeeds } from "./seeds.js";

const POINTS = [
  "copy.old-data-read",
  "copy.left-behind",
  "copy.original-written",
  "copy.bit-recorded",
] as const;

test("first writes, with deaths in the middle of copies: nothing is lost", async () => {
  const totals = await runSeeds(2, 1000, { deathOneIn: 300, hasFirstWrites: true });
  if (totals === undefined) return;
  assert.ok(totals.operations > 2500, `${totals.operations} operations`);
  assert.ok(totals.seen("take") > 2, `${totals.seen("take")} takes`);
  // 40 seeds reach all of them; a change elsewhere moves the deaths of these few.
  const met = POINTS.filter((point) => totals.deaths.has(point));
  assert.ok(met.length >= 2, `deaths at ${met.join(" ")} only`);
});

testThatFinds(PLANTED_BEHIND, () => ({ deathOneIn: 300, hasFirstWrites: true }), /image/);

test.run();
