/**
 * Runs test files one after the other inside the VM, each in a process of its own with a time limit.
 *
 *   node runner.mjs RESULTS-FILE OUTPUT-FILE FILE…
 *
 * Each line of the results is one test (see scenario.mjs), or the outcome of a whole file. What a
 * failed file wrote, its daemon's log and the kernel's last messages go to the standard output. What
 * the present file wrote so far is in the output file, for the case that the VM does not survive it.
 */
import { appendFileSync, mkdirSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { basename, join } from "node:path";
import { run } from "../lib/command.mjs";
import { Daemon } from "../lib/daemon.mjs";
import { assertNothingLeft, ublkDevices } from "../lib/leftovers.mjs";
import { runFile } from "./run-file.mjs";

const LOGS = "/run/blksnap-e2e";
const KERNEL_LINES_SHOWN = 50;
const LOG_LINES_SHOWN = 80;

const [resultsPath, outputPath, ...files] = process.argv.slice(2);
const { E2E_SHARED_DAEMON, E2E_KEEP_GOING, E2E_TRACE } = process.env;
let daemon;

function record(entry) {
  appendFileSync(resultsPath, `${JSON.stringify(entry)}\n`);
}

function tail(text, lines) {
  return text.trimEnd().split("\n").slice(-lines).join("\n");
}

/** The last lines, and before them the warnings and errors of what came earlier. */
function digest(log) {
  const lines = log.trimEnd().split("\n");
  const earlier = lines.slice(0, -LOG_LINES_SHOWN);
  const alarms = earlier.filter((line) => /"level":[456]0/.test(line));
  return [...alarms, ...lines.slice(-LOG_LINES_SHOWN)].slice(-2 * LOG_LINES_SHOWN).join("\n");
}

async function showFailure(name, problem, output) {
  console.log(`\n===== ${name}: ${problem}`);
  console.log(output.trimEnd());
  for (const log of readdirSync(LOGS)) {
    console.log(`----- ${log}\n${digest(readFileSync(join(LOGS, log), "utf8"))}`);
  }
  console.log(`----- kernel\n${tail(await run(["dmesg"]), KERNEL_LINES_SHOWN)}\n=====\n`);
}

/** Counts of a test file without scenario records: uvu prints them at the end. */
function uvuCount(output, what) {
  return Number(new RegExp(`^\\s*${what}:\\s+(\\d+)`, "m").exec(output)?.[1] ?? 0);
}

/** @returns {Promise<boolean>} whether all went well */
async function runOne(path) {
  const name = basename(path, ".mjs");
  const started = performance.now();
  record({ file: name, status: "started" });
  const shared = daemon ? { E2E_DAEMON_PID: String(daemon.pid) } : {};
  const env = { ...shared, E2E_RESULTS: resultsPath, E2E_LOGS: LOGS, UV_THREADPOOL_SIZE: "16" };
  let { problem, output } = await runFile(path, { env, outputPath });
  const counts = { passed: uvuCount(output, "Passed"), total: uvuCount(output, "Total") };
  if (problem === "" && counts.total === 0) problem = "no test ran";
  if (problem !== "") await showFailure(name, problem, output);
  else if (E2E_TRACE) console.log(output);
  const ms = Math.round(performance.now() - started);
  record({ file: name, status: "ended", problem, ms, ...counts });
  return problem === "";
}

/** The shared daemon's end counts as a separate test. */
async function endDaemon() {
  if (daemon === undefined) return;
  const entry = { file: "daemon", test: "ends cleanly and leaves nothing" };
  const started = performance.now();
  record({ file: "daemon", status: "started" });
  record({ ...entry, status: "started" });
  let problem = "";
  try {
    await daemon.stop();
    await assertNothingLeft({ folder: "/tmp/blksnap-e2e" });
  } catch (error) {
    problem = error.message;
    await showFailure("daemon", problem, "");
  }
  const ms = Math.round(performance.now() - started);
  record({ ...entry, status: problem === "" ? "passed" : "failed", ms });
  record({ file: "daemon", status: "ended", problem, ms });
  daemon = undefined;
}

/** Kills a daemon without further expectations. */
async function dropDaemon() {
  daemon?.kill("SIGKILL");
  await daemon?.ended();
  daemon = undefined;
}

async function main() {
  rmSync(LOGS, { recursive: true, force: true });
  mkdirSync(LOGS);
  process.env.E2E_LOGS = LOGS;
  for (const path of files) {
    if (E2E_SHARED_DAEMON) daemon ??= await Daemon.start();
    const passed = await runOne(path);
    if (passed) continue;
    await dropDaemon();
    const left = ublkDevices();
    if (left.length > 0) console.log(`left: ${left.join(", ")}; the files after it are not run`);
    if (left.length > 0 || !E2E_KEEP_GOING) return;
  }
  await endDaemon();
}

await main();
