import { BlksnapError, errnoName } from "@blksnap/errors";

/** Stable names of this package's errors. */
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

/** Base of all errors of this package. */
export class NbdError extends BlksnapError<NbdErrorCode> {
  constructor(code: NbdErrorCode, message: string, errno = 0, cause?: unknown) {
    const suffix = errno === 0 ? "" : ` (${errnoName(errno)})`;
    super(code, message + suffix, { errno, cause });
  }
}

/** Asserts an invariant; a failure is a bug of this program. */
export function assert(condition: boolean, message: string): asserts condition {
  if (!condition) throw new Error(`assertion failed: ${message}`);
}
