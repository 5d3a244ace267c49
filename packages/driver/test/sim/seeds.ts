/** Runs many simulations and counts what happened: SEED=N replays one, SEEDS=N runs so many. */
import * as assert from "uvu/assert";
import type { Point } from "./arming.js";
import { FAULT_POINTS, GROWTH_FAULT_POINTS } from "./load.js";
import { type SimOptions, Simulation } from "./simulation.js";

const { SEED, SEEDS } = process.env;

/** Totals of all simulations. */
export class Totals {
  operations = 0;
  lives = 0;
  cuts = 0;
  stops = 0;
  readonly passed: Set<Point> = new Set();
  readonly deaths: Set<Point> = new Set();
  readonly #seen = new Map<string, number>();

  add(simulation: Simulation): void {
    this.operations += simulation.operations;
    this.lives += simulation.lives;
    this.cuts += simulation.cuts;
    this.stops += simulation.stops;
    for (const point of simulation.pointsPassed) this.passed.add(point);
    for (const point of simulation.pointsOfDeath) this.deaths.add(point);
    for (const [what, count] of simulation.seen) this.#seen.set(what, this.seen(what) + count);
  }

  seen(what: string): number {
    return this.#seen.get(what) ?? 0;
  }

  toString(): string {
    const points: readonly Point[] = [...FAULT_POINTS, ...GROWTH_FAULT_POINTS];
    const never = points.filter((point) => !this.passed.has(point));
    return (
      `${this.operations} operations, ${this.lives} lives, ${this.cuts} power cuts, ` +
      `${this.stops} orderly stops, ${JSON.stringify(Object.fromEntries(this.#seen))}; ` +
      `of ${points.length} fault points ${this.passed.size} passed, ` +
      `deaths at ${this.deaths.size}; not passed: ${never.join(" ")}`
    );
  }
}

/**
 * @param usual how many seeds, unless an environment variable says otherwise
 * @returns undefined for fewer seeds: some behaviours may not have occurred
 */
export async function runSeeds(
  usual: number,
  steps: number,
  options: Omit<SimOptions, "seed">,
): Promise<Totals | undefined> {
  const first = Number(SEED ?? 1);
  const count = SEED === undefined ? Number(SEEDS ?? usual) : 1;
  const totals = new Totals();
  for (let seed = first; seed < first + count; seed++) {
    const simulation = new Simulation({ ...options, seed });
    try {
      await simulation.run(steps);
    } catch (error) {
      const told = simulation.trace.join("\n  ");
      const { message } = error as Error;
      const more = [
        "Failures",
        "Hangs",
        "Sequences",
        "FirstWrites",
        "Growth",
        "Deletions",
      ] as const;
      const words = more
        .filter((word) => options[`has${word}`])
        .map((word) => ` --${word.replace("tW", "t-w").toLowerCase()}`);
      const replay = `SEED=${seed} (--deaths ${options.deathOneIn}${words.join("")})`;
      assert.unreachable(`${replay}, step ${simulation.steps}: ${message}\n  ${told}`);
    }
    totals.add(simulation);
  }
  console.log(String(totals));
  return count < usual ? undefined : totals;
}
