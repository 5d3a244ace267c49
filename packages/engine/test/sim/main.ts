/** Runs the simulation from the command line; a failure prints its seed, its step and a short trace. */
import { Simulation } from "./simulation.js";

const TRACE_LINES = 60;

function numberAfter(name: string, fallback: number): number {
  const at = process.argv.indexOf(name);
  return at < 0 ? fallback : Number(process.argv[at + 1]);
}

/** Runs again to the failing step and prints the last lines of what happened. */
function explain(seed: number, steps: number): void {
  const lines: string[] = [];
  const again = new Simulation({
    seed,
    hasFirstWrites,
    hasSequences,
    hasCuts,
    hasSlices,
    onTrace: (line) => {
      lines.push(line);
      if (lines.length > TRACE_LINES) lines.shift();
    },
  });
  try {
    again.run(steps);
  } catch {
    console.error(lines.join("\n"));
  }
}

const steps = numberAfter("--steps", 1_000_000);
const seeds = numberAfter("--seeds", 1);
const firstSeed = numberAfter("--seed", 1);
const hasFirstWrites = process.argv.includes("--first-writes");
const hasSequences = process.argv.includes("--sequences");
const hasCuts = process.argv.includes("--cuts");
const hasSlices = process.argv.includes("--slices");
const onTrace = process.argv.includes("--trace")
  ? { onTrace: (line: string) => console.log(line) }
  : {};
for (let seed = firstSeed; seed < firstSeed + seeds; seed++) {
  const simulation = new Simulation({
    seed,
    hasFirstWrites,
    hasSequences,
    hasCuts,
    hasSlices,
    ...onTrace,
  });
  const begin = process.hrtime.bigint();
  try {
    simulation.run(steps);
  } catch (error) {
    explain(seed, steps);
    console.error(`seed ${seed} fails at step ${simulation.steps}: ${(error as Error).message}`);
    console.error(
      `again: node test/sim/run.mjs --seed ${seed} --steps ${simulation.steps} --trace`,
    );
    if (process.argv.includes("--stack")) console.error((error as Error).stack);
    process.exit(1);
  }
  const seconds = Number(process.hrtime.bigint() - begin) / 1e9;
  console.log(
    `seed ${seed}: ${steps} steps, ${simulation.cycle.taken} snapshots, ` +
      `${simulation.crashes} crashes, ${seconds.toFixed(1)} s`,
  );
  if (process.argv.includes("--counters")) console.log(simulation.totals());
}
