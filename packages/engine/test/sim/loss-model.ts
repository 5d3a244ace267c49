/** Which blocks of an image may be lost: those for which a failure or a denial gave the engine a reason. */
import { BlockState, type DiffArea, type Geometry } from "@blksnap/engine";
import { lostRanges } from "../whole-maps.js";
import { require } from "./violation.js";

export class LossModel {
  /** Blocks, numbered over the device, that may be lost now, and that could be at any time. */
  private readonly now: Set<number> = new Set();
  private readonly ever: Set<number> = new Set();
  private readonly permittedSlices: Set<number> = new Set();
  private readonly geometry: Geometry;
  private readonly blockSectors: number;

  constructor(geometry: Geometry) {
    this.geometry = geometry;
    this.blockSectors = geometry.blockBytes / 512;
  }

  clear(): void {
    this.permittedSlices.clear();
    this.now.clear();
    this.ever.clear();
  }

  /** The engine has a reason to lose this block of the chunk. */
  permit(chunk: number, block: number): void {
    const number = chunk * this.geometry.blocksPerChunk + block;
    this.now.add(number);
    this.ever.add(number);
  }

  /** A write is in flight while the slice is denied its memory. */
  permitSlice(area: DiffArea, slice: number): void {
    const { geometry } = this;
    const { slices } = area.map;
    // A lost slice stays lost: once suffices.
    if (slices.isLost(slice) && this.permittedSlices.has(slice)) return;
    this.permittedSlices.add(slice);
    for (let chunk = slices.firstChunk(slice); chunk < slices.endChunk(slice); chunk++) {
      for (let block = 0; block < geometry.blocksInChunk(chunk); block++) this.permit(chunk, block);
    }
  }

  /** The range is about to be written while slots are denied. */
  permitDenied(first: number, count: number, area: DiffArea): void {
    const { blocksPerChunk } = this.geometry;
    const last = Math.floor((first + count - 1) / this.blockSectors);
    for (let number = Math.floor(first / this.blockSectors); number <= last; number++) {
      const chunk = Math.floor(number / blocksPerChunk);
      if (area.map.slotOf(chunk) < 0) this.permit(chunk, number % blocksPerChunk);
    }
  }

  /** The range is about to be written while stores hang. */
  permitHung(first: number, count: number, area: DiffArea, exhausted: boolean): void {
    const { blocksPerChunk } = this.geometry;
    const last = Math.floor((first + count - 1) / this.blockSectors);
    for (let number = Math.floor(first / this.blockSectors); number <= last; number++) {
      const chunk = Math.floor(number / blocksPerChunk);
      const slot = area.map.slotOf(chunk);
      if (exhausted || (slot < 0 ? area.isAllHung : area.isHung(slot))) {
        this.permit(chunk, number % blocksPerChunk);
      }
    }
  }

  /** The content of these slots is gone. */
  permitLost({ map }: DiffArea, isGone: (slot: number) => boolean): void {
    const { geometry } = this;
    for (let chunk = 0; chunk < geometry.chunkCount; chunk++) {
      const slot = map.slotOf(chunk);
      if (slot < 0 || !isGone(slot)) continue;
      const isAll = map.isReleased(chunk);
      for (let block = 0; block < geometry.blocksInChunk(chunk); block++) {
        if (isAll || map.stateAt(chunk, block) === BlockState.DATA) this.permit(chunk, block);
      }
    }
  }

  /** True if some block of the range was ever permitted to be lost. */
  touches(first: number, count: number): boolean {
    const last = Math.floor((first + count - 1) / this.blockSectors);
    for (let number = Math.floor(first / this.blockSectors); number <= last; number++) {
      if (this.ever.has(number)) return true;
    }
    return false;
  }

  /** The range was written: its whole blocks are not lost any more. */
  heal(first: number, count: number, area: DiffArea): void {
    const { blocksPerChunk, capacityBytes } = this.geometry;
    const end = first + count;
    const last = Math.floor((end - 1) / this.blockSectors);
    for (let number = Math.ceil(first / this.blockSectors); number <= last; number++) {
      if (Math.min((number + 1) * this.blockSectors, capacityBytes / 512) > end) continue;
      this.now.delete(number);
      const chunk = Math.floor(number / blocksPerChunk);
      const state = area.map.stateAt(chunk, number % blocksPerChunk);
      require(state !== BlockState.LOST, () => `block ${number} written whole but still lost`);
    }
  }

  /** Compares with what the area reports as lost. */
  check(area: DiffArea): void {
    const size = this.geometry.blockBytes;
    const ranges = lostRanges(area);
    const lostBytes = ranges.reduce((sum, { lengthBytes }) => sum + lengthBytes, 0);
    const { losses } = area.map;
    require(losses.bytes === lostBytes, () => `${losses.bytes} lost counted, ${lostBytes} found`);
    require(losses.ranges === ranges.length, () => `${losses.ranges} lost ranges counted`);
    for (const range of ranges) {
      for (let at = range.offsetBytes; at < range.offsetBytes + range.lengthBytes; at += size) {
        require(this.now.has(at / size), () => `block ${at / size} lost without a reason`);
      }
    }
    require(ranges.length === 0 || area.map.faultErrno > 0, () => "blocks lost, but no area fault");
  }
}
