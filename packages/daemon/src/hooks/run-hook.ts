/**
 * Runs one hook as a process that this one never has to wait for.
 *
 * ```
 *   sh ─▶ the hook, in a session of its own ──ends─────▶ its status
 *                                          └─too long─▶ SIGTERM ─▶ SIGKILL, to all of its group
 * ```
 *
 * The shell comes first, so that this thread does not wait while the hook's file is read: it may lie on a device that
 * hangs. The shell also drops the protection from the out-of-memory killer. What a hook leaves in the background
 * survives it, such as a session of a database that has to last until after the take.
 */
import { type ChildProcess, spawn } from "node:child_process";
import type { Hook } from "./hook-files.js";

const START = 'echo 0 2>/dev/null >/proc/self/oom_score_adj; exec "$0" "$@"';
/** From SIGTERM to SIGKILL, and from there to an end that may never come. */
const KILL_PATIENCE_MS = 2_000;
const OUTPUT_MAX_BYTES = 8_192;

export interface HookCall {
  readonly phase: "pre" | "post";
  /** Id of the snapshot. */
  readonly id: string;
  readonly devices: readonly string[];
  /** Result of the take; "none" before it. */
  readonly result: "none" | "taken" | "failed";
}

export interface HookEnd {
  /** Why it failed; undefined if it succeeded. */
  readonly why: string | undefined;
  readonly durationMs: number;
  /** The beginning of its output. */
  readonly output: string;
}

/** @param limitMs after which it is killed */
export async function runHook(hook: Hook, call: HookCall, limitMs: number): Promise<HookEnd> {
  const beganMs = performance.now();
  const ended = (why: string | undefined, output = ""): HookEnd => {
    return { why, durationMs: Math.round(performance.now() - beganMs), output };
  };
  if (hook.distrust !== undefined) return ended(hook.distrust);
  if (limitMs <= 0) return ended("earlier hooks have used all of the time");
  let child: ChildProcess;
  try {
    child = started(hook, call);
  } catch (error) {
    // For lack of memory, or with too many devices for a command line.
    return ended(`it cannot be started: ${(error as Error).message}`);
  }
  const output = outputOf(child);
  const end = endOf(child);
  const first = await Promise.race([end, after(limitMs)]);
  if (first !== undefined) return ended(first === "" ? undefined : first, output());
  const seconds = Math.round(limitMs / 100) / 10;
  for (const signal of ["SIGTERM", "SIGKILL"] as const) {
    killGroup(child, signal);
    if ((await Promise.race([end, after(KILL_PATIENCE_MS)])) !== undefined) break;
  }
  // Kills its background processes, too: they are as late.
  killGroup(child, "SIGKILL");
  return ended(`it took longer than ${seconds} s and was killed`, output());
}

/** @throws the error of fork(2) or execve(2), if Node does not emit it as an event */
function started({ path }: Hook, { phase, id, devices, result }: HookCall): ChildProcess {
  return spawn("/bin/sh", ["-c", START, path, phase, "take", id, ...devices], {
    cwd: "/",
    detached: true,
    stdio: ["ignore", "pipe", "pipe"],
    env: {
      PATH: "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
      LANG: "C.UTF-8",
      HOME: "/root",
      BLKSNAP_PHASE: phase,
      BLKSNAP_VERB: "take",
      BLKSNAP_SNAPSHOT: id,
      BLKSNAP_DEVICES: devices.join("\n"),
      BLKSNAP_RESULT: result,
    },
  });
}

/** The end of the process alone: background processes may keep its output open. "" if it succeeded. */
function endOf(child: ChildProcess): Promise<string> {
  return new Promise((resolve) => {
    const done = (why: string) => {
      child.stdout?.destroy();
      child.stderr?.destroy();
      resolve(why);
    };
    child.once("error", (error) => done(`it cannot be started: ${error.message}`));
    child.once("exit", (status, signal) => {
      // Its last output may not have arrived yet.
      setImmediate(() => {
        if (status === 0) done("");
        else done(signal === null ? `exit status ${status}` : `ended by ${signal}`);
      });
    });
  });
}

function after(ms: number): Promise<undefined> {
  return new Promise((resolve) => setTimeout(() => resolve(undefined), ms).unref());
}

function killGroup({ pid }: ChildProcess, signal: NodeJS.Signals): void {
  if (pid === undefined) return;
  try {
    process.kill(-pid, signal);
  } catch {
    // All of its group has ended.
  }
}

function outputOf({ stdout, stderr }: ChildProcess): () => string {
  const parts: Buffer[] = [];
  let bytes = 0;
  for (const stream of [stdout, stderr]) {
    stream?.on("data", (part: Buffer) => {
      if (bytes < OUTPUT_MAX_BYTES) parts.push(part.subarray(0, OUTPUT_MAX_BYTES - bytes));
      bytes += part.length;
    });
    stream?.on("error", () => undefined);
  }
  return () => Buffer.concat(parts).toString("utf8").trim();
}
