/** A value or a promise of it. */
export type Awaitable<T> = T | Promise<T>;

/** Mode bits of fallocate(2). */
export const FALLOCATE_KEEP_SIZE = 0x01;
/** Mode bit of fallocate(2); the kernel wants KEEP_SIZE with it. */
export const FALLOCATE_PUNCH_HOLE = 0x02;

/** What direct I/O on a file needs, as statx(2) reports with STATX_DIOALIGN. */
export interface DirectIoAlignment {
  readonly memoryAlignmentBytes: number;
  readonly offsetAlignmentBytes: number;
}

/**
 * The system calls that node:fs lacks. The driver implements them on its ring; failures are errors
 * with the errno's name in `code`, like those of node:fs.
 */
export interface StoreSystem {
  /** fallocate(2), never blocking the calling thread. */
  fallocate(fd: number, mode: number, offsetBytes: number, lengthBytes: number): Promise<void>;
  /** Size of an open block device in bytes. */
  blockDeviceSizeBytes(fd: number): Awaitable<number>;
  /** An unnamed file in memory: memfd_create(2), close-on-exec. Returns its descriptor. */
  createMemoryFile(name: string): Awaitable<number>;
  /**
   * Takes an exclusive lock that lives as long as the open file (F_OFD_SETLK). Fails with EAGAIN
   * when another open file holds it.
   */
  lockFile(fd: number): Awaitable<void>;
  /**
   * Rejects with ETIMEDOUT when what a path leads to does not answer: opened, it would keep a thread of
   * this process until it does. What else is wrong with it is said when it is opened.
   */
  assertAnswers?(path: string): Promise<void>;
  /**
   * Writes whole blocks, which are on the medium when it ends. One that hangs keeps no thread; absent where that cannot be
   * done.
   */
  writeSynced?(fd: number, offsetBytes: number, bytes: Uint8Array): Promise<void>;
  /**
   * Whether cached data of an open file could not be written back since it was asked last. It waits for no medium; absent
   * where the kernel is not asked.
   */
  hasLostWrites?(fd: number): Promise<boolean>;
  /** Takes O_DIRECT off an open file; absent where that cannot be done. */
  endDirectIo?(fd: number): Awaitable<void>;
  /** What direct I/O needs here; undefined when the kernel cannot say. */
  statDirectIo?(fd: number): Awaitable<DirectIoAlignment | undefined>;
}

/** Time, replaceable in tests. */
export interface Clock {
  /** Milliseconds on a clock that never goes back. */
  nowMs(): number;
  /** Calls `expired` once after `delayMs`; the result cancels it. */
  after(delayMs: number, expired: () => void): () => void;
}

/** The real time. Its timers don't keep the process alive. */
export const systemClock: Clock = {
  nowMs: () => performance.now(),
  after: (delayMs, expired) => {
    const timer = setTimeout(expired, Math.min(Math.max(0, Math.ceil(delayMs)), 2 ** 31 - 1));
    timer.unref();
    return () => clearTimeout(timer);
  },
};
