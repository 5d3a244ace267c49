import type { MappedMemory, Reactor } from "@blksnap/uring";
import type { DeviceParams } from "./layout.js";

/** In place of the number of a registered buffer. */
export const NOT_REGISTERED = -1;

/** Continues a request that has got a buffer. */
export interface CopyThen {
  /** @param result 0, or a negative errno: its bytes could not be transferred */
  onCopied(tag: number, result: number): void;
}

/**
 * The requests for a target, from a ublk queue or another server of block devices. Fields of a request are found by
 * its tag, 0 to depth - 1.
 */
export interface RequestQueue {
  readonly depth: number;
  /** The most bytes of a read or write. */
  readonly maxIoBytes: number;
  /** Low and high halves of the address of each tag's buffer. */
  readonly bufferLow: Int32Array;
  readonly bufferHigh: Int32Array;
  /**
   * Registered buffer that contains each tag's buffer; NOT_REGISTERED if it was replaced, or this process may not
   * register as much.
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
   * For a request whose own pages were registered, and whose transfer has failed because of them: it gets a buffer
   * with its bytes in place of them, and the transfer can be retried. Returns false if it has one already.
   */
  copyRequest(tag: number, then: CopyThen): boolean;
  /**
   * Completes a request.
   * @param result READ and WRITE: exactly the requested bytes; others: 0; or a negative errno
   */
  complete(tag: number, result: number): void;
  /** Replaces a tag's buffer, from the completion of its current request on. */
  replaceBuffer(tag: number, memory: MappedMemory): void;
  /** Keeps the queue's own buffers mapped, even after its end, until releaseBuffers() was called as often. */
  keepBuffers(): void;
  releaseBuffers(): void;
}

/**
 * The target of a ublk device, or of another server. It runs on the reactor's thread as a state machine without
 * promises: queueIo() starts a request, and the target completes it with `queue.complete(tag, result)`, at once or in
 * a later completion of the reactor's ring.
 */
export interface Target {
  /**
   * Starts the request of `tag`; its fields are read through the queue. The tag's buffer belongs to the target until
   * it completes the request. An exception becomes -EIO, so throw only if nothing was started that still uses the
   * buffer or completes the request.
   */
  queueIo(tag: number): void;
  /** Frees the target's resources; no request is in flight any more. */
  close(): void;
}

/** The module and options of a target for another thread. */
export interface TargetSpec {
  /** A module that exports `target: TargetModule`. */
  readonly module: URL;
  /** Must survive structured cloning. */
  readonly options: unknown;
}

/** Exported by a target's module as `target`. */
export interface TargetModule {
  /** Whether it never examines the bytes of reads and writes, so that its queue may have zero copy. */
  readonly isPassThrough?: boolean;
  /** On the main thread, before the device exists: its parameters. */
  describe(options: unknown): DeviceParams;
  /** On the reactor's thread. An exception ends the device before it becomes live. */
  open(options: unknown, queue: RequestQueue, reactor: Reactor): Target;
}
