/** How an original is divided into blocks and chunks, and which originals are none. */
import { CHUNK_SHIFT_DEFAULT, type TrackerGeometry } from "@blksnap/engine";
import type { BackingFile } from "@blksnap/ublk";
import { ControlError } from "../control/control-error.js";
import { blockShiftOf, chunkShiftOf, type TrackingParameters } from "../parameters.js";

const CAPACITY_MIN_BYTES = 2 ** CHUNK_SHIFT_DEFAULT;

/** @throws ControlError DEVICE_READ_ONLY, DEVICE_TOO_SMALL */
export function geometryOf(backing: BackingFile, parameters: TrackingParameters): TrackerGeometry {
  const { capacityBytes, logicalBlockBytes, readOnly } = backing.params;
  if (readOnly) {
    throw new ControlError("DEVICE_READ_ONLY", `${backing.path} is read-only`);
  }
  if (capacityBytes < CAPACITY_MIN_BYTES) {
    throw new ControlError(
      "DEVICE_TOO_SMALL",
      `${backing.path} has ${capacityBytes} bytes, less than ${CAPACITY_MIN_BYTES}`,
    );
  }
  const blockShift = blockShiftOf(logicalBlockBytes);
  const chunkShift = chunkShiftOf(backing.params, parameters);
  return { capacityBytes, logicalBlockBytes, chunkShift, blockShift };
}
