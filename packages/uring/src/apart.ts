/**
 * System calls in a separate process (apart-process.ts), for calls that may wait for the calling process itself.
 */
import { ETIMEDOUT } from "@blksnap/errors";
import { ask, runAlone } from "./apart-process.js";

const COMMAND_BYTES_MAX = 80;

/**
 * An IORING_OP_URING_CMD with 128-byte entries.
 * @param path file that takes the command; opened for reading and writing
 * @param op the command's number
 * @param bytes the command's own part of the entry, at most 80
 * @returns the command's result, or a negative errno
 * @throws UringError PROCESS_FAILED
 */
export async function commandInHelper(
  path: string,
  op: number,
  bytes: Uint8Array,
): Promise<number> {
  if (bytes.length > COMMAND_BYTES_MAX) throw new RangeError("a command has at most 80 bytes");
  const hex = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString("hex");
  return answerOf(await ask(["command", path, String(op >>> 0), hex]));
}

/** fsync(2). @returns 0 or a negative errno @throws UringError PROCESS_FAILED */
export async function fsyncInHelper(path: string): Promise<number> {
  return answerOf(await ask(["fsync", path]));
}

/**
 * Whether a block device could be opened exclusively; it is closed again.
 * @returns 0, or a negative errno: EBUSY for one that is mounted or held; -ETIMEDOUT
 * @throws UringError PROCESS_FAILED
 */
export async function claimInHelper(path: string, timeoutMs?: number): Promise<number> {
  return answerOf(await ask(["claim", path], timeoutMs));
}

/**
 * Whether a path can be opened for reading; it is closed again. For paths on a medium that may hang: opening one here
 * would occupy a thread of this process meanwhile.
 * @returns 0, or a negative errno: -ETIMEDOUT when there was no answer in time @throws as above
 */
export async function openInHelper(path: string, timeoutMs: number): Promise<number> {
  return answerOf(await ask(["open", path], timeoutMs));
}

/** unlink(2). @returns 0, or a negative errno as in openInHelper @throws as above */
export async function unlinkInHelper(path: string, timeoutMs: number): Promise<number> {
  return answerOf(await ask(["unlink", path], timeoutMs));
}

/** One write(2) to an existing file. @returns bytes, or a negative errno @throws as above */
export async function writeInHelper(path: string, text: string): Promise<number> {
  return answerOf(await ask(["write", path, text]));
}

/** The program observes its own limit, unless it is held up. */
const SPARE_MS = 1000;

/**
 * Writes back what the page cache has of file systems, all at once: syncfs(2), or BLKFLSBUF for a block
 * device and the file system on it, wherever that is mounted.
 * @returns 0 for each path, or a negative errno; -ETIMEDOUT for one that is given up @throws as above
 */
export async function syncInHelper(paths: readonly string[], timeoutMs: number): Promise<number[]> {
  const limitMs = Math.max(0, Math.floor(timeoutMs));
  const [, ...lines] = await runAlone(["sync", String(limitMs), ...paths], limitMs + SPARE_MS);
  return paths.map((_, index) => Number(lines[index] ?? -ETIMEDOUT));
}

/** The place of a file by FIEMAP. */
export interface FileExtents {
  /** `st_dev` and `st_mode` of the file. */
  readonly device: number;
  readonly mode: number;
  /** 0, or the negative errno of FIEMAP; then extents are missing. */
  readonly status: number;
  /** In file order; none if it is no regular file. */
  readonly extents: readonly FileExtent[];
}

export interface FileExtent {
  readonly physicalBytes: bigint;
  readonly lengthBytes: bigint;
  /** FIEMAP_EXTENT_… bits. */
  readonly flags: number;
}

/** FIEMAP of a synced file. @returns extents; a negative errno for what cannot be opened @throws as above */
export async function extentsInHelper(path: string): Promise<FileExtents | number> {
  const lines = await ask(["extents", path]);
  const status = answerOf(lines);
  if (lines.length === 1) return status;
  const [device, mode] = (lines[1] ?? "").split(" ").map(Number) as [number, number];
  const extents = lines.slice(2).map((line) => {
    const [physical, length, flags] = line.split(" ") as [string, string, string];
    return {
      physicalBytes: BigInt(physical),
      lengthBytes: BigInt(length),
      flags: Number(flags),
    };
  });
  return { device, mode, status, extents };
}

/**
 * Holes of at least 64 KiB in a file, or in the file behind a loop device: unallocated ranges that read as zero. The
 * device's page cache is written back first, so that all earlier writes count.
 * @param timeoutMs holes that are not found in this time count as data
 * @returns start and end of each, ascending; a negative errno: -ENOTTY if it is neither, -ETIMEDOUT if it did not
 *   answer
 * @throws as above
 */
export async function holesInHelper(
  path: string,
  timeoutMs: number,
): Promise<Float64Array | number> {
  const lines = await ask(["holes", path, String(timeoutMs)], timeoutMs + SPARE_MS);
  const status = answerOf(lines);
  if (status < 0) return status;
  const holes = new Float64Array(2 * (lines.length - 1));
  for (const [index, line] of lines.slice(1).entries()) {
    const [start, length] = line.split(" ").map(Number) as [number, number];
    holes.set([start, start + length], 2 * index);
  }
  return holes;
}

/** The target of a path by stat(2) and realpath(3); numbers as in `node:fs`. */
export interface FileStatus {
  /** `st_dev`: of the file system. */
  readonly device: number;
  readonly inode: number;
  readonly mode: number;
  /** `st_rdev`: of the device that the file is. */
  readonly special: number;
  /** Without symbolic links. */
  readonly realPath: string;
}

/**
 * @param timeoutMs for what a path lies on and does not answer: this process continues, and can end
 * @returns what is there; a negative errno for what cannot be examined, -ETIMEDOUT @throws as above
 */
export async function statInHelper(path: string, timeoutMs: number): Promise<FileStatus | number> {
  const lines = await ask(["stat", path], timeoutMs);
  if (lines.length === 1) return answerOf(lines);
  const [device, inode, mode, special] = (lines[1] ?? "").split(" ").map(Number) as [
    number,
    number,
    number,
    number,
  ];
  return { device, inode, mode, special, realPath: lines.slice(2, -1).join("\n") };
}

/** The kernel's report on the file behind a loop device; numbers as in `node:fs`. */
export interface LoopStatus {
  /** `st_dev` and `st_ino` of the file or node behind it. */
  readonly device: number;
  readonly inode: number;
  /** `st_rdev` of a block device behind it, else 0. */
  readonly special: number;
  /** `st_rdev` of the loop device that was asked. */
  readonly loop: number;
}

/**
 * LOOP_GET_STATUS64 of several loop devices, one after the other.
 * @param timeoutMs for all of them, as with statInHelper()
 * @returns for each path what is behind it; a negative errno for what is not a loop device with something
 * behind it, -ETIMEDOUT @throws as above
 */
export async function loopsInHelper(
  paths: readonly string[],
  timeoutMs: number,
): Promise<(LoopStatus | number)[]> {
  if (paths.length === 0) return [];
  const [, ...lines] = await ask(["loops", ...paths], timeoutMs);
  return paths.map((_, index) => {
    const numbers = (lines[index] ?? String(-ETIMEDOUT)).split(" ").map(Number);
    if (numbers.length === 1) return numbers[0] as number;
    const [device, inode, special, loop] = numbers as [number, number, number, number];
    return { device, inode, special, loop };
  });
}

/** A part of a file or device. */
export interface PartRead {
  /** `st_rdev` of the device that was read; 0 for a file. */
  readonly special: number;
  /** Fewer than asked for where it ends. */
  readonly bytes: Buffer;
}

/**
 * One read(2), of at most 1 MiB.
 * @param timeoutMs as with statInHelper() @returns a negative errno, -ETIMEDOUT @throws as above
 */
export async function readInHelper(
  path: string,
  startBytes: number,
  lengthBytes: number,
  timeoutMs: number,
): Promise<PartRead | number> {
  const words = ["read", path, String(startBytes), String(lengthBytes)];
  const lines = await ask(words, timeoutMs);
  if (lines.length === 1) return answerOf(lines);
  const [special = "", hex = ""] = (lines[1] ?? "").split(" ");
  return { special: Number(special), bytes: Buffer.from(hex, "hex") };
}

function answerOf([first]: readonly string[]): number {
  return Number(first);
}
