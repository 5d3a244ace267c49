/** One test file in a process group of its own, which ends with it. */
import { spawn } from "node:child_process";
import { appendFileSync, writeFileSync } from "node:fs";
import { timeLimitMs } from "../lib/limits.mjs";

/** For what no test's own limit ends: a process that is stuck in the kernel. */
const FILE_LIMIT_MS = timeLimitMs(1_800_000);
const GRACE_MS = 5000;

/** Ends the file's process with all that it started. */
function killGroup(child) {
  try {
    process.kill(-child.pid, "SIGKILL");
  } catch {
    // No process is left in it.
  }
}

/**
 * @param {{env: Record<string, string>, outputPath: string}} options variables on top of this
 * process's own, and the file that follows what it writes
 * @returns {Promise<{output: string, problem: string}>} problem: empty where all went well
 */
export function runFile(path, { env, outputPath }) {
  writeFileSync(outputPath, "");
  return new Promise((done) => {
    const child = spawn(process.execPath, [path], {
      env: { ...process.env, ...env },
      detached: true,
      stdio: ["ignore", "pipe", "pipe"],
    });
    let output = "";
    let problem = "";
    const timer = setTimeout(() => {
      problem = `no end within ${FILE_LIMIT_MS / 1000} s`;
      // Has the kernel log where blocked processes stand.
      writeFileSync("/proc/sysrq-trigger", "w");
      killGroup(child);
      // A process stuck in the kernel does not even die: its end is not waited for.
      setTimeout(() => done({ output, problem }), GRACE_MS).unref();
    }, FILE_LIMIT_MS);
    for (const stream of [child.stdout, child.stderr]) {
      stream.on("data", (chunk) => {
        output += chunk;
        appendFileSync(outputPath, chunk);
      });
    }
    child.on("exit", (status, signal) => {
      clearTimeout(timer);
      if (status !== 0) {
        problem ||= status === null ? `ended by ${signal}` : `exit status ${status}`;
      }
      killGroup(child);
      // What it wrote last is still in the pipes.
      setTimeout(() => done({ output, problem }), 100);
    });
  });
}
