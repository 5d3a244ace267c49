/**
 * How parts of a device are written to a file, by a thread that sums them as well, many with one message, or with promises
 * (target-file.ts): what goes past the page cache, and what becomes of a write that is refused or ends early.
 */
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
const WRITE_BYTES_MAX = 2 ** 20;

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

export interface OneWrite {
  readonly isDirect: boolean;
  readonly data: Uint8Array;
  readonly offsetBytes: number;
}

/**
 * The writes of a part, one after the other. Each is answered with how many bytes of it were written.
 * @returns how many bytes of the part went through the page cache
 */
export function* writesOf(
  data: Uint8Array,
  offsetBytes: number,
  hasDirect: boolean,
): Generator<OneWrite, number, number> {
  // What is missing at its end has a reason, which the other way tells.
  const isDirect = hasDirect && canBeDirect(data, offsetBytes);
  const direct = isDirect ? yield { isDirect, data, offsetBytes } : 0;
  for (let done = direct; done < data.length; ) {
    const some = data.subarray(done, done + WRITE_BYTES_MAX);
    done += yield { isDirect: false, data: some, offsetBytes: offsetBytes + done };
  }
  return data.length - direct;
}

/** What is written of a write that has failed: none, where the file system only has not got this way of it. @throws error */
export function writtenDespite(error: unknown, { isDirect }: OneWrite): number {
  // It has it for other memory or places, or not at all.
  if (isDirect && ["EINVAL", "EOPNOTSUPP"].includes(errnoNameOf(error))) return 0;
  throw error;
}

function writeOne({ fd, directFd }: PartFiles, one: OneWrite): number {
  const { isDirect, data, offsetBytes } = one;
  try {
    return writeSync(isDirect ? directFd! : fd, data, 0, data.length, offsetBytes);
  } catch (error) {
    return writtenDespite(error, one);
  }
}

/** Answers how many bytes of it went through the page cache. */
function writePart(files: PartFiles, data: Uint8Array, offsetBytes: number): number {
  const writes = writesOf(data, offsetBytes, files.directFd !== undefined);
  let next = writes.next();
  while (next.done !== true) next = writes.next(writeOne(files, next.value));
  return next.value;
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
