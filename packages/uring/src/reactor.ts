/**
 * The event loop of a worker thread, driven by one ring.
 *
 * ```
 *          ┌──────────────────────────────────────────────────────────┐
 *          ▼                                                          │
 *   submitAndWait(1) ──▶ completion ──▶ handlers[user_data high]      │
 *                              │             .onCompletion(low, …) ───┤ prepares SQEs
 *                              └──▶ wake-up: messages are drained ────┘
 * ```
 *
 * The thread never returns to its event loop while it runs, so timers and promises do not work on
 * it; everything comes through the ring. Other threads wake it by writing to an eventfd whose read
 * is always armed.
 */

import { receiveMessageOnPort } from "node:worker_threads";
import { ECANCELED, EINTR, EMFILE, ENOMEM, ETIME } from "@blksnap/errors";
import { SetupFlag } from "./abi.js";
import { assert, UringError } from "./errors.js";
import { FreedMemory } from "./freed-memory.js";
import { Lookout } from "./lookout.js";
import { high32, low32, MappedMemory, PAGE_BYTES } from "./memory.js";
import { native } from "./native.js";
import { prepareCancel, prepareRead, prepareTimeout } from "./operations.js";
import type { CompletionHandler, ReactorOptions } from "./reactor-options.js";
import { CQE_WORDS, Ring } from "./ring.js";
import { isRingShort } from "./shortage.js";

/** A timer that was set. */
export interface Timer {
  /** Absent after a cancellation. */
  callback: (() => void) | undefined;
}

/** For a thousand devices with an image each, whose owners need a few of each kind. */
const HANDLERS_MAX = 16_384;
const FILES_MAX = 16_384;
/** The kernel's limit; drivers may use DRIVER_PLACES_MAX of it. */
const BUFFERS_MAX = 16_384;
export const DRIVER_PLACES_MAX = 12_288;
const RING_FLAGS = SetupFlag.SINGLE_ISSUER | SetupFlag.DEFER_TASKRUN | SetupFlag.SUBMIT_ALL;
const WAKE_HANDLER = 0;
const TIMER_HANDLER = 1;
const CANCEL_HANDLER = 2;
const FREE_HANDLER = 3;
/** Offsets in the reactor's own memory: the eventfd's counter, then the timespecs of timers. */
const WAKE_OFFSET_BYTES = 0;
const TIMERS_OFFSET_BYTES = 64;
const TIMERS_MAX = 4096;
const TIMESPEC_BYTES = 16;
const OWN_BYTES =
  Math.ceil((TIMERS_OFFSET_BYTES + TIMERS_MAX * TIMESPEC_BYTES) / PAGE_BYTES) * PAGE_BYTES;

/**
 * Written to the wake-up eventfd it ends the loop after the current batch, whatever the messages are: for the end of
 * the process, which waits for a thread that nothing else can interrupt.
 */
export const END_REACTOR: bigint = 1n << 32n;

const UNUSED: CompletionHandler = {
  onCompletion: () => {
    throw new Error("completion for a handler that was removed");
  },
};

function full(what: string): UringError {
  return new UringError("REACTOR_FULL", `a reactor has no room for more ${what}`, EMFILE);
}

export class Reactor {
  readonly ring: Ring;
  /** Completions handled so far. */
  completions = 0;
  readonly #options: ReactorOptions;
  readonly #handlers: CompletionHandler[] = [];
  readonly #own: MappedMemory;
  readonly #counter: Uint32Array;
  readonly #heartbeat: Int32Array;
  /** The time of the current turn in microseconds, if a caller has requested it. */
  readonly #turnUs = new Float64Array(1);
  #stampedTurn = -1;
  readonly #timespecs: BigInt64Array;
  readonly #timers: (Timer | null)[] = [];
  readonly #freeFiles: number[] = [];
  readonly #freeBuffers: number[] = [];
  readonly #freed: FreedMemory;
  readonly #lookout: Lookout;
  /** Callbacks that undo the registrations of the current attempt(). */
  #taken: (() => void)[] | undefined;
  #stopped = false;
  #processEnds = false;
  #wakeArmed = false;
  #failure: unknown;

  /** Create it on the worker thread itself: the ring belongs to the thread that creates it. */
  constructor(options: ReactorOptions) {
    this.#options = options;
    this.#heartbeat = options.heartbeat ?? new Int32Array(1);
    const { entries = 256, isLively = false } = options;
    this.#lookout = new Lookout(isLively);
    this.ring = new Ring({
      entries,
      cqEntries: entries * 8,
      flags: isLively ? RING_FLAGS | SetupFlag.TASKRUN_FLAG : RING_FLAGS,
      workerForEach: true,
      beforeEnter: options.beforeEnter,
    });
    try {
      this.ring.registerRingFd();
      const filesMax = this.#registerFiles();
      const buffersMax = options.buffersMax ?? BUFFERS_MAX;
      this.ring.registerBuffers(buffersMax);
      for (let i = filesMax - 1; i >= 0; i--) this.#freeFiles.push(i);
      for (let i = buffersMax - 1; i >= 0; i--) this.#freeBuffers.push(i);
      this.#own = MappedMemory.anonymous(OWN_BYTES);
    } catch (error) {
      this.ring.close();
      throw error;
    }
    this.#counter = new Uint32Array(this.#own.buffer, WAKE_OFFSET_BYTES, 2);
    this.#timespecs = new BigInt64Array(this.#own.buffer, TIMERS_OFFSET_BYTES, TIMERS_MAX * 2);
    this.addHandler({ onCompletion: (_, result) => this.#onWake(result) });
    this.addHandler({ onCompletion: (data, result) => this.#onTimer(data, result) });
    this.addHandler({ onCompletion: () => undefined });
    this.#freed = new FreedMemory(this.ring, FREE_HANDLER);
    this.addHandler(this.#freed);
    this.#armWake();
  }

  /** @returns the size of the table @throws UringError REGISTER_FAILED */
  #registerFiles(): number {
    const { filesMax } = this.#options;
    for (let count = filesMax ?? FILES_MAX; ; count >>= 1) {
      try {
        this.ring.registerFiles(count);
        return count;
      } catch (error) {
        // The limit of open files also limits this table.
        const isLimit = error instanceof UringError && error.errno === EMFILE;
        if (!isLimit || filesMax !== undefined || count < 2) throw error;
      }
    }
  }

  /**
   * Runs a function that registers resources of this reactor. If it throws, they are unregistered: a file that stayed
   * registered would stay open, and claimed, as long as the reactor runs. Do not prepare operations inside that use
   * them.
   */
  attempt<Made>(make: () => Made): Made {
    const outer = this.#taken;
    const taken: (() => void)[] = [];
    this.#taken = taken;
    try {
      const made = make();
      outer?.push(...taken);
      return made;
    } catch (error) {
      for (const giveBack of taken.reverse()) giveBack();
      throw error;
    } finally {
      this.#taken = outer;
    }
  }

  /** Within attempt(): another resource of what is created, such as memory, to free if the attempt fails. */
  noteTaken(giveBack: () => void): void {
    this.#taken?.push(giveBack);
  }

  /** Gives a handler its id: the high half of the user data of its operations. @throws UringError REACTOR_FULL */
  addHandler(handler: CompletionHandler): number {
    const free = this.#handlers.indexOf(UNUSED);
    const id = free >= 0 ? free : this.#handlers.length;
    if (id >= HANDLERS_MAX) throw full("handlers");
    this.#handlers[id] = handler;
    this.#taken?.push(() => {
      if (this.#handlers[id] === handler) this.removeHandler(id);
    });
    return id;
  }

  /** Frees a handler's id for reuse; only when none of its operations is in flight any more. */
  removeHandler(id: number): void {
    this.#handlers[id] = UNUSED;
  }

  /**
   * Registers a descriptor; the index goes into operations with SqeFlag.FIXED_FILE.
   * @throws UringError REACTOR_FULL, REGISTER_FAILED
   */
  addFile(fd: number): number {
    const index = this.#freeFiles.at(-1);
    if (index === undefined) throw full("registered files");
    this.ring.setFile(index, fd);
    this.#freeFiles.pop();
    this.#taken?.push(() => {
      if (!this.#freeFiles.includes(index)) this.removeFile(index);
    });
    return index;
  }

  removeFile(index: number): void {
    assert(!this.#freeFiles.includes(index), "a registered file is removed twice");
    this.ring.setFile(index, -1);
    this.#freeFiles.push(index);
  }

  /** Pins memory as a registered buffer for the `…Fixed` operations. @throws as addFile() */
  addBuffer(address: number, lengthBytes: number): number {
    const index = this.#freeBuffers.at(-1);
    if (index === undefined) throw full("registered buffers");
    this.ring.setBuffer(index, address, lengthBytes);
    this.#freeBuffers.pop();
    this.#taken?.push(() => {
      if (!this.#freeBuffers.includes(index)) this.removeBuffer(index);
    });
    return index;
  }

  removeBuffer(index: number): void {
    assert(!this.#freeBuffers.includes(index), "a registered buffer is removed twice");
    this.ring.setBuffer(index, 0, 0);
    this.#freeBuffers.push(index);
  }

  /**
   * Reserves slots in the table of registered buffers that a driver of the kernel fills and empties: at most `count`,
   * fewer if the table has no more; a quarter of it is reserved for addBuffer().
   */
  takeBufferPlaces(count: number): Int32Array {
    const free = this.#freeBuffers;
    const left = Math.max(0, free.length - (BUFFERS_MAX - DRIVER_PLACES_MAX));
    const places = Int32Array.from(free.splice(free.length - Math.min(count, left)));
    this.#taken?.push(() => {
      this.giveBackBufferPlaces(places.filter((place) => !free.includes(place)));
    });
    return places;
  }

  /** The driver has emptied them. */
  giveBackBufferPlaces(places: Int32Array): void {
    this.#freeBuffers.push(...places);
  }

  /** Whether the user of a request that ends in this turn may make the next one at once. */
  expectRequest(isSoon: boolean): void {
    this.#lookout.expect(isSoon);
  }

  /** Unmaps memory that nothing uses any more, in slices: see freed-memory.ts. */
  unmapInSlices(memory: MappedMemory): void {
    if (this.#stopped) memory.unmap();
    else this.#freed.add(memory);
  }

  /**
   * Calls back once after `delayMs`. For control work: it allocates. At most TIMERS_MAX at a time.
   * @returns its name for cancelTimer()
   */
  setTimer(delayMs: number, callback: () => void): Timer {
    const freed = this.#timers.indexOf(null);
    const index = freed >= 0 ? freed : this.#timers.length;
    assert(index < TIMERS_MAX, "too many timers");
    assert(delayMs >= 0, `timer of ${delayMs} ms`);
    const timer = { callback };
    this.#timers[index] = timer;
    this.#timespecs[index * 2] = BigInt(Math.floor(delayMs / 1000));
    this.#timespecs[index * 2 + 1] = BigInt(Math.floor((delayMs % 1000) * 1e6));
    this.#armTimer(index);
    return timer;
  }

  #armTimer(index: number): void {
    const address = this.#own.address + TIMERS_OFFSET_BYTES + index * TIMESPEC_BYTES;
    prepareTimeout(this.ring, low32(address), high32(address), index, TIMER_HANDLER);
  }

  /** A cancelled timer; its slot is free as soon as the kernel has completed it. */
  cancelTimer(timer: Timer): void {
    const index = this.#timers.indexOf(timer);
    if (index < 0 || timer.callback === undefined) return;
    timer.callback = undefined;
    prepareCancel(this.ring, index, TIMER_HANDLER, 0, CANCEL_HANDLER);
  }

  /**
   * Serves until stop() is called, then closes the ring. After END_REACTOR it returns at once and leaves
   * the ring to the end of the process: the kernel then takes back what is in flight as after a kill,
   * while a ring that is closed under the requests of a living thread can keep drivers waiting for
   * theirs (ublk, Linux 6.12).
   * @throws UringError when the ring itself fails, or nothing could wake the loop any more
   */
  run(): void {
    while (this.turn());
  }

  /**
   * Stores the time of this turn in a typed array, in microseconds of a monotonic clock. The clock is read at most
   * once per turn.
   */
  stampUs(into: Float64Array, index: number): void {
    if (this.#stampedTurn !== this.#heartbeat[0]) {
      this.#stampedTurn = this.#heartbeat[0];
      native.readClock(this.#turnUs);
    }
    into[index] = this.#turnUs[0];
  }

  /**
   * One turn of run(), for callers with several loops on one thread and a kernel that never waits, such as a
   * simulated one.
   * @returns false when the loop has ended, like run() @throws as run()
   */
  turn(): boolean {
    try {
      if (!this.#stopped) {
        this.#lookout.wait(this.ring);
        this.#heartbeat[0]++;
        this.#reap();
        if (!this.#stopped) return true;
      }
      if (!this.#processEnds) this.#disarmWake();
      if (this.#failure !== undefined) throw this.#failure;
    } catch (error) {
      this.#end();
      throw error;
    }
    this.#end();
    return false;
  }

  #end(): void {
    this.#stopped = true;
    if (!this.#processEnds) this.#close();
  }

  #close(): void {
    this.ring.close();
    this.#freed.close();
    // A read that is still armed may write here: that memory then lives as long as the thread.
    if (!this.#wakeArmed) this.#own.unmap();
  }

  /** Ends run() after the current batch; nothing else may be in flight then. */
  stop(): void {
    this.#stopped = true;
  }

  #reap(): void {
    const ring = this.ring;
    const cqes = ring.cqes32;
    // Messages that arrive during this batch wait for the next turn, so that one busy queue cannot keep the loop from
    // submitting prepared operations.
    for (let left = ring.ready(); left > 0; left--) {
      const cqe = ring.headIndex();
      const data = cqes[cqe];
      const handler = cqes[cqe + 1];
      const result = cqes[cqe + 2];
      const flags = cqes[cqe + CQE_WORDS - 1];
      ring.pass();
      this.completions++;
      try {
        this.#handlers[handler].onCompletion(data, result, flags);
      } catch (error) {
        this.#options.onError(error);
      }
    }
  }

  #armWake(): void {
    const { address } = this.#own;
    prepareRead(
      this.ring,
      this.#options.wakeFd,
      low32(address + WAKE_OFFSET_BYTES),
      high32(address + WAKE_OFFSET_BYTES),
      8,
      0,
      0,
      0,
      WAKE_HANDLER,
      0,
    );
    this.#wakeArmed = true;
  }

  /** Cancels the armed read, so that the kernel writes nothing into freed memory. */
  #disarmWake(): void {
    if (!this.#wakeArmed) return;
    prepareCancel(this.ring, 0, WAKE_HANDLER, 0, CANCEL_HANDLER);
    while (this.#wakeArmed) {
      this.ring.submitAndWait(1);
      this.#reap();
    }
  }

  #onWake(result: number): void {
    this.#wakeArmed = false;
    // No memory or no thread for it: arm it again; messages that came meanwhile are not missed.
    const isShort = isRingShort(result);
    if (isShort && this.#stopped) return;
    if (result < 0 && result !== -EINTR && !isShort) {
      this.#stopped = true;
      this.#failure = new UringError("REACTOR_FAILED", "the wake-up cannot be read", result);
      return;
    }
    if (result > 0 && this.#counter[1] > 0) {
      this.#processEnds = true;
      this.#stopped = true;
    }
    if (!this.#stopped) this.#armWake();
    for (;;) {
      const received = receiveMessageOnPort(this.#options.port);
      if (received === undefined) return;
      try {
        this.#options.onMessage(received.message);
      } catch (error) {
        this.#options.onError(error);
      }
    }
  }

  #onTimer(index: number, result: number): void {
    const timer = this.#timers[index];
    // No memory for the timer. Its owner waits for nothing else: it fires late, but it does.
    if (result === -ENOMEM && timer?.callback !== undefined) {
      this.#armTimer(index);
      return;
    }
    this.#timers[index] = null;
    if (result !== -ETIME && result !== -ECANCELED) {
      throw new UringError("REACTOR_FAILED", "a timer failed", result);
    }
    timer?.callback?.();
  }
}
