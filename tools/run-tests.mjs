/**
 * Compiles a package's tests and runs them, a batch of files in a process (test-batch.mjs).
 *
 * With uvu alone, a broken suite could pass in three ways: a file that forgets `test.run()`
 * passes with no test run, a hanging test hangs forever, and a native crash ends all files.
 * So each batch gets its own process and each test a time limit, and each file must report at least one test.
 *
 * A start of node with a package's code takes a third of a second of a processor, most files less than that. So
 * those that touch nothing of the process they are in share one; each of the others has its own.
 *
 * Batches run one after the other; where slots are served (slots.mjs), as many beside each other as there are.
 */
import { execFile, spawn, spawnSync } from "node:child_process";
import { chmodSync, existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { dirname, join, resolve } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { acquireSlot, BUILT_VARIABLE, SLOT_COUNT, SLOTS_VARIABLE } from "./slots.mjs";

/** Of one test; the longest take 20 s of a processor. */
const TEST_TIME_LIMIT_MS = Number(process.env.TEST_TIME_LIMIT_MS ?? 300_000);
/** To ask a test that hangs where it is. */
const ASK_TIME_LIMIT_MS = 30_000;
const LEFT_TIME_LIMIT_MS = 60_000;
/** Before the name of a file whose report follows. */
const HEADER = "── file ";
/** Before the title of a test that begins. */
const TITLE = "── test ";
const TITLES = new RegExp(`\\n${TITLE}.*\\n`, "g");
/** Before the seconds of a processor that the file has taken. */
const FOOTER = "── processor seconds ";
/** What a test reports although it passes. */
const NOTE = /(?<=^(?:• )?)note: .*$/gm;
/** What a file takes of a processor, and a batch of time, is reported from here on: together they make the time of "npm test". */
const TOLD_FROM_CPU_S = 1;
const TOLD_FROM_S = 10;
const run = promisify(execFile);
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
  ...plainEnvironment
} = process.env;
plainEnvironment.NO_COLOR = "1";

async function compile() {
  const release = await acquireSlot(slots);
  const { status } = spawnSync(process.execPath, [tsc, "-b", "test"], { stdio: "inherit" });
  release();
  if (status !== 0) process.exit(status ?? 1);
}

/** Adds to its output where the process stands, and ends it. */
async function endHung(child, output) {
  // The process prints where its debugger listens.
  const before = output.text.length;
  child.kill("SIGUSR1");
  const deadlineMs = Date.now() + ASK_TIME_LIMIT_MS;
  let url;
  while (url === undefined && Date.now() < deadlineMs) {
    await sleep(100);
    url = output.text.slice(before).match(/\bws:\S+/)?.[0];
  }
  const ask = ["--experimental-websocket", "--no-warnings", HUNG_TEST, url ?? ""];
  const options = { timeout: ASK_TIME_LIMIT_MS, killSignal: "SIGKILL" };
  const { stdout } = await run(process.execPath, ask, options).catch((error) => error);
  output.text += `\n${stdout || "its debugger does not answer\n"}`;
  child.kill("SIGKILL");
}

function runBatch(names) {
  const startedMs = Date.now();
  const paths = names.map((name) => join(testDist, name));
  // What tests leave in it goes with it. A short name: sockets in it have at most 107 bytes of path.
  const TMPDIR = mkdtempSync(join(tmpdir(), "t-"));
  // Some tests run programs as another user.
  chmodSync(TMPDIR, 0o755);
  return new Promise((done) => {
    const child = spawn(
      process.execPath,
      ["--expose-gc", "--inspect-port=0", BATCH, HEADER, TITLE, FOOTER, ...paths],
      { stdio: ["ignore", "pipe", "pipe"], env: { ...plainEnvironment, TMPDIR } },
    );
    const output = { text: "" };
    let timedOut = false;
    const timer = setTimeout(() => {
      timedOut = true;
      void endHung(child, output);
    }, TEST_TIME_LIMIT_MS);
    let lastTitle = -1;
    const add = (chunk) => {
      output.text += chunk;
      const title = output.text.lastIndexOf(TITLE);
      if (title !== lastTitle && !timedOut) timer.refresh();
      lastTitle = title;
    };
    child.stdout.on("data", add);
    child.stderr.on("data", add);
    // A process that a test has left behind may hold the pipes forever.
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
      rmSync(TMPDIR, { recursive: true, force: true });
      const tookS = Math.round((Date.now() - startedMs) / 1000);
      done({ output: output.text, status, signal, timedOut, isLeft, tookS });
    });
  });
}

/** The title of the test that ran at the end. */
function lastStep(output) {
  if (output.lastIndexOf(FOOTER) > output.lastIndexOf(TITLE)) return "what a test has left open";
  const [title] = (output.match(TITLES) ?? []).slice(-1);
  return title?.replace(TITLE, "").trim() ?? "before the first test";
}

/** Of a whole batch; undefined where each file's report tells all. */
function problemOf({ output, status, signal, timedOut, isLeft }) {
  const last = lastStep(output);
  if (timedOut) return `no end within ${TEST_TIME_LIMIT_MS} ms: ${last}`;
  if (signal !== null) return `ended by ${signal} in: ${last}`;
  if (status !== 0) return `exit status ${status}, the last test that began: ${last}`;
  return isLeft ? "it left a process behind that holds its output" : undefined;
}

/** What one file has reported. */
function verdict(report) {
  const count = (name) =>
    [...report.matchAll(new RegExp(`^\\s*${name}:\\s+(\\d+)`, "gm"))].reduce(
      (sum, match) => sum + Number(match[1]),
      0,
    );
  const total = count("Total");
  const passed = count("Passed");
  const skipped = count("Skipped");
  const failed = total - passed;
  let problem = "";
  if (total + skipped === 0)
    problem = "no test ran (is test.run() missing, or has another file ended it?)";
  else if (failed > 0) problem = `${failed} failed`;
  else if (skipped > 0 && process.env.CI) problem = `${skipped} skipped where CI is set`;
  return { total, passed, skipped, problem };
}

/** Files that usually take long: they begin first, so that none is left to run alone at the end. */
const LONG = /\bsim|-sim\/|planted|fuzz|kills|supervisor/;

/** A file with one of these words has a process of its own: it asks for what all in a process have in common, or changes it. */
const OWN = /\bprocess\b|\bglobalThis\b|\bgc\b|\bperformance\b/;
/** The simulated kernel takes the real one's place in the modules that are loaded after it. */
const OWN_IMPORT = /"(node:(process|worker_threads|v8)|@blksnap\/sim-kernel)"/;
/** Comments, and strings such as a test's title. Code in a template counts. */
const TEXT = /^\s*(\/\/|\/?\*).*$|"(\\.|[^"\\\n])*"/gm;
/** Few enough that processors are busy to the end, and that what a crash takes with it is soon run again. */
const BATCH_FILES = 8;
const BATCH = fileURLToPath(new URL("test-batch.mjs", import.meta.url));
const HUNG_TEST = fileURLToPath(new URL("hung-test.mjs", import.meta.url));

function testFiles() {
  return (
    readdirSync(testDist, { recursive: true })
      .filter((name) => name.endsWith(".test.js"))
      // The compiler leaves there what a test that was moved or renamed had been compiled to.
      .filter((name) => existsSync(join(packageDir, "test", name.replace(/js$/, "ts"))))
      .filter((name) => only.length === 0 || only.some((part) => name.includes(part)))
      .sort()
  );
}

function batches() {
  const names = testFiles();
  const long = names.filter((name) => LONG.test(name));
  const others = names.filter((name) => !LONG.test(name));
  const isOwn = (name) => {
    const code = readFileSync(join(testDist, name), "utf8");
    return OWN_IMPORT.test(code) || OWN.test(code.replaceAll(TEXT, ""));
  };
  const shared = others.filter((name) => !isOwn(name));
  const count = Math.ceil(shared.length / BATCH_FILES);
  const together = Array.from({ length: count }, (_, index) =>
    shared.filter((__, at) => at % count === index),
  );
  const alone = [...long, ...others.filter(isOwn)].map((name) => [name]);
  return [...alone, ...together];
}

function processorTime(report) {
  // Behind it is what the file says later.
  const seconds = Number.parseFloat(report.split(FOOTER)[1] ?? "0");
  return seconds < TOLD_FROM_CPU_S ? "" : ` (${seconds} s of a processor)`;
}

const totals = { passed: 0, failed: 0, skipped: 0 };

function tellFile(name, report, time) {
  const { total, passed, skipped, problem } = verdict(report);
  totals.passed += passed;
  totals.skipped += skipped;
  if (problem !== "") {
    totals.failed += Math.max(1, total - passed);
    console.error(`${report}\n✗ ${name}: ${problem}`);
    return;
  }
  const note = skipped > 0 ? `, ${skipped} SKIPPED:\n${report}` : "";
  console.log(`✓ ${name}: ${passed} passed${time}${processorTime(report)}${note}`);
  for (const [line] of report.matchAll(NOTE)) console.log(`  ${line}`);
}

function tell(names, result) {
  const time = result.tookS < TOLD_FROM_S ? "" : ` in ${result.tookS} s`;
  const failedBefore = totals.failed;
  const problem = problemOf(result);
  const output = result.output.replaceAll(TITLES, "");
  const [, ...reports] = output.split(HEADER);
  for (const [index, name] of names.entries()) tellFile(name, reports[index] ?? "", time);
  // Failed tests make an exit status, too.
  const isTold = totals.failed > failedBefore && result.status === 1;
  if (problem === undefined || isTold) return;
  totals.failed += 1;
  console.error(`${output}\n✗ ${names.join(", ")}: ${problem}`);
}

async function runBatches(queue) {
  for (let names = queue.shift(); names !== undefined; names = queue.shift()) {
    const release = await acquireSlot(slots);
    tell(names, await runBatch(names));
    release();
  }
}

if (plainEnvironment[BUILT_VARIABLE] === undefined) await compile();
const testDist = resolve(packageDir, "test-dist");
const queue = batches();
if (queue.length === 0) {
  console.error(`run-tests: no test file in ${testDist}`);
  process.exit(1);
}
const atOnce = slots === undefined ? 1 : SLOT_COUNT;
await Promise.all(Array.from({ length: atOnce }, () => runBatches(queue)));
const { passed, failed, skipped } = totals;
console.log(`${passed} passed, ${failed} failed, ${skipped} skipped`);
process.exit(failed === 0 ? 0 : 1);
