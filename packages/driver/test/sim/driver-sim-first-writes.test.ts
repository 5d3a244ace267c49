/**
 * As driver-sim.test.ts, with snapshots that do not persist, and deaths in the middle of copies: such as go behind their
 * writes are finished by the next daemon, and images have nothing new meanwhile.
 */
import { test } from "uvu";
import * as assert from "uvu/assert";
import { STEPS, testThatFinds } from "./found-faults.js";
import { PLANTED_BEHIND } from "./planted-behind.js";
import { runSeeds } from "./seeds.js";

const POINTS = [
  "copy.old-data-read",
  "copy.left-behind",
  "copy.original-written",
  "copy.data-complete",
  "copy.bit-recorded",
] as const;

test("first writes, with deaths in the middle of copies: nothing is lost", async () => {
  const totals = await runSeeds(5, STEPS, { deathOneIn: 300, hasFirstWrites: true });
  if (totals === undefined) return;
  assert.ok(totals.operations > 10_000, `${totals.operations} operations`);
  assert.ok(totals.seen("take") > 10, `${totals.seen("take")} takes`);
  for (const point of POINTS) assert.ok(totals.deaths.has(point), `no death at ${point}`);
});

testThatFinds(PLANTED_BEHIND, () => ({ deathOneIn: 300, hasFirstWrites: true }), /image/);

test.run();
