import type { Reactor } from "@blksnap/uring";
import type { DeviceParams } from "./layout.js";
import type { Queue } from "./queue.js";

/**
 * What stands behind a ublk device. It lives on the reactor's thread and is a state machine, not a
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
  /** On the main thread, before the device exists: what device it is going to be. */
  describe(options: unknown): DeviceParams;
  /** On the reactor's thread. What it throws ends the device before it came to life. */
  open(options: unknown, queue: Queue, reactor: Reactor): Target;
}
