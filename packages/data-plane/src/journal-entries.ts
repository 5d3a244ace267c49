/**
 * The entries of the journals of persistent trackers and snapshots.
 *
 * ```
 *   tracker    checkpoint: CbtMap.checkpoint()
 *              MARK       first block, count        written since the last take, or soon
 *              MARK_BOTH  first block, count        since the last take and before it: image writes
 *              AREA       id, bytes 0 to 11         the next entry concerns this diff area
 *              SWITCH     map before it, id's rest  its take; see encodeSwitch()
 *              AREA_LOST  0, 0, id's rest           old data of its persistent snapshot was lost
 *
 *   area       no checkpoint
 *              SAVED      chunk, slot, from | to << 16     blocks [from, to) are complete in the slot
 *              RELEASED   first chunk, count               discarded through the image
 *              LOST       chunk, 0, from | to << 16        could not be saved
 *              ZERO       chunk, 0, from | to << 16        discarded; the chunk was written to since
 *              ..._MASK   | word << 8; chunk, slot, bits   the same of blocks 32 * word + bit
 * ```
 *
 * LOST, ZERO and the masks are only written by a walk through a map, see area-encoder.ts. SWITCH and AREA_LOST without
 * AREA come from older daemons: they mean the area that the tracker had at the time.
 *
 * MARK is on the medium before the first write to one of its blocks is issued; SAVED, and before it the data in the
 * slot, before the first write to one of its blocks is. So the journals cover whatever reached the original before a
 * power cut. All entries may be applied to a checkpoint that has them already, because it was made while they were in
 * flight.
 */
import { type CbtInfo, type CbtMap, type DiffAreaMap, NO_SLOT } from "@blksnap/engine";
import { uuidBytes, uuidText } from "@blksnap/linux-block";
import type { AreaId } from "./area-id.js";

export const JournalKind = { TRACKER: 1, AREA: 2 } as const;

export const CbtOp = { MARK: 1, MARK_BOTH: 2, SWITCH: 3, AREA_LOST: 4, AREA: 5 } as const;

/** Receives an entry. */
export type AppendEntry = (op: number, a: number, b: number, c: number) => void;

export const AreaOp = {
  SAVED: 1,
  RELEASED: 2,
  LOST: 3,
  ZERO: 4,
  SAVED_MASK: 5,
  LOST_MASK: 6,
  ZERO_MASK: 7,
} as const;

type CbtOpNumber = (typeof CbtOp)[keyof typeof CbtOp];
type AreaOpNumber = (typeof AreaOp)[keyof typeof AreaOp];
/** Operations on a range of a chunk's blocks. */
type RangeOp = typeof AreaOp.SAVED | typeof AreaOp.LOST | typeof AreaOp.ZERO;
type MaskOp = Exclude<AreaOpNumber, RangeOp | typeof AreaOp.RELEASED>;

const RANGE_OF_MASK: Readonly<Record<MaskOp, RangeOp>> = {
  [AreaOp.SAVED_MASK]: AreaOp.SAVED,
  [AreaOp.LOST_MASK]: AreaOp.LOST,
  [AreaOp.ZERO_MASK]: AreaOp.ZERO,
};

/** Operation `op` on the blocks of a chunk's 32-bit word. */
export function maskOp(op: number, word: number): number {
  return op | (word << 8);
}

function opOfMask(op: number): number {
  return op & 0xff;
}

function wordOfMask(op: number): number {
  return op >>> 8;
}

/** Most blocks of a chunk: entries have 16 bits for the end of a range. */
export const CHUNK_BLOCKS_MAX = 0xffff;

/** The blocks [from, to) of a chunk, as one number of an entry. */
export function blockRange(from: number, to: number): number {
  return from | (to << 16);
}

function rangeFrom(range: number): number {
  return range & 0xffff;
}

function rangeTo(range: number): number {
  return range >>> 16;
}

/** The state of a map before a take, as two numbers of an entry. */
function mapWords({ changesNumber, corrupted, generation }: CbtInfo): [number, number] {
  const [tag] = new Uint32Array(generation.slice(0, 4).buffer);
  return [changesNumber * 2 + (corrupted ? 1 : 0), tag];
}

/** Appends an entry that names the area of the next one. Returns the rest of the area's id, which the next one has. */
function encodeArea(area: AreaId, append: AppendEntry): number {
  const [first, second, third, rest] = new Uint32Array(uuidBytes(area).buffer);
  append(CbtOp.AREA, first, second, third);
  return rest;
}

/** The take of an area, and the state of the map before it: two entries. */
export function encodeSwitch(before: CbtInfo, area: AreaId, append: AppendEntry): void {
  const rest = encodeArea(area, append);
  append(CbtOp.SWITCH, ...mapWords(before), rest);
}

/** Old data of an area was lost: two entries. */
export function encodeAreaLost(area: AreaId, append: AppendEntry): void {
  const rest = encodeArea(area, append);
  append(CbtOp.AREA_LOST, 0, 0, rest);
}

/** The area of entries of older daemons, which name none. */
const UNNAMED = Symbol("unnamed");

/** The area that AREA names for the next entry. */
type NamedArea = readonly [first: number, second: number, third: number];
/** @param named undefined if the entry before was no AREA */
type CbtStep = (a: number, b: number, c: number, named: NamedArea | undefined) => void;

/** @throws Error */
function assertUnnamed(op: CbtOpNumber, named: NamedArea | undefined): void {
  if (named !== undefined) throw new Error(`operation ${op} is of no diff area`);
}

/** Applies the entries of a tracker's journal to its checkpoint, one after the other. */
export class CbtReplay {
  readonly #map: CbtMap;
  #named: NamedArea | undefined;
  /** The area of the last take, if an entry names it. */
  #taken: AreaId | undefined;
  /** Areas that have lost old data since; UNNAMED for an entry that names none. */
  readonly #lost = new Set<AreaId | typeof UNNAMED>();

  constructor(map: CbtMap) {
    this.#map = map;
  }

  /** Why the area's snapshot cannot continue; undefined if it can. */
  problemOf(area: AreaId): string | undefined {
    if (this.#lost.has(area) || this.#lost.has(UNNAMED)) {
      return `old data of the area ${area} was lost`;
    }
    if (this.#taken === undefined || this.#taken === area) return undefined;
    return `the last take was that of the area ${this.#taken}, not of ${area}`;
  }

  /** Other areas that have lost old data since the last take, which does not affect this one. */
  lostBeside(area: AreaId): AreaId[] {
    return [...this.#lost].filter((one) => one !== UNNAMED && one !== area) as AreaId[];
  }

  /** @throws Error if the entry cannot belong to this map */
  readonly apply = (op: number, a: number, b: number, c: number): void => {
    const named = this.#named;
    this.#named = undefined;
    const known: Readonly<Record<number, CbtStep>> = this.#steps;
    const step = known[op];
    if (step === undefined) throw new Error(`operation ${op} in the journal of a tracker`);
    step(a, b, c, named);
  };

  /** How each operation is applied. */
  readonly #steps: Readonly<Record<CbtOpNumber, CbtStep>> = {
    [CbtOp.MARK]: (first, count, _, named) => {
      assertUnnamed(CbtOp.MARK, named);
      this.#map.markBlocks(first, count);
    },
    [CbtOp.MARK_BOTH]: (first, count, _, named) => {
      assertUnnamed(CbtOp.MARK_BOTH, named);
      this.#map.markBlocksBoth(first, count);
    },
    [CbtOp.SWITCH]: (state, generation, rest, named) =>
      this.#switch(state, generation, areaOf(named, rest)),
    [CbtOp.AREA_LOST]: (_, __, rest, named) => void this.#lost.add(areaOf(named, rest) ?? UNNAMED),
    [CbtOp.AREA]: (first, second, third) => {
      this.#named = [first, second, third];
    },
  };

  #switch(state: number, generation: number, area: AreaId | undefined): void {
    this.#lost.clear();
    this.#taken = area;
    const info = this.#map.info();
    const [found, tag] = mapWords({ ...info, corrupted: (state & 1) !== 0 });
    if (found !== state || tag !== generation) return;
    if ((state & 1) !== 0) this.#map.corrupt();
    this.#map.switch();
  }
}

function areaOf(named: NamedArea | undefined, rest: number): AreaId | undefined {
  if (named === undefined) return undefined;
  return uuidText(new Uint8Array(Uint32Array.of(...named, rest).buffer));
}

type RangeStep = (chunk: number, slot: number, from: number, to: number) => void;

function isRange(op: number): op is RangeOp {
  return op === AreaOp.SAVED || op === AreaOp.LOST || op === AreaOp.ZERO;
}

/** Applies the entries of an area's journal to an empty map, one after the other. */
export class AreaReplay {
  readonly #map: DiffAreaMap;
  readonly #takeMemory: (chunk: number) => void;
  /** The chunk of each slot. */
  readonly #owners = new Map<number, number>();

  /** @param takeMemory called before anything is recorded of a chunk for which the map has no memory yet */
  constructor(map: DiffAreaMap, takeMemory: (chunk: number) => void) {
    this.#map = map;
    this.#takeMemory = takeMemory;
  }

  /** @throws Error if the entry cannot belong to this map */
  readonly apply = (op: number, a: number, b: number, c: number): void => {
    if (op === AreaOp.RELEASED) this.#released(a, b);
    else if (isRange(op)) this.#range(op, a, b, rangeFrom(c), rangeTo(c));
    else this.#mask(opOfMask(op), wordOfMask(op), a, b, c);
  };

  /** How each operation on a range is applied. */
  readonly #steps: Readonly<Record<RangeOp, RangeStep>> = {
    [AreaOp.SAVED]: (chunk, slot, from, to) => this.#saved(chunk, slot, from, to),
    [AreaOp.LOST]: (chunk, _, from, to) => this.#map.setLost(chunk, from, to),
    [AreaOp.ZERO]: (chunk, _, from, to) => this.#map.setZero(chunk, from, to),
  };

  #range(op: RangeOp, chunk: number, slot: number, from: number, to: number): void {
    this.#check(chunk, from, to);
    if (!this.#map.hasMemory(chunk)) this.#takeMemory(chunk);
    this.#steps[op](chunk, slot, from, to);
  }

  #mask(op: number, word: number, chunk: number, slot: number, mask: number): void {
    const known: Readonly<Record<number, RangeOp>> = RANGE_OF_MASK;
    const range = known[op];
    if (range === undefined) throw new Error(`operation ${op} in the journal of a diff area`);
    for (let from = 0; from < 32; from++) {
      if (((mask >>> from) & 1) === 0) continue;
      let to = from + 1;
      while (to < 32 && ((mask >>> to) & 1) !== 0) to++;
      this.#range(range, chunk, slot, 32 * word + from, 32 * word + to);
      from = to;
    }
  }

  #check(chunk: number, from: number, to: number): void {
    const { geometry } = this.#map;
    const inDevice = chunk < geometry.chunkCount && from < to;
    if (inDevice && to <= geometry.blocksInChunk(chunk)) return;
    throw new Error(`blocks ${from} to ${to} of chunk ${chunk} are not of this device`);
  }

  #saved(chunk: number, slot: number, from: number, to: number): void {
    const owner = this.#owners.get(slot);
    // Only slots of released chunks are used again; the entry of the release may come later.
    if (owner !== undefined && owner !== chunk) this.#map.release(owner);
    if (this.#map.slotOf(chunk) === NO_SLOT) this.#map.setSlot(chunk, slot);
    if (this.#map.slotOf(chunk) !== slot) {
      this.#owners.delete(this.#map.release(chunk));
      this.#map.setSlot(chunk, slot);
    }
    this.#owners.set(slot, chunk);
    this.#map.setSaved(chunk, from, to);
  }

  #released(first: number, count: number): void {
    if (first + count > this.#map.geometry.chunkCount) {
      throw new Error(`chunks ${first} to ${first + count} are not of this device`);
    }
    for (let chunk = first; chunk < first + count; chunk++) {
      if (!this.#map.hasMemory(chunk)) this.#takeMemory(chunk);
      this.#owners.delete(this.#map.release(chunk));
    }
  }
}
