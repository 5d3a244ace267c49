import { EAGAIN, EBUSY, EINTR, EINVAL } from "@blksnap/errors";
import { EnterFlag, Opcode, SetupFlag, SqeFlag, SqRingFlag } from "./abi.js";
import { assert, UringError } from "./errors.js";
import { type NativeRing, native } from "./native.js";

const INT32_MAX = 0x7fff_ffff;
/** Where workers follow what is in flight: those that a ring begins with. */
const WORKERS_MIN = 64;
/** Of all rings of this thread: the kernel has one limit for them. */
let threadWorkers = 0;
/** How often a full ring is submitted to a kernel that refuses it, until that is an error. */
const SUBMIT_ATTEMPTS_MAX = 10_000;

/** Other flags change the layout of the rings or need a polling thread's wake-ups. */
const SETUP_FLAGS_KNOWN = Object.values(SetupFlag).reduce((all, flag) => all | flag, 0);

/** Words (32 bits) of one CQE: user_data low, user_data high, result, flags. */
export const CQE_WORDS = 4;

const USER_DATA_WORD = 8;

/**
 * Result of an operation that was not started because the kernel accepted only the earlier part of its chain
 * (-EBADF); see Ring.reserve().
 */
export const LINK_TORN = -9;

export interface RingOptions {
  /** Submission entries, 1 to 32768; the kernel rounds up to a power of two. */
  readonly entries: number;
  /** Completion entries; default four times the submission entries. */
  readonly cqEntries?: number;
  /** `SetupFlag` bits. */
  readonly flags?: number;
  /**
   * No operation waits for a kernel thread that another one occupies. An operation that blocks on a file or block
   * device occupies one; the kernel's default limit is four per CPU for everything of a thread, so a few that hang
   * would block all others. Here the limit follows what is in flight (up to RLIMIT_NPROC).
   */
  readonly workerForEach?: boolean;
  /** Called before each system call that submits entries: a driver's stand-in modifies the new ones. */
  readonly beforeEnter?: ((ring: Ring) => void) | undefined;
}

/**
 * One io_uring. The rings and the SQEs are memory of the kernel that TypeScript reads and writes;
 * the only native call of the data path is `submitAndWait`, once per batch.
 *
 * ```
 *        nextSqe(), prep…            enter()              peekCompletions()
 *   TypeScript ──▶ sqes[tail & mask] ──────▶ kernel ──────▶ cqes[head & mask] ──▶ TypeScript
 *                  sqTail moves                              cqTail moves, cqHead follows
 * ```
 *
 * A ring belongs to the thread that created it; with SINGLE_ISSUER the kernel refuses others
 * (EEXIST). With DEFER_TASKRUN completions appear only inside submitAndWait().
 */
export class Ring {
  /** All SQEs as signed words; index with what nextSqe() returned. */
  readonly sqes32: Int32Array;
  /** All CQEs as signed words, `CQE_WORDS` each. */
  readonly cqes32: Int32Array;
  readonly cqMask: number;
  readonly sqEntries: number;
  readonly fd: number;
  /** Words of one SQE: 16, or 32 in an SQE128 ring. */
  readonly sqeWords: number;
  /** Number of `io_uring_enter` calls so far; tests count with it. */
  enterCalls = 0;
  readonly #native: NativeRing;
  readonly #beforeEnter: ((ring: Ring) => void) | undefined;
  readonly #ring32: Int32Array;
  readonly #sqTailIndex: number;
  readonly #sqFlagsIndex: number;
  readonly #cqHeadIndex: number;
  readonly #cqTailIndex: number;
  readonly #sqMask: number;
  #enterFd: number;
  #enterFlags = 0;
  #sqTail: number;
  #pending = 0;
  #cqHead: number;
  /** Operations that may block at a time. */
  #workers = INT32_MAX;
  #closed = false;

  /**
   * @throws UringError RING_SETUP_FAILED: EPERM where a sysctl or a filter forbids io_uring, EINVAL
   * (a number of entries or a flag that is not taken), ENOMEM, EMFILE
   */
  constructor(options: RingOptions) {
    const flags = options.flags ?? 0;
    if ((flags & ~SETUP_FLAGS_KNOWN) !== 0) {
      throw new UringError(
        "RING_SETUP_FAILED",
        `unknown ring flags 0x${flags.toString(16)}`,
        EINVAL,
      );
    }
    const ring = native.createRing(
      options.entries,
      options.cqEntries ?? options.entries * 4,
      flags,
    );
    if (typeof ring === "number") {
      const hint = ring === -1 ? " (see /proc/sys/kernel/io_uring_disabled)" : "";
      throw new UringError("RING_SETUP_FAILED", `io_uring_setup refused${hint}`, ring);
    }
    const at = ring.offsets;
    this.#native = ring;
    this.#beforeEnter = options.beforeEnter;
    this.fd = ring.fd;
    this.#enterFd = ring.fd;
    this.sqEntries = ring.sqEntries;
    this.sqeWords = (flags & SetupFlag.SQE128) !== 0 ? 32 : 16;
    this.sqes32 = new Int32Array(ring.sqes);
    this.#ring32 = new Int32Array(ring.rings, 0, ring.rings.byteLength >> 2);
    this.cqes32 = new Int32Array(ring.rings, at.cqes, ring.cqEntries * CQE_WORDS);
    this.#sqTailIndex = at.sqTail >> 2;
    this.#sqFlagsIndex = at.sqFlags >> 2;
    this.#cqHeadIndex = at.cqHead >> 2;
    this.#cqTailIndex = at.cqTail >> 2;
    this.#sqMask = this.#ring32[at.sqMask >> 2];
    this.cqMask = this.#ring32[at.cqMask >> 2];
    this.#sqTail = this.#ring32[this.#sqTailIndex];
    this.#cqHead = this.#ring32[this.#cqHeadIndex];
    // The indirection array stays the identity: SQE i is submitted from slot i.
    if (at.sqArray !== undefined) {
      const array = at.sqArray >> 2;
      for (let i = 0; i < ring.sqEntries; i++) this.#ring32[array + i] = i;
    }
    if (options.workerForEach !== true) return;
    this.#workers = 0;
    this.#addWorkers();
  }

  /** SQEs that are prepared but not submitted. */
  get pending(): number {
    return this.#pending;
  }

  /**
   * The next free SQE, as an index into sqes32; write all its words. If the ring is full, its entries are submitted
   * first.
   */
  nextSqe(): number {
    if (this.#pending === this.sqEntries) this.submit();
    const index = (this.#sqTail & this.#sqMask) * this.sqeWords;
    this.#sqTail = (this.#sqTail + 1) | 0;
    this.#pending++;
    return index;
  }

  /**
   * Makes sure that the next `count` SQEs are submitted in one call, as linked ones must be. The kernel may still
   * accept only a part of them if it has no memory for a request. A torn chain does not continue: its first remaining
   * entry completes with LINK_TORN, and those linked to it with -ECANCELED. Prepare those again when the first part
   * of the chain has completed.
   */
  reserve(count: number): void {
    assert(count <= this.sqEntries, "a chain is longer than the ring");
    if (this.#pending + count > this.sqEntries) this.submit();
  }

  /** Submits all prepared SQEs without waiting. */
  submit(): void {
    for (let attempt = 0; this.#pending > 0; attempt++) {
      if (attempt === SUBMIT_ATTEMPTS_MAX) {
        throw new UringError("SYSTEM_CALL_FAILED", `the kernel takes no entry of ring ${this.fd}`);
      }
      // A kernel that is short of memory or of completion space returns EAGAIN or EBUSY; letting it post completions
      // helps.
      if (this.#enter(0, 0) < 0) this.#enter(0, EnterFlag.GETEVENTS);
    }
  }

  /**
   * Submits all prepared SQEs and waits for at least `minComplete` completions. Returns early on a signal, and if the
   * kernel accepted only a part: check ready().
   * @throws UringError RING_CLOSED; SYSTEM_CALL_FAILED (EBADR: completions were lost for lack of memory)
   */
  submitAndWait(minComplete: number): void {
    this.#enter(minComplete, EnterFlag.GETEVENTS);
  }

  /**
   * Submits all prepared SQEs, then looks for completions without calls, about 4.5 ns each time. Needs
   * SetupFlag.TASKRUN_FLAG. Returns true if there is one, or will be after the next submitAndWait().
   * @throws as submitAndWait()
   */
  submitAndLook(looks: number): boolean {
    this.#enter(0, EnterFlag.GETEVENTS);
    if (this.ready() > 0) return true;
    for (let look = 0; look < looks; look++) {
      const flags = Atomics.load(this.#ring32, this.#sqFlagsIndex);
      if ((flags & SqRingFlag.TASKRUN) !== 0) return true;
    }
    return false;
  }

  #enter(minComplete: number, flags: number): number {
    // A closed ring's descriptor number may be another file's by now.
    if (this.#closed) throw new UringError("RING_CLOSED", "the ring is closed");
    if (((this.#sqTail - this.#cqHead) | 0) > this.#workers) this.#addWorkers();
    if (this.#beforeEnter !== undefined) this.#beforeEnter(this);
    Atomics.store(this.#ring32, this.#cqHeadIndex, this.#cqHead);
    Atomics.store(this.#ring32, this.#sqTailIndex, this.#sqTail);
    this.enterCalls++;
    const status = native.enter(
      this.#enterFd,
      this.#pending,
      minComplete,
      flags | this.#enterFlags,
    );
    if (status >= 0) {
      this.#pending -= status;
      if (this.#pending > 0) this.#mendTornChain();
      return status;
    }
    if (status === -EINTR || status === -EAGAIN || status === -EBUSY) return status;
    throw new UringError("SYSTEM_CALL_FAILED", "io_uring_enter failed", status);
  }

  /** As many as are in flight with what is to be submitted now, and some more. */
  #addWorkers(): void {
    const inFlight = (this.#sqTail - this.#cqHead) | 0;
    const workers = 2 ** Math.ceil(Math.log2(Math.max(inFlight, WORKERS_MIN)));
    threadWorkers += workers - this.#workers;
    this.#workers = workers;
    check(native.limitWorkers(this.#native.handle, threadWorkers), `${threadWorkers} workers`);
  }

  /**
   * The kernel accepted only a part of the submission (io_submit_sqes: no memory for a request), and has started it:
   * to the kernel, the rest is a new chain.
   */
  #mendTornChain(): void {
    const words = this.sqes32;
    const next = (this.#sqTail - this.#pending) | 0;
    const last = ((next - 1) & this.#sqMask) * this.sqeWords;
    if (((words[last] >>> 8) & SqeFlag.IO_LINK) === 0) return;
    const torn = (next & this.#sqMask) * this.sqeWords;
    const isLinked = (words[torn] >>> 8) & SqeFlag.IO_LINK;
    const low = words[torn + USER_DATA_WORD];
    const high = words[torn + USER_DATA_WORD + 1];
    words.fill(0, torn, torn + this.sqeWords);
    // An operation that does nothing but fail, on an invalid descriptor.
    words[torn] = Opcode.FSYNC | (isLinked << 8);
    words[torn + 1] = -1;
    words[torn + USER_DATA_WORD] = low;
    words[torn + USER_DATA_WORD + 1] = high;
  }

  /** Completions that can be read now. */
  ready(): number {
    const tail = Atomics.load(this.#ring32, this.#cqTailIndex);
    return (tail - this.#cqHead) | 0;
  }

  /** True when the kernel holds completions back because the ring was full. */
  overflowed(): boolean {
    return (Atomics.load(this.#ring32, this.#sqFlagsIndex) & SqRingFlag.CQ_OVERFLOW) !== 0;
  }

  /** Index into cqes32 of the oldest unread completion; only when ready() > 0. */
  headIndex(): number {
    return (this.#cqHead & this.cqMask) * CQE_WORDS;
  }

  /** Returns the oldest completion's slot to the kernel. */
  advance(): void {
    this.pass();
    Atomics.store(this.#ring32, this.#cqHeadIndex, this.#cqHead);
  }

  /** Like advance(), but the slot is returned with the next call of the kernel: one store for many of them. */
  pass(): void {
    this.#cqHead = (this.#cqHead + 1) | 0;
  }

  /** Makes a table of `count` registered files, all empty. */
  registerFiles(count: number): void {
    check(native.registerFilesSparse(this.#native.handle, count), `${count} files`);
  }

  /** Puts a descriptor into the table of registered files; -1 empties the place. */
  setFile(index: number, fd: number): void {
    check(native.updateFile(this.#native.handle, index, fd), `file ${fd} at ${index}`);
  }

  /** Makes a table of `count` registered buffers, all empty. */
  registerBuffers(count: number): void {
    check(native.registerBuffersSparse(this.#native.handle, count), `${count} buffers`);
  }

  /** Pins memory as registered buffer `index`; length 0 empties the place. At most 1 GiB each. */
  setBuffer(index: number, address: number, lengthBytes: number): void {
    check(
      native.updateBuffer(this.#native.handle, index, address, lengthBytes),
      `buffer of ${lengthBytes} bytes`,
    );
  }

  /** Saves the lookup of the ring's descriptor in every enter; for the owning thread only. */
  registerRingFd(): void {
    const index = native.registerRingFd(this.#native.handle);
    check(index, "the ring's descriptor");
    this.#enterFd = index;
    this.#enterFlags = EnterFlag.REGISTERED_RING;
  }

  /**
   * Closes the ring; views become empty, SQEs that were not submitted are dropped. The kernel cancels operations in
   * flight, but later, and they may still write into their memory until then: wait for their completions first.
   */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    if (this.#workers !== INT32_MAX) threadWorkers -= this.#workers;
    native.closeRing(this.#native.handle, this.#native.rings, this.#native.sqes);
  }
}

function check(status: number, what: string): void {
  if (status < 0) throw new UringError("REGISTER_FAILED", `cannot register ${what}`, status);
}
