/** The simulation finds each of these planted faults, from one of some seeds. */
import { test } from "uvu";
import { testThatFinds } from "./found-faults.js";
import { PLANTED_COPIES } from "./planted-copies.js";
import { PLANTED_FAULTS } from "./planted-faults.js";
import { PLANTED_FREEZES } from "./planted-freezes.js";

// Some faults show at a death, others only in a life long enough for two takes.
testThatFinds(
  [...PLANTED_FAULTS, ...PLANTED_COPIES, ...PLANTED_FREEZES],
  ({ deathOneIn }, seed) => ({ deathOneIn: deathOneIn ?? (seed % 2 === 0 ? 300 : 30) }),
);

test.run();
