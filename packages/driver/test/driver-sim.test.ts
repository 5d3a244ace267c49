/**
 * The whole driver on a simulated machine, from seeds: SEED=N replays one, SEEDS=N runs so many. What is
 * acknowledged is kept over deaths at the driver's fault points, what was flushed over power cuts; no
 * front has a wrong byte, no image, no change map misses a write, nothing hangs.
 */
import { test } from "uvu";
import * as assert from "uvu/assert";
import { FAULT_POINTS } from "./sim/load.js";
import { Simulation } from "./sim/simulation.js";

const SEEDS = 14;
const STEPS = 1000;
const DEATH_ONE_IN = 40;
const { SEED, SEEDS: asked } = process.env;
const first = Number(SEED ?? 1);
const count = SEED === undefined ? Number(asked ?? SEEDS) : 1;

test(`nothing that was acknowledged is lost, from ${count} seeds`, async () => {
  const passed = new Set<string>();
  const deaths = new Set<string>();
  const total = { operations: 0, lives: 0, takes: 0, cuts: 0, stops: 0, proved: 0, past: 0 };
  for (let seed = first; seed < first + count; seed++) {
    const simulation = new Simulation({ seed, deathOneIn: DEATH_ONE_IN });
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
    total.stops += simulation.stops;
    total.proved += simulation.seen.get("proved") ?? 0;
    total.past += simulation.seen.get("past") ?? 0;
    total.takes += simulation.seen.get("take") ?? 0;
  }
  const never = FAULT_POINTS.filter((point) => !passed.has(point));
  console.log(
    `${total.operations} operations, ${total.lives} lives, ${total.cuts} power cuts, ${total.stops} orderly stops, ` +
      `${total.past} writes past fronts, ${total.proved} maps that continued proved, ${total.takes} takes; ` +
      `of ${FAULT_POINTS.length} fault points ${passed.size} passed, deaths at ${deaths.size}; ` +
      `not passed: ${never.join(" ")}`,
  );
  if (count < SEEDS) return;
  // What did not happen was not tested.
  assert.ok(total.operations > 10_000, `${total.operations} operations`);
  assert.ok(total.stops > 12, `${total.stops} orderly stops`);
  assert.ok(total.proved > 5, `${total.proved} maps proved`);
  assert.ok(total.past > 20, `${total.past} writes past fronts`);
  assert.ok(total.cuts > 12, `${total.cuts} power cuts`);
  assert.ok(deaths.size > FAULT_POINTS.length / 3, `deaths at ${deaths.size} fault points`);
});

test.run();
