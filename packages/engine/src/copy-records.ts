/**
 * Where the old data of copies is that outlive the process: after the map of their area, in its file.
 *
 *     map | records                                    | place 0 | place 1 | ...
 *           state | first block | blocks | chunk          old data of one copy each
 *
 * The state of a set record is computed from its other words, so that damage is found: the map is then refused. Maps of
 * version 7 use one state for all records, and keep it: programs of that time read no other.
 *
 * A set record means: the old data of these blocks is in the place, from its beginning, and the original may have been
 * overwritten. Blocks that are saved or lost no longer need it. A new process writes the others to their slot before
 * anything relies on them.
 *
 * Order of stores, so that a kill between any two leaves a right state: the place is filled, the record is set, the
 * original is written; the saved bits are set, the record is cleared.
 */
import { assert } from "./assert.js";
import type { Geometry } from "./geometry.js";

const RECORD_WORDS = 4;
const RECORD_BYTES = RECORD_WORDS * 4;
const PAGE_BYTES = 4096;
/** The state of records in maps of version 7; in others the seed of the computed state. */
const SET = 0x436f7079;
const Word = { STATE: 0, FIRST_BLOCK: 1, BLOCKS: 2, CHUNK: 3 } as const;
/** Odd, so that two different numbers in one word never give the same state. */
const OF_FIRST_BLOCK = 0x9e3779b1;
const OF_BLOCKS = 0x85ebca6b;
const OF_CHUNK = 0xc2b2ae35;

/** The state of a set record, never 0. Any flipped bit in state or words makes them inconsistent. */
function stateOf(chunk: number, firstBlock: number, blocks: number): number {
  const first = Math.imul(firstBlock, OF_FIRST_BLOCK);
  const state = SET ^ first ^ Math.imul(blocks, OF_BLOCKS) ^ Math.imul(chunk, OF_CHUNK);
  return state === 0 ? SET : state;
}

/** How many copies can have a place, and the size of each place: a multiple of a page. */
export interface CopyPlaces {
  readonly count: number;
  readonly placeBytes: number;
}

export const NO_PLACES: CopyPlaces = { count: 0, placeBytes: 0 };

/** Bytes that records and places take after the map. */
export function copyPlacesBytes(places: CopyPlaces): number {
  return recordsBytes(places) + places.count * places.placeBytes;
}

function recordsBytes({ count }: CopyPlaces): number {
  return Math.ceil((count * RECORD_BYTES) / PAGE_BYTES) * PAGE_BYTES;
}

export class CopyRecords {
  readonly count: number;
  readonly placeBytes: number;
  /** Where records and places begin in the map's file, and where the first place begins. */
  readonly offsetBytes: number;
  readonly placesOffsetBytes: number;
  private readonly words: Int32Array;
  private readonly isPlain: boolean;
  /** By place: its tag uses other memory now. */
  private readonly retired: Uint8Array;

  /**
   * @param offsetBytes where the records begin in `buffer`
   * @param isPlain the map is of version 7
   */
  constructor(buffer: ArrayBufferLike, offsetBytes: number, places: CopyPlaces, isPlain: boolean) {
    this.count = places.count;
    this.placeBytes = places.placeBytes;
    this.isPlain = isPlain;
    this.offsetBytes = offsetBytes;
    this.placesOffsetBytes = offsetBytes + recordsBytes(places);
    this.words = new Int32Array(buffer, offsetBytes, places.count * RECORD_WORDS);
    this.retired = new Uint8Array(places.count);
  }

  /** True if a copy of so many bytes may have the place. */
  isFree(place: number, lengthBytes: number): boolean {
    if (place >= this.count || this.retired[place] === 1) return false;
    return lengthBytes <= this.placeBytes && !this.isSet(place);
  }

  isSet(place: number): boolean {
    const state = this.words[place * RECORD_WORDS + Word.STATE];
    return this.isPlain ? state === SET : state !== 0;
  }

  /** False if the record is set but its words do not match its state. */
  isSound(place: number): boolean {
    if (this.isPlain || !this.isSet(place)) return true;
    const at = place * RECORD_WORDS;
    const { words } = this;
    const expected = stateOf(
      words[at + Word.CHUNK],
      words[at + Word.FIRST_BLOCK],
      words[at + Word.BLOCKS],
    );
    return words[at + Word.STATE] === expected;
  }

  chunkOf(place: number): number {
    return this.words[place * RECORD_WORDS + Word.CHUNK];
  }

  firstBlockOf(place: number): number {
    return this.words[place * RECORD_WORDS + Word.FIRST_BLOCK];
  }

  endBlockOf(place: number): number {
    return this.firstBlockOf(place) + this.words[place * RECORD_WORDS + Word.BLOCKS];
  }

  /** Records that the old data of blocks [start, end) is in the place. */
  set(place: number, chunk: number, start: number, end: number): void {
    assert(!this.isSet(place), "a place has two copies");
    const at = place * RECORD_WORDS;
    this.words[at + Word.FIRST_BLOCK] = start;
    this.words[at + Word.BLOCKS] = end - start;
    this.words[at + Word.CHUNK] = chunk;
    const state = this.isPlain ? SET : stateOf(chunk, start, end - start);
    Atomics.store(this.words, at + Word.STATE, state);
  }

  /** The blocks are all saved or lost: clears the record. */
  clear(place: number): void {
    Atomics.store(this.words, place * RECORD_WORDS + Word.STATE, 0);
  }

  /** The tag uses other memory from now on: the place is not used again. */
  retire(place: number): void {
    if (place < this.count) this.retired[place] = 1;
  }
}

/** What damageOfRecords() needs of a map. */
interface RecordedMap {
  readonly geometry: Pick<Geometry, "chunkCount" | "blockShift" | "blocksInChunk">;
  readonly copyRecords: CopyRecords | undefined;
  slotOf(chunk: number): number;
  nextUnsaved(chunk: number, from: number, to: number): number;
  nextSaved(chunk: number, from: number, to: number): number;
}

/** Describes what is impossible in the records, unless they are damaged; undefined if nothing is. */
export function damageOfRecords(map: RecordedMap): string | undefined {
  const { copyRecords: records, geometry } = map;
  if (records === undefined) return undefined;
  for (let place = 0; place < records.count; place++) {
    if (!records.isSet(place)) continue;
    if (!records.isSound(place)) return `the copy in place ${place} has damaged words`;
    const chunk = records.chunkOf(place);
    const start = records.firstBlockOf(place);
    const end = records.endBlockOf(place);
    const isInside =
      chunk >= 0 &&
      chunk < geometry.chunkCount &&
      start >= 0 &&
      start < end &&
      end <= geometry.blocksInChunk(chunk) &&
      (end - start) << geometry.blockShift <= records.placeBytes;
    if (!isInside) return `the copy in place ${place} lies nowhere`;
    const unsaved = map.nextUnsaved(chunk, start, end);
    // Blocks are saved in order, and no other copy saves blocks of a copy in flight.
    if (map.nextSaved(chunk, unsaved, end) < end) return `the copy in place ${place} has gaps`;
    if (unsaved < end && map.slotOf(chunk) < 0) return `the copy in place ${place} has no slot`;
  }
  return undefined;
}
