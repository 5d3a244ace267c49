/**
 * The places of copies that may go behind their writes, in the file of their area's map: memory of the front's tags
 * that survives the process. See copy-records.ts and copies-behind.ts of the engine.
 *
 * If memory is short, a map has no places, and its copies go before their writes.
 */
import { ftruncateSync, statfsSync } from "node:fs";
import {
  type CopyPlaces,
  copyPlacesBytes,
  DiffAreaMap,
  type Geometry,
  OverflowPolicy,
  type TrackerEngine,
} from "@blksnap/engine";
import type { MappedMemory } from "@blksnap/uring";
import type { AreaSetup, MapFileRef } from "./messages.js";

/** Registered memory of a tag without a place: most copies of random writes are no longer. */
export const NEAR_BYTES = 16_384;
/** Size of a place if memory is plentiful, see LONG_SHARE; else it is NEAR_BYTES. */
const LONG_PLACE_BYTES = 65_536;

/**
 * Places take at most this share of the free memory, and only if this share of all is free: maps need memory as they
 * grow, and lose blocks without it.
 */
const FREE_SHARE = 1 / 4;
const FREE_MIN = 1 / 2;
/**
 * Long places are less urgent: only while most is free, and small enough to leave room for the short ones of many
 * devices. A reactor pins their memory in one turn, so a front with many tags has none.
 */
const LONG_SHARE = 1 / 64;
const LONG_FREE_MIN = 7 / 8;
const LONG_MAX_BYTES = 4 * 2 ** 20;

/** The places of a map, in the map's own mapping, so that the file is not mapped twice. */
export interface PlacesOfMap extends CopyPlaces {
  readonly memory: MappedMemory;
  readonly offsetBytes: number;
  /** All of their pages are populated in the mapping. */
  readonly isPopulated: boolean;
  /** Keeps the mapping until as many release() have followed. */
  hold(): void;
  release(): void;
}

/**
 * The places that a new area may have; it gets the first for which there is memory. None if a write may be refused or
 * has to wait for room, if the area has a journal, or if a block does not fit into a place.
 */
export function placesFor(
  { front, geometry }: Pick<TrackerEngine, "front" | "geometry">,
  frontWindowBytes: number,
  { overflow, journal, map }: Pick<AreaSetup, "overflow" | "journal" | "map">,
): readonly CopyPlaces[] {
  if (overflow.policy !== OverflowPolicy.BREAK_SNAPSHOT || journal !== undefined) return [];
  const long = { count: front.depth, placeBytes: Math.min(LONG_PLACE_BYTES, frontWindowBytes) };
  const short = { count: front.depth, placeBytes: Math.min(NEAR_BYTES, frontWindowBytes) };
  const isFew = front.depth * LONG_PLACE_BYTES <= LONG_MAX_BYTES;
  const isLong = isFew && isRoomFor(long, map.fd, LONG_SHARE, LONG_FREE_MIN);
  const lengths = isLong ? [long, short] : [short];
  return lengths.filter(({ placeBytes }) => geometry.blockBytes <= placeBytes);
}

/** Whether they take at most `share` of the free space of the file's file system, and `freeMin` of all is free. */
function isRoomFor(places: CopyPlaces, fd: number, share: number, freeMin: number): boolean {
  try {
    const { blocks, bavail, bsize } = statfsSync(`/proc/self/fd/${fd}`);
    // A tmpfs without a limit reports no blocks.
    if (blocks === 0) return true;
    return bavail >= blocks * freeMin && copyPlacesBytes(places) <= bavail * bsize * share;
  } catch {
    return false;
  }
}

/**
 * Extends a new map's file by places after the map. Cold.
 * @returns the extended file, or undefined if it was not extended
 */
export function growForPlaces(
  { fd, lengthBytes }: MapFileRef,
  geometry: Geometry,
  places: CopyPlaces,
): MapFileRef | undefined {
  const mapBytes = DiffAreaMap.byteLength(geometry);
  const grown = { fd, lengthBytes: mapBytes + copyPlacesBytes(places) };
  if (lengthBytes !== mapBytes || grown.lengthBytes > 2 ** 32) return undefined;
  if (!isRoomFor(places, fd, FREE_SHARE, FREE_MIN)) return undefined;
  try {
    ftruncateSync(fd, grown.lengthBytes);
    return grown;
  } catch {
    return undefined;
  }
}
