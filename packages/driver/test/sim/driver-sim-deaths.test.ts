/** As driver-sim.test.ts, with frequent deaths and stops of the driver, and foreign writes in between. */
import { test } from "uvu";
import * as assert from "uvu/assert";
import { FAULT_POINTS } from "./load.js";
import { runSeeds } from "./seeds.js";

test("short lives: nothing acknowledged is lost", async () => {
  const totals = await runSeeds(13, 1500, { deathOneIn: 60 });
  if (totals === undefined) return;
  // A behaviour that did not occur was not tested.
  const { operations, cuts, stops, deaths } = totals;
  assert.ok(operations > 30_000, `${operations} operations`);
  assert.ok(cuts > 20, `${cuts} power cuts`);
  assert.ok(stops > 12, `${stops} orderly stops`);
  assert.ok(totals.seen("past") > 50, `${totals.seen("past")} writes past fronts`);
  assert.ok(totals.seen("proved") > 0, `${totals.seen("proved")} maps that continued proved`);
  assert.ok(deaths.size > FAULT_POINTS.length / 3, `deaths at ${deaths.size} fault points`);
});

test.run();
