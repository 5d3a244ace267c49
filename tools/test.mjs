/**
 * The tests, in two halves: see USAGE.
 *
 * Ends with one line "N passed, N failed, N skipped" over everything that ran.
 */
import { spawn } from "node:child_process";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";

const USAGE = `Usage: npm test
       npm run test:all [-- --rest [--sampled]]

"npm test" is lint, the unit tests and simulations of every package, and the groups of end-to-end
scenarios that stand for the others. "npm run test:all" adds the other groups, with torture, fault points
and the newest kernel, and the power cuts.

  --all      everything
  --rest     only what "npm test" leaves out
  --sampled  of the end-to-end scenarios and power cuts a part, other ones in each run, where unit tests
             or simulations prove the same (test/e2e/COVERAGE.md)
  --help`;

const root = fileURLToPath(new URL("..", import.meta.url));
const bin = (name) => join(root, "node_modules", ".bin", name);
const SUMMARY = /^(\d+) passed, (\d+) failed(?:, (\d+) skipped)?$/gm;
const END_TO_END = [process.execPath, "test/e2e/run.mjs"];

const FIRST = [
  { name: "lint", command: [bin("biome"), "check", "--error-on-warnings", "."] },
  { name: "dead code", command: [bin("knip"), "--no-progress", "--treat-config-hints-as-errors"] },
  { name: "layers", command: [process.execPath, "tools/lint-layers.mjs"] },
  {
    name: "unit tests",
    command: [bin("nx"), "run-many", "-t", "test", "--output-style=static"],
    counts: true,
  },
  { name: "packages", command: [process.execPath, "test/install/run.mjs"], counts: true },
  { name: "debian package", command: [process.execPath, "test/package/run.mjs"], counts: true },
  { name: "end to end, quick", command: [...END_TO_END, "--quick"], counts: true },
];
const REST = [
  { name: "end to end, the rest", command: [...END_TO_END, "--rest"], counts: true, samples: true },
  {
    name: "power cuts",
    command: [process.execPath, "test/e2e/power/run.mjs"],
    counts: true,
    samples: true,
  },
  { name: "arm64", command: [process.execPath, "test/arm64/run.mjs"], counts: true },
  { name: "release", command: [process.execPath, "tools/release/release.mjs", "--dry-run"] },
];

function steps() {
  const flag = { type: "boolean" };
  try {
    const options = { all: flag, rest: flag, sampled: flag, help: flag };
    const { values } = parseArgs({ options });
    if (values.help) {
      console.log(USAGE);
      process.exit(0);
    }
    const rest = REST.map((step) => {
      const sampled = values.sampled && step.samples;
      return sampled ? { ...step, command: [...step.command, "--sampled"] } : step;
    });
    if (values.rest) return rest;
    return values.all ? [...FIRST, ...rest] : FIRST;
  } catch (error) {
    console.error(`test: ${error.message}. See --help`);
    return process.exit(2);
  }
}

function run(command) {
  return new Promise((done) => {
    const [program, ...args] = command;
    const child = spawn(program, args, { cwd: root, stdio: ["ignore", "pipe", "inherit"] });
    let output = "";
    child.stdout.on("data", (chunk) => {
      output += chunk;
      process.stdout.write(chunk);
    });
    child.on("error", (error) => done({ status: 1, output: String(error) }));
    child.on("close", (status) => done({ status: status ?? 1, output }));
  });
}

const totals = { passed: 0, failed: 0, skipped: 0 };
for (const step of steps()) {
  const startedMs = Date.now();
  console.log(`\n── ${step.name}`);
  const { status, output } = await run(step.command);
  const summaries = [...output.matchAll(SUMMARY)];
  for (const [, passed, failed, skipped] of summaries) {
    totals.passed += Number(passed);
    totals.failed += Number(failed);
    totals.skipped += Number(skipped ?? 0);
  }
  const silent = step.counts === true && summaries.length === 0;
  if (status !== 0 || silent) {
    totals.failed = Math.max(totals.failed, 1);
    console.log(`✗ ${step.name}: ${silent ? "no test ran" : `exit status ${status}`}`);
  } else {
    console.log(`✓ ${step.name}: ${Math.round((Date.now() - startedMs) / 1000)} s`);
  }
}
console.log(`\n${totals.passed} passed, ${totals.failed} failed, ${totals.skipped} skipped`);
process.exit(totals.failed === 0 ? 0 : 1);
