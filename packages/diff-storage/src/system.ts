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
 * The system calls that node:fs lacks. The driver implements them on its ring; failures are errors with the errno's
 * name in `code`, as those of node:fs.
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
   * Rejects with ETIMEDOUT if the target of a path does not answer: opening it would keep a thread of this process
   * until it does. Other problems are reported when it is opened.
   */
  assertAnswers?(path: string): Promise<void>;
  /**
   * Writes whole blocks; resolves when they are on the medium. A write that hangs keeps no thread. Absent if that
   * cannot be done.
   */
  writeSynced?(fd: number, offsetBytes: number, bytes: Uint8Array): Promise<void>;
  /**
   * Whether cached data of an open file could not be written back since the last call. It waits for no medium. Absent
   * if the kernel is not asked.
   */
  hasLostWrites?(fd: number): Promise<boolean>;
  /** Removes O_DIRECT from an open file; absent if that cannot be done. */
  endDirectIo?(fd: number): Awaitable<void>;
  /** What direct I/O needs here; undefined if the kernel does not report it. */
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
