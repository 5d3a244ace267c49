/**
 * The loop of a worker thread that lives in one ring.
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
import { type MessagePort, receiveMessageOnPort } from "node:worker_threads";
import { SetupFlag } from "./abi.js";
import { assert } from "./errors.js";
import { MappedMemory } from "./memory.js";
import { prepareRead, prepareTimeout } from "./operations.js";
import { CQE_WORDS, Ring } from "./ring.js";

/** Takes completions. One object serves many operations; `data` tells them apart. */
export interface CompletionHandler {
  /**
   * @param data the low half of the operation's user data
   * @param result bytes or 0, or a negative errno
   * @param flags the CQE's flags
   */
  onCompletion(data: number, result: number, flags: number): void;
}

const HANDLERS_MAX = 1024;
/** Offsets in the reactor's own page: the eventfd's counter, then the timespecs of timers. */
const WAKE_OFFSET_BYTES = 0;
const TIMERS_OFFSET_BYTES = 64;
const TIMERS_MAX = 128;
const TIMESPEC_BYTES = 16;

export interface ReactorOptions {
  /** Submission entries of the ring; default 256. */
  readonly entries?: number;
  /** Registered files that the ring has room for; default 1024. */
  readonly filesMax?: number;
  /** Registered buffers that the ring has room for; default 256. */
  readonly buffersMax?: number;
  /** Eventfd that other threads write to. */
  readonly wakeFd: number;
  /** Where messages of other threads arrive; drained after each wake-up. */
  readonly port: MessagePort;
  readonly onMessage: (message: unknown) => void;
  /** Told of an exception that a handler let escape; the loop goes on. */
  readonly onError: (error: unknown) => void;
}

export class Reactor {
  readonly ring: Ring;
  /** Completions handled so far. */
  completions = 0;
  readonly #options: ReactorOptions;
  readonly #handlers: CompletionHandler[] = [];
  readonly #page: MappedMemory;
  readonly #timespecs: BigInt64Array;
  readonly #timerCallbacks: (((result: number) => void) | null)[] = [];
  readonly #freeFiles: number[] = [];
  readonly #freeBuffers: number[] = [];
  #stopped = false;

  /** To be made on the worker thread itself: the ring belongs to the thread that creates it. */
  constructor(options: ReactorOptions) {
    this.#options = options;
    const entries = options.entries ?? 256;
    this.ring = new Ring({
      entries,
      cqEntries: entries * 8,
      flags: SetupFlag.SINGLE_ISSUER | SetupFlag.DEFER_TASKRUN | SetupFlag.SUBMIT_ALL,
    });
    this.ring.registerRingFd();
    const filesMax = options.filesMax ?? 1024;
    const buffersMax = options.buffersMax ?? 256;
    this.ring.registerFiles(filesMax);
    this.ring.registerBuffers(buffersMax);
    for (let i = filesMax - 1; i >= 0; i--) this.#freeFiles.push(i);
    for (let i = buffersMax - 1; i >= 0; i--) this.#freeBuffers.push(i);
    this.#page = MappedMemory.anonymous(4096);
    this.#timespecs = new BigInt64Array(this.#page.buffer, TIMERS_OFFSET_BYTES, TIMERS_MAX * 2);
    this.addHandler({ onCompletion: () => this.#onWake() });
    this.addHandler({ onCompletion: (data, result) => this.#onTimer(data, result) });
    this.#armWake();
  }

  /** Gives a handler its id: the high half of the user data of its operations. */
  addHandler(handler: CompletionHandler): number {
    const free = this.#handlers.indexOf(UNUSED);
    if (free >= 0) {
      this.#handlers[free] = handler;
      return free;
    }
    assert(this.#handlers.length < HANDLERS_MAX, "too many handlers");
    return this.#handlers.push(handler) - 1;
  }

  /** Frees a handler's id; only when none of its operations is in flight any more. */
  removeHandler(id: number): void {
    this.#handlers[id] = UNUSED;
  }

  /** Registers a descriptor; the index goes into operations with SqeFlag.FIXED_FILE. */
  addFile(fd: number): number {
    const index = this.#freeFiles.pop();
    assert(index !== undefined, "the table of registered files is full");
    this.ring.setFile(index, fd);
    return index;
  }

  removeFile(index: number): void {
    this.ring.setFile(index, -1);
    this.#freeFiles.push(index);
  }

  /** Pins memory as a registered buffer for the `…Fixed` operations. */
  addBuffer(address: number, lengthBytes: number): number {
    const index = this.#freeBuffers.pop();
    assert(index !== undefined, "the table of registered buffers is full");
    this.ring.setBuffer(index, address, lengthBytes);
    return index;
  }

  removeBuffer(index: number): void {
    this.ring.setBuffer(index, 0, 0);
    this.#freeBuffers.push(index);
  }

  /** Calls back once after `delayMs`. For control work: it allocates. At most TIMERS_MAX at a time. */
  setTimer(delayMs: number, callback: () => void): void {
    let index = this.#timerCallbacks.indexOf(null);
    if (index < 0) index = this.#timerCallbacks.push(null) - 1;
    assert(index < TIMERS_MAX, "too many timers");
    this.#timerCallbacks[index] = callback;
    this.#timespecs[index * 2] = BigInt(Math.floor(delayMs / 1000));
    this.#timespecs[index * 2 + 1] = BigInt(Math.floor((delayMs % 1000) * 1e6));
    const address = this.#page.address + TIMERS_OFFSET_BYTES + index * TIMESPEC_BYTES;
    prepareTimeout(this.ring, address | 0, (address / 4294967296) | 0, index, TIMER_HANDLER);
  }

  /** Serves until stop() is called. */
  run(): void {
    while (!this.#stopped) {
      this.ring.submitAndWait(1);
      this.#reap();
    }
    this.#page.unmap();
    this.ring.close();
  }

  /** Ends run() after the current batch. */
  stop(): void {
    this.#stopped = true;
  }

  #reap(): void {
    const ring = this.ring;
    const cqes = ring.cqes32;
    // What arrives while this batch is handled waits for the next turn, so that one busy queue
    // cannot keep the loop from submitting what has been prepared.
    for (let left = ring.ready(); left > 0; left--) {
      const cqe = ring.headIndex();
      const data = cqes[cqe];
      const handler = cqes[cqe + 1];
      const result = cqes[cqe + 2];
      const flags = cqes[cqe + CQE_WORDS - 1];
      ring.advance();
      this.completions++;
      try {
        this.#handlers[handler].onCompletion(data, result, flags);
      } catch (error) {
        this.#options.onError(error);
      }
    }
  }

  #armWake(): void {
    const address = this.#page.address + WAKE_OFFSET_BYTES;
    prepareRead(
      this.ring,
      this.#options.wakeFd,
      address | 0,
      (address / 4294967296) | 0,
      8,
      0,
      0,
      0,
      WAKE_HANDLER,
      0,
    );
  }

  #onWake(): void {
    this.#armWake();
    for (;;) {
      const received = receiveMessageOnPort(this.#options.port);
      if (received === undefined) return;
      this.#options.onMessage(received.message);
    }
  }

  #onTimer(index: number, result: number): void {
    const callback = this.#timerCallbacks[index];
    this.#timerCallbacks[index] = null;
    callback?.(result);
  }
}

const WAKE_HANDLER = 0;
const TIMER_HANDLER = 1;
const UNUSED: CompletionHandler = {
  onCompletion: () => {
    throw new Error("completion for a handler that was removed");
  },
};
