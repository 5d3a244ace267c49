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

/** What is registered for a tag at most: copies of random writes are no longer. */
export const NEAR_BYTES = 16_384;

/**
 * They take such a part of what is free at most, and only where as much as this is free of all: maps get memory as they
 * are written, and lose blocks without.
 */
const FREE_SHARE = 1 / 4;
const FREE_MIN = 1 / 2;

/** Where the places of a map are: in its own mapping, so that the map is not mapped twice. */
export interface PlacesOfMap extends CopyPlaces {
  readonly memory: MappedMemory;
  readonly offsetBytes: number;
  /** The mapping stays until each that holds it has let it go. */
  hold(): void;
  letGo(): void;
}

/**
 * Those that a new area is to have: none where its writers, not its snapshot, give way, nor with a journal, nor where a
 * block finds no room in one.
 */
export function placesFor(
  { front, geometry }: Pick<TrackerEngine, "front" | "geometry">,
  frontWindowBytes: number,
  { overflow, journal }: Pick<AreaSetup, "overflow" | "journal">,
): CopyPlaces | undefined {
  if (overflow.policy !== OverflowPolicy.BREAK_SNAPSHOT || journal !== undefined) return undefined;
  const placeBytes = Math.min(NEAR_BYTES, frontWindowBytes);
  return geometry.blockBytes > placeBytes ? undefined : { count: front.depth, placeBytes };
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
  try {
    const { blocks, bavail, bsize } = statfsSync(`/proc/self/fd/${fd}`);
    // A tmpfs without a limit has no blocks at all.
    const isScarce =
      bavail < blocks * FREE_MIN || copyPlacesBytes(places) > bavail * bsize * FREE_SHARE;
    if (blocks > 0 && isScarce) return undefined;
    ftruncateSync(fd, grown.lengthBytes);
    return grown;
  } catch {
    return undefined;
  }
}

/** Takes the memory of records and places behind a new map. @throws where there is not enough */
export function takePlaces(memory: MappedMemory, geometry: Geometry, places: CopyPlaces): void {
  const mapBytes = DiffAreaMap.byteLength(geometry);
  const isThere = memory.populate(mapBytes, copyPlacesBytes(places));
  if (!isThere) throw new Error("there is no memory for places of copies");
}
