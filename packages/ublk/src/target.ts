import type { MappedMemory, Reactor } from "@blksnap/uring";
import type { DeviceParams } from "./layout.js";

/** In place of the number of a registered buffer. */
export const NOT_REGISTERED = -1;

/** Goes on with a request that has got a buffer. */
export interface CopyThen {
  /** @param result 0, or a negative errno: its bytes could not be had */
  onCopied(tag: number, result: number): void;
}

/**
 * The requests that a target is given: those of a ublk queue, or of another server of block devices. Fields
 * of a request are told by its tag, 0 to depth - 1.
 */
export interface RequestQueue {
  readonly depth: number;
  /** The most bytes of a read or write. */
  readonly maxIoBytes: number;
  /** Low and high halves of the address of each tag's buffer. */
  readonly bufferLow: Int32Array;
  readonly bufferHigh: Int32Array;
  /**
   * Registered buffer that each tag's buffer lies in; NOT_REGISTERED where it was replaced, or this process may
   * not register as much.
   */
  readonly bufferIndex: Int32Array;
  /** Operation of the request: a UblkOp. */
  op(tag: number): number;
  /** Flags of the request: UblkIoFlag bits. */
  flags(tag: number): number;
  /** Length in 512-byte sectors, below 2^31; that of a read or write is at most maxIoBytes. */
  sectors(tag: number): number;
  /** Low and high halves of the first sector. */
  startSectorLow(tag: number): number;
  startSectorHigh(tag: number): number;
  /** The bytes of a tag's buffer, for cold paths: it allocates a view. Not of a queue with zero copy. */
  bufferBytes(tag: number): Uint8Array;
  /**
   * Of a request whose own pages were registered, and whose transfer has failed for what they are: it gets a
   * buffer with its bytes in place of them, and then the transfer can be tried again. Answers false where it has
   * one already.
   */
  copyRequest(tag: number, then: CopyThen): boolean;
  /**
   * Answers a request.
   * @param result READ and WRITE: exactly the bytes asked for; others: 0; or a negative errno
   */
  complete(tag: number, result: number): void;
  /** Gives a tag another buffer, from the answer to its present request on. */
  replaceBuffer(tag: number, memory: MappedMemory): void;
  /** The queue's own buffers stay mapped, also when it has ended, until releaseBuffers() is called as often. */
  keepBuffers(): void;
  releaseBuffers(): void;
}

/**
 * What stands behind a ublk device, or another server's. It lives on the reactor's thread and is a state machine, not a
 * promise per request: queueIo() starts a request, and the target answers it with
 * `queue.complete(tag, result)`, at once or in a later completion of the reactor's ring.
 */
export interface Target {
  /**
   * Starts the request of `tag`; its fields are read through the queue. The tag's buffer belongs to
   * the target until it completes the request. An exception becomes -EIO, and so must mean that
   * nothing was started that still uses the buffer or completes the request.
   */
  queueIo(tag: number): void;
  /** Gives up what the target holds; no request is in flight any more. */
  close(): void;
}

/** Where a target's code is found on another thread, and what it is given there. */
export interface TargetSpec {
  /** A module that exports `target: TargetModule`. */
  readonly module: URL;
  /** Must survive structured cloning. */
  readonly options: unknown;
}

/** What a target's module exports as `target`. */
export interface TargetModule {
  /** It never looks at the bytes of reads and writes, so that its queue may have zero copy. */
  readonly isPassThrough?: boolean;
  /** On the main thread, before the device exists: what device it is going to be. */
  describe(options: unknown): DeviceParams;
  /** On the reactor's thread. What it throws ends the device before it came to life. */
  open(options: unknown, queue: RequestQueue, reactor: Reactor): Target;
}
