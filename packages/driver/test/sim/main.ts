/** Runs the simulation from the command line; a failure prints its seed and what happened last. */
import { parseArgs } from "node:util";
import { Simulation } from "./simulation.js";

const { values } = parseArgs({
  options: {
    seed: { type: "string", default: "1" },
    seeds: { type: "string", default: "1" },
    steps: { type: "string", default: "2000" },
    trace: { type: "boolean", default: false },
    failures: { type: "boolean", default: false },
    hangs: { type: "boolean", default: false },
    "first-writes": { type: "boolean", default: false },
    growth: { type: "boolean", default: false },
    deletions: { type: "boolean", default: false },
    sequences: { type: "boolean", default: false },
    deaths: { type: "string", default: "60" },
  },
});
const steps = Number(values.steps);
const first = Number(values.seed);
for (let seed = first; seed < first + Number(values.seeds); seed++) {
  const simulation = new Simulation({
    seed,
    deathOneIn: Number(values.deaths),
    hasFailures: values.failures,
    hasHangs: values.hangs,
    hasGrowth: values.growth,
    hasDeletions: values.deletions,
    hasSequences: values.sequences,
    hasFirstWrites: values["first-writes"],
    onTrace: values.trace ? (line) => console.log(line) : undefined,
  });
  const begin = process.cpuUsage();
  try {
    await simulation.run(steps);
  } catch (error) {
    console.error(simulation.trace.join("\n"));
    console.error(`seed ${seed}, step ${simulation.steps}: ${(error as Error).stack}`);
    process.exit(1);
  }
  // Clocks are simulated.
  const { user, system } = process.cpuUsage(begin);
  const seconds = (user + system) / 1e6;
  console.log(
    `seed ${seed}: ${simulation.operations} operations, ${simulation.lives} lives, ` +
      `${seconds.toFixed(1)} s, ${JSON.stringify(Object.fromEntries(simulation.seen))}, ` +
      `points ${simulation.pointsPassed.size}, deaths at ${simulation.pointsOfDeath.size}`,
  );
}
