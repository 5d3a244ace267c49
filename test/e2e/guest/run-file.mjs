/** Runs one test file in its own process group, which ends with it. */
import { spawn } from "node:child_process";
import { appendFileSync, writeFileSync } from "node:fs";
import { timeLimitMs } from "../lib/limits.mjs";

/** For hangs that no test's own limit ends, such as a process that is stuck in the kernel. */
const FILE_LIMIT_MS = timeLimitMs(1_800_000);
const GRACE_MS = 5000;

/** Kills the file's process and its children. */
function killGroup(child) {
  try {
    process.kill(-child.pid, "SIGKILL");
  } catch {
    // The group is empty.
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
      // Makes the kernel log the stacks of blocked processes.
      writeFileSync("/proc/sysrq-trigger", "w");
      killGroup(child);
      // A process that is stuck in the kernel does not even die, so its end is not awaited.
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
      // Its last output is still in the pipes.
      setTimeout(() => done({ output, problem }), 100);
    });
  });
}
