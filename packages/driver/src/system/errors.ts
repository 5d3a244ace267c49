import type { ErrorName } from "@blksnap/api";
import { UblkError, type UblkErrorCode } from "@blksnap/ublk";
import { errnoName } from "@blksnap/uring";
import { ControlError } from "../control/index.js";

const NAME_OF_UBLK_CODE: Readonly<Record<UblkErrorCode, ErrorName>> = {
  UBLK_MISSING: "UBLK_UNAVAILABLE",
  UBLK_NOT_PERMITTED: "DEVICE_NOT_PERMITTED",
  KERNEL_TOO_OLD: "UBLK_UNAVAILABLE",
  CONTROL_FAILED: "UBLK_FAILED",
  CONTROL_TIMEOUT: "UBLK_FAILED",
  DEVICE_NODE_MISSING: "UBLK_FAILED",
  BACKING_NOT_FOUND: "DEVICE_NOT_FOUND",
  BACKING_BUSY: "DEVICE_BUSY",
  BACKING_UNSUPPORTED: "DEVICE_NOT_BLOCK",
  BACKING_FAILED: "DEVICE_FAILED",
  QUEUE_FAILED: "UBLK_FAILED",
};

/** An error of the packages below, under the name that users of the daemon know. */
export function asControlError(error: unknown): unknown {
  if (!(error instanceof UblkError)) return error;
  return new ControlError(NAME_OF_UBLK_CODE[error.code], error.message, {
    cause: error,
    ...(error.errno === 0 ? {} : { errnoName: errnoName(error.errno) }),
  });
}
