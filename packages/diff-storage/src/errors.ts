import { BlksnapError, errnoNumber } from "@blksnap/errors";

/** Every failure this package reports, with the errno the kernel module has for it. */
const ERRNO_OF_CODE = {
  /** The store's path does not exist. */
  STORE_NOT_FOUND: "ENOENT",
  /** The path is neither a regular file, a directory nor a block device. */
  STORE_KIND_UNSUPPORTED: "EINVAL",
  /** The block device cannot hold one slot. */
  STORE_TOO_SMALL: "ENOSPC",
  /** The store's file system has no room for the first portion. */
  STORE_FULL: "ENOSPC",
  /** Another program holds the block device or the lock of the file. */
  STORE_BUSY: "EBUSY",
  /** The file system or device is read-only. */
  STORE_READ_ONLY: "EROFS",
  /** The process may not open the path. */
  STORE_PERMISSION: "EACCES",
  /** The file system cannot preallocate, so the file could never grow safely. */
  STORE_NOT_GROWABLE: "EOPNOTSUPP",
  /** The store did not respond in time. */
  STORE_TIMEOUT: "ETIMEDOUT",
  /** The caller's signal was aborted. */
  ABORTED: "ECANCELED",
  /** Any other failure of the store. */
  STORE_IO: "EIO",
  /** The bytes of the store are those of a tracked device. */
  STORE_ON_MEMBER: "EBUSY",
  /** No store, or more stores than slot numbers can distinguish. */
  STORE_COUNT_INVALID: "EINVAL",
  /** The limit is not a whole number of bytes of at least one slot. */
  LIMIT_INVALID: "EINVAL",
  /** A memory store without a limit could take all memory. */
  LIMIT_REQUIRED: "EINVAL",
  /** Another option or argument is outside its documented range. */
  ARGUMENT_INVALID: "EINVAL",
  /** A slot to be freed or reserved is in the wrong state. */
  SLOT_INVALID: "EINVAL",
} as const;

/** Stable name of a failure. */
export type DiffStorageErrorCode = keyof typeof ERRNO_OF_CODE;

/** All codes, for tables of exit statuses and documentation. */
export const DIFF_STORAGE_ERROR_CODES: readonly DiffStorageErrorCode[] = Object.keys(
  ERRNO_OF_CODE,
) as DiffStorageErrorCode[];

/** What an error is about, besides its code and text. */
export interface DiffStorageErrorDetail {
  readonly path?: string;
  readonly cause?: unknown;
  /** Bytes the operation needed. */
  readonly neededBytes?: number;
  /** Bytes that were available. */
  readonly availableBytes?: number;
}

/** The only error class this package throws. The message says what happened and what to do. */
export class DiffStorageError extends BlksnapError<DiffStorageErrorCode> {
  /** The store's path, if the error concerns one store. */
  readonly path: string | undefined;
  readonly neededBytes: number | undefined;
  readonly availableBytes: number | undefined;

  constructor(code: DiffStorageErrorCode, message: string, detail: DiffStorageErrorDetail = {}) {
    super(code, message, { errno: errnoNumber(ERRNO_OF_CODE[code]), cause: detail.cause });
    this.path = detail.path;
    this.neededBytes = detail.neededBytes;
    this.availableBytes = detail.availableBytes;
  }
}

/** Throws unless `condition` holds: a bug of this package, not a caller's mistake. */
export function assert(condition: boolean, what: string): asserts condition {
  if (!condition) throw new Error(`diff-storage: assertion failed: ${what}`);
}

/** Throws ARGUMENT_INVALID unless `value` is an integer in [`min`, `max`]. */
export function checkInteger(name: string, value: number, min: number, max: number): void {
  if (Number.isSafeInteger(value) && value >= min && value <= max) return;
  const text = `${name} must be an integer from ${min} to ${max}, not ${value}`;
  throw new DiffStorageError("ARGUMENT_INVALID", text);
}
