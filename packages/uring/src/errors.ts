import { BlksnapError, errnoName } from "@blksnap/errors";

/** Stable names of this package's errors. */
export type UringErrorCode =
  | "ADDON_MISSING"
  | "RING_SETUP_FAILED"
  | "RING_CLOSED"
  | "REGISTER_FAILED"
  | "MAP_FAILED"
  | "NOT_LISTENING"
  | "SYSTEM_CALL_FAILED"
  | "PROCESS_FAILED"
  | "REACTOR_FAILED"
  | "REACTOR_FULL";

/** Base of all errors of this package. */
export class UringError extends BlksnapError<UringErrorCode> {
  constructor(code: UringErrorCode, message: string, errno = 0, cause?: unknown) {
    const suffix = errno === 0 ? "" : ` (${errnoName(errno)})`;
    super(code, message + suffix, { errno, cause });
  }
}

/** Asserts an invariant; a failure is a bug of this program. */
export function assert(condition: boolean, message: string): asserts condition {
  if (!condition) throw new Error(`assertion failed: ${message}`);
}
