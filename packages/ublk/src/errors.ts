import { BlksnapError, errnoName } from "@blksnap/errors";

/** Stable names of this package's errors. */
export type UblkErrorCode =
  | "UBLK_MISSING"
  | "UBLK_NOT_PERMITTED"
  | "KERNEL_TOO_OLD"
  | "CONTROL_FAILED"
  | "CONTROL_TIMEOUT"
  | "DEVICE_NODE_MISSING"
  | "BACKING_NOT_FOUND"
  | "BACKING_BUSY"
  | "BACKING_UNSUPPORTED"
  | "BACKING_FAILED"
  | "QUEUE_FAILED"
  | "PARTITIONS_FAILED";

/** Base of all errors of this package. */
export class UblkError extends BlksnapError<UblkErrorCode> {
  constructor(code: UblkErrorCode, message: string, errno = 0, cause?: unknown) {
    const suffix = errno === 0 ? "" : ` (${errnoName(errno)})`;
    super(code, message + suffix, { errno, cause });
  }
}
