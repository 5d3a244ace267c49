import { test } from "uvu";
import * as assert from "uvu/assert";
import { Simulation } from "./sim/simulation.js";

const SEEDS = 24;
const STEPS_PER_SEED = 50_000;

for (let seed = 101; seed < 101 + SEEDS; seed++) {
  test(`seed ${seed} runs ${STEPS_PER_SEED} steps without a violation`, () => {
    new Simulation({ seed }).run(STEPS_PER_SEED);
  });
}

test("writes in sequence, which are copied ahead, run without a violation", () => {
  let ahead = 0;
  for (let seed = 1; seed <= SEEDS; seed++) {
    const simulation = new Simulation({ seed, hasSequences: true });
    simulation.run(STEPS_PER_SEED);
    ahead += simulation.totals()["copiesAhead"] as number;
  }
  assert.ok(ahead > 100, `${ahead} copies ahead`);
});

for (const hasLongCopies of [false, true]) {
  const length = hasLongCopies ? "of up to 16 blocks" : "of up to 3 blocks";
  test(`first writes ${length}, whose copies go behind them, run without a violation`, () => {
    const sum = { copiesBehind: 0, copiesResumed: 0, readsGoneBack: 0 };
    for (let seed = 1; seed <= SEEDS; seed++) {
      const simulation = new Simulation({ seed, hasFirstWrites: true, hasLongCopies });
      simulation.run(STEPS_PER_SEED);
      const totals = simulation.totals();
      for (const name of Object.keys(sum) as (keyof typeof sum)[]) sum[name] += totals[name] ?? 0;
    }
    for (const [name, count] of Object.entries(sum)) assert.ok(count > 20, `${name} is ${count}`);
  });
}

test("stores that are truncated run without a violation", () => {
  let lost = 0;
  for (let seed = 1; seed <= SEEDS / 2; seed++) {
    const hasSequences = seed % 3 === 0;
    const hasFirstWrites = seed % 3 === 1;
    const simulation = new Simulation({ seed, hasCuts: true, hasSequences, hasFirstWrites });
    simulation.run(STEPS_PER_SEED);
    lost += simulation.totals()["lostBlocks"] as number;
  }
  assert.ok(lost > 100, `${lost} blocks lost`);
});

test("maps of several slices, some without memory, run without a violation", () => {
  let lost = 0;
  for (let seed = 1; seed <= 6; seed++) {
    const simulation = new Simulation({ seed, hasSlices: true, hasCuts: seed % 2 === 0 });
    simulation.run(10_000);
    lost += simulation.totals()["lostBlocks"] as number;
  }
  assert.ok(lost > 10_000, `${lost} blocks lost`);
});

test("one long run passes the rollover of the CBT numbers", () => {
  const simulation = new Simulation({ seed: 7 });
  simulation.run(500_000);
  assert.ok(simulation.cycle.taken > 512);
});

test("the runs reach every part of the engine", () => {
  const sum: Record<string, number> = {};
  for (let seed = 1; seed <= 12; seed++) {
    const simulation = new Simulation({ seed });
    simulation.run(STEPS_PER_SEED);
    for (const [name, count] of Object.entries(simulation.totals())) {
      sum[name] = (sum[name] ?? 0) + count;
    }
  }
  // Only writes in sequence are copied ahead.
  delete sum["copiesAhead"];
  // Only first writes leave copies to resume.
  delete sum["copiesResumed"];
  delete sum["readsGoneBack"];
  for (const [name, count] of Object.entries(sum)) assert.ok(count > 10, `${name} is ${count}`);
});

test("the same seed gives the same run", () => {
  const first = new Simulation({ seed: 3 });
  const second = new Simulation({ seed: 3 });
  first.run(5000);
  second.run(5000);
  assert.equal(first.totals(), second.totals());
});

test.run();
