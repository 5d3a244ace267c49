/**
 * Power cuts: a machine with persistent trackers under load loses its power at random moments, and what
 * it finds afterwards is compared with what its disks have seen. See --help.
 */
import { parseArgs } from "node:util";
import { seededRandom } from "../lib/random.mjs";
import { partOf } from "../lib/sample.mjs";
import { vmsAtOnce } from "../machines.mjs";
import { EmulatorFault, Machine } from "./machine.mjs";
import { randomCuts } from "./random-cuts.mjs";
import { SCENARIOS } from "./scenarios.mjs";

const USAGE = `Usage: npm run power-cuts -- [OPTION]...

  --cuts N         power cuts under load; 0: none (default 3)
  --seed TEXT      of the moments and of what survives; printed at the start
  --only PATTERN   only scenarios whose names match the regular expression
  --sampled        half of the scenarios, by the seed, beside the cuts
  --help`;

const { values } = parseArgs({
  options: {
    cuts: { type: "string" },
    seed: { type: "string" },
    only: { type: "string" },
    sampled: { type: "boolean" },
    help: { type: "boolean", short: "h" },
  },
});
if (values.help) {
  console.log(USAGE);
  process.exit(0);
}
const cuts = Number(values.cuts ?? 3);
if (!Number.isSafeInteger(cuts) || cuts < 0) {
  console.error("power-cuts: --cuts wants a whole number");
  process.exit(2);
}
const seed = values.seed ?? process.env.SEED ?? String(Date.now() % 1_000_000);
/** How often one test is restarted because the emulator broke its machine. */
const EMULATOR_FAULTS_BORNE = 2;
const counts = { passed: 0, failed: 0 };

async function runTest(name, body) {
  const started = performance.now();
  const machine = new Machine(seededRandom(`${seed} ${name}`));
  await machine.open();
  try {
    const note = await body(machine, seededRandom(`${name} ${seed}`));
    counts.passed++;
    const seconds = Math.round((performance.now() - started) / 1000);
    console.log(`✓ power: ${name}${note ? ` (${note})` : ""}, ${seconds} s`);
  } finally {
    await machine.close();
  }
}

async function runTestToItsEnd(name, body) {
  for (let faults = 0; ; faults++) {
    try {
      return await runTest(name, body);
    } catch (error) {
      if (error instanceof EmulatorFault && faults < EMULATOR_FAULTS_BORNE) {
        console.log(`! the emulator broke the machine (${error.message}); begun again: ${name}`);
        continue;
      }
      counts.failed++;
      console.log(`✗ power: ${name}, seed ${seed}\n${error.stack ?? error}`);
      return;
    }
  }
}

console.log(`seed ${seed}`);
const scenarios = Object.entries(SCENARIOS);
const tests = [
  ...(cuts > 0 ? [[`${cuts} cuts under load`, randomCuts(cuts)]] : []),
  ...partOf("power", scenarios, 2, values.sampled ? seed : undefined),
];
const pattern = new RegExp(values.only ?? "");
const queue = tests.filter(([name]) => pattern.test(name));
async function runQueue() {
  for (let test = queue.shift(); test !== undefined; test = queue.shift()) {
    await runTestToItsEnd(...test);
  }
}
await Promise.all(Array.from({ length: vmsAtOnce() }, runQueue));
console.log(`${counts.passed} passed, ${counts.failed} failed`);
process.exit(counts.failed === 0 && counts.passed > 0 ? 0 : 1);
