/** Runs the system's programs, and says what one that failed has said. */
import { execFile } from "node:child_process";
import { BlksnapClientError } from "@blksnap/client";

const ERROR_TEXT_MAX = 500;

export interface Outcome {
  readonly status: number;
  readonly out: string;
  /** On one line. */
  readonly err: string;
}

export function mountFailed(what: string, hint?: string): BlksnapClientError {
  return new BlksnapClientError("MOUNT_FAILED", what, hint === undefined ? {} : { hint });
}

/** @throws BlksnapClientError MOUNT_FAILED if the program is missing */
export function run(program: string, ...args: string[]): Promise<Outcome> {
  return new Promise((resolve, reject) => {
    const env = { ...process.env, LC_ALL: "C" };
    execFile(program, args, { encoding: "utf8", env }, (error, out, stderr) => {
      const status = error === null ? 0 : error.code;
      if (typeof status !== "number") {
        const hint = status === "ENOENT" ? `Install ${program}` : undefined;
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
