// What is known about each chunk of a device in a snapshot: its slot, and which blocks are saved.
//
// Order of stores, so that a kill between any two leaves a right map: the touched bit before the entry, flags before
// hole bits, hole bits before saved bits, the slot before anything is written to it, and a saved bit only after the
// block is complete in the slot.
import {
  fitsMap,
  isWholeMap,
  MapWord,
  mapBytes,
  PAGE_BYTES,
  PAGE_WORDS,
  regionsOf,
} from "./area-map-layout.js";
import {
  AreaMapSlices,
  hasPlaces,
  VERSION_WITH_LOST_SLICES,
  VERSION_WITH_PLACES,
  VERSION_WITH_PLAIN_PLACES,
} from "./area-map-slices.js";
import { assert } from "./assert.js";
import { bitAt, clearBits, findBit, setBits } from "./bits.js";
import { BlockState } from "./constants.js";
import { type CopyPlaces, CopyRecords, NO_PLACES } from "./copy-records.js";
import { EngineError } from "./errors.js";
import { Geometry, type TrackerGeometry } from "./geometry.js";
import { LossCount } from "./loss-count.js";

const MAGIC = 0x6d724144;
const VERSION = 2;
const VERSION_WITHOUT_ID = 1;
const VERSIONS: readonly number[] = [
  VERSION_WITHOUT_ID,
  VERSION,
  VERSION_WITH_LOST_SLICES,
  VERSION_WITH_PLAIN_PLACES,
  VERSION_WITH_PLACES,
];
const AREA_ID_BYTES = 16;
const FLAG_HOLES = 1;
const FLAG_RELEASED = 2;
export const NO_SLOT = -1;

/** The stage of an area, kept in the map for the next process. */
export const AreaState = { PREPARED: 1, ACTIVE: 2, DROPPED: 3 } as const;

function writeId(buffer: ArrayBufferLike, id: Uint8Array): void {
  assert(id.length === AREA_ID_BYTES, "an area's id has 16 bytes");
  new Uint8Array(buffer, MapWord.ID * 4, AREA_ID_BYTES).set(id);
}

/** Maps of other versions may have anything in these words. */
function placesIn(words: Int32Array): CopyPlaces {
  if (!hasPlaces(words[MapWord.VERSION])) return NO_PLACES;
  return { count: words[MapWord.PLACES], placeBytes: words[MapWord.PLACE_BYTES] };
}

export class DiffAreaMap {
  readonly geometry: Geometry;
  /** How much is lost, kept up to date. Of an opened map valid only after losses.reset(). */
  readonly losses: LossCount = new LossCount(this);
  /** Which parts of the map have memory. */
  readonly slices: AreaMapSlices;
  /** Undefined if the map has no places of copies. */
  readonly copyRecords: CopyRecords | undefined;
  private readonly words: Int32Array;
  private readonly entryWords: number;
  private readonly entryPages: number;
  private readonly entriesAt: number;
  private readonly holesAt: number;
  private readonly wordsPerChunk: number;

  /** False where byteLength() would throw MAP_TOO_LARGE. The geometry need not be checked. */
  static fits(geometry: Omit<TrackerGeometry, "logicalBlockBytes">): boolean {
    return fitsMap(geometry);
  }

  /** Bytes that a map for this device needs, with places of copies. Throws MAP_TOO_LARGE above 4 GiB. */
  static byteLength(geometry: TrackerGeometry, places?: CopyPlaces): number {
    return mapBytes(geometry, places);
  }

  /**
   * Makes a new map in `buffer`, which must be all zero and of byteLength() bytes.
   * @param id the area's id, 16 bytes; zeroes if the area needs none
   * @param isWhole the whole map has memory, not just its header and touched bits
   * @param places places for copies that outlive the process
   */
  static create(
    buffer: ArrayBufferLike,
    geometry: TrackerGeometry,
    id: Uint8Array = new Uint8Array(AREA_ID_BYTES),
    isWhole: boolean = true,
    places: CopyPlaces = NO_PLACES,
  ): DiffAreaMap {
    const need = DiffAreaMap.byteLength(geometry, places);
    if (buffer.byteLength !== need) {
      throw new EngineError("MAP_SIZE", `area map: buffer of ${buffer.byteLength}, need ${need}`);
    }
    const words = new Int32Array(buffer, 0, PAGE_WORDS);
    words[MapWord.VERSION] = places.count === 0 ? VERSION : VERSION_WITH_PLACES;
    words[MapWord.PLACES] = places.count;
    words[MapWord.PLACE_BYTES] = places.placeBytes;
    words[MapWord.CHUNK_SHIFT] = geometry.chunkShift;
    words[MapWord.BLOCK_SHIFT] = geometry.blockShift;
    words[MapWord.LOGICAL_BLOCK] = geometry.logicalBlockBytes;
    words[MapWord.STATE] = AreaState.PREPARED;
    new Float64Array(buffer, MapWord.CAPACITY * 4, 1)[0] = geometry.capacityBytes;
    writeId(buffer, id);
    Atomics.store(words, MapWord.MAGIC, MAGIC);
    return new DiffAreaMap(buffer, new Geometry(geometry), isWhole);
  }

  /**
   * Opens a map made by create(), with all that it recorded.
   * @param isWhole as in create(); by default as isWholeMap() says
   */
  static open(buffer: ArrayBufferLike, isWhole?: boolean): DiffAreaMap {
    if (buffer.byteLength < PAGE_BYTES) {
      throw new EngineError("MAP_FORMAT", "area map: the file is too short to be a map");
    }
    const words = new Int32Array(buffer, 0, PAGE_WORDS);
    const version = words[MapWord.VERSION];
    if (words[MapWord.MAGIC] !== MAGIC || !VERSIONS.includes(version)) {
      throw new EngineError(
        "MAP_FORMAT",
        "area map: no map, or another version: drop the snapshot",
      );
    }
    const geometry = new Geometry({
      capacityBytes: new Float64Array(buffer, MapWord.CAPACITY * 4, 1)[0],
      logicalBlockBytes: words[MapWord.LOGICAL_BLOCK],
      chunkShift: words[MapWord.CHUNK_SHIFT],
      blockShift: words[MapWord.BLOCK_SHIFT],
    });
    if (buffer.byteLength !== DiffAreaMap.byteLength(geometry, placesIn(words))) {
      throw new EngineError("MAP_GEOMETRY", "area map: the file's size and its header disagree");
    }
    const map = new DiffAreaMap(buffer, geometry, isWhole ?? isWholeMap(geometry));
    map.slices.completeLost();
    return map;
  }

  private constructor(buffer: ArrayBufferLike, geometry: Geometry, isWhole: boolean) {
    const { entryWords, entryPages, entries, holes, total } = regionsOf(geometry);
    this.geometry = geometry;
    this.words = new Int32Array(buffer);
    this.entryWords = entryWords;
    this.entryPages = entryPages;
    this.entriesAt = entries / 4;
    this.holesAt = holes / 4;
    this.wordsPerChunk = geometry.wordsPerChunk;
    this.slices = new AreaMapSlices(this.words, geometry, isWhole);
    const places = placesIn(this.words);
    if (places.count === 0) return;
    const isPlain = this.words[MapWord.VERSION] === VERSION_WITH_PLAIN_PLACES;
    this.copyRecords = new CopyRecords(buffer, total, places, isPlain);
  }

  /** The area's id, 16 bytes; undefined in a map of version 1. */
  get id(): Uint8Array | undefined {
    if (this.words[MapWord.VERSION] === VERSION_WITHOUT_ID) return undefined;
    return new Uint8Array(this.words.buffer, MapWord.ID * 4, AREA_ID_BYTES).slice();
  }

  /** Gives a map of version 1 the id of its area. */
  adopt(id: Uint8Array): void {
    assert(this.words[MapWord.VERSION] === VERSION_WITHOUT_ID, "the map has an id");
    writeId(this.words.buffer, id);
    Atomics.store(this.words, MapWord.VERSION, VERSION);
  }

  /** One of AreaState. */
  get state(): number {
    return this.words[MapWord.STATE];
  }

  setState(state: number): void {
    Atomics.store(this.words, MapWord.STATE, state);
  }

  /** Errno (positive) of the first lost block, or 0. */
  get faultErrno(): number {
    return this.words[MapWord.FAULT];
  }

  setFaultErrno(errno: number): void {
    this.words[MapWord.FAULT] = errno;
  }

  /** True if the map has the memory to record something about the chunk. */
  hasMemory(chunk: number): boolean {
    return this.slices.hasMemory(this.slices.of(chunk));
  }

  /** Slot of the chunk, or NO_SLOT. */
  slotOf(chunk: number): number {
    if (this.slices.isBlank(chunk)) return NO_SLOT;
    return this.words[this.entriesAt + chunk * this.entryWords] - 1;
  }

  /** Records a slot for a chunk that has none. */
  setSlot(chunk: number, slot: number): void {
    const at = this.entriesAt + chunk * this.entryWords;
    this.touch(at);
    assert(slot >= 0 && this.words[at] === 0, "slot recorded twice, or a negative one");
    this.words[at] = slot + 1;
  }

  /** First block in [from, to) of the chunk that is not saved, or `to`. */
  nextUnsaved(chunk: number, from: number, to: number): number {
    if (this.slices.isBlank(chunk)) return this.slices.isLostAt(chunk) ? to : from;
    return findBit(this.words, this.savedAt(chunk), -1, from, to);
  }

  /** First block in [from, to) of the chunk that is saved, or `to`. */
  nextSaved(chunk: number, from: number, to: number): number {
    if (this.slices.isBlank(chunk)) return this.slices.isLostAt(chunk) ? from : to;
    return findBit(this.words, this.savedAt(chunk), 0, from, to);
  }

  /** One of BlockState. */
  stateAt(chunk: number, block: number): number {
    if (this.slices.isBlank(chunk)) {
      return this.slices.isLostAt(chunk) ? BlockState.LOST : BlockState.UNSAVED;
    }
    if (!bitAt(this.words, this.savedAt(chunk), block)) return BlockState.UNSAVED;
    const flags = this.flagsOf(chunk);
    if (flags === 0 || !bitAt(this.words, this.holesOf(chunk), block)) return BlockState.DATA;
    return (flags & FLAG_RELEASED) !== 0 ? BlockState.ZERO : BlockState.LOST;
  }

  /** End of the run of blocks from `from` on that have the same state, at most `to`. */
  stateEnd(chunk: number, from: number, to: number): number {
    if (this.slices.isBlank(chunk)) return to;
    if (!bitAt(this.words, this.savedAt(chunk), from)) return this.nextSaved(chunk, from, to);
    const end = this.nextUnsaved(chunk, from, to);
    if (this.flagsOf(chunk) === 0) return end;
    const holes = this.holesOf(chunk);
    const skip = bitAt(this.words, holes, from) ? -1 : 0;
    return findBit(this.words, holes, skip, from, end);
  }

  /** A bit for each of 32 blocks from `32 * word` on: set if the block is DATA. */
  dataBits(chunk: number, word: number): number {
    if (this.slices.isBlank(chunk)) return 0;
    const saved = this.words[this.savedAt(chunk) + word];
    return this.flagsOf(chunk) === 0 ? saved : saved & ~this.words[this.holesOf(chunk) + word];
  }

  /** The same for blocks that are LOST, or ZERO if the chunk was released. */
  holeBits(chunk: number, word: number): number {
    if (this.flagsOf(chunk) === 0) return 0;
    if (this.slices.isBlank(chunk))
      return bitsBelow(this.geometry.blocksInChunk(chunk) - 32 * word);
    return this.words[this.savedAt(chunk) + word] & this.words[this.holesOf(chunk) + word];
  }

  /** Records that blocks [from, to) are complete in the slot. */
  setSaved(chunk: number, from: number, to: number): void {
    if (this.slices.isBlank(chunk)) this.touch(this.entriesAt + chunk * this.entryWords);
    const flags = this.flagsOf(chunk);
    if (flags !== 0) {
      if (flags === FLAG_HOLES) this.losses.before(chunk, from, to);
      clearBits(this.words, this.holesOf(chunk), from, to);
      if (flags === FLAG_HOLES) this.losses.after(chunk, from, to);
    }
    setBits(this.words, this.savedAt(chunk), from, to);
  }

  /**
   * Records that blocks [from, to) could not be saved, or that their content is lost. In a chunk that was released before,
   * the blocks that show zero are lost with them: a hole has one meaning in the whole chunk. Returns how many blocks that
   * loses: the whole slice if it has no memory.
   */
  setLost(chunk: number, from: number, to: number): number {
    if (!this.hasMemory(chunk)) return this.loseSlice(chunk);
    const at = this.entriesAt + chunk * this.entryWords;
    const isWhole = this.isReleased(chunk);
    const first = isWhole ? 0 : from;
    const end = isWhole ? this.geometry.blocksInChunk(chunk) : to;
    const lostBefore = this.losses.blocks;
    this.losses.before(chunk, first, end);
    this.touch(at);
    // Without RELEASED, and before the hole bits: what is lost never shows zero.
    this.words[at + 1] = FLAG_HOLES;
    setBits(this.words, this.holesOf(chunk), from, to);
    setBits(this.words, at + 2, from, to);
    this.losses.after(chunk, first, end);
    return this.losses.blocks - lostBefore;
  }

  /**
   * Records that the reader no longer needs the chunk: it shows zero and is not copied any more.
   * Returns the slot that it gives up, or NO_SLOT. Nothing may be in flight on the chunk.
   */
  release(chunk: number): number {
    const at = this.entriesAt + chunk * this.entryWords;
    const slot = this.slotOf(chunk);
    this.setZero(chunk, 0, this.geometry.blocksPerChunk);
    this.words[at] = 0;
    return slot;
  }

  /** True if the chunk was released by the reader. */
  isReleased(chunk: number): boolean {
    return (this.flagsOf(chunk) & FLAG_RELEASED) !== 0;
  }

  /** True if some block of the chunk is or was lost or released. */
  hasHoles(chunk: number): boolean {
    return this.flagsOf(chunk) !== 0;
  }

  /** Records that blocks [from, to) show zero, as release() does for a whole chunk: to build a map from another one. */
  setZero(chunk: number, from: number, to: number): void {
    const at = this.entriesAt + chunk * this.entryWords;
    this.touch(at);
    // From here on blocks that were lost show zero, in the whole chunk.
    const wasLost = this.words[at + 1] === FLAG_HOLES;
    const blocks = this.geometry.blocksInChunk(chunk);
    if (wasLost) this.losses.before(chunk, 0, blocks);
    this.words[at + 1] |= FLAG_HOLES | FLAG_RELEASED;
    setBits(this.words, this.holesOf(chunk), from, to);
    setBits(this.words, at + 2, from, to);
    if (wasLost) this.losses.after(chunk, 0, blocks);
  }

  /**
   * Calls `visit` for each chunk from `from` on of which something is recorded, in bounded steps: until `visit` returns
   * false, which leaves that chunk for later, or after `unitsMax` units of work (chunks, and words of the index).
   * Returns the chunk to continue at; chunkCount at the end.
   */
  visitTouched(from: number, unitsMax: number, visit: (chunk: number) => boolean): number {
    return this.visitPages(from, unitsMax, (chunk) => {
      return (this.slotOf(chunk) === NO_SLOT && this.flagsOf(chunk) === 0) || visit(chunk);
    });
  }

  /** As visitTouched(), but visits all chunks of pages in which something is recorded. */
  visitPages(from: number, unitsMax: number, visit: (chunk: number) => boolean): number {
    const { chunkCount } = this.geometry;
    let units = unitsMax;
    let chunk = from;
    while (chunk < chunkCount && units > 0) {
      // An entry's page is the page of its first word.
      const page = Math.floor((chunk * this.entryWords) / PAGE_WORDS);
      const limit = Math.min(this.entryPages, page + units * 32);
      const found = findBit(this.words, PAGE_WORDS, 0, page, limit);
      units -= Math.ceil((found - page) / 32);
      if (found > page) chunk = Math.ceil((found * PAGE_WORDS) / this.entryWords);
      if (found === limit) continue;
      const next = Math.ceil(((found + 1) * PAGE_WORDS) / this.entryWords);
      const end = Math.min(next, chunkCount, chunk + units);
      units -= end - chunk;
      for (; chunk < end; chunk++) if (!visit(chunk)) return chunk;
    }
    return Math.min(chunk, chunkCount);
  }

  /**
   * Describes what is impossible in an undamaged map, for one chunk of a page in which something is recorded; undefined
   * if nothing is. It finds damage that would make the map inconsistent, not a flipped bit that gives another valid
   * map.
   */
  damageOf(chunk: number): string | undefined {
    if (this.slices.isBlank(chunk)) return undefined;
    const { blocksPerChunk } = this.geometry;
    const at = this.entriesAt + chunk * this.entryWords;
    const flags = this.words[at + 1];
    if ((flags & ~(FLAG_HOLES | FLAG_RELEASED)) !== 0 || flags === FLAG_RELEASED) {
      return `chunk ${chunk} has flags ${flags}`;
    }
    if (this.words[at] < 0) return `chunk ${chunk} has slot ${this.words[at] - 1}`;
    const bits = this.wordsPerChunk * 32;
    if (findBit(this.words, at + 2, 0, blocksPerChunk, bits) < bits) {
      return `chunk ${chunk} has blocks beyond its end`;
    }
    if (this.words[at] !== 0) return undefined;
    let block = 0;
    while (block < blocksPerChunk && this.stateAt(chunk, block) !== BlockState.DATA) {
      block = this.stateEnd(chunk, block, blocksPerChunk);
    }
    return block < blocksPerChunk ? `chunk ${chunk} has old data, and no slot` : undefined;
  }

  private savedAt(chunk: number): number {
    return this.entriesAt + chunk * this.entryWords + 2;
  }

  private holesOf(chunk: number): number {
    return this.holesAt + chunk * this.wordsPerChunk;
  }

  private flagsOf(chunk: number): number {
    if (this.slices.isBlank(chunk)) return this.slices.isLostAt(chunk) ? FLAG_HOLES : 0;
    return this.words[this.entriesAt + chunk * this.entryWords + 1];
  }

  /** Must be called before anything is stored in the entry at `at`. */
  private touch(at: number): void {
    const page = (at - this.entriesAt) >> 10;
    assert(this.slices.hasMemory(page >> 5), "something is recorded where the map has no memory");
    this.words[PAGE_WORDS + (page >> 5)] |= 1 << (page & 31);
  }

  /** Loses the chunk's whole slice, which has no memory. Returns how many blocks that is. */
  private loseSlice(chunk: number): number {
    const { slices } = this;
    const slice = slices.of(chunk);
    if (slices.isLost(slice)) return 0;
    const blocks = this.losses.addChunks(slices.firstChunk(slice), slices.endChunk(slice));
    slices.setLost(slice);
    return blocks;
  }
}

/** A word with its lowest `count` bits set: all for 32 and more. */
function bitsBelow(count: number): number {
  if (count >= 32) return -1;
  return count <= 0 ? 0 : 2 ** count - 1;
}
