/**
 * Which blocks were discarded under a snapshot and not written since: those that may be, and have to be, discarded on
 * the original later.
 */
import { RequestOp } from "@blksnap/engine";
import { FRONT_DEPTH, FrontState } from "./front-state.js";
import type { SimDevice } from "./sim-device.js";
import { require } from "./violation.js";

export class KeptModel {
  private readonly device: SimDevice;
  private readonly owed: Uint8Array;

  constructor(device: SimDevice) {
    this.device = device;
    this.owed = new Uint8Array(Math.ceil(device.disk.length / device.blockSectors));
  }

  /** True if front request `tag` is a discard that the snapshot must keep back. */
  keeps(tag: number): boolean {
    const { engine, area, dropping, image, blockSectors, geometry } = this.device;
    if (engine.front.op[tag] !== RequestOp.DISCARD) return false;
    if (area === null || dropping || image.model === null) return false;
    const { first, end } = this.rangeOf(tag);
    for (let block = Math.floor(first / blockSectors); block * blockSectors < end; block++) {
      const inChunk = block % geometry.blocksPerChunk;
      const chunk = Math.floor(block / geometry.blocksPerChunk);
      if (area.map.stateAt(chunk, inChunk) === 0) return true;
    }
    return false;
  }

  /** A discard was kept back, except for blocks that writes in flight still write. */
  kept(tag: number): void {
    const { device, owed } = this;
    const { offsetBytes, lengthBytes } = device.engine.front;
    // It waited for a slice to end, in an earlier interval.
    const mark = device.frontMark[tag];
    if (mark > 0) device.cbtModel.neverIssued(offsetBytes[tag], lengthBytes[tag], mark);
    const { first, end } = this.rangeOf(tag);
    const last = end === device.disk.length ? owed.length : Math.floor(end / device.blockSectors);
    owed.fill(1, Math.ceil(first / device.blockSectors), last);
    for (let other = 0; other < FRONT_DEPTH; other++) {
      // A request that the original has answered may have a copy behind it: it has not ended.
      const state = device.frontState[other];
      if (state === FrontState.ISSUED || state === FrontState.DONE) this.issued(other);
    }
  }

  /** A request was issued to the original. */
  issued(tag: number): void {
    if (!this.device.isWriteLike(tag)) return;
    const { first, end } = this.rangeOf(tag);
    for (const io of this.device.world.ios()) {
      if (io.device !== this.device || io.kind !== "kept") continue;
      const apart = io.first >= end || first >= io.first + io.sectors;
      require(apart, () => `front ${tag} issued beside a discard of before`);
    }
    this.forget(first, end - first);
  }

  /** These blocks must not be discarded. */
  forget(first: number, count: number): void {
    const { blockSectors } = this.device;
    this.owed.fill(0, Math.floor(first / blockSectors), Math.ceil((first + count) / blockSectors));
  }

  /** A slice of kept discards is issued to the original. */
  sent(first: number, count: number): void {
    const { device, owed } = this;
    require(device.area === null, () => "a discard is sent down under a snapshot");
    require(!device.held, () => "a discard is sent down while writes are held");
    for (const io of device.world.ios()) {
      if (io.device !== device || io.kind !== "original" || !io.isWrite) continue;
      const apart = io.first >= first + count || first >= io.first + io.sectors;
      require(apart, () => `a discard is sent down beside front ${io.id}`);
    }
    const end = first + count;
    require(first % device.blockSectors === 0, () => "a discard is sent down in part of a block");
    for (let block = first / device.blockSectors; block * device.blockSectors < end; block++) {
      require(owed[block] === 1, () => `block ${block} is discarded, but was not to be`);
      owed[block] = 0;
    }
  }

  /** The process has ended: nothing is kept. */
  clear(): void {
    this.owed.fill(0);
  }

  /** Called without a snapshot, when nothing is in flight. */
  check(): void {
    const left = this.owed.indexOf(1);
    require(left < 0, () => `block ${left} was discarded, and the original never heard of it`);
  }

  private rangeOf(tag: number): { first: number; end: number } {
    const { offsetBytes, lengthBytes } = this.device.engine.front;
    const first = offsetBytes[tag] / 512;
    return { first, end: first + lengthBytes[tag] / 512 };
  }
}
