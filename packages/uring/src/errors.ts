import { errnoName } from "./errno.js";

/** Stable names of what can go wrong in this package. */
export type UringErrorCode =
  | "ADDON_MISSING"
  | "RING_SETUP_FAILED"
  | "RING_CLOSED"
  | "REGISTER_FAILED"
  | "MAP_FAILED"
  | "SYSTEM_CALL_FAILED"
  | "PROCESS_FAILED"
  | "REACTOR_FAILED";

/** Every error that this package throws. `errno` is positive, 0 where the kernel gave none. */
export class UringError extends Error {
  readonly code: UringErrorCode;
  readonly errno: number;

  constructor(code: UringErrorCode, message: string, errno = 0, cause?: unknown) {
    const suffix = errno === 0 ? "" : ` (${errnoName(errno)})`;
    super(message + suffix, cause === undefined ? undefined : { cause });
    this.name = "UringError";
    this.code = code;
    this.errno = Math.abs(errno);
  }
}

/** States what must hold at this place; a failure is a defect of the program. */
export function assert(condition: boolean, message: string): asserts condition {
  if (!condition) throw new Error(`assertion failed: ${message}`);
}
