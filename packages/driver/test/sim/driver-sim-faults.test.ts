/** The simulation finds faults: each of these is planted, and found from one of some seeds. */
import { test } from "uvu";
import * as assert from "uvu/assert";
import { PLANTED_FAULTS } from "./planted-faults.js";
import { Simulation } from "./simulation.js";

const SEEDS_MAX = 40;
const STEPS = 1500;

async function findsIn(seed: number): Promise<string | undefined> {
  try {
    // Some faults show at a death, others only in a life that is long enough for two takes.
    const deathOneIn = seed % 2 === 0 ? 300 : 30;
    await new Simulation({ seed, deathOneIn, limitMs: 20_000 }).run(STEPS);
    return undefined;
  } catch (error) {
    return (error as Error).message;
  }
}

for (const { what, plant } of PLANTED_FAULTS) {
  test(`found: ${what}`, async () => {
    const takeOut = plant();
    try {
      for (let seed = 1; seed <= SEEDS_MAX; seed++) {
        const found = await findsIn(seed);
        if (found === undefined) continue;
        console.log(`seed ${seed}: ${what}: ${found.split("\n")[0]}`);
        return;
      }
      assert.unreachable(`not found: ${what}`);
    } finally {
      takeOut();
    }
  });
}

test.run();
