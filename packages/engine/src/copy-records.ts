/**
 * Where the old data of copies is that outlive the process: behind the map of their area, in its file.
 *
 *     map | records                                    | place 0 | place 1 | ...
 *           state | first block | blocks | chunk          old data of one copy each
 *
 * The state of a record that is set comes from its other words: they are whole, or the map is refused. In a map of
 * version 7 it is the same for all, and stays so: the programs before read no other.
 *
 * A record that is set says: the old data of these blocks is in the place, from its beginning, and the original may
 * have been written. Those of them that are saved, or lost, need it no more. A new process writes the others to
 * their slot before anything relies on them.
 *
 * Order of stores, so that a kill between any two leaves what is right: the place is filled, then the record is set,
 * then the original is written; the saved bits are set, then the record is cleared.
 */
import { assert } from "./assert.js";
import type { Geometry } from "./geometry.js";

const RECORD_WORDS = 4;
const RECORD_BYTES = RECORD_WORDS * 4;
const PAGE_BYTES = 4096;
/** State of a record of a copy of nothing; of any in a map of version 7. */
const SET = 0x436f7079;
const Word = { STATE: 0, FIRST_BLOCK: 1, BLOCKS: 2, CHUNK: 3 } as const;
/** Odd: no other number in one of the words leads to the same state. */
const OF_FIRST_BLOCK = 0x9e3779b1;
const OF_BLOCKS = 0x85ebca6b;
const OF_CHUNK = 0xc2b2ae35;

/** The state of a record that is set, never 0: it fits no other blocks, so a flipped bit of either is seen. */
function stateOf(chunk: number, firstBlock: number, blocks: number): number {
  const first = Math.imul(firstBlock, OF_FIRST_BLOCK);
  const state = SET ^ first ^ Math.imul(blocks, OF_BLOCKS) ^ Math.imul(chunk, OF_CHUNK);
  return state === 0 ? SET : state;
}

/** How many copies have a place at most, and how long each of them is: a multiple of a page. */
export interface CopyPlaces {
  readonly count: number;
  readonly placeBytes: number;
}

export const NO_PLACES: CopyPlaces = { count: 0, placeBytes: 0 };

/** Bytes of records and places behind a map. */
export function copyPlacesBytes(places: CopyPlaces): number {
  return recordsBytes(places) + places.count * places.placeBytes;
}

function recordsBytes({ count }: CopyPlaces): number {
  return Math.ceil((count * RECORD_BYTES) / PAGE_BYTES) * PAGE_BYTES;
}

export class CopyRecords {
  readonly count: number;
  readonly placeBytes: number;
  /** Of records and places in the map's file; and of the first place. */
  readonly offsetBytes: number;
  readonly placesOffsetBytes: number;
  private readonly words: Int32Array;
  private readonly isPlain: boolean;
  /** Its memory is not that of its tag any more. */
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

  /** False: it is set, and its words do not belong together. */
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

  /** The old data of blocks [start, end) is in the place. */
  set(place: number, chunk: number, start: number, end: number): void {
    assert(!this.isSet(place), "a place has two copies");
    const at = place * RECORD_WORDS;
    this.words[at + Word.FIRST_BLOCK] = start;
    this.words[at + Word.BLOCKS] = end - start;
    this.words[at + Word.CHUNK] = chunk;
    const state = this.isPlain ? SET : stateOf(chunk, start, end - start);
    Atomics.store(this.words, at + Word.STATE, state);
  }

  /** The blocks are all saved or lost. */
  clear(place: number): void {
    Atomics.store(this.words, place * RECORD_WORDS + Word.STATE, 0);
  }

  /** Its tag has other memory from now on. */
  retire(place: number): void {
    if (place < this.count) this.retired[place] = 1;
  }
}

/** What is read of a map to judge its records. */
interface RecordedMap {
  readonly geometry: Pick<Geometry, "chunkCount" | "blockShift" | "blocksInChunk">;
  readonly copyRecords: CopyRecords | undefined;
  slotOf(chunk: number): number;
  nextUnsaved(chunk: number, from: number, to: number): number;
  nextSaved(chunk: number, from: number, to: number): number;
}

/** What cannot be in records that only this code has written, or undefined. */
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
    // Blocks are saved in order, and nothing else saves one of a copy that is under way.
    if (map.nextSaved(chunk, unsaved, end) < end) return `the copy in place ${place} has gaps`;
    if (unsaved < end && map.slotOf(chunk) < 0) return `the copy in place ${place} has no slot`;
  }
  return undefined;
}
