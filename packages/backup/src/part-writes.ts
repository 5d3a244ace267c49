/** Parts of a device that a thread sums, and writes to a file where that is wanted: many with one message. */
import { writeSync } from "node:fs";
import { errnoNameOf } from "@blksnap/errors";
import { type BlockWindow, sumsOf } from "./sums.js";

/** Direct I/O wants places and lengths that are multiples of the sector; of any disk's it is this at most. */
const DIRECT_ALIGN_BYTES = 4096;
/** What is smaller, the kernel gathers and orders better than many writes that are waited for one by one. */
const DIRECT_MIN_BYTES = 2 ** 18;
/**
 * At a time, where it is not direct. For more, file systems with large folios take memory in such pieces as the kernel has
 * given back to a hypervisor: a write of 4 MiB took a virtual machine three times what four of 1 MiB do.
 */
export const WRITE_BYTES_MAX: number = 2 ** 20;

export interface PartFiles {
  readonly fd: number;
  /** Opened with O_DIRECT: what is large goes past the page cache. Undefined: it cannot. */
  readonly directFd: number | undefined;
}

/** Of a part that is in the memory. */
export interface PartPlace {
  readonly startBytes: number;
  readonly lengthBytes: number;
  /** On the device, and in the file. */
  readonly offsetBytes: number;
  readonly window: BlockWindow;
}

export interface PartsRequest {
  readonly kind: "parts";
  readonly memory: SharedArrayBuffer;
  readonly parts: readonly PartPlace[];
  /** Undefined: they are summed alone. */
  readonly files: PartFiles | undefined;
}

/** Of an error, what goes through a message. */
export interface SystemFailure {
  readonly message: string;
  readonly code: string;
}

export interface PartsAnswer {
  /** Of each part as of `sumsOf`. */
  readonly sums: readonly (Uint32Array | null)[];
  /** What went through the page cache. */
  readonly cachedBytes: number;
  readonly failure?: SystemFailure;
}

/** It is written past the page cache, where file system and disk take that. */
export function canBeDirect({ byteOffset, length }: Uint8Array, offsetBytes: number): boolean {
  return (
    length >= DIRECT_MIN_BYTES && (offsetBytes | byteOffset | length) % DIRECT_ALIGN_BYTES === 0
  );
}

/** The file system has it for other memory or places only, or not at all. */
export function isNotDirect(error: unknown): boolean {
  return ["EINVAL", "EOPNOTSUPP"].includes(errnoNameOf(error));
}

/** Answers how many bytes of it were written, in order. */
function writeDirect(fd: number, data: Uint8Array, offsetBytes: number): number {
  try {
    return writeSync(fd, data, 0, data.length, offsetBytes);
  } catch (error) {
    if (isNotDirect(error)) return 0;
    throw error;
  }
}

/** Answers how many bytes of it went through the page cache. */
function writePart({ fd, directFd }: PartFiles, data: Uint8Array, offsetBytes: number): number {
  const isDirect = directFd !== undefined && canBeDirect(data, offsetBytes);
  // What is missing at its end has a reason, which the other way tells.
  const direct = isDirect ? writeDirect(directFd, data, offsetBytes) : 0;
  let done = direct;
  while (done < data.length) {
    const bytes = Math.min(data.length - done, WRITE_BYTES_MAX);
    done += writeSync(fd, data, done, bytes, offsetBytes + done);
  }
  return done - direct;
}

/** Parts of zeros are not written. */
export function takeParts({ memory, parts, files }: Omit<PartsRequest, "kind">): PartsAnswer {
  const sums: (Uint32Array | null)[] = [];
  let cachedBytes = 0;
  try {
    for (const { startBytes, lengthBytes, offsetBytes, window } of parts) {
      const data = new Uint8Array(memory, startBytes, lengthBytes);
      const found = sumsOf(data, window);
      sums.push(found);
      if (files === undefined || found === null) continue;
      cachedBytes += writePart(files, data, offsetBytes);
    }
    return { sums, cachedBytes };
  } catch (error) {
    const { message } = error as Error;
    return { sums, cachedBytes, failure: { message, code: errnoNameOf(error) } };
  }
}
