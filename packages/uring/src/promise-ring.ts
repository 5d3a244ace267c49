import { UringError } from "./errors.js";
import { type NativeWatcher, native } from "./native.js";
import { prepareCancel } from "./operations.js";
import { Ring } from "./ring.js";

interface Waiter {
  readonly resolve: (result: number) => void;
  /** Not to be collected before the kernel has finished the operation. */
  readonly keep: unknown;
}

/** User data of cancellations, whose own results are ignored. */
const CANCEL_ID = 0;
const ID_MAX = 0x7fff_ffff;

/**
 * A ring for control work on a thread with an event loop: each operation is a promise. It does not block the loop,
 * occupies no pool thread, and keeps the process alive only while something is in flight. It allocates per operation,
 * so it is not for the data path. Close it: it is never collected.
 */
export class PromiseRing {
  readonly #ring: Ring;
  readonly #watcher: NativeWatcher;
  readonly #waiters = new Map<number, Waiter>();
  #nextId = 1;
  #closed = false;
  #ended = false;

  /**
   * @param flags `SetupFlag` bits, for example SQE128
   * @throws UringError RING_SETUP_FAILED
   */
  constructor(entries = 64, flags = 0) {
    this.#ring = new Ring({ entries, flags, workerForEach: true });
    try {
      this.#watcher = new native.Watcher(this.#ring.fd, () => this.#reap());
    } catch (error) {
      this.#ring.close();
      throw new UringError("RING_SETUP_FAILED", "cannot watch the ring", 0, error);
    }
  }

  /**
   * Submits one operation and returns its result: >= 0, or a negative errno. The promise resolves when the kernel has
   * finished the operation and its memory, never before.
   * @param prepare writes the SQE with a function of the catalogue, with these two user data halves
   * @param keep an object that must not be collected before the operation ends, such as its buffer
   * @param signal asks the kernel to cancel the operation; the result says whether it did
   * (-ECANCELED, -EINTR) or the operation ended otherwise
   * @throws UringError RING_CLOSED
   */
  submit(
    prepare: (ring: Ring, userLow: number, userHigh: number) => void,
    keep?: unknown,
    signal?: AbortSignal,
  ): Promise<number> {
    if (this.#closed) throw new UringError("RING_CLOSED", "the ring is closed");
    const id = this.#acquireId();
    prepare(this.#ring, id, 0);
    const promise = new Promise<number>((resolve) => {
      this.#waiters.set(id, { resolve, keep });
    });
    this.#watcher.ref();
    this.#ring.submit();
    this.#watcher.arm();
    if (signal === undefined) return promise;
    const cancel = (): void => this.#cancel(id);
    if (signal.aborted) cancel();
    else signal.addEventListener("abort", cancel, { once: true });
    return promise.finally(() => signal.removeEventListener("abort", cancel));
  }

  /** Operations that have not ended. */
  get inFlight(): number {
    return this.#waiters.size;
  }

  /**
   * Accepts no more operations and cancels those in flight; their promises resolve as the kernel finishes them.
   * Operations that cannot be cancelled no longer keep the process alive.
   */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    for (const id of this.#waiters.keys()) this.#cancel(id);
    this.#reap();
    this.#watcher.unref();
  }

  #acquireId(): number {
    const id = this.#nextId;
    this.#nextId = id === ID_MAX ? 1 : id + 1;
    return id;
  }

  #cancel(id: number): void {
    if (!this.#waiters.has(id)) return;
    prepareCancel(this.#ring, id, 0, CANCEL_ID, 0);
    this.#ring.submit();
    this.#watcher.arm();
  }

  #reap(): void {
    if (this.#ended) return;
    // Completions of punted operations may require the kernel to run this task's work first.
    this.#ring.submitAndWait(0);
    while (this.#ring.ready() > 0) {
      const cqe = this.#ring.headIndex();
      const id = this.#ring.cqes32[cqe];
      const result = this.#ring.cqes32[cqe + 2];
      this.#ring.advance();
      const waiter = this.#waiters.get(id);
      this.#waiters.delete(id);
      waiter?.resolve(result);
    }
    if (this.#waiters.size > 0) this.#watcher.arm();
    else if (this.#closed) this.#end();
    else this.#watcher.unref();
  }

  #end(): void {
    this.#ended = true;
    this.#watcher.close();
    this.#ring.close();
  }
}
