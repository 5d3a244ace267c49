/**
 * Which operations may run concurrently: those that have no name in common.
 *
 * ```
 *   take     snapshot:A ──────────────▶ │ runs
 *   detach   device:1   ──────────────▶ │ runs, hangs
 *   destroy  snapshot:B ──────────────▶ │ runs
 *   attach   device:1   ─────────────────── waits for detach, and reports it when that takes too long
 * ```
 *
 * An operation queues for all its names at once, in the order of arrival. So it waits only for earlier ones, and no
 * cycle can form.
 */
export interface OperationOptions {
  /** A description: "detach of /dev/sdb". */
  readonly what: string;
  /** The longest wait for others; after it `busy` makes the error. Absent: no limit. */
  readonly waitMs?: number;
  /** Ends the wait for others. An operation that has begun continues. */
  readonly signal?: AbortSignal | undefined;
  /** It belongs to the end: it runs even after close(). */
  readonly atEnd?: boolean;
}

/** An operation that has begun. */
export interface RunningOperation {
  readonly what: string;
  readonly sinceMs: number;
}

export interface OperationLocksOptions {
  /** Makes the error for a caller that has waited too long for another operation. */
  readonly busy: (what: string, holder: RunningOperation, name: string) => Error;
  /** Makes the error after close(). */
  readonly closed: (what: string) => Error;
  /** Makes the error for a caller that has gone. */
  readonly aborted: (what: string) => Error;
}

export class OperationLocks {
  readonly #options: OperationLocksOptions;
  /** Per name: resolves when the last queued operation has ended. */
  readonly #tails = new Map<string, Promise<void>>();
  readonly #running = new Map<string, RunningOperation>();
  readonly #waiting = new Set<(error: Error) => void>();
  #isClosed = false;

  constructor(options: OperationLocksOptions) {
    this.#options = options;
  }

  /** Runs the operation when no earlier one with a common name is left. */
  run<Value>(
    names: readonly string[],
    options: OperationOptions,
    operation: () => Promise<Value>,
  ): Promise<Value> {
    if (this.#isClosed && options.atEnd !== true) {
      return Promise.reject(this.#options.closed(options.what));
    }
    const own = [...new Set(names)];
    const before = own.flatMap((name) => this.#tails.get(name) ?? []);
    const turn = this.#wait(own, before, options).then(async (isTurn) => {
      if (isTurn !== true) throw isTurn;
      return this.#begin(own, options.what, operation);
    });
    const settled = turn.then(nothing, nothing);
    for (const name of own) this.#queueUp(name, settled);
    return turn;
  }

  /** After an operation that was given up, others wait only for earlier ones with the same name. */
  #queueUp(name: string, settled: Promise<void>): void {
    const ended = Promise.all([this.#tails.get(name), settled]).then(nothing);
    this.#tails.set(name, ended);
    void ended.then(() => {
      if (this.#tails.get(name) === ended) this.#tails.delete(name);
    });
  }

  /** Operations that have begun and not ended. */
  get running(): readonly RunningOperation[] {
    return [...new Set(this.#running.values())];
  }

  /** Accepts no more operations, and gives up those that have not begun. */
  close(): void {
    this.#isClosed = true;
    for (const giveUp of [...this.#waiting]) giveUp(this.#options.closed("the operation"));
  }

  /** Resolves when no operation runs or waits. */
  async idle(): Promise<void> {
    while (this.#tails.size > 0) await Promise.all(this.#tails.values());
  }

  /** Resolves to true when it is the operation's turn, or to the error that says why it gets none. */
  #wait(
    names: readonly string[],
    before: readonly Promise<void>[],
    { what, waitMs, signal, atEnd }: OperationOptions,
  ): Promise<true | Error> {
    if (before.length === 0) return Promise.resolve(true);
    return new Promise((resolve) => {
      let timer: NodeJS.Timeout | undefined;
      const end = (answer: true | Error): void => {
        clearTimeout(timer);
        signal?.removeEventListener("abort", abort);
        this.#waiting.delete(end);
        resolve(answer);
      };
      const abort = (): void => end(this.#options.aborted(what));
      if (waitMs !== undefined) {
        timer = setTimeout(() => end(this.#busy(names, what)), waitMs);
      }
      signal?.addEventListener("abort", abort, { once: true });
      if (signal?.aborted) abort();
      if (atEnd !== true) this.#waiting.add(end);
      void Promise.all(before).then(() => end(true));
    });
  }

  async #begin<Value>(
    names: readonly string[],
    what: string,
    operation: () => Promise<Value>,
  ): Promise<Value> {
    const running = { what, sinceMs: performance.now() };
    for (const name of names) this.#running.set(name, running);
    try {
      return await operation();
    } finally {
      for (const name of names) this.#running.delete(name);
    }
  }

  #busy(names: readonly string[], what: string): Error {
    const name = names.find((one) => this.#running.has(one)) ?? names[0] ?? "";
    const holder = this.#running.get(name) ?? { what: "another operation", sinceMs: 0 };
    return this.#options.busy(what, holder, name);
  }
}

function nothing(): void {}
