/**
 * One I/O in flight: it moves a few sectors at a time, in either direction, so that others see it half done, and ends
 * when the simulation says so.
 *
 *     original   WRITE, DISCARD: sectors of the device change     READ, FLUSH: nothing to move
 *     kept       sectors of the device become zero
 *     copy       stage 0: device -> copy window, stage 1: copy window -> slot
 *                a copy that goes behind its write has only stage 1
 *     run        device or slot -> image buffer, or image buffer -> slot
 */
import { CopyFault, CopyKind, CopyMode, RequestOp, RunKind } from "@blksnap/engine";
import { sectorValue, ZERO } from "./content.js";
import type { Random } from "./random.js";
import type { SimDevice } from "./sim-device.js";

export type IoKind = "original" | "kept" | "copy" | "run";

const EIO = 5;

export class SimIo {
  readonly kind: IoKind;
  readonly device: SimDevice;
  readonly id: number;
  readonly sectors: number;
  /** First sector on the device. */
  readonly first: number;
  readonly slot: number;
  readonly slotFirst: number;
  readonly buffer: Uint32Array;
  readonly bufferFirst: number;
  readonly isWrite: boolean;
  private readonly work: number;
  private readonly backward: boolean;
  /** The tick at which its present stage began; whether its bound has passed; whether the engine gave it up. */
  since: number = 0;
  isLate: boolean = false;
  isReportedLate: boolean = false;
  /** Its process is dead: the kernel continues the I/O. */
  isOrphan: boolean = false;
  private readonly mode: number = CopyMode.LINKED;
  private stage: number = 0;
  private moved: number = 0;

  constructor(kind: IoKind, device: SimDevice, id: number, random: Random) {
    this.kind = kind;
    this.device = device;
    this.id = id;
    this.backward = random.oneIn(2);
    const { engine } = device;
    const { chunkSectors, blockSectors } = device;
    if (kind === "original") {
      const op = engine.front.op[id];
      this.work = op;
      this.isWrite = op !== RequestOp.READ && op !== RequestOp.FLUSH;
      this.first = engine.front.offsetBytes[id] / 512;
      this.sectors = this.isWrite ? engine.front.lengthBytes[id] / 512 : 0;
      this.slot = -1;
      this.slotFirst = 0;
      this.buffer = device.disk;
      this.bufferFirst = 0;
    } else if (kind === "kept") {
      this.work = RequestOp.DISCARD;
      this.isWrite = true;
      this.first = engine.keptSlice.offsetBytes[0] / 512;
      this.sectors = engine.keptSlice.lengthBytes[0] / 512;
      this.slot = -1;
      this.slotFirst = 0;
      this.buffer = device.disk;
      this.bufferFirst = 0;
    } else if (kind === "copy") {
      const { copies } = engine;
      this.work = copies.kind[id];
      this.mode = copies.mode[id];
      if (this.mode === CopyMode.BEHIND) this.stage = 1;
      this.isWrite = false;
      this.slotFirst = copies.blockStart[id] * blockSectors;
      this.first = copies.chunk[id] * chunkSectors + this.slotFirst;
      this.sectors = copies.lengthBytes[id] / 512;
      this.slot = copies.slot[id];
      this.buffer = device.windows.of(copies, id);
      this.bufferFirst = copies.bufferOffsetBytes[id] / 512;
      if (this.work === CopyKind.ZERO) this.zeroWindow();
    } else {
      const { runs } = engine;
      this.work = runs.kind[id];
      this.isWrite = runs.kind[id] === RunKind.WRITE_SLOT;
      this.slotFirst = runs.offsetInChunkBytes[id] / 512;
      this.first = runs.chunk[id] * chunkSectors + this.slotFirst;
      this.sectors = runs.lengthBytes[id] / 512;
      this.slot = this.usesSlot() ? runs.slot[id] : -1;
      this.buffer = device.image.buffers[runs.tag[id]];
      this.bufferFirst = runs.bufferOffsetBytes[id] / 512;
    }
  }

  /** True if it concerns only the original. */
  get isOfOriginal(): boolean {
    return this.kind === "original" || this.kind === "kept";
  }

  /** True for a copy that includes blocks that its write does not need. */
  get goesAhead(): boolean {
    const { ownEnd, rangeEnd } = this.device.engine.copies;
    return this.kind === "copy" && ownEnd[this.id] < rangeEnd[this.id];
  }

  /** True for a copy whose write is issued. */
  get goesBehind(): boolean {
    return this.kind === "copy" && this.device.engine.copies.mode[this.id] === CopyMode.BEHIND;
  }

  /** True if the I/O reads or writes its slot. */
  usesSlot(): boolean {
    if (this.kind === "copy") return true;
    return (
      this.kind === "run" && (this.work === RunKind.READ_SLOT || this.work === RunKind.WRITE_SLOT)
    );
  }

  /** True while its slot is being read or written. */
  get isStoring(): boolean {
    return this.kind === "copy" ? this.stage === 1 : this.usesSlot();
  }

  readsOriginal(): boolean {
    if (this.kind === "copy") return this.work === CopyKind.OLD && this.stage === 0;
    return this.kind === "run" && this.work === RunKind.READ_ORIGINAL;
  }

  /** Moves up to `count` sectors. */
  progress(count: number): void {
    for (let index = 0; index < count; index++) {
      if (this.moved === this.sectors) {
        if (this.kind !== "copy" || this.stage === 1) return;
        if (this.isOrphan && this.mode === CopyMode.APART) return;
        this.beginStoring();
      }
      this.move(this.backward ? this.sectors - 1 - this.moved : this.moved);
      this.moved++;
    }
  }

  private beginStoring(): void {
    this.stage = 1;
    this.moved = 0;
    if (this.isReportedLate) return;
    this.device.late.begins(this);
    this.device.engine.onCopyRead(this.id);
  }

  /** Moves the rest, or a part of it and fails, and tells the engine. */
  complete(random: Random, failure: number, fault: number): void {
    const { engine } = this.device;
    if (failure === 0) this.progress(2 * this.sectors + 1);
    else this.progressBeforeFailure(random, fault);
    if (this.kind === "original") {
      const isRead = engine.front.op[this.id] === RequestOp.READ;
      const bytes = isRead ? engine.front.lengthBytes[this.id] : this.sectors * 512;
      engine.onOriginalDone(this.id, failure !== 0 ? failure : bytes);
    } else if (this.kind === "kept") {
      engine.onKeptDone(failure);
    } else if (this.kind === "copy") {
      engine.onCopyDone(this.id, failure, fault);
    } else {
      const short = failure === -EIO && random.oneIn(2);
      const partial = short ? this.sectors * 512 - 512 : failure;
      engine.onRunDone(this.id, failure !== 0 ? partial : this.sectors * 512);
    }
  }

  /** Moves a random part; data that could not be read is not written. */
  private progressBeforeFailure(random: Random, fault: number): void {
    if (this.kind !== "copy") this.progress(random.below(this.sectors + 1));
    else if (fault === CopyFault.READ) this.progress(random.below(this.sectors - this.moved + 1));
    else if (this.mode === CopyMode.LINKED) this.progress(random.below(2 * this.sectors + 1));
    else {
      const before = this.stage === 0 ? this.sectors - this.moved + 1 : 0;
      this.progress(before + random.below(this.sectors + 1));
    }
  }

  private move(at: number): void {
    const { disk } = this.device;
    if (this.kind === "original") {
      const version = this.device.frontVersion[this.id];
      const sector = this.first + at;
      disk[sector] = this.work === RequestOp.WRITE ? sectorValue(version, sector) : ZERO;
    } else if (this.kind === "kept") {
      disk[this.first + at] = ZERO;
    } else if (this.kind === "copy") {
      if (this.stage === 1)
        this.slotData()[this.slotFirst + at] = this.buffer[this.bufferFirst + at];
      else if (this.work === CopyKind.OLD) {
        this.buffer[this.bufferFirst + at] = disk[this.first + at];
      }
    } else if (this.work === RunKind.READ_ORIGINAL) {
      this.buffer[this.bufferFirst + at] = disk[this.first + at];
    } else if (this.work === RunKind.READ_SLOT) {
      this.buffer[this.bufferFirst + at] = this.slotData()[this.slotFirst + at];
    } else if (this.work === RunKind.WRITE_SLOT) {
      this.slotData()[this.slotFirst + at] = this.buffer[this.bufferFirst + at];
    } else {
      this.buffer[this.bufferFirst + at] = ZERO;
    }
  }

  private slotData(): Uint32Array {
    return this.device.store.slot(this.slot, this.device.number);
  }

  private zeroWindow(): void {
    this.buffer.fill(ZERO, this.bufferFirst, this.bufferFirst + this.sectors);
  }
}
