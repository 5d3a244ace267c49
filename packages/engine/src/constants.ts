/** Numbers that the engine and its host share. */

/** Request operations, numbered as ublk numbers them. */
export const RequestOp = {
  READ: 0,
  WRITE: 1,
  FLUSH: 2,
  DISCARD: 3,
  WRITE_ZEROES: 5,
} as const;

/** Flags of front requests that the engine reads, numbered as ublk numbers them. */
export const RequestFlag = {
  /** WRITE_ZEROES: the zero bytes must be stored, the space stays allocated. */
  NOUNMAP: 0x8000,
} as const;

/** What a part of an image request is. */
export const RunKind = {
  /** Read the original into the image tag's data buffer. */
  READ_ORIGINAL: 0,
  /** Read the chunk's slot into the image tag's data buffer. */
  READ_SLOT: 1,
  /** Write the image tag's data buffer to the chunk's slot. */
  WRITE_SLOT: 2,
  /** Fill the part of the data buffer with zero bytes. May be answered from inside submitRun. */
  ZERO: 3,
} as const;

/** What a copy does. EngineIo.submitCopy receives only OLD and ZERO. */
export const CopyKind = {
  /** Read the original into the copy window, write the copy window to the slot. */
  OLD: 0,
  /** Fill the copy window with zero bytes, write it to the slot. Nothing is read. */
  ZERO: 1,
  /** Stands for a run that writes whole blocks of an image request straight to the slot. */
  DIRECT: 2,
} as const;

/** How the write of a copy's slot is ordered. */
export const CopyMode = {
  /** The slot is written directly after the read; then the request continues. */
  LINKED: 0,
  /** The slot is written after onCopyRead has notified the engine that the read has ended. */
  APART: 1,
  /** The old data is in its place, and recorded: the slot is written beside the request's write to the original. */
  BEHIND: 2,
} as const;

/** Which side of a copy failed: reading the old data, or writing it to the slot. */
export const CopyFault = { NONE: 0, READ: 1, WRITE: 2 } as const;

/** What happens to a write to the original when there is no room for its old data. */
export const OverflowPolicy = {
  /** The write continues; its blocks of the image are lost. */
  BREAK_SNAPSHOT: 0,
  /** The write fails, and nothing is lost. */
  FAIL_WRITES: 1,
  /** The write waits for room, for a bounded time; after that as BREAK_SNAPSHOT. */
  BLOCK_WRITES: 2,
} as const;

/** Whose copy window a copy uses. */
export const BufferOwner = { FRONT: 0, IMAGE: 1 } as const;

export { EINVAL, EIO, ENOSPC, EOPNOTSUPP, ETIMEDOUT } from "@blksnap/errors";

export const SECTOR_BYTES = 512;

/** What the image shows for a block. UNSAVED: the original; the others: what the area has recorded. */
export const BlockState = { UNSAVED: 0, DATA: 1, LOST: 2, ZERO: 3 } as const;
