/** Checks of this host by the daemon's program, which needs no running daemon. */
import { execFile } from "node:child_process";
import { existsSync } from "node:fs";
import { dirname, join } from "node:path";
import { type ConfigReport, type DoctorReport, userSocketPath } from "@blksnap/api";
import { BlksnapClientError } from "@blksnap/client";

const PROGRAM = "blksnapd";
/** The program queries the kernel about each device, with a time limit each. */
const TIMEOUT_MS = 300_000;
const OUTPUT_MAX_BYTES = 16 * 2 ** 20;

export interface ReportOptions {
  readonly socketPath: string;
  readonly stateDirectory: string | undefined;
  readonly fix: boolean;
}

/** Beside this program, or in $PATH. */
function programPath(): string {
  const beside = join(dirname(process.argv[1] ?? ""), PROGRAM);
  return existsSync(beside) ? beside : PROGRAM;
}

/** The JSON output of the program. @throws BlksnapClientError of this name */
async function printed<Report>(
  name: "DOCTOR_FAILED" | "CONFIG_CHECK_FAILED",
  words: readonly [option: string, ...more: string[]],
): Promise<Report> {
  const path = programPath();
  const [option] = words;
  const text = await new Promise<string>((done, fail) => {
    const limits = { timeout: TIMEOUT_MS, maxBuffer: OUTPUT_MAX_BYTES };
    execFile(path, words, limits, (cause, stdout, stderr) => {
      // The program has run; its exit status is its verdict.
      if (cause === null || (typeof cause.code === "number" && stdout !== "")) return done(stdout);
      const why = stderr.trim().split("\n").at(-1) || cause.message;
      fail(new BlksnapClientError(name, `can't run ${path} ${option}: ${why}`, { cause }));
    });
  });
  try {
    return JSON.parse(text) as Report;
  } catch (cause) {
    throw new BlksnapClientError(name, `${path} ${option} printed no JSON`, { cause });
  }
}

/** A non-root user's daemon serves over NBD, and has its files in the user's folders. */
export function isUsers(
  socketPath: string,
  environment: Readonly<Record<string, string | undefined>> = process.env,
  isRoot: boolean = process.geteuid?.() === 0,
): boolean {
  return !isRoot && socketPath === userSocketPath(environment);
}

/** @throws BlksnapClientError DOCTOR_FAILED */
export function hostReport(options: ReportOptions): Promise<DoctorReport> {
  const { socketPath, stateDirectory, fix } = options;
  return printed("DOCTOR_FAILED", [
    "--doctor",
    ...["--socket", socketPath],
    ...(isUsers(socketPath) ? ["--frontend", "nbd"] : []),
    ...(stateDirectory === undefined ? [] : ["--state-dir", stateDirectory]),
    ...(fix ? ["--fix"] : []),
  ]);
}

/** @throws BlksnapClientError CONFIG_CHECK_FAILED */
export function configReport(path: string | undefined): Promise<ConfigReport> {
  const words = path === undefined ? [] : ["--config", path];
  return printed("CONFIG_CHECK_FAILED", ["--check-config", ...words]);
}
