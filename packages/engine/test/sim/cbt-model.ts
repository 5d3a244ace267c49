/**
 * What a CBT map must show, computed the slow way: two tables, copied at each take.
 *
 * `must`: blocks that were certainly written; the map may not show less. `may`: blocks of submitted requests; the map
 * may show these as changed, too. No other block may be shown as changed. `zero`: blocks that held only zero at the
 * last take. Writes never bring zero, so only these may be shown as discarded.
 */
import type { CbtMap } from "@blksnap/engine";
import { ZERO } from "./content.js";
import { require, Violation } from "./violation.js";

export class CbtModel {
  readonly blockShift: number;
  private active = 1;
  private must: Uint8Array;
  private frozen: Uint8Array;
  private may: Uint8Array;
  private mayFrozen: Uint8Array;
  /** Numbers that blocks may show as well: of requests that were never issued. */
  private readonly stale: Uint8Array;
  /** What they were before: a later mark may have frozen it. */
  private readonly staleBefore: Uint8Array;
  private readonly zero: Uint8Array;
  private readonly into: Uint8Array;
  private readonly discarded: Uint8Array;
  /** Blocks that a check found shown as discarded. */
  discardsSeen = 0;

  constructor(blockCount: number, blockShift: number) {
    this.blockShift = blockShift;
    this.must = new Uint8Array(blockCount);
    this.frozen = new Uint8Array(blockCount);
    this.may = new Uint8Array(blockCount);
    this.mayFrozen = new Uint8Array(blockCount);
    this.stale = new Uint8Array(blockCount);
    this.staleBefore = new Uint8Array(blockCount);
    this.zero = new Uint8Array(blockCount);
    this.into = new Uint8Array(blockCount);
    this.discarded = new Uint8Array(blockCount);
  }

  /** Returns the number that the request may show from now on. */
  submitted(offsetBytes: number, lengthBytes: number): number {
    const [first, last] = this.blocks(offsetBytes, lengthBytes);
    this.may.fill(1, first, last + 1);
    return this.active;
  }

  /** A request that may have been marked in that interval will never be issued. */
  neverIssued(offsetBytes: number, lengthBytes: number, number: number): void {
    const [first, last] = this.blocks(offsetBytes, lengthBytes);
    for (let block = first; block <= last; block++) {
      if (this.stale[block] === number) continue;
      this.staleBefore[block] = this.stale[block];
      this.stale[block] = number;
    }
  }

  /** A range is marked; a process that is killed before it issues the request leaves the mark. */
  marked(offsetBytes: number, lengthBytes: number, issue: () => void): void {
    const number = this.submitted(offsetBytes, lengthBytes);
    try {
      issue();
    } catch (error) {
      this.neverIssued(offsetBytes, lengthBytes, number);
      throw error;
    }
  }

  /** A write is issued to the original: the map in `buffer` must have it marked by now. */
  issued(offsetBytes: number, lengthBytes: number, buffer: ArrayBuffer): void {
    const [first, last] = this.blocks(offsetBytes, lengthBytes);
    const live = new Uint8Array(buffer, 4096, this.must.length);
    for (let block = first; block <= last; block++) {
      this.must[block] = this.active;
      this.may[block] = 1;
      require(live[block] === this.active, () => `CBT block ${block} not marked at issue`);
    }
  }

  /** An image write, or a range marked by hand: changed in both tables. */
  both(offsetBytes: number, lengthBytes: number): void {
    const [first, last] = this.blocks(offsetBytes, lengthBytes);
    this.must.fill(this.active, first, last + 1);
    this.may.fill(1, first, last + 1);
    this.frozen.fill(this.active - 1, first, last + 1);
    this.zero.fill(0, first, last + 1);
  }

  /** A take of `disk`. */
  switch(disk: Uint32Array): void {
    const sectors = 2 ** (this.blockShift - 9);
    for (let block = 0; block < this.zero.length; block++) {
      const content = disk.subarray(block * sectors, (block + 1) * sectors);
      this.zero[block] = content.every((value) => value === ZERO) ? 1 : 0;
    }
    if (this.active === 255) {
      this.active = 1;
      const { must, frozen, may, mayFrozen, stale, staleBefore } = this;
      for (const table of [must, frozen, may, mayFrozen, stale, staleBefore]) table.fill(0);
      return;
    }
    this.frozen = this.must.slice();
    this.mayFrozen = this.may;
    this.may = new Uint8Array(this.may.length);
    this.active++;
  }

  check(map: CbtMap): void {
    const { changesNumber, corrupted } = map.info();
    require(!corrupted, () => "CBT map says that it is corrupted");
    require(changesNumber === this.active - 1, () => `CBT number ${changesNumber}, not active - 1`);
    map.readFrozen(this.into, 0, this.into.length, this.discarded);
    for (let block = 0; block < this.discarded.length; block++) {
      if (this.discarded[block] === 0) continue;
      this.discardsSeen++;
      require(this.into[block] > 0, () => `CBT block ${block} discarded but not changed`);
      require(this.zero[block] === 1, () => `CBT block ${block} shown as discarded, but it is not`);
    }
    for (let block = 0; block < this.into.length; block++) {
      const got = this.into[block];
      if (got === this.frozen[block]) continue;
      if (got === changesNumber && this.mayFrozen[block] === 1) continue;
      const isStale = got === this.stale[block] || got === this.staleBefore[block];
      if (got !== 0 && isStale && got > this.frozen[block]) continue;
      throw new Violation(`CBT block ${block} is ${got}, expected ${this.frozen[block]}`);
    }
  }

  private blocks(offsetBytes: number, lengthBytes: number): [number, number] {
    const size = 2 ** this.blockShift;
    return [Math.floor(offsetBytes / size), Math.floor((offsetBytes + lengthBytes - 1) / size)];
  }
}
