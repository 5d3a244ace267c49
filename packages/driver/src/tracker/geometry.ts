/** How an original is divided into blocks and chunks, and which originals are refused. */

import { ControlError } from "@blksnap/api";
import type { TrackerGeometry } from "@blksnap/engine";
import { deviceNumber, isZoned } from "@blksnap/linux-block";
import type { BackingFile, DeviceParams } from "@blksnap/ublk";
import { blockShiftOf, chunkShiftOf, type TrackingParameters } from "../parameters.js";

/** Some devices that are tracked now are this small, whatever the default size of chunks becomes. */
const CAPACITY_MIN_BYTES = 256 * 1024;
/** The limit of exact byte offsets in numbers. */
const CAPACITY_MAX_BYTES = 2 ** 53 - 512;

/** @throws ControlError DEVICE_READ_ONLY, DEVICE_TOO_SMALL, DEVICE_TOO_LARGE */
export function geometryOf(backing: BackingFile, parameters: TrackingParameters): TrackerGeometry {
  const { capacityBytes, readOnly } = backing.params;
  if (readOnly) {
    throw new ControlError("DEVICE_READ_ONLY", `${backing.path} is read-only`);
  }
  if (capacityBytes < CAPACITY_MIN_BYTES) {
    throw new ControlError(
      "DEVICE_TOO_SMALL",
      `${backing.path} has ${capacityBytes} bytes, less than ${CAPACITY_MIN_BYTES}`,
    );
  }
  if (!(capacityBytes <= CAPACITY_MAX_BYTES)) {
    const what = `${backing.path} has ${capacityBytes} bytes, more than ${CAPACITY_MAX_BYTES}`;
    throw new ControlError("DEVICE_TOO_LARGE", what);
  }
  return geometryWith(backing.params, chunkShiftOf(backing.params, parameters));
}

/** The geometry of a device with given chunks, such as those of an earlier tracker. */
export function geometryWith(
  device: Pick<TrackerGeometry, "capacityBytes" | "logicalBlockBytes">,
  chunkShift: number,
): TrackerGeometry {
  const { capacityBytes, logicalBlockBytes } = device;
  const blockShift = blockShiftOf(device, chunkShift);
  return { capacityBytes, logicalBlockBytes, chunkShift, blockShift };
}

/** Parameters for users: the original may have grown since attach, but its front does not follow. */
export function servedParams(
  { params }: BackingFile,
  { capacityBytes }: Pick<TrackerGeometry, "capacityBytes">,
): DeviceParams {
  return { ...params, capacityBytes };
}

/** @throws ControlError DEVICE_ZONED */
export function assertNotZoned({ path, kind, deviceNumber: number }: BackingFile): void {
  if (kind !== "block" || !isZoned(deviceNumber(number))) return;
  const what = `${path} is a zoned disk, which accepts only sequential writes`;
  throw new ControlError("DEVICE_ZONED", what);
}
