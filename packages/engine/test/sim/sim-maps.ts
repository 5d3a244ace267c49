/** The maps of a device, which outlive the process: as they were at the moment of its death. */
import type { SimDevice } from "./sim-device.js";

export interface SimMaps {
  readonly cbt: ArrayBuffer;
  readonly area: ArrayBuffer | undefined;
}

export function copyMaps({ cbtBuffer, areaBuffer }: SimDevice): SimMaps {
  return { cbt: cbtBuffer.slice(0), area: areaBuffer?.slice(0) };
}

export function putBackMaps({ cbtBuffer, areaBuffer }: SimDevice, { cbt, area }: SimMaps): void {
  new Uint8Array(cbtBuffer).set(new Uint8Array(cbt));
  if (area !== undefined) new Uint8Array(areaBuffer!).set(new Uint8Array(area));
}
