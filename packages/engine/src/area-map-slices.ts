/**
 * Knows which slices of an area's map have memory, and which are lost because none was available: see
 * area-map-layout.ts.
 *
 * Order of stores, for a kill in between: the version, the number of lost slices, the slice's bit, its word of the
 * touched bits. No block of the slice is overwritten before the last of them.
 */
import {
  firstChunkOfSlice,
  type MapRange,
  MapWord,
  PAGE_WORDS,
  rangesOfChunks,
  regionsOf,
  SLICE_WORDS_SHIFT,
} from "./area-map-layout.js";
import { assert } from "./assert.js";
import { bitAt, setBits } from "./bits.js";
import { EngineError } from "./errors.js";
import type { Geometry } from "./geometry.js";

/** Versions that no single flipped bit turns into each other. Maps with places of copies may have lost slices, too. */
export const VERSION_WITH_LOST_SLICES = 4;
export const VERSION_WITH_PLACES = 8;
/** As version 8, but its records do not say whether they are whole: see copy-records.ts. */
export const VERSION_WITH_PLAIN_PLACES = 7;

export function hasPlaces(version: number): boolean {
  return version === VERSION_WITH_PLACES || version === VERSION_WITH_PLAIN_PLACES;
}

export class AreaMapSlices {
  private readonly words: Int32Array;
  private readonly geometry: Geometry;
  private readonly entryWords: number;
  /** By slice: 1 if it has memory. Slices in which something is recorded have it even without this note. */
  private readonly withMemory: Uint8Array;

  /** @param isWhole the whole map has memory, not just its header and touched bits */
  constructor(words: Int32Array, geometry: Geometry, isWhole: boolean) {
    const { entryPages, entryWords } = regionsOf(geometry);
    this.words = words;
    this.geometry = geometry;
    this.entryWords = entryWords;
    this.withMemory = new Uint8Array(Math.ceil(entryPages / 32)).fill(isWhole ? 1 : 0);
  }

  get count(): number {
    return this.withMemory.length;
  }

  /** The slice that the chunk's entry begins in. */
  of(chunk: number): number {
    return (chunk * this.entryWords) >> SLICE_WORDS_SHIFT;
  }

  /** True if the chunk's entry must not be read: nothing is recorded in its slice, or the slice is lost. */
  isBlank(chunk: number): boolean {
    const slice = this.of(chunk);
    return this.words[PAGE_WORDS + slice] === 0 || this.isLost(slice);
  }

  /** True if the chunk is in a slice that is lost. */
  isLostAt(chunk: number): boolean {
    return this.isLost(this.of(chunk));
  }

  hasMemory(slice: number): boolean {
    if (this.withMemory[slice] === 1) return true;
    return this.words[PAGE_WORDS + slice] !== 0 && !this.isLost(slice);
  }

  /** The slice has memory now; a lost slice stays lost. */
  noteMemory(slice: number): void {
    if (!this.isLost(slice)) this.withMemory[slice] = 1;
  }

  isLost(slice: number): boolean {
    return this.words[MapWord.LOST_SLICES] !== 0 && bitAt(this.words, MapWord.LOST, slice);
  }

  setLost(slice: number): void {
    assert(!this.hasMemory(slice), "a slice is lost that has memory");
    if (!hasPlaces(this.words[MapWord.VERSION])) {
      Atomics.store(this.words, MapWord.VERSION, VERSION_WITH_LOST_SLICES);
    }
    this.words[MapWord.LOST_SLICES]++;
    setBits(this.words, MapWord.LOST, slice, slice + 1);
    this.words[PAGE_WORDS + slice] = -1;
  }

  /** Completes a setLost() that a kill interrupted. Throws MAP_FORMAT if the state cannot come from such a kill. */
  completeLost(): void {
    const { words } = this;
    const told = words[MapWord.LOST_SLICES];
    let found = 0;
    for (let slice = 0; slice < this.withMemory.length; slice++) {
      if (!bitAt(words, MapWord.LOST, slice)) continue;
      found++;
      if (told !== 0) words[PAGE_WORDS + slice] = -1;
    }
    const version = words[MapWord.VERSION];
    const isKnown = told === 0 || version === VERSION_WITH_LOST_SLICES || hasPlaces(version);
    if (!isKnown || (found !== told && found + 1 !== told)) {
      throw new EngineError("MAP_FORMAT", `area map: ${told} slices are lost, and ${found} marked`);
    }
    words[MapWord.LOST_SLICES] = found;
  }

  /** The chunks whose entries begin in the slice: [first, end). */
  firstChunk(slice: number): number {
    return firstChunkOfSlice(slice, this.entryWords);
  }

  endChunk(slice: number): number {
    return Math.min(this.geometry.chunkCount, firstChunkOfSlice(slice + 1, this.entryWords));
  }

  /** The ranges of the map's file that the slice consists of. Cold. */
  ranges(slice: number): readonly MapRange[] {
    const { geometry } = this;
    const [first, end] = [this.firstChunk(slice), this.endChunk(slice)];
    return rangesOfChunks(regionsOf(geometry), geometry.wordsPerChunk, first, end);
  }
}
