/** The simulation finds each of these planted faults, from one of some seeds. SHOW=1 prints which. */
import { test } from "uvu";
import * as assert from "uvu/assert";
import { PLANTED_FAULTS } from "./sim/planted-faults.js";
import { type PlantedFault, sabotageWith } from "./sim/planting.js";
import { type SimOptions, Simulation } from "./sim/simulation.js";

const SEEDS_MAX = 300;
const STEPS_PER_SEED = 5000;

/** Runs that have found a fault, by their options: without the fault they must find nothing. */
const found = new Map<string, SimOptions>();

function finds(fault: PlantedFault, seed: number): boolean {
  const { hasSequences = false, hasFirstWrites = false, hasCuts = false, name } = fault;
  const undo = fault.global?.();
  const options = { seed, hasSequences, hasFirstWrites, hasCuts };
  const simulation = new Simulation({ ...options, sabotage: sabotageWith(fault) });
  try {
    simulation.run(STEPS_PER_SEED);
    return false;
  } catch (error) {
    found.set(`${seed} ${hasSequences} ${hasFirstWrites} ${hasCuts}`, options);
    if (process.env["SHOW"])
      console.log(`${name}: seed ${seed}, step ${simulation.steps}: ${(error as Error).message}`);
    return true;
  } finally {
    undo?.();
  }
}

for (const fault of PLANTED_FAULTS) {
  test(`the simulation finds: ${fault.name}`, () => {
    const { seed: known = 1 } = fault;
    for (let tried = 0; tried < SEEDS_MAX; tried++) {
      if (finds(fault, 1 + ((known - 1 + tried) % SEEDS_MAX))) return;
    }
    assert.unreachable(`not found with ${SEEDS_MAX} seeds`);
  });
}

test("without a fault the same seeds find nothing", () => {
  assert.ok(found.size > 0);
  for (const options of found.values()) new Simulation(options).run(STEPS_PER_SEED);
});

test.run();
