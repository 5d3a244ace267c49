/** An area's journal is renewed and grows while every step takes its own time: every wait ends. */
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { type RenewalPlant, runRenewals } from "./renewal-sim.js";

const test = suite("renewals");

/** SEED=N replays one. */
const { SEED, RENEWAL_SEEDS } = process.env;
const FIRST = Number(SEED ?? 1);
const SEEDS = SEED === undefined ? Number(RENEWAL_SEEDS ?? 30) : 1;
const SAVES = 2000;

test(`every wait for an area's journal ends, from ${SEEDS} seeds`, async () => {
  const seen = { renewals: 0, growths: 0, refusals: 0, ends: 0 };
  for (let seed = FIRST; seed < FIRST + SEEDS; seed++) {
    const { problem, ...counts } = await runRenewals(seed, SAVES);
    assert.is(problem, undefined);
    for (const what of ["renewals", "growths", "refusals", "ends"] as const) {
      seen[what] += counts[what];
    }
  }
  if (SEEDS === 1) return;
  // A behaviour that did not occur was not tested.
  for (const [what, count] of Object.entries(seen))
    assert.ok(count > SEEDS / 10, `${what} ${count}`);
});

const PLANTS: readonly RenewalPlant[] = ["a need during a renewal joins it", "a need is forgotten"];

for (const plant of PLANTS) {
  test(`it is found: ${plant}`, async () => {
    for (let seed = 1; seed <= 50; seed++) {
      const { problem } = await runRenewals(seed, SAVES, plant);
      if (problem !== undefined) return;
    }
    assert.unreachable("not found");
  });
}

test.run();
