import { test } from "uvu";
import * as assert from "uvu/assert";
import { PLANTED_FAULTS } from "./sim/planted-faults.js";
import { type PlantedFault, sabotageWith } from "./sim/planting.js";
import { Simulation } from "./sim/simulation.js";

const SEEDS_MAX = 300;
const STEPS_PER_SEED = 5000;

/** Steps until the simulation notices the fault, or 0 if it never does. */
function stepsToFind(fault: PlantedFault): number {
  let steps = 0;
  for (let seed = 1; seed <= SEEDS_MAX; seed++) {
    const undo = fault.global?.();
    const { hasSequences } = fault;
    const simulation = new Simulation({ seed, hasSequences, sabotage: sabotageWith(fault) });
    try {
      simulation.run(STEPS_PER_SEED);
    } catch (error) {
      if (process.env["SHOW"]) {
        console.log(
          `${fault.name}: ${steps + simulation.steps} steps, ${(error as Error).message}`,
        );
      }
      return steps + simulation.steps;
    } finally {
      undo?.();
    }
    steps += STEPS_PER_SEED;
  }
  return 0;
}

for (const fault of PLANTED_FAULTS) {
  test(`the simulation finds: ${fault.name}`, () => {
    assert.is.not(stepsToFind(fault), 0);
  });
}

test("without a fault the same seeds find nothing", () => {
  for (let seed = 1; seed <= SEEDS_MAX; seed++) new Simulation({ seed }).run(STEPS_PER_SEED);
});

test.run();
