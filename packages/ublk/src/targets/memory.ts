import { closeSync, ftruncateSync } from "node:fs";
import { createMemoryFile } from "@blksnap/uring";
import type { TargetModule, TargetSpec } from "../target.js";
import { FileTarget } from "./file.js";
import { memoryParams } from "./null.js";

interface MemoryOptions {
  /** Multiple of 512. Memory is allocated as blocks are written, and freed when they are discarded. */
  readonly capacityBytes: number;
}

/** A RAM disk: its content lives in an unnamed file in memory and ends with the device. */
export function memoryTarget(options: MemoryOptions): TargetSpec {
  return { module: new URL(import.meta.url), options };
}

export const target: TargetModule = {
  describe: (options) => memoryParams((options as MemoryOptions).capacityBytes),
  open(options, queue, reactor) {
    const fd = createMemoryFile("ublk-memory");
    try {
      ftruncateSync(fd, (options as MemoryOptions).capacityBytes);
      return new FileTarget(reactor, queue, fd, false);
    } catch (error) {
      closeSync(fd);
      throw error;
    }
  },
};
