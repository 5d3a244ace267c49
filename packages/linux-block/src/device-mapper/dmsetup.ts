/**
 * The program dmsetup, which talks to the kernel's device mapper, in its own session: it finishes what it has begun
 * even if the process that started it dies.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { existsSync } from "node:fs";
import { basename } from "node:path";
import { LinuxBlockError, type LinuxBlockErrorCode } from "../errors.js";

export interface DmsetupOptions {
  /** For its standard input: a table. */
  readonly input?: string;
  /** After so long it is killed: the kernel takes an interrupted operation back. */
  readonly timeoutMs?: number;
  /** Another program, which is run in its place. */
  readonly program?: string;
  /** A descriptor that lives for as long as the program does. */
  readonly heldFd?: number;
  /** Codes of the error for exit statuses that say more than that it failed. */
  readonly codes?: Readonly<Record<number, LinuxBlockErrorCode>>;
}

/** Answers what it printed. @throws LinuxBlockError DEVICE_MAPPER_FAILED, or as `codes` says, with what it said */
export type RunDmsetup = (words: readonly string[], options?: DmsetupOptions) => Promise<string>;

const TIMEOUT_MS = 10_000;
/** What was killed ends at once, unless the kernel waits for a device in it. */
const END_LIMIT_MS = 2_000;
const UDEV_CONTROL = "/run/udev/control";
/** Of system programs; not in every PATH. */
const FOLDERS = ":/usr/sbin:/sbin:/usr/bin:/bin";

export const runDmsetup: RunDmsetup = async (words, options = {}) => {
  const { input = "", timeoutMs = TIMEOUT_MS, program = "dmsetup", heldFd, codes = {} } = options;
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
};

export function programEnvironment(): NodeJS.ProcessEnv {
  return { ...process.env, PATH: (process.env["PATH"] ?? "") + FOLDERS, LC_ALL: "C" };
}

/** Without udev no program makes nodes, or reports that it has: libdevmapper would wait for it. */
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

/** With what it has started. */
function killSession(child: ChildProcess): void {
  if (child.pid === undefined) return;
  try {
    process.kill(-child.pid, "SIGKILL");
  } catch {
    // It has ended meanwhile.
  }
}
