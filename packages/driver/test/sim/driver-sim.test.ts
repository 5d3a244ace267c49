/**
 * The whole driver on a simulated machine, from seeds: SEED=N replays one, SEEDS=N runs so many. What is
 * acknowledged is kept over deaths at the driver's fault points, what was flushed over power cuts; no
 * front has a wrong byte, no image, no change map misses a write, nothing hangs.
 */
import { test } from "uvu";
import * as assert from "uvu/assert";
import { FAULT_POINTS } from "./load.js";
import { Simulation } from "./simulation.js";

const SEEDS = 30;
const STEPS = 1500;
const { SEED, SEEDS: asked } = process.env;
const first = Number(SEED ?? 1);
const count = SEED === undefined ? Number(asked ?? SEEDS) : 1;

test(`nothing that was acknowledged is lost, from ${count} seeds`, async () => {
  const passed = new Set<string>();
  const deaths = new Set<string>();
  const total = { operations: 0, lives: 0, takes: 0, cuts: 0 };
  for (let seed = first; seed < first + count; seed++) {
    const simulation = new Simulation({ seed });
    try {
      await simulation.run(STEPS);
    } catch (error) {
      const told = simulation.trace.join("\n  ");
      const { message } = error as Error;
      assert.unreachable(`SEED=${seed}, step ${simulation.steps}: ${message}\n  ${told}`);
    }
    for (const point of simulation.pointsPassed) passed.add(point);
    for (const point of simulation.pointsOfDeath) deaths.add(point);
    total.operations += simulation.operations;
    total.lives += simulation.lives;
    total.cuts += simulation.cuts;
    total.takes += simulation.seen.get("take") ?? 0;
  }
  const never = FAULT_POINTS.filter((point) => !passed.has(point));
  console.log(
    `${total.operations} operations, ${total.lives} lives, ${total.cuts} power cuts, ${total.takes} takes; ` +
      `of ${FAULT_POINTS.length} fault points ${passed.size} passed, deaths at ${deaths.size}; ` +
      `not passed: ${never.join(" ")}`,
  );
  if (count < SEEDS) return;
  // What did not happen was not tested.
  assert.ok(total.operations > 30_000, `${total.operations} operations`);
  assert.ok(total.cuts > 20, `${total.cuts} power cuts`);
  assert.ok(deaths.size > FAULT_POINTS.length / 2, `deaths at ${deaths.size} fault points`);
});

test.run();
