import { BlksnapError } from "@blksnap/errors";

// The engine's error class. `code` is stable and meant for programs, `errno` is for callers that pass on errnos, the
// message says what to do.

const ERRNO_OF_CODE = {
  /** A bug in the engine, or a host that violates a rule of EngineIo. */
  ASSERTION: 5,
  /** Capacity, chunk or block size that the engine does not support. */
  BAD_GEOMETRY: 22,
  /** A map of this geometry would not fit into one mapping. */
  MAP_TOO_LARGE: 27,
  /** The buffer given for a map has the wrong size. */
  MAP_SIZE: 22,
  /** The buffer does not hold a map of the expected kind and version. */
  MAP_FORMAT: 22,
  /** The map belongs to a device of another geometry. */
  MAP_GEOMETRY: 116,
  /** The requested range lies beyond the end of the CBT map. */
  CBT_RANGE: 61,
  /** Marks were lost, so the CBT map must not be used. */
  CBT_CORRUPTED: 14,
  /** The CBT map is being reset by its owner. */
  CBT_BUSY: 11,
  /** A range to mark lies outside the device. */
  RANGE: 22,
  /** More slot extents were granted than the pool can hold. */
  SLOTS_FULL: 105,
  /** The call does not fit the state, for example a second area. */
  BAD_STATE: 16,
} as const;

export type EngineErrorCode = keyof typeof ERRNO_OF_CODE;

export class EngineError extends BlksnapError<EngineErrorCode> {
  constructor(code: EngineErrorCode, message: string) {
    super(code, message, { errno: ERRNO_OF_CODE[code] });
  }
}
