/**
 * Compiles a package's tests and runs every test file in a process of its own.
 *
 * uvu leaves three holes that would let a broken suite look green: a file that forgets `test.run()`
 * passes with no test run, a hanging test hangs for ever, and a native crash takes all files with
 * it. So each file gets its own process, a time limit, and must report at least one test.
 *
 * Files run one after the other; where slots are served (slots.mjs), as many beside each other as there are.
 */
import { spawn, spawnSync } from "node:child_process";
import { existsSync, readdirSync } from "node:fs";
import { createRequire } from "node:module";
import { availableParallelism } from "node:os";
import { dirname, join, resolve } from "node:path";
import { acquireSlot, COMPILED_VARIABLE, SLOTS_VARIABLE } from "./slots.mjs";

const FILE_TIME_LIMIT_MS = Number(process.env.TEST_FILE_TIME_LIMIT_MS ?? 900_000);
const LEFT_TIME_LIMIT_MS = 60_000;
/** What a file takes is told from here on: all of them make the time of "npm test". */
const TOLD_FROM_S = 10;
const require = createRequire(import.meta.url);
const tsc = join(dirname(require.resolve("typescript/package.json")), "bin", "tsc");
const packageDir = process.cwd();
const only = process.argv.slice(2);

// Nx asks for colours, which would also colour what the programs under test print. Certificates of others are read
// by each start of node, which takes three times as long with them, and no test needs them.
const {
  FORCE_COLOR: _,
  NODE_EXTRA_CA_CERTS: __,
  [SLOTS_VARIABLE]: slots,
  [COMPILED_VARIABLE]: isCompiled,
  ...plainEnvironment
} = process.env;
plainEnvironment.NO_COLOR = "1";

async function compile() {
  const release = await acquireSlot(slots);
  const run = spawnSync(process.execPath, [tsc, "-b", "test"], { stdio: "inherit" });
  release();
  if (run.status !== 0) process.exit(run.status ?? 1);
}

function runFile(file) {
  const startedMs = Date.now();
  return new Promise((done) => {
    const child = spawn(process.execPath, ["--expose-gc", file], {
      stdio: ["ignore", "pipe", "pipe"],
      env: plainEnvironment,
    });
    let output = "";
    let timedOut = false;
    const timer = setTimeout(() => {
      timedOut = true;
      child.kill("SIGKILL");
    }, FILE_TIME_LIMIT_MS);
    child.stdout.on("data", (chunk) => (output += chunk));
    child.stderr.on("data", (chunk) => (output += chunk));
    // A process that a test has left behind may hold the pipes for ever.
    let leftTimer;
    let isLeft = false;
    child.on("exit", () => {
      leftTimer = setTimeout(() => {
        isLeft = true;
        child.stdout.destroy();
        child.stderr.destroy();
      }, LEFT_TIME_LIMIT_MS);
    });
    child.on("close", (status, signal) => {
      clearTimeout(timer);
      clearTimeout(leftTimer);
      const tookS = Math.round((Date.now() - startedMs) / 1000);
      done({ output, status, signal, timedOut, isLeft, tookS });
    });
  });
}

function verdict({ output, status, signal, timedOut, isLeft }) {
  const count = (name) =>
    [...output.matchAll(new RegExp(`^\\s*${name}:\\s+(\\d+)`, "gm"))].reduce(
      (sum, match) => sum + Number(match[1]),
      0,
    );
  const total = count("Total");
  const passed = count("Passed");
  const skipped = count("Skipped");
  let problem = "";
  if (timedOut) problem = `no end within ${FILE_TIME_LIMIT_MS} ms`;
  else if (signal !== null) problem = `ended by ${signal}`;
  else if (status !== 0) problem = `exit status ${status}`;
  else if (total === 0) problem = "no test ran (is test.run() missing?)";
  else if (isLeft) problem = "it left a process behind that holds its output";
  else if (passed + skipped < total) problem = `${total - passed - skipped} failed`;
  if (skipped > 0 && process.env.CI) problem ||= `${skipped} skipped where CI is set`;
  return { total, passed, skipped, problem };
}

/** What takes long, as a rule: such files begin first, so that none is left to run alone at the end. */
const LONG = /\bsim|-sim\/|planted|fuzz|kills|supervisor/;

function testFiles() {
  const names = readdirSync(testDist, { recursive: true })
    .filter((name) => name.endsWith(".test.js"))
    // The compiler leaves there what a test that was moved or renamed had been compiled to.
    .filter((name) => existsSync(join(packageDir, "test", name.replace(/js$/, "ts"))))
    .filter((name) => only.length === 0 || only.some((part) => name.includes(part)))
    .sort();
  return [...names.filter((name) => LONG.test(name)), ...names.filter((name) => !LONG.test(name))];
}

const totals = { passed: 0, failed: 0, skipped: 0 };

function tell(name, result) {
  const { total, passed, skipped, problem } = verdict(result);
  totals.passed += passed;
  totals.skipped += skipped;
  if (problem !== "") {
    totals.failed += Math.max(1, total - passed - skipped);
    console.error(`${result.output}\n✗ ${name}: ${problem}`);
    return;
  }
  const note = skipped > 0 ? `, ${skipped} SKIPPED:\n${result.output}` : "";
  const time = result.tookS < TOLD_FROM_S ? "" : ` in ${result.tookS} s`;
  console.log(`✓ ${name}: ${passed} passed${time}${note}`);
}

async function runFiles(names) {
  for (let name = names.shift(); name !== undefined; name = names.shift()) {
    const release = await acquireSlot(slots);
    tell(name, await runFile(join(testDist, name)));
    release();
  }
}

if (isCompiled === undefined) await compile();
const testDist = resolve(packageDir, "test-dist");
const files = testFiles();
if (files.length === 0) {
  console.error(`run-tests: no test file in ${testDist}`);
  process.exit(1);
}
const atOnce = slots === undefined ? 1 : availableParallelism();
await Promise.all(Array.from({ length: atOnce }, () => runFiles(files)));
const { passed, failed, skipped } = totals;
console.log(`${passed} passed, ${failed} failed, ${skipped} skipped`);
process.exit(failed === 0 ? 0 : 1);
