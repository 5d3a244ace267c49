/**
 * System calls in a process of their own, for those that can wait for the calling process itself.
 *
 * ```
 *   thread of a server ──waits in the kernel for──▶ a request of its own device
 *          ▲                                                   │ is given up, or sent again, when
 *          └────── has ended, with all its threads ◀───────────┘ the server has ended
 * ```
 *
 * Such a wait cannot be interrupted, and a server of block devices that is killed in it never ends:
 * its devices hang until the machine is rebooted. Said by another process, the same call just waits
 * for the next server. That process ends with this one's main thread, which has to be the caller: a call
 * that begins after the server's death could meet what the next server has made meanwhile.
 *
 * A process that has answered waits for the next call: starting one takes this thread milliseconds, the
 * more the larger this process is.
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
/** Each takes 1 MiB and has seldom anything to do. */
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

  /** @returns the answer's text @throws UringError PROCESS_FAILED */
  call(words: readonly string[]): Promise<string> {
    return new Promise((resolve, reject) => {
      this.#waiter = { resolve, reject };
      // This process lives until it has the answer, and not longer for one that is idle.
      this.#stdout.ref();
      this.#child.stdin?.write([String(words.length), ...words, ""].join("\0"));
    });
  }

  idle(): void {
    this.#stdout.unref();
  }

  /** It may never end, whatever it is sent. */
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

  /** @param first part of an answer: the program writes the length at once */
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
 * Has a call made.
 * @param timeoutMs for what may not answer: this process continues, and can end
 * @returns the lines of the answer: at least one, which is -ETIMEDOUT when there was none in time
 * @throws UringError PROCESS_FAILED; RangeError for a word with a NUL
 */
export async function ask(words: readonly string[], timeoutMs?: number): Promise<string[]> {
  // Before a process is acquired: it would be lost to the pool.
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

/** Undefined where there is none in time: the process is left then, else it is idle. */
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
 * A process of one's own that is kept in memory, for calls that must need nothing from a disk: what they are about may
 * stand still, and starting a program would wait for it. Its first call starts it, and the first after its end.
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
 * Runs the program for what it does alone, in a process that nothing else is asked of.
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

/** It may never end, whatever it is sent, and nothing waits for it any more. */
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
