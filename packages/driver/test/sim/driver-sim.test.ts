/**
 * The whole driver on a simulated machine, from seeds. Acknowledged writes survive deaths at the driver's fault points,
 * flushed ones survive power cuts; no front or image has a wrong byte, no CBT map misses a write, nothing hangs. Lives
 * are long here, and short in driver-sim-deaths.test.ts.
 */
import { test } from "uvu";
import * as assert from "uvu/assert";
import { runSeeds } from "./seeds.js";

test("long lives: nothing acknowledged is lost", async () => {
  const totals = await runSeeds(18, 1500, { deathOneIn: 240 });
  if (totals === undefined) return;
  // A behaviour that did not occur was not tested.
  const { operations, cuts, stops } = totals;
  assert.ok(operations > 45_000, `${operations} operations`);
  assert.ok(totals.seen("take") > 60, `${totals.seen("take")} takes`);
  assert.ok(totals.seen("discard") > 3000, `${totals.seen("discard")} discards`);
  assert.ok(totals.seen("durable") > 2000, `${totals.seen("durable")} durable writes`);
  for (const [what, least] of Object.entries({ frozen: 40, refused: 2, failed: 1, lost: 2 })) {
    const count = totals.seen(`fs-${what}`);
    assert.ok(count > least, `${count} file systems ${what}`);
  }
  assert.ok(totals.seen("thaw") > 20, `${totals.seen("thaw")} writes that waited for a thaw`);
  assert.ok(cuts > 6, `${cuts} power cuts`);
  assert.ok(stops > 6, `${stops} orderly stops`);
});

test.run();
