import { closeSync, writeSync } from "node:fs";
import { Worker } from "node:worker_threads";
import { UringError } from "./errors.js";
import { native } from "./native.js";

const EFD_CLOEXEC = 0o2000000;
const ONE = new Uint8Array([1, 0, 0, 0, 0, 0, 0, 0]);
/** How long a reactor may take to end after it was told to. */
const STOP_TIMEOUT_MS = 10_000;

/** What the worker's module finds in `workerData`. */
export interface ReactorWorkerData {
  readonly wakeFd: number;
  readonly options: unknown;
}

/**
 * The main thread's side of a reactor: starts the worker, sends it messages and wakes it.
 * `module` must make a `Reactor` with `workerData.wakeFd` and run it.
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
    const wakeFd = native.eventFd(0, EFD_CLOEXEC);
    if (wakeFd < 0) throw new UringError("SYSTEM_CALL_FAILED", "cannot make an eventfd", wakeFd);
    this.#wakeFd = wakeFd;
    const workerData: ReactorWorkerData = { wakeFd, options };
    this.#worker = new Worker(module, {
      workerData,
      // Descriptors cross threads here: opened by one, closed by another.
      trackUnmanagedFds: false,
    });
    let failure: Error | undefined;
    this.#worker.on("message", onMessage);
    this.#worker.on("error", (error) => {
      failure = error as Error;
    });
    this.#exited = new Promise((resolve) => {
      this.#worker.on("exit", (code) => {
        const unexpected = this.#closed ? undefined : new Error(`reactor ended with code ${code}`);
        this.#closed = true;
        closeSync(this.#wakeFd);
        onExit(failure ?? unexpected);
        resolve(code);
      });
    });
  }

  /** Sends a message; the reactor takes it after its current batch. */
  post(message: unknown): void {
    if (this.#closed) throw new UringError("REACTOR_FAILED", "the reactor has ended");
    this.#worker.postMessage(message);
    writeSync(this.#wakeFd, ONE);
  }

  /** Tells the worker to end by `message` and waits until it has. */
  async stop(message: unknown): Promise<void> {
    if (!this.#closed) {
      this.post(message);
      this.#closed = true;
    }
    let timer: NodeJS.Timeout | undefined;
    const timeout = new Promise<never>((_, reject) => {
      timer = setTimeout(() => {
        reject(new UringError("REACTOR_FAILED", `a reactor did not end in ${STOP_TIMEOUT_MS} ms`));
      }, STOP_TIMEOUT_MS);
    });
    await Promise.race([this.#exited, timeout]).finally(() => clearTimeout(timer));
  }
}
