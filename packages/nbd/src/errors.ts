import { BlksnapError, errnoName } from "@blksnap/errors";

/** Stable names of what can go wrong in this package. */
export type NbdErrorCode =
  | "BAD_EXPORT"
  | "BAD_URI"
  | "CERTIFICATES_UNUSABLE"
  | "CONNECT_FAILED"
  | "CONNECTION_LOST"
  | "EXPORT_UNKNOWN"
  | "HANDSHAKE_REFUSED"
  | "LISTEN_FAILED"
  | "NOT_NEGOTIATED"
  | "NOT_SECURE"
  | "OUT_OF_RANGE"
  | "PROTOCOL_VIOLATED"
  | "REQUEST_FAILED"
  | "SERVER_FAILED"
  | "TIMED_OUT";

/** Every error that this package throws. */
export class NbdError extends BlksnapError<NbdErrorCode> {
  constructor(code: NbdErrorCode, message: string, errno = 0, cause?: unknown) {
    const suffix = errno === 0 ? "" : ` (${errnoName(errno)})`;
    super(code, message + suffix, { errno, cause });
  }
}

/** States what must hold at this place; a failure is a defect of the program. */
export function assert(condition: boolean, message: string): asserts condition {
  if (!condition) throw new Error(`assertion failed: ${message}`);
}
