import { errnoName } from "@blksnap/uring";

/** Stable names of what can go wrong in this package. */
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

/** Every error that this package throws. `errno` is positive, 0 where the kernel gave none. */
export class UblkError extends Error {
  readonly code: UblkErrorCode;
  readonly errno: number;

  constructor(code: UblkErrorCode, message: string, errno = 0, cause?: unknown) {
    const suffix = errno === 0 ? "" : ` (${errnoName(errno)})`;
    super(message + suffix, cause === undefined ? undefined : { cause });
    this.name = "UblkError";
    this.code = code;
    this.errno = Math.abs(errno);
  }
}
