/**
 * The tests, in two halves: see USAGE.
 *
 * Steps of the first half run beside each other and share slots (slots.mjs), so that no processor is idle while anything
 * is left to run: an emulated guest keeps one busy for minutes, as do lint, and each test file of a package. The second half is one step after the other, as most have many machines or files of their own.
 *
 * Ends with one line "N passed, N failed, N skipped" over everything that ran.
 */
import { spawn } from "node:child_process";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { availableParallelism } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { vmsAtOnce } from "../test/e2e/machines.mjs";
import { GROUPS } from "../test/e2e/plan.mjs";
import { acquireSlot, BUILT_VARIABLE, openSlots, SLOT_COUNT, SLOTS_VARIABLE } from "./slots.mjs";

const USAGE = `Usage: npm test [-- --uml]
       npm run test:all [-- --rest [--sampled]]

"npm test" is lint, the unit tests and simulations of every package, and the end-to-end tests that stand
for the others. "npm run test:all" adds the remaining scenarios, with torture, fault points and the newest kernel,
the power cuts, and the proof of a release: installs of tarballs and the Debian package, arm64, a dry run.

  --all      everything
  --rest     only what "npm test" leaves out
  --sampled  only a part of the end-to-end scenarios and power cuts, different in each run, where unit
             tests or simulations prove the same (test/e2e/COVERAGE.md)
  --uml      without --all and --rest: the end-to-end tests on User Mode Linux, at native speed, if you
             have built that (tools/vm/README.md)
  --help`;

const root = fileURLToPath(new URL("..", import.meta.url));
const bin = (name) => join(root, "node_modules", ".bin", name);
const SUMMARY = /^(\d+) passed, (\d+) failed(?:, (\d+) skipped)?$/gm;
const END_TO_END = [process.execPath, "test/e2e/run.mjs"];

/** Packages whose tests are under way at a time: each needs a few processes, and most wait for a slot. */
const PACKAGES_AT_ONCE = 2 + availableParallelism();
/** Time for a step's last output after its end. */
const LEFT_TIME_LIMIT_MS = 60_000;

const LINT = [
  { name: "lint", command: [bin("biome"), "check", "--error-on-warnings", "."] },
  { name: "dead code", command: [bin("knip"), "--no-progress", "--treat-config-hints-as-errors"] },
  { name: "layers", command: [process.execPath, "tools/lint-layers.mjs"] },
];
const MACHINES = GROUPS.filter(({ isQuick }) => isQuick).map(({ name }) => ({
  name: `end to end, ${name}`,
  command: [...END_TO_END, "--quick", "--group", name],
  counts: true,
}));
const TEST_PROJECTS = readdirSync(join(root, "packages"))
  .map((name) => `packages/${name}/test`)
  .filter((path) => existsSync(join(root, path, "tsconfig.json")));
/** One compiler run for all packages: separate ones would read common files repeatedly. */
const COMPILE = { name: "tests compiled", command: [bin("tsc"), "-b", ...TEST_PROJECTS] };
/** Without nx's builds: setup has made them, and the guests use them. */
const UNITS = {
  name: "unit tests",
  command: [
    ...[bin("nx"), "run-many", "-t", "test", "--output-style=static"],
    ...["--excludeTaskDependencies", `--parallel=${PACKAGES_AT_ONCE}`],
  ],
  counts: true,
};
/** As many commits as an area's journal may see in a busy day; "npm test" has a tenth of them, and a third of the seeds. */
const COMPACTION = {
  name: "a million commits",
  command: ["npm", "--workspace=@blksnap/driver", "test", "--", "area-compaction"],
  env: { AREA_COMPACTION_COMMITS: "1000000", AREA_COMPACTION_SEEDS: "60" },
  counts: true,
};
/** "npm test" has one in five of them. */
const HOSTILE = {
  name: "ten thousand hostile requests",
  command: ["npm", "--workspace=@blksnap/api-server", "test", "--", "control-fuzz"],
  env: { HOSTILE_REQUESTS: "10000" },
  counts: true,
};
const ARM64 = {
  name: "arm64",
  command: [process.execPath, "test/arm64/run.mjs"],
  counts: true,
};
/** One after the other; of several lists in place of a step each is one lane beside the others: none of them fills the machine. */
const REST = [
  { name: "end to end, the rest", command: [...END_TO_END, "--rest"], counts: true, samples: true },
  {
    name: "power cuts",
    command: [process.execPath, "test/e2e/power/run.mjs"],
    counts: true,
    samples: true,
  },
  [[COMPACTION, HOSTILE], [ARM64]],
  // These write into the packages' folders, so nothing else may run.
  { name: "packages", command: [process.execPath, "test/install/run.mjs"], counts: true },
  { name: "debian package", command: [process.execPath, "test/package/run.mjs"], counts: true },
  { name: "release", command: [process.execPath, "tools/release/release.mjs", "--dry-run"] },
];

function steps() {
  const flag = { type: "boolean" };
  try {
    const options = { all: flag, rest: flag, sampled: flag, uml: flag, help: flag };
    const { values } = parseArgs({ options });
    if (values.help) {
      console.log(USAGE);
      process.exit(0);
    }
    const isMore = values.rest || values.all;
    if (values.uml && isMore) throw new Error("--uml is for npm test alone");
    const rest = REST.map((step) => {
      const sampled = values.sampled && step.samples;
      return sampled ? { ...step, command: [...step.command, "--sampled"] } : step;
    });
    return { first: !values.rest, isUml: values.uml === true, rest: isMore ? rest : [] };
  } catch (error) {
    console.error(`test: ${error.message}. See --help`);
    return process.exit(2);
  }
}

/** Passes output on, line by line; lines of concurrent steps begin with their step. */
function linePrinter(prefix) {
  let rest = "";
  return {
    write(chunk) {
      const lines = (rest + chunk).split("\n");
      rest = lines.pop();
      for (const line of lines) if (line !== "" || prefix === "") console.log(prefix + line);
    },
    end() {
      if (rest !== "") console.log(prefix + rest);
    },
  };
}

function run(command, { env, prefix }) {
  return new Promise((done) => {
    const [program, ...args] = command;
    const child = spawn(program, args, { cwd: root, env, stdio: ["ignore", "pipe", "pipe"] });
    let output = "";
    for (const stream of [child.stdout, child.stderr]) {
      const printer = linePrinter(prefix);
      stream.setEncoding("utf8");
      stream.on("data", printer.write);
      stream.on("end", printer.end);
    }
    child.stdout.on("data", (chunk) => {
      output += chunk;
    });
    // A process that a step has left behind may hold the pipes forever.
    let leftTimer;
    let isLeft = false;
    child.on("exit", () => {
      leftTimer = setTimeout(() => {
        isLeft = true;
        child.stdout.destroy();
        child.stderr.destroy();
      }, LEFT_TIME_LIMIT_MS);
    });
    child.on("error", (error) => done({ status: 1, output: String(error), isLeft }));
    child.on("close", (status) => {
      clearTimeout(leftTimer);
      done({ status: status ?? 1, output, isLeft });
    });
  });
}

/** Why a step has failed; undefined if it succeeded. */
function problemOf({ status, isLeft }, hasRun) {
  if (status !== 0) return `exit status ${status}`;
  if (isLeft) return "it left a process behind that holds its output";
  return hasRun ? undefined : "no test ran";
}

const totals = { passed: 0, failed: 0, skipped: 0 };

/** What unit tests report, as in run-tests.mjs: a package, and then the files of it that take long. */
const FILE_TIME = /^> nx run (\S+):test|^✓ (\S+): .*\(([\d.]+) s of a processor\)/gm;
const FILES_TOLD = 10;

/** The test files that take most processor time: what to examine when "npm test" gets slow. */
function printCostliest(output) {
  let inPackage = "";
  const files = [];
  for (const [, name, file, seconds] of output.matchAll(FILE_TIME)) {
    if (file === undefined) inPackage = name;
    else files.push({ file: `${inPackage} ${file}`, seconds: Number(seconds) });
  }
  files.sort((one, other) => other.seconds - one.seconds);
  for (const { file, seconds } of files.slice(0, FILES_TOLD))
    console.log(`  ${file}: ${seconds} s`);
}

/** Returns whether it succeeded. */
async function runStep(step, { env = process.env, prefix = "" } = {}) {
  const startedMs = Date.now();
  console.log(`\n── ${step.name}`);
  const ended = await run(step.command, { env: { ...env, ...step.env }, prefix });
  const summaries = [...ended.output.matchAll(SUMMARY)];
  for (const [, passed, failed, skipped] of summaries) {
    totals.passed += Number(passed);
    totals.failed += Number(failed);
    totals.skipped += Number(skipped ?? 0);
  }
  const problem = problemOf(ended, step.counts !== true || summaries.length > 0);
  if (problem !== undefined) {
    totals.failed = Math.max(totals.failed, 1);
    console.log(`✗ ${step.name}: ${problem}`);
  } else {
    console.log(`✓ ${step.name}: ${Math.round((Date.now() - startedMs) / 1000)} s`);
  }
  printCostliest(ended.output);
  return problem === undefined;
}

/** One after the other, each in a slot. Returns whether all succeeded. */
async function inSlots(path, steps) {
  let isWell = true;
  for (const step of steps) {
    const release = await acquireSlot(path);
    isWell = (await runStep(step, { prefix: `${step.name}: ` })) && isWell;
    release();
  }
  return isWell;
}

/** Returns nothing: failures are in the totals. */
async function runLanes(lanes) {
  const ended = lanes.map(async (steps) => {
    for (const step of steps) await runStep(step, { prefix: `${step.name}: ` });
  });
  await Promise.all(ended);
}

/** The tests of all packages, which acquire slots themselves. */
async function runUnits(path) {
  const isCompiled = await inSlots(path, [COMPILE]);
  if (!isCompiled) return;
  const env = { ...process.env, [SLOTS_VARIABLE]: path, [BUILT_VARIABLE]: "1" };
  await runStep(UNITS, { env, prefix: `${UNITS.name}: ` });
}

/** Lint first, whose result is wanted soon; then the guests, which take longest; finally small pieces. */
async function runFirst(isUml) {
  const slots = await openSlots(SLOT_COUNT);
  const lanes = Array.from({ length: Math.min(MACHINES.length, vmsAtOnce()) }, () => []);
  for (const [index, machine] of MACHINES.entries()) {
    const command = isUml ? [...machine.command, "--uml"] : machine.command;
    lanes[index % lanes.length].push({ ...machine, command });
  }
  await Promise.all([
    inSlots(slots.path, LINT),
    ...lanes.map((lane) => inSlots(slots.path, lane)),
    runUnits(slots.path),
  ]);
  slots.close();
}

/** CPU time of all child processes, including theirs. */
function processorSeconds() {
  const fields = readFileSync("/proc/self/stat", "utf8").split(") ")[1].split(" ");
  const TICKS_PER_SECOND = 100;
  return (Number(fields[13]) + Number(fields[14])) / TICKS_PER_SECOND;
}

const startedMs = Date.now();
const { first, isUml, rest } = steps();
if (first) await runFirst(isUml);
for (const step of rest) await (Array.isArray(step) ? runLanes(step) : runStep(step));
const tookS = Math.round((Date.now() - startedMs) / 1000);
console.log(`\ntook ${tookS} s, and ${Math.round(processorSeconds())} s of processors`);
const { passed, failed, skipped } = totals;
console.log(`${passed} passed, ${failed} failed, ${skipped} skipped`);
process.exit(failed === 0 ? 0 : 1);
