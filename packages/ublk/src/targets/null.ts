import { UblkOp } from "../abi.js";
import type { DeviceParams } from "../layout.js";
import type { RequestQueue, Target, TargetModule, TargetSpec } from "../target.js";

interface NullOptions {
  /** Multiple of 512. */
  readonly capacityBytes: number;
}

/** A device that drops writes and reads whatever its buffers contain: for measuring ublk itself. */
export function nullTarget(options: NullOptions): TargetSpec {
  return { module: new URL(import.meta.url), options };
}

/** Parameters of a device of plain memory: 512-byte sectors in 4 KiB blocks. */
export function memoryParams(capacityBytes: number): DeviceParams {
  return {
    capacityBytes,
    logicalBlockBytes: 512,
    physicalBlockBytes: 4096,
    ioMinBytes: 4096,
    ioOptBytes: 4096,
    readOnly: false,
    rotational: false,
    volatileCache: false,
    fua: false,
    discardMaxBytes: 16 * 1024 * 1024,
    discardGranularityBytes: 4096,
    writeZeroesMaxBytes: 16 * 1024 * 1024,
  };
}

class NullTarget implements Target {
  readonly #queue: RequestQueue;

  constructor(queue: RequestQueue) {
    this.#queue = queue;
  }

  queueIo(tag: number): void {
    const transfers = this.#queue.op(tag) <= UblkOp.WRITE;
    this.#queue.complete(tag, transfers ? this.#queue.sectors(tag) << 9 : 0);
  }

  close(): void {}
}

export const target: TargetModule = {
  describe: (options) => memoryParams((options as NullOptions).capacityBytes),
  open: (_options, queue) => new NullTarget(queue),
};
