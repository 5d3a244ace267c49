/** The maps of a device, which outlive the process: their content at the moment of its death. */
import { type CopyPlaces, DiffAreaMap, damageOfRecords, NO_PLACES } from "@blksnap/engine";
import { lostRanges } from "../whole-maps.js";
import { FRONT_DEPTH } from "./front-state.js";
import type { SimDevice } from "./sim-device.js";
import { require } from "./violation.js";

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

/** The places are the front's copy windows, which outlive the process here. */
function placesOf({ geometry, shape }: SimDevice): CopyPlaces {
  if (!shape.hasPlaces) return NO_PLACES;
  return { count: FRONT_DEPTH, placeBytes: shape.placeBlocks * geometry.blockBytes };
}

/** A new map for an area. */
export function newMap(device: SimDevice): DiffAreaMap {
  const { geometry, shape } = device;
  const places = placesOf(device);
  device.areaBuffer = new ArrayBuffer(DiffAreaMap.byteLength(geometry, places));
  return DiffAreaMap.create(device.areaBuffer, geometry, undefined, !shape.isSparse, places);
}

/** The area's map as the next process opens it, with its losses counted. */
export function openMap({ areaBuffer, shape }: SimDevice): DiffAreaMap {
  const map = DiffAreaMap.open(areaBuffer!, !shape.isSparse);
  const damage = damageOfRecords(map);
  require(damage === undefined, () => `after a crash ${damage}`);
  const lost = lostRanges({ map });
  const blocks = lost.map(({ lengthBytes }) => Math.ceil(lengthBytes / map.geometry.blockBytes));
  const sum = blocks.reduce((all, count) => all + count, 0);
  map.losses.reset(sum, lost.length);
  return map;
}
