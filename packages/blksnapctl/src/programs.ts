/** Runs the system's programs, and says what one that failed has said. */
import { execFile } from "node:child_process";
import { BlksnapClientError } from "@blksnap/client";
import { LinuxBlockError, runProgram } from "@blksnap/linux-block";

const ERROR_TEXT_MAX = 500;
/** A program of LVM reads all of its devices, and may wait for another one. */
const PROGRAM_TIMEOUT_MS = 60_000;

export interface Outcome {
  readonly status: number;
  readonly out: string;
  /** On one line. */
  readonly err: string;
}

export function mountFailed(what: string, hint?: string): BlksnapClientError {
  return new BlksnapClientError("MOUNT_FAILED", what, hint === undefined ? {} : { hint });
}

function installHint(program: string, why: string | null | undefined): string | undefined {
  return why?.includes("ENOENT") ? `Install ${program}` : undefined;
}

/**
 * Runs a program that must succeed, and answers what it prints. It finishes even if this process is interrupted, and
 * is killed after a minute.
 * @throws BlksnapClientError MOUNT_FAILED
 */
export async function outputOf(program: string, ...words: string[]): Promise<string> {
  try {
    return await runProgram(program, words, { timeoutMs: PROGRAM_TIMEOUT_MS });
  } catch (error) {
    if (!(error instanceof LinuxBlockError)) throw error;
    throw mountFailed(error.message, installHint(program, error.message));
  }
}

/**
 * Runs a program whose status says something. It is interrupted with this process, and has no limit: what mounts or
 * unmounts takes as long as the file system has to write.
 * @throws BlksnapClientError MOUNT_FAILED if it is missing
 */
export function run(program: string, ...args: string[]): Promise<Outcome> {
  return execute(program, args, 0);
}

/** The same for one that only reads. @throws BlksnapClientError MOUNT_FAILED, also if it does not end in a minute */
export function runInTime(
  program: string,
  args: readonly string[],
  timeoutMs: number = PROGRAM_TIMEOUT_MS,
): Promise<Outcome> {
  return execute(program, args, timeoutMs);
}

/** @param timeoutMs 0: none */
function execute(program: string, args: readonly string[], timeoutMs: number): Promise<Outcome> {
  return new Promise((resolve, reject) => {
    const env = { ...process.env, LC_ALL: "C" };
    const options = { encoding: "utf8", env, timeout: timeoutMs, killSignal: "SIGKILL" } as const;
    execFile(program, args, options, (error, out, stderr) => {
      const status = error === null ? 0 : error.code;
      if (error?.killed === true) {
        const what = `${program} did not end in ${timeoutMs} ms`;
        return reject(mountFailed(what, "See dmesg: a device may not answer"));
      }
      if (typeof status !== "number") {
        const hint = installHint(program, status);
        return reject(mountFailed(`${program} cannot be run: ${status ?? error?.message}`, hint));
      }
      const err = stderr
        .trim()
        .replace(/\s*\n\s*/g, "; ")
        .slice(0, ERROR_TEXT_MAX);
      resolve({ status, out, err });
    });
  });
}
