import { closeSync, writeSync } from "node:fs";
import { Worker } from "node:worker_threads";
import { bounded } from "./bounded.js";
import { UringError } from "./errors.js";
import { END_REACTOR } from "./reactor.js";
import { createEventFd } from "./system.js";

const WAKE = new BigUint64Array([1n]);
const END = new BigUint64Array([END_REACTOR]);
/** Time limit for a reactor to end after stop(). */
const STOP_TIMEOUT_MS = 30_000;

/** `workerData` of the worker's module. */
export interface ReactorWorkerData {
  readonly wakeFd: number;
  readonly options: unknown;
}

/**
 * Eventfds of the running reactors. The end of the process joins its workers, and one that sleeps in the kernel would
 * not notice.
 */
const running = new Set<number>();

function endAll(): void {
  for (const wakeFd of running) writeSync(wakeFd, END);
}

function addRunning(wakeFd: number): void {
  if (running.size === 0) process.on("exit", endAll);
  running.add(wakeFd);
}

function removeRunning(wakeFd: number): void {
  running.delete(wakeFd);
  if (running.size === 0) process.off("exit", endAll);
}

/**
 * A worker starts from a file, and refuses inherited options that pass a program on the command line. Options of V8
 * are process-wide, and not accepted here.
 */
function workerArguments(): { execArgv: string[] } | undefined {
  const isInline = process.execArgv.some((word) => /^--input-type\b/.test(word));
  return isInline ? { execArgv: [] } : undefined;
}

/**
 * The main thread's side of a reactor: starts the worker, sends it messages and wakes it.
 * `module` must make a `Reactor` with `workerData.wakeFd` and run it. A process that exits without
 * stop() ends the reactor wherever it is.
 */
export class ReactorThread {
  readonly #worker: Worker;
  readonly #wakeFd: number;
  readonly #exited: Promise<number>;
  #closed = false;

  /**
   * @param onMessage called with each message that the worker posts
   * @param onExit called when the worker ended, with an error when it did so by itself
   */
  constructor(
    module: URL,
    options: unknown,
    onMessage: (message: unknown) => void,
    onExit: (error: Error | undefined) => void,
  ) {
    const wakeFd = createEventFd();
    this.#wakeFd = wakeFd;
    const workerData: ReactorWorkerData = { wakeFd, options };
    try {
      // Descriptors cross threads here: one opens them, another closes them.
      this.#worker = new Worker(module, {
        workerData,
        trackUnmanagedFds: false,
        ...workerArguments(),
      });
    } catch (error) {
      closeSync(wakeFd);
      throw error;
    }
    addRunning(wakeFd);
    let failure: Error | undefined;
    this.#worker.on("message", onMessage);
    this.#worker.on("error", (error) => {
      failure = error as Error;
    });
    this.#exited = new Promise((resolve) => {
      this.#worker.on("exit", (code) => {
        const unexpected = this.#closed ? undefined : new Error(`reactor ended with code ${code}`);
        this.#closed = true;
        removeRunning(wakeFd);
        closeSync(wakeFd);
        onExit(failure ?? unexpected);
        resolve(code);
      });
    });
  }

  /** Sends a message; the reactor handles it after its current batch. */
  post(message: unknown): void {
    if (this.#closed) throw new UringError("REACTOR_FAILED", "the reactor has ended");
    this.#worker.postMessage(message);
    this.wake();
  }

  /** Makes the reactor's loop run one turn, without a message. */
  wake(): void {
    if (!this.#closed) writeSync(this.#wakeFd, WAKE);
  }

  /**
   * Sends `message`, which ends the worker, and waits for its end.
   * @throws UringError REACTOR_FAILED if it does not end in time
   */
  async stop(message: unknown): Promise<void> {
    if (!this.#closed) {
      this.post(message);
      this.#closed = true;
    }
    await bounded(this.#exited, STOP_TIMEOUT_MS, () => {
      return new UringError("REACTOR_FAILED", `a reactor did not end in ${STOP_TIMEOUT_MS} ms`);
    });
  }
}
