import { UringError } from "./errors.js";
import { type NativeWatcher, native } from "./native.js";
import { Ring } from "./ring.js";

interface Waiter {
  readonly resolve: (result: number) => void;
  readonly keep: unknown;
}

/**
 * A ring for control work on a thread with an event loop: each operation is a promise. It does not
 * block the loop, holds no pool thread, and keeps the process alive only while something is in
 * flight. Not for the data path: it allocates per operation.
 */
export class PromiseRing {
  readonly #ring: Ring;
  readonly #watcher: NativeWatcher;
  readonly #waiters = new Map<number, Waiter>();
  #nextId = 1;
  #closed = false;

  /**
   * @param flags `SetupFlag` bits, for example SQE128
   * @throws UringError RING_SETUP_FAILED
   */
  constructor(entries = 64, flags = 0) {
    this.#ring = new Ring({ entries, flags });
    this.#watcher = new native.Watcher(this.#ring.fd, () => this.#reap());
  }

  /**
   * Submits one operation and answers its result: >= 0, or a negative errno.
   * @param prepare writes the SQE with a function of the catalogue, with these two user data halves
   * @param keep whatever must not be collected before the operation ends, such as its buffer
   */
  submit(
    prepare: (ring: Ring, userLow: number, userHigh: number) => void,
    keep?: unknown,
  ): Promise<number> {
    if (this.#closed) throw new UringError("RING_CLOSED", "the ring is closed");
    const id = this.#nextId;
    this.#nextId = id === 0x7fff_ffff ? 1 : id + 1;
    const promise = new Promise<number>((resolve) => {
      this.#waiters.set(id, { resolve, keep });
    });
    prepare(this.#ring, id, 0);
    this.#ring.submit();
    if (this.#waiters.size === 1) this.#watcher.ref();
    this.#watcher.arm();
    return promise;
  }

  /** Operations that have not ended. */
  get inFlight(): number {
    return this.#waiters.size;
  }

  /** Ends the ring. What is in flight is cancelled by the kernel and answered with -ECANCELED. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#watcher.close();
    this.#ring.close();
    for (const { resolve } of this.#waiters.values()) resolve(-125);
    this.#waiters.clear();
  }

  #reap(): void {
    if (this.#closed) return;
    // Completions of punted operations may need the kernel to run this task's work first.
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
    if (this.#waiters.size === 0) this.#watcher.unref();
    else this.#watcher.arm();
  }
}
