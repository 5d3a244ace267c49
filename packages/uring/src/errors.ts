import { BlksnapError, errnoName } from "@blksnap/errors";

/** Stable names of what can go wrong in this package. */
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

/** Every error that this package throws. */
export class UringError extends BlksnapError<UringErrorCode> {
  constructor(code: UringErrorCode, message: string, errno = 0, cause?: unknown) {
    const suffix = errno === 0 ? "" : ` (${errnoName(errno)})`;
    super(code, message + suffix, { errno, cause });
  }
}

/** States what must hold at this place; a failure is a defect of the program. */
export function assert(condition: boolean, message: string): asserts condition {
  if (!condition) throw new Error(`assertion failed: ${message}`);
}
