/**
 * Runs test files one after the other inside the VM, each in a process of its own with a time limit.
 *
 *   node runner.mjs RESULTS-FILE FILE…
 *
 * Each line of the results is one test (see scenario.mjs), or the outcome of a whole file. What a
 * failed file wrote, its daemon's log and the kernel's last messages go to the standard output.
 */
import { spawn } from "node:child_process";
import {
  appendFileSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { basename, join } from "node:path";
import { run } from "../lib/command.mjs";
import { ublkDevices } from "../lib/leftovers.mjs";

const FILE_LIMIT_MS = 600_000;
const LOGS = "/run/blksnap-e2e";
const KERNEL_LINES_SHOWN = 50;
const LOG_LINES_SHOWN = 80;

const [resultsPath, ...files] = process.argv.slice(2);

function record(entry) {
  appendFileSync(resultsPath, `${JSON.stringify(entry)}\n`);
}

/** Ends the file's process with all that it started. */
function killGroup(child) {
  try {
    process.kill(-child.pid, "SIGKILL");
  } catch {
    // It has ended by itself.
  }
}

function runFile(path) {
  const env = {
    ...process.env,
    E2E_RESULTS: resultsPath,
    E2E_LOGS: LOGS,
    UV_THREADPOOL_SIZE: "16",
  };
  return new Promise((done) => {
    const child = spawn(process.execPath, [path], {
      env,
      detached: true,
      stdio: ["ignore", "pipe", "pipe"],
    });
    let output = "";
    let problem = "";
    const timer = setTimeout(() => {
      problem = `no end within ${FILE_LIMIT_MS / 1000} s`;
      // Tells in the kernel's log where whoever is blocked stands.
      writeFileSync("/proc/sysrq-trigger", "w");
      killGroup(child);
      // A process stuck in the kernel does not even die: its end is not waited for.
      setTimeout(() => done({ output, problem }), 5000).unref();
    }, FILE_LIMIT_MS);
    child.stdout.on("data", (chunk) => (output += chunk));
    child.stderr.on("data", (chunk) => (output += chunk));
    child.on("exit", (status, signal) => {
      clearTimeout(timer);
      if (status !== 0)
        problem ||= status === null ? `ended by ${signal}` : `exit status ${status}`;
      killGroup(child);
      setTimeout(() => done({ output, problem }), 100);
    });
  });
}

function tail(text, lines) {
  return text.trimEnd().split("\n").slice(-lines).join("\n");
}

async function showFailure(name, { output, problem }) {
  console.log(`\n===== ${name}: ${problem}`);
  console.log(output.trimEnd());
  for (const log of readdirSync(LOGS)) {
    console.log(`----- ${log}\n${tail(readFileSync(join(LOGS, log), "utf8"), LOG_LINES_SHOWN)}`);
  }
  console.log(`----- kernel\n${tail(await run(["dmesg"]), KERNEL_LINES_SHOWN)}\n=====\n`);
}

/** Numbers of a test file that has no scenario's records: uvu prints them at the end. */
function uvuCount(output, what) {
  return Number(new RegExp(`^\\s*${what}:\\s+(\\d+)`, "m").exec(output)?.[1] ?? 0);
}

for (const path of files) {
  const name = basename(path, ".mjs");
  rmSync(LOGS, { recursive: true, force: true });
  mkdirSync(LOGS);
  const started = performance.now();
  record({ file: name, status: "started" });
  const result = await runFile(path);
  const counts = {
    passed: uvuCount(result.output, "Passed"),
    total: uvuCount(result.output, "Total"),
  };
  if (result.problem === "" && counts.total === 0) result.problem = "no test ran";
  if (result.problem !== "") await showFailure(name, result);
  else if (process.env.E2E_TRACE) console.log(result.output);
  const ms = Math.round(performance.now() - started);
  record({ file: name, status: "ended", problem: result.problem, ms, ...counts });
  const left = ublkDevices();
  if (left.length > 0) {
    console.log(`${name} left ${left.join(", ")}: the rest of this VM's files is not run`);
    process.exit(1);
  }
  if (result.problem !== "" && !process.env.E2E_KEEP_GOING) process.exit(1);
}
