/**
 * Runs dmsetup, which controls the kernel's device mapper, and other programs that use it, in a session of their own:
 * they finish even if the process that started them dies.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { existsSync } from "node:fs";
import { basename } from "node:path";
import { LinuxBlockError, type LinuxBlockErrorCode } from "../errors.js";

export interface ProgramOptions {
  /** Standard input: a table. */
  readonly input?: string;
  /** Time until it is killed: the kernel undoes an interrupted operation. */
  readonly timeoutMs?: number;
  /** A descriptor that stays open as long as the program runs. */
  readonly heldFd?: number;
  /** Error codes for particular exit statuses. */
  readonly codes?: Readonly<Record<number, LinuxBlockErrorCode>>;
}

export interface DmsetupOptions extends ProgramOptions {
  /** Another program, to run in its place. */
  readonly program?: string;
}

/** Returns its output. @throws LinuxBlockError DEVICE_MAPPER_FAILED, or as in `codes`, with its messages */
export type RunDmsetup = (words: readonly string[], options?: DmsetupOptions) => Promise<string>;

const TIMEOUT_MS = 10_000;
/** A killed process ends at once, unless the kernel waits for a device in it. */
const END_LIMIT_MS = 2_000;
const UDEV_CONTROL = "/run/udev/control";
/** Paths of system programs, which are not in every PATH. */
const FOLDERS = ":/usr/sbin:/sbin:/usr/bin:/bin";

export const runDmsetup: RunDmsetup = (words, { program = "dmsetup", ...options } = {}) =>
  runProgram(program, words, options);

/** As `RunDmsetup`, for any program. */
export async function runProgram(
  program: string,
  words: readonly string[],
  options: ProgramOptions = {},
): Promise<string> {
  const { input = "", timeoutMs = TIMEOUT_MS, heldFd, codes = {} } = options;
  const child = spawn(program, words, {
    detached: true,
    env: { ...programEnvironment(), ...udevSetting() },
    stdio: ["pipe", "pipe", "pipe", ...(heldFd === undefined ? [] : [heldFd])],
  });
  const said = outputOf(child, input);
  const timer = setTimeout(() => killSession(child), timeoutMs);
  const ended = new Promise<number | Error>((resolve) => {
    child.on("error", resolve);
    child.on("close", (status) => resolve(status ?? new Error(`killed after ${timeoutMs} ms`)));
    setTimeout(() => resolve(new Error("it does not end")), timeoutMs + END_LIMIT_MS).unref();
  });
  const status = await ended;
  clearTimeout(timer);
  if (status === 0) return said.stdout;
  const why = status instanceof Error ? status.message : `exit status ${status}`;
  const text = said.stderr.trim().replaceAll("\n", "; ");
  const what = `${basename(program)} ${words.join(" ")}: ${text === "" ? why : text}`;
  const code = status instanceof Error ? undefined : codes[status];
  throw new LinuxBlockError(code ?? "DEVICE_MAPPER_FAILED", what);
}

export function programEnvironment(): NodeJS.ProcessEnv {
  return { ...process.env, PATH: (process.env["PATH"] ?? "") + FOLDERS, LC_ALL: "C" };
}

/** Without udev, no program creates nodes or reports it: libdevmapper would wait for that. */
function udevSetting(): NodeJS.ProcessEnv {
  return existsSync(UDEV_CONTROL) ? {} : { DM_DISABLE_UDEV: "1" };
}

function outputOf(child: ChildProcess, input: string): { stdout: string; stderr: string } {
  const said = { stdout: "", stderr: "" };
  for (const name of ["stdout", "stderr"] as const) {
    child[name]?.setEncoding("utf8").on("data", (part: string) => {
      said[name] += part;
    });
  }
  child.stdin?.on("error", () => undefined);
  child.stdin?.end(input);
  return said;
}

/** Including its child processes. */
function killSession(child: ChildProcess): void {
  if (child.pid === undefined) return;
  try {
    process.kill(-child.pid, "SIGKILL");
  } catch {
    // It has ended meanwhile.
  }
}
