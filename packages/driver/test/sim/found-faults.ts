/** Tests of the simulation itself: it has to find each planted fault of the product, from one of some seeds. */
import { test } from "uvu";
import * as assert from "uvu/assert";
import type { PlantedFault } from "./planted-faults.js";
import { type SimOptions, Simulation } from "./simulation.js";

/** One seed in thirty finds the rarest faults, and other ones whenever the driver has changed. */
const SEEDS_MAX = 120;
export const STEPS = 1500;

type Options = Omit<SimOptions, "seed" | "limitMs">;

/**
 * One test for each fault.
 * @param optionsOf the simulation's options for a seed
 * @param expected the message of the violation
 */
export function testThatFinds(
  faults: readonly PlantedFault[],
  optionsOf: (fault: PlantedFault, seed: number) => Options,
  expected = /./,
): void {
  for (const fault of faults) {
    const { what, plant, seed: known = 1 } = fault;
    test(`found: ${what}`, async () => {
      const takeOut = plant();
      try {
        for (let tried = 0; tried < SEEDS_MAX; tried++) {
          const seed = known + tried;
          const asked = optionsOf(fault, seed);
          // An operation on a medium that hangs may take as long.
          const limit = asked.hasHangs === true ? {} : { limitMs: 20_000 };
          const options = { ...asked, ...limit, seed };
          const found = await new Simulation(options).run(STEPS).then(
            () => undefined,
            (error: Error) => error.message,
          );
          if (found === undefined) continue;
          assert.match(found, expected);
          console.log(`seed ${seed}: ${what}: ${found.split("\n")[0]}`);
          if (tried > 0)
            console.log(`note: ${tried} simulations fewer with "seed: ${seed}" for: ${what}`);
          return;
        }
        assert.unreachable(`not found: ${what}`);
      } finally {
        takeOut();
      }
    });
  }
}
