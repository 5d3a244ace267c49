/**
 * The head of an XFS log. The superblock may stay unchanged through a mount, many changes and an unmount; the log
 * does not: even an unmount alone writes a record.
 *
 * The log is a ring of 512-byte blocks, each stamped with the number of the round ("cycle") in which
 * it was written, so that the head is where a cycle meets the one before:
 *
 * ```
 *   block   0          head          last
 *           │ 8 8 8 8 8 │ 7 7 7 7 7 7 │      (0 instead of 7 in the first round)
 * ```
 *
 * Facts: fs/xfs/libxfs/xfs_format.h (struct xfs_dsb, XFS_FSB_TO_DADDR), xfs_log_format.h
 * (xlog_get_cycle: a block begins with its cycle, but a record's header with a magic, then the cycle;
 * XLOG_TOTAL_REC_SHIFT) and fs/xfs/xfs_log_recover.c (xlog_find_head, xlog_find_cycle_start).
 */
import { type ReadBytes, uuidAt, viewOf } from "./device-bytes.js";

export interface XfsGeometry {
  readonly uuid: string;
  /** Undefined if the log is on another device. */
  readonly log: XfsLog | undefined;
}

export interface XfsLog {
  readonly startBytes: number;
  readonly lengthBytes: number;
}

export interface XfsLogHead {
  /** Where the next record goes, in 512-byte blocks from the start of the log. */
  readonly block: number;
  readonly cycle: number;
  /** Whole 4 KiB blocks of the device that hold the last record. */
  readonly before: readonly ByteRange[];
  /** The same after the head: each mount that may write begins by marking them as void. */
  readonly ahead: readonly ByteRange[];
}

export interface ByteRange {
  readonly startBytes: number;
  readonly endBytes: number;
}

const MAGIC = 0x58465342; // "XFSB"
const SUPERBLOCK_BYTES = 512;
const LOG_BLOCK_BYTES = 512;
const RECORD_MAGIC = 0xfeedbabe;
/** Reads are multiples of this, in offset and length. */
const READ_UNIT_BYTES = 4096;
/** Where many blocks are read, one after the other. */
const PIECE_BYTES = 64 * 1024;
/**
 * A crash leaves holes among the last 8 records of 256 KiB, which were in flight together, and the binary search may
 * stop on any side of them. The kernel scans back as far for the true head; its writes from there on are within this
 * distance.
 */
const IN_FLIGHT_BYTES = 2 * 1024 * 1024;

/**
 * Undefined if it is not an XFS superblock, or one that contradicts itself or the device.
 * @param start the device's first bytes
 */
export function parseXfsSuperblock(
  start: Uint8Array,
  capacityBytes: number,
): XfsGeometry | undefined {
  if (start.length < SUPERBLOCK_BYTES) return undefined;
  const view = viewOf(start);
  if (view.getUint32(0) !== MAGIC) return undefined;
  const blockBytes = view.getUint32(4);
  const blockLog2 = view.getUint8(120);
  if (blockLog2 < 9 || blockLog2 > 16 || blockBytes !== 2 ** blockLog2) return undefined;
  const uuid = uuidAt(start, 32);
  const logStart = view.getBigUint64(48);
  if (logStart === 0n) return { uuid, log: undefined };

  // A block's number has the allocation group above the bits that the group's length needs.
  const groupBlocks = view.getUint32(84);
  const groups = view.getUint32(88);
  const groupLog2 = view.getUint8(124);
  if (groupLog2 > 31 || groupBlocks > 2 ** groupLog2) return undefined;
  const group = Number(logStart >> BigInt(groupLog2));
  const inGroup = Number(logStart & ((1n << BigInt(groupLog2)) - 1n));
  const logBlocks = view.getUint32(96);
  if (group >= groups || logBlocks === 0 || inGroup + logBlocks > groupBlocks) return undefined;
  const log = {
    startBytes: (group * groupBlocks + inGroup) * blockBytes,
    lengthBytes: logBlocks * blockBytes,
  };
  return log.startBytes + log.lengthBytes <= capacityBytes ? { uuid, log } : undefined;
}

/** At most 41 small reads, whatever the superblock and the log contain. */
export async function findXfsLogHead(read: ReadBytes, log: XfsLog): Promise<XfsLogHead> {
  const blocks = log.lengthBytes / LOG_BLOCK_BYTES;
  const firstCycle = await readCycle(read, log, 0);
  const lastCycle = await readCycle(read, log, blocks - 1);
  let head = 0;
  if (firstCycle !== lastCycle) {
    // The first block of the previous round; `low` is never in it, `head` always.
    let low = 0;
    head = blocks - 1;
    while (low + 1 < head) {
      const middle = Math.floor((low + head) / 2);
      if ((await readCycle(read, log, middle)) === lastCycle) head = middle;
      else low = middle;
    }
  }
  const windowBlocks = Math.min(IN_FLIGHT_BYTES / LOG_BLOCK_BYTES, blocks);
  const before = rangesBefore(log, head);
  const ahead = rangesBefore(log, (head + windowBlocks) % blocks);
  return { block: head, cycle: firstCycle, before, ahead };
}

/** Reads single blocks of a log, which is a ring. */
export class XfsLogReader {
  /** 512-byte blocks. */
  readonly count: number;
  readonly #read: ReadBytes;
  readonly #log: XfsLog;
  #unitBytes = -1;
  #unit: Uint8Array = new Uint8Array(0);

  constructor(read: ReadBytes, log: XfsLog) {
    this.#read = read;
    this.#log = log;
    this.count = log.lengthBytes / LOG_BLOCK_BYTES;
  }

  wrap(block: number): number {
    return ((block % this.count) + this.count) % this.count;
  }

  async block(block: number): Promise<Uint8Array> {
    const atBytes = this.#log.startBytes + block * LOG_BLOCK_BYTES;
    const pieceBytes = Math.floor(atBytes / PIECE_BYTES) * PIECE_BYTES;
    const unitBytes = Math.max(pieceBytes, alignDown(this.#log.startBytes));
    if (unitBytes !== this.#unitBytes) {
      const endBytes = readEnd(this.#log, pieceBytes + PIECE_BYTES - 1);
      this.#unit = await this.#read(unitBytes, endBytes - unitBytes);
      this.#unitBytes = unitBytes;
    }
    return this.#unit.subarray(atBytes - unitBytes, atBytes - unitBytes + LOG_BLOCK_BYTES);
  }

  isRecord(block: Uint8Array): boolean {
    return viewOf(block).getUint32(0) === RECORD_MAGIC;
  }
}

async function readCycle(read: ReadBytes, log: XfsLog, block: number): Promise<number> {
  const atBytes = log.startBytes + block * LOG_BLOCK_BYTES;
  const unitBytes = alignDown(atBytes);
  const endBytes = readEnd(log, atBytes);
  const bytes = await read(unitBytes, endBytes - unitBytes);
  const view = viewOf(bytes);
  const first = view.getUint32(atBytes - unitBytes);
  return first === RECORD_MAGIC ? view.getUint32(atBytes - unitBytes + 4) : first;
}

function rangesBefore(log: XfsLog, headBlock: number): XfsLogHead["before"] {
  const headBytes = headBlock * LOG_BLOCK_BYTES;
  const windowBytes = Math.min(IN_FLIGHT_BYTES, log.lengthBytes);
  const wrappedBytes = Math.max(0, windowBytes - headBytes);
  const ranges = [
    [log.lengthBytes - wrappedBytes, log.lengthBytes],
    [Math.max(0, headBytes - windowBytes), headBytes],
  ] as const;
  return ranges
    .filter(([start, end]) => start < end)
    .map(([start, end]) => ({
      startBytes: alignDown(log.startBytes + start),
      endBytes: readEnd(log, log.startBytes + end - 1),
    }));
}

/** The end of the unit with this byte, but not after the end of the log, which may be the end of the device. */
function readEnd(log: XfsLog, atBytes: number): number {
  return Math.min(alignDown(atBytes) + READ_UNIT_BYTES, log.startBytes + log.lengthBytes);
}

function alignDown(bytes: number): number {
  return Math.floor(bytes / READ_UNIT_BYTES) * READ_UNIT_BYTES;
}
