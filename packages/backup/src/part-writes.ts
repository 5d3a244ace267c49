/**
 * Writes parts of a device to a file, on a thread that sums them as well, or with promises (target-file.ts): selects
 * direct I/O or the page cache, and handles refused and short writes.
 */
import { writeSync } from "node:fs";
import { errnoNameOf } from "@blksnap/errors";
import { type BlockWindow, sumsOf } from "./sums.js";

/** Direct I/O requires multiples of the sector in offset and length; no disk has a larger sector. */
const DIRECT_ALIGN_BYTES = 4096;
/** The kernel batches and orders smaller writes better than many writes that are awaited one by one. */
export const DIRECT_MIN_BYTES: number = 2 ** 18;
/**
 * Most bytes of one buffered write. For more, file systems with large folios allocate pieces that the kernel may have
 * returned to a hypervisor: a write of 4 MiB took a virtual machine three times as long as four of 1 MiB.
 */
const WRITE_BYTES_MAX = 2 ** 20;

export interface PartFiles {
  readonly fd: number;
  /** Opened with O_DIRECT, for large parts. Undefined: not supported. */
  readonly directFd: number | undefined;
}

/** A part in the memory. */
export interface PartPlace {
  readonly startBytes: number;
  readonly lengthBytes: number;
  /** Offset on the device and in the file. */
  readonly offsetBytes: number;
  readonly window: BlockWindow;
}

export interface PartsRequest {
  readonly kind: "parts";
  readonly memory: SharedArrayBuffer;
  readonly parts: readonly PartPlace[];
  /** Undefined: only sum them. */
  readonly files: PartFiles | undefined;
}

/** The transferable fields of an error. */
export interface SystemFailure {
  readonly message: string;
  readonly code: string;
}

export interface PartsAnswer {
  /** For each part, like `sumsOf`. */
  readonly sums: readonly (Uint32Array | null)[];
  /** Bytes that went through the page cache. */
  readonly cachedBytes: number;
  readonly failure?: SystemFailure;
}

/** Writes it with direct I/O, if file system and disk accept that. */
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
 * The writes of a part, one after the other. Each is answered with the number of bytes written.
 * @returns how many bytes of the part went through the page cache
 */
export function* writesOf(
  data: Uint8Array,
  offsetBytes: number,
  hasDirect: boolean,
): Generator<OneWrite, number, number> {
  // The rest failed for a reason, which the other way reports.
  const isDirect = hasDirect && canBeDirect(data, offsetBytes);
  const direct = isDirect ? yield { isDirect, data, offsetBytes } : 0;
  for (let done = direct; done < data.length; ) {
    const some = data.subarray(done, done + WRITE_BYTES_MAX);
    done += yield { isDirect: false, data: some, offsetBytes: offsetBytes + done };
  }
  return data.length - direct;
}

/** Bytes written by a failed write: none if the file system merely does not support this way. @throws error */
export function writtenDespite(error: unknown, { isDirect }: OneWrite): number {
  // Unsupported for this memory or offset, or at all.
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

/** Returns how many bytes of it went through the page cache. */
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
