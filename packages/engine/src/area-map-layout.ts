// The layout of a diff area's map.
//
//     0      header                                                                  4096 bytes
//              0 magic "DArm" | 4 version | 8 chunk shift | 12 block shift | 16 logical block
//              20 state | 24 capacity: a double | 32 first error | 36 slices that are lost
//              40 places of copies | 44 bytes of each
//              48 the area's id: 16 bytes | 64 one bit per slice that is lost
//     4096   touched: one bit per page of entries that was ever written         padded to 4096
//     ...    entries, one per chunk, flat:                                      padded to 4096
//              +----------+-------+--------------------------------+
//              | slot + 1 | flags | saved: one bit per block       |     8 + 4 * wordsPerChunk
//              +----------+-------+--------------------------------+
//     ...    holes: one bit per block of each chunk, same words as `saved`   padded to 4096
//     ...    places of copies, if the header says how many: see copy-records.ts
//
// Version 1 has no id, and is read as well. Versions 7 and 8 have places of copies; a program does not read a version
// that is newer than itself. In version 8, records say whether they are whole.
//
// A block is in one of four states:
//
//     saved  hole
//       0     -     UNSAVED   the image shows the original; a write to the original must copy first
//       1     0     DATA      the image shows the slot
//       1     1     ZERO      released by the reader (chunk flag RELEASED): the image shows zero
//       1     1     LOST      (without that flag) could not be saved, or its slot was lost: reads fail
//
// The file is sparse and never filled: a zero entry means that nothing is recorded, the hole bits count only if the
// chunk's flag HOLES is set, and scans follow the touched bits. So parts of the device without a write cost nothing
// to create, open or scan.
//
// Nor do they take memory. A slice is 32 pages of entries, those of one word of the touched bits, with the
// hole bits of their chunks. While that word is zero the slice is not read: even a read would take memory.
// Before anything is recorded in a slice, its memory must be allocated (slices.ranges); otherwise a store to it would
// end the process when the file system is full. If memory cannot be allocated, the whole slice is lost: a bit in the
// header says so, and makes the map version 4, which older programs do not read.
import { type CopyPlaces, copyPlacesBytes, NO_PLACES } from "./copy-records.js";
import { EngineError } from "./errors.js";
import { Geometry, type TrackerGeometry } from "./geometry.js";

export const PAGE_BYTES = 4096;
export const PAGE_WORDS: number = PAGE_BYTES / 4;
/** log2 of the words of entries in a slice: as many pages as a word of the index has bits. */
export const SLICE_WORDS_SHIFT = 15;
const MAP_BYTES_MAX = 2 ** 32;
/** Smaller maps have all their memory from the beginning. */
const WHOLE_BYTES_MAX = 2 ** 20;

export const MapWord = {
  MAGIC: 0,
  VERSION: 1,
  CHUNK_SHIFT: 2,
  BLOCK_SHIFT: 3,
  LOGICAL_BLOCK: 4,
  STATE: 5,
  CAPACITY: 6,
  FAULT: 8,
  LOST_SLICES: 9,
  PLACES: 10,
  PLACE_BYTES: 11,
  ID: 12,
  /** One bit per slice, up to the digest of the file's name at the end of the page. */
  LOST: 16,
} as const;

/** A range of the map's file. */
export interface MapRange {
  readonly offsetBytes: number;
  readonly lengthBytes: number;
}

export interface MapRegions {
  readonly entryWords: number;
  readonly entryPages: number;
  readonly entries: number;
  readonly holes: number;
  readonly total: number;
}

type Shape = Pick<Geometry, "chunkCount" | "wordsPerChunk">;

export function regionsOf({ chunkCount, wordsPerChunk }: Shape): MapRegions {
  const entryWords = 2 + wordsPerChunk;
  const entriesBytes = wholePages(chunkCount * entryWords * 4);
  const entryPages = entriesBytes / PAGE_BYTES;
  const touchedBytes = wholePages(Math.ceil(entryPages / 32) * 4);
  const holesBytes = wholePages(chunkCount * wordsPerChunk * 4);
  const entries = PAGE_BYTES + touchedBytes;
  const holes = entries + entriesBytes;
  return { entryWords, entryPages, entries, holes, total: holes + holesBytes };
}

/** Whether a map for this device is within the limit of 4 GiB. The geometry need not be checked. */
export function fitsMap(geometry: Omit<TrackerGeometry, "logicalBlockBytes">): boolean {
  const { capacityBytes, chunkShift, blockShift } = geometry;
  const chunkCount = Math.ceil(capacityBytes / 2 ** chunkShift);
  const wordsPerChunk = Math.ceil(2 ** (chunkShift - blockShift) / 32);
  return regionsOf({ chunkCount, wordsPerChunk }).total <= MAP_BYTES_MAX;
}

/** Bytes of a map for this device, with places of copies. Throws MAP_TOO_LARGE above 4 GiB. */
export function mapBytes(geometry: TrackerGeometry, places: CopyPlaces = NO_PLACES): number {
  const total = regionsOf(new Geometry(geometry)).total + copyPlacesBytes(places);
  if (total > MAP_BYTES_MAX) {
    throw new EngineError("MAP_TOO_LARGE", `a map of ${total} bytes: use larger chunks or blocks`);
  }
  return total;
}

/** Whether a map for this device has all its memory from the beginning. */
export function isWholeMap(geometry: TrackerGeometry): boolean {
  return mapBytes(geometry) <= WHOLE_BYTES_MAX;
}

/** Bytes at the beginning of a new map that need memory first: all of them, or header and touched bits. */
export function firstMapBytes(geometry: TrackerGeometry): number {
  const { entries, total } = regionsOf(new Geometry(geometry));
  return isWholeMap(geometry) ? total : entries;
}

/** The first chunk whose entry begins in the slice. */
export function firstChunkOfSlice(slice: number, entryWords: number): number {
  return Math.ceil((slice * 2 ** SLICE_WORDS_SHIFT) / entryWords);
}

/** The parts of the file with the entries and the holes of chunks [first, end): two ranges of whole pages. */
export function rangesOfChunks(
  { entries, entryWords, holes }: MapRegions,
  wordsPerChunk: number,
  first: number,
  end: number,
): readonly MapRange[] {
  return [
    pagesOf(entries + first * entryWords * 4, entries + end * entryWords * 4),
    pagesOf(holes + first * wordsPerChunk * 4, holes + end * wordsPerChunk * 4),
  ];
}

function pagesOf(fromBytes: number, toBytes: number): MapRange {
  const offsetBytes = Math.floor(fromBytes / PAGE_BYTES) * PAGE_BYTES;
  return { offsetBytes, lengthBytes: wholePages(toBytes) - offsetBytes };
}

function wholePages(bytes: number): number {
  return Math.ceil(bytes / PAGE_BYTES) * PAGE_BYTES;
}
