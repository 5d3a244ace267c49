/**
 * The expected content of a block device, sector by sector: the value of the last write, and where that is not certain
 * (a write in flight, a failed one, a power cut) all values that it may have.
 */
import { Violation } from "./violation.js";

export const SECTOR_BYTES = 512;
/** A sector that was never written, or was zeroed. */
export const ZERO = 0;

/** A discard that was answered: it may be carried out at any time; ENDED: by now, if ever. */
const Discarded = { NO: 0, PENDING: 1, ENDED: 2 } as const;

/** A write in flight: at most one per sector. */
export interface PendingWrite {
  readonly firstSector: number;
  readonly sectors: number;
  readonly value: number;
}

export class Volume {
  readonly name: string;
  readonly sectors: number;
  readonly values: Int32Array;
  /** Other values that a sector may have, if there are any. */
  readonly others = new Map<number, Set<number>>();
  /** Values that sectors had since the last flush of the medium: a power cut may restore them. */
  readonly unflushed = new Map<number, Set<number>>();
  /** How many writes have begun. */
  changes = 0;
  readonly #busy: Uint8Array;
  /** By sector: the state of an answered discard. */
  readonly #discarded: Uint8Array;
  /** By sector: the number of its last write. */
  readonly #changed: Float64Array;

  constructor(name: string, sectors: number) {
    this.name = name;
    this.sectors = sectors;
    this.values = new Int32Array(sectors);
    this.#busy = new Uint8Array(sectors);
    this.#discarded = new Uint8Array(sectors);
    this.#changed = new Float64Array(sectors);
  }

  /** Whether a write has begun in the range since there were so many. */
  changedSince(changes: number, firstSector: number, sectors: number): boolean {
    const range = this.#changed.subarray(firstSector, firstSector + sectors);
    return range.some((number) => number > changes);
  }

  isBusy(firstSector: number, sectors: number): boolean {
    return this.#busy.subarray(firstSector, firstSector + sectors).includes(1);
  }

  begin(write: PendingWrite): void {
    this.changes++;
    for (let at = write.firstSector; at < write.firstSector + write.sectors; at++) {
      this.#busy[at] = 1;
      this.#changed[at] = this.changes;
      this.allow(at, write.value);
    }
  }

  /** The write has succeeded: the sectors have no other value. */
  end(write: PendingWrite): void {
    for (let at = write.firstSector; at < write.firstSector + write.sectors; at++) {
      this.#busy[at] = 0;
      this.#discarded[at] = Discarded.NO;
      this.#mayComeBack(at);
      this.values[at] = write.value;
      this.others.delete(at);
    }
  }

  /**
   * A discard has succeeded: each sector has its old value or zeroes.
   * @param isKept it may be carried out at any time from now on, as long as the sector is not written
   */
  endDiscard({ firstSector, sectors }: PendingWrite, isKept: boolean): void {
    for (let at = firstSector; at < firstSector + sectors; at++) {
      this.#busy[at] = 0;
      this.#discarded[at] = isKept ? Discarded.PENDING : Discarded.NO;
      this.#mayComeBack(at);
      this.allow(at, ZERO);
    }
  }

  /** The process that would carry out answered discards is gone. */
  forgetDiscards(): void {
    for (let at = 0; at < this.sectors; at++) {
      if (this.#discarded[at] === Discarded.PENDING) this.#discarded[at] = Discarded.ENDED;
    }
  }

  #mayComeBack(sector: number): void {
    const before = this.unflushed.get(sector) ?? new Set();
    before.add(this.values[sector]);
    for (const value of this.others.get(sector) ?? []) before.add(value);
    this.unflushed.set(sector, before);
  }

  /** The write has failed, or its outcome stays unknown: it may be there or not. */
  fail({ firstSector, sectors }: PendingWrite): void {
    for (let at = firstSector; at < firstSector + sectors; at++) {
      this.#busy[at] = 0;
      this.#mayComeBack(at);
    }
  }

  allow(sector: number, value: number): void {
    if (this.values[sector] === value) return;
    const others = this.others.get(sector) ?? new Set();
    others.add(value);
    this.others.set(sector, others);
  }

  /** A value from another volume, which a power cut may undo there: it or the old one may be here. */
  mayBeLost(sector: number, value: number): void {
    const before = this.unflushed.get(sector) ?? new Set();
    before.add(this.values[sector]).add(value);
    this.unflushed.set(sector, before);
  }

  /** The sectors that a flush that begins now makes certain. */
  flushBegins(): readonly number[] {
    return [...this.unflushed.keys()].filter((sector) => this.#busy[sector] === 0);
  }

  flushed(sectors: readonly number[], values: Int32Array): void {
    for (const sector of sectors) {
      // Written again since: its value at the beginning of the flush is the oldest that may return.
      if (this.values[sector] === values[sector] && this.#busy[sector] === 0) {
        this.unflushed.delete(sector);
      }
    }
  }

  /** The write that has ended is on the medium: no cut undoes it. */
  becomeDurable({ firstSector, sectors }: PendingWrite): void {
    for (let at = firstSector; at < firstSector + sectors; at++) this.unflushed.delete(at);
  }

  /** The power is cut. */
  cut(): void {
    for (const [sector, before] of this.unflushed) {
      for (const value of before) this.allow(sector, value);
    }
    this.unflushed.clear();
    this.#busy.fill(0);
    this.#discarded.fill(Discarded.NO);
  }

  /** The expected content of a snapshot of it, taken some time from now on. */
  clone(name: string): Volume {
    const copy = new Volume(name, this.sectors);
    copy.values.set(this.values);
    for (const [sector, others] of this.others) copy.others.set(sector, new Set(others));
    // Its blocks are those of this volume as long as nothing writes to them.
    for (const [sector, before] of this.unflushed) copy.unflushed.set(sector, new Set(before));
    return copy;
  }

  /** The found values become certain. @throws Violation */
  check(firstSector: number, bytes: Uint8Array, where: string): void {
    const count = bytes.length / SECTOR_BYTES;
    const words = new Int32Array(bytes.buffer, bytes.byteOffset, bytes.length >> 2);
    for (let index = 0; index < count; index++) {
      const at = firstSector + index;
      const found = valueIn(words, index, at);
      if (found === undefined) {
        throw new Violation(`${where}: sector ${at} of ${this.name} is torn or another sector's`);
      }
      this.#checkSector(at, found, where);
    }
  }

  #checkSector(at: number, found: number, where: string): void {
    const others = this.others.get(at);
    if (found !== this.values[at] && !others?.has(found)) {
      const may = [this.values[at], ...(others ?? [])].join(" or ");
      throw new Violation(`${where}: sector ${at} of ${this.name} has ${found}, not ${may}`);
    }
    if (others === undefined || this.#busy[at] === 1) return;
    const isPending = this.#discarded[at] === Discarded.PENDING;
    if (this.#discarded[at] !== Discarded.NO && found === ZERO) {
      // It may have been carried out after the last flush; and another read, which began before this one, may
      // still return the old value.
      this.#changed[at] = ++this.changes;
      this.#mayComeBack(at);
    }
    if (!isPending || found === ZERO) this.#discarded[at] = Discarded.NO;
    this.values[at] = found;
    this.others.delete(at);
    if (isPending) this.allow(at, ZERO);
  }
}

const WORDS = SECTOR_BYTES / 4;

/** Each word of a sector identifies its content. */
export function fill(bytes: Uint8Array, firstSector: number, value: number): void {
  const words = new Int32Array(bytes.buffer, bytes.byteOffset, bytes.length >> 2);
  for (let index = 0; index < words.length; index++) {
    const sector = firstSector + Math.floor(index / WORDS);
    words[index] = (index & 1) === 0 ? value : value ^ (sector * 0x9e3779b1);
  }
}

function valueIn(words: Int32Array, index: number, sector: number): number | undefined {
  const begin = index * WORDS;
  const value = words[begin];
  const mark = value === ZERO ? 0 : (value ^ (sector * 0x9e3779b1)) | 0;
  for (let at = begin; at < begin + WORDS; at += 2) {
    if (words[at] !== value || words[at + 1] !== mark) return undefined;
  }
  return value;
}
