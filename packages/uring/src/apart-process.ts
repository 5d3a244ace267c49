/**
 * Makes system calls in a separate process, for calls that may wait for the calling process itself.
 *
 * ```
 *   thread of a server ──waits in the kernel for──▶ a request of its own device
 *          ▲                                                   │ is given up, or sent again, when
 *          └────── has ended, with all its threads ◀───────────┘ the server has ended
 * ```
 *
 * Such a wait cannot be interrupted, and a server of block devices that is killed in it never ends: its devices hang
 * until the machine is rebooted. In another process, the same call just waits for the next server. That process ends
 * with this one's main thread, which must be the caller: a call that begins after the server's death could affect
 * what the next server has created meanwhile.
 *
 * After a call a process waits for the next one: starting one takes this thread milliseconds, the more the larger
 * this process is.
 *
 * ```
 *   ask() ─▶ an idle one, or a new one ──answers──▶ idle, or ended where enough are
 *                                      └─not in time─▶ left: it ends when its call does
 * ```
 */

import { type ChildProcess, execFile, spawn } from "node:child_process";
import type { Socket } from "node:net";
import type { Readable } from "node:stream";
import { ETIMEDOUT } from "@blksnap/errors";
import { UringError } from "./errors.js";
import { apartProgramPath } from "./native.js";
import { Serial } from "./serial.js";

/** The program that makes the calls; native/apart/main.cc says how it is used. */
export const apartProgram: string = apartProgramPath;
/** Some five million extents of a file. */
const OUTPUT_MAX_BYTES = 256 * 2 ** 20;
/** Each takes 1 MiB and is rarely busy. */
const IDLE_MAX = 2;
const NEWLINE = 10;

interface Waiter {
  readonly resolve: (text: string) => void;
  readonly reject: (error: Error) => void;
}

/** One process; it makes one call at a time. */
class ApartProcess {
  readonly #child: ChildProcess;
  readonly #onEnd: (process: ApartProcess) => void;
  #parts: Buffer[] = [];
  #bytes = 0;
  #waiter: Waiter | undefined;

  constructor(onEnd: (process: ApartProcess) => void, verb: "serve" | "serve-locked" = "serve") {
    this.#onEnd = onEnd;
    const words = [String(process.pid), verb];
    this.#child = spawn(apartProgram, words, { stdio: ["pipe", "pipe", "ignore"] });
    this.#child.unref();
    (this.#child.stdin as Socket).unref();
    this.#child.stdin?.on("error", () => undefined);
    this.#child.stdout?.on("data", (part: Buffer) => this.#onData(part));
    this.#child.on("error", (error) => this.#end(error));
    this.#child.on("close", () => this.#end(undefined));
  }

  /** @returns the text of the response @throws UringError PROCESS_FAILED */
  call(words: readonly string[]): Promise<string> {
    return new Promise((resolve, reject) => {
      this.#waiter = { resolve, reject };
      // An idle helper process does not keep this process alive.
      this.#stdout.ref();
      this.#child.stdin?.write([String(words.length), ...words, ""].join("\0"));
    });
  }

  idle(): void {
    this.#stdout.unref();
  }

  /** The process may never end, whatever signal it gets. */
  leave(): void {
    this.#waiter = undefined;
    leave(this.#child);
  }

  get #stdout(): Socket {
    return this.#child.stdout as Readable as Socket;
  }

  #onData(part: Buffer): void {
    this.#parts.push(part);
    this.#bytes += part.length;
    if (this.#bytes > OUTPUT_MAX_BYTES) {
      this.#end(new RangeError(`more than ${OUTPUT_MAX_BYTES} bytes`));
      leave(this.#child);
    } else if (this.#isWhole(this.#parts[0] as Buffer)) {
      const text = Buffer.concat(this.#parts);
      this.#parts = [];
      this.#bytes = 0;
      const waiter = this.#waiter;
      this.#waiter = undefined;
      waiter?.resolve(text.toString("utf8", text.indexOf(NEWLINE) + 1));
    }
  }

  /** @param first part of a response: the program writes the length at once */
  #isWhole(first: Buffer): boolean {
    const start = first.indexOf(NEWLINE) + 1;
    return start > 0 && this.#bytes >= start + Number(first.toString("latin1", 0, start));
  }

  #end(error: Error | undefined): void {
    this.#onEnd(this);
    const waiter = this.#waiter;
    this.#waiter = undefined;
    waiter?.reject(processFailed(error));
  }
}

const idle: ApartProcess[] = [];

function forget(process: ApartProcess): void {
  const index = idle.indexOf(process);
  if (index >= 0) idle.splice(index, 1);
}

/**
 * Makes a call.
 * @param timeoutMs for calls that may hang: this process continues, and can end
 * @returns the lines of the response: at least one, which is -ETIMEDOUT if there was none in time
 * @throws UringError PROCESS_FAILED; RangeError for a word with a NUL
 */
export async function ask(words: readonly string[], timeoutMs?: number): Promise<string[]> {
  // Before a process is acquired, which would otherwise be lost to the pool.
  assertWords(words);
  const process = idle.pop() ?? new ApartProcess(forget);
  const text = await answered(process, words, timeoutMs);
  if (text === undefined) return [String(-ETIMEDOUT)];
  if (idle.length < IDLE_MAX) idle.push(process);
  else process.leave();
  return linesOf(text);
}

function assertWords(words: readonly string[]): void {
  if (words.some((word) => word.includes("\0"))) throw new RangeError("a word with a NUL");
}

/** Undefined if there is no response in time: the process is abandoned then, else it becomes idle. */
async function answered(
  process: ApartProcess,
  words: readonly string[],
  timeoutMs: number | undefined,
): Promise<string | undefined> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<undefined>((resolve) => {
    if (timeoutMs !== undefined) timer = setTimeout(() => resolve(undefined), timeoutMs);
  });
  try {
    const text = await Promise.race([process.call(words), late]);
    if (text === undefined) process.leave();
    else process.idle();
    return text;
  } finally {
    clearTimeout(timer);
  }
}

/**
 * A dedicated process that is locked in memory, for calls that must not read from a disk: the call may concern a
 * suspended device, on which starting a program would wait. The first call starts it, and so does the first call
 * after its end.
 */
export class LockedHelper {
  readonly #turns = new Serial();
  #process: ApartProcess | undefined;

  /** One call at a time. @returns, @throws as ask() */
  ask(words: readonly string[], timeoutMs: number): Promise<string[]> {
    return this.#turns.run(async () => {
      assertWords(words);
      this.#process ??= new ApartProcess((ended) => {
        if (this.#process === ended) this.#process = undefined;
      }, "serve-locked");
      const text = await answered(this.#process, words, timeoutMs);
      if (text !== undefined) return linesOf(text);
      this.end();
      return [String(-ETIMEDOUT)];
    });
  }

  /** Of its process; what is asked then has another one. */
  end(): void {
    const process = this.#process;
    this.#process = undefined;
    process?.leave();
  }
}

/**
 * Runs the program for a call that it makes only alone, in its own process.
 * @returns, @throws as ask()
 */
export function runAlone(
  words: readonly string[],
  timeoutMs: number,
  encoding: BufferEncoding = "utf8",
): Promise<string[]> {
  return new Promise((resolve, reject) => {
    const child = execFile(
      apartProgram,
      [String(process.pid), ...words],
      { maxBuffer: OUTPUT_MAX_BYTES, encoding },
      (error, stdout) => {
        clearTimeout(timer);
        if (error === null) resolve(linesOf(stdout));
        else reject(processFailed(error));
      },
    );
    const timer = setTimeout(() => {
      leave(child);
      resolve([String(-ETIMEDOUT)]);
    }, timeoutMs);
  });
}

/** It may never end, whatever signal it gets, and nothing waits for it any more. */
export function leave(child: ChildProcess): void {
  child.kill("SIGKILL");
  child.stdin?.destroy();
  child.stdout?.destroy();
  child.stderr?.destroy();
  child.unref();
}

export function processFailed(error: Error | undefined): UringError {
  const { errno = 0 } = (error ?? {}) as { errno?: number };
  return new UringError("PROCESS_FAILED", `cannot run ${apartProgram}`, errno, error);
}

function linesOf(text: string): string[] {
  return text.trimEnd().split("\n");
}
