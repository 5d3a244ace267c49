/**
 * The places of copies that may go behind their writes, in the file of their area's map: memory of the front's tags that
 * outlives the process. See copy-records.ts and copies-behind.ts of the engine.
 *
 * Where there is little memory for them the map does without, and its copies go before their writes.
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

/** What is registered for a tag, where it has no place: copies of most random writes are no longer. */
export const NEAR_BYTES = 16_384;
/** As long is a place where memory is plentiful, and else as what is registered without: see LONG_SHARE. */
const LONG_PLACE_BYTES = 65_536;

/**
 * They take such a part of what is free at most, and only where as much as this is free of all: maps get memory as they
 * are written, and lose blocks without.
 */
const FREE_SHARE = 1 / 4;
const FREE_MIN = 1 / 2;
/**
 * Long ones are less urgent: while most is free, and so that they leave room for the short ones of many devices. A reactor
 * pins their memory in one turn, so a front of many tags has none.
 */
const LONG_SHARE = 1 / 64;
const LONG_FREE_MIN = 7 / 8;
const LONG_MAX_BYTES = 4 * 2 ** 20;

/** Where the places of a map are: in its own mapping, so that the map is not mapped twice. */
export interface PlacesOfMap extends CopyPlaces {
  readonly memory: MappedMemory;
  readonly offsetBytes: number;
  /** The mapping has all pages of them. */
  readonly isPopulated: boolean;
  /** The mapping stays until each that holds it has let it go. */
  hold(): void;
  letGo(): void;
}

/**
 * Those that a new area may have, the first that there is memory for: none where its writers, not its snapshot, give way,
 * nor with a journal, nor where a block finds no room in one.
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

/** Whether they take no more than `share` of what the file's file system has free, and that is `freeMin` of all. */
function isRoomFor(places: CopyPlaces, fd: number, share: number, freeMin: number): boolean {
  try {
    const { blocks, bavail, bsize } = statfsSync(`/proc/self/fd/${fd}`);
    // A tmpfs without a limit has no blocks at all.
    if (blocks === 0) return true;
    return bavail >= blocks * freeMin && copyPlacesBytes(places) <= bavail * bsize * share;
  } catch {
    return false;
  }
}

/**
 * Makes a new map's file long enough for places behind it. Cold.
 * @returns the file as it is then, or undefined where it stays as it was
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
