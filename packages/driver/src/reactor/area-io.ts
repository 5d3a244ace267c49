/**
 * The I/O of a diff area: copies into slots, and the parts of image requests.
 *
 * ```
 *   copy   READ original ─▶ copy window of the tag ──IO_LINK──▶ WRITE slot
 *          user data: copy × 2            both CQEs             copy × 2 + 1
 *
 *   run    READ original | READ slot ─▶ buffer of the image tag ─▶ WRITE slot
 * ```
 *
 * Both completions of a copy are awaited before its id is given back, so that no late one can meet a
 * new copy of the same id. A short transfer breaks the link and counts as failed. Where the kernel took
 * only the read (Ring.reserve), the write follows alone when the read is in.
 */
import { slotIndex, slotStore } from "@blksnap/diff-storage";
import { BufferOwner, CopyFault, CopyKind, RunKind, type TrackerEngine } from "@blksnap/engine";
import type { Queue } from "@blksnap/ublk";
import {
  assert,
  type CompletionHandler,
  LINK_TORN,
  MappedMemory,
  prepareNop,
  prepareRead,
  prepareReadFixed,
  prepareWrite,
  prepareWriteFixed,
  type Reactor,
  SqeFlag,
} from "@blksnap/uring";
import { faultPoint } from "../fault-points.js";
import { AreaJournal } from "./area-journal.js";
import type { JournalSetup } from "./journal-io.js";

const EIO = 5;
const LINKED_FILE = SqeFlag.FIXED_FILE | SqeFlag.IO_LINK;

export interface AreaIoOptions {
  readonly reactor: Reactor;
  readonly engine: TrackerEngine;
  /** Index of the original among the ring's registered files. */
  readonly originalIndex: number;
  readonly storeFds: readonly number[];
  readonly frontDepth: number;
  readonly imageDepth: number;
  readonly frontWindowBytes: number;
  readonly imageWindowBytes: number;
  readonly slotBytes: number;
  /** Of a persistent snapshot. */
  readonly journal: AreaJournalSetup | undefined;
}

export interface AreaJournalSetup {
  readonly setup: JournalSetup;
  readonly onFault: (errno: number) => void;
  readonly onLow: () => void;
}

export class AreaIo {
  readonly #options: AreaIoOptions;
  readonly #engine: TrackerEngine;
  readonly #reactor: Reactor;
  readonly #chunkBytes: number;
  /** Distance of slots in a store. */
  readonly #slotBytes: number;
  readonly #blockShift: number;
  readonly #stores: Int32Array;
  readonly #windows: MappedMemory;
  readonly #imageWindowsAt: number;
  readonly #copyHandler: number;
  readonly #runHandler: number;
  /** Per copy: completions still to come, and how it went so far. */
  readonly #copyPending: Uint8Array;
  readonly #copyResult: Int32Array;
  readonly #copyFault: Uint8Array;
  /** Its write goes without its read, which is in. */
  readonly #isWriteAlone: Uint8Array;
  /** Of an area in a persistent snapshot. */
  readonly journal: AreaJournal | undefined;
  /** The image's queue, whose buffers the runs use. */
  imageQueue: Queue | undefined;

  constructor(options: AreaIoOptions) {
    const { engine, reactor } = options;
    this.#options = options;
    this.#engine = engine;
    this.#reactor = reactor;
    this.#chunkBytes = engine.geometry.chunkBytes;
    this.#slotBytes = options.slotBytes;
    assert(this.#slotBytes >= this.#chunkBytes, "a chunk does not fit into a slot");
    this.#blockShift = engine.geometry.blockShift;
    this.#stores = Int32Array.from(options.storeFds, (fd) => reactor.addFile(fd));
    this.#imageWindowsAt = options.frontDepth * options.frontWindowBytes;
    const imageBytes = options.imageDepth * options.imageWindowBytes;
    this.#windows = MappedMemory.anonymous(this.#imageWindowsAt + imageBytes);
    this.#copyPending = new Uint8Array(engine.copies.size);
    this.#copyResult = new Int32Array(engine.copies.size);
    this.#copyFault = new Uint8Array(engine.copies.size);
    this.#isWriteAlone = new Uint8Array(engine.copies.size);
    const copies: CompletionHandler = {
      onCompletion: (data, result) => this.#onCopyPart(data, result),
    };
    const runs: CompletionHandler = { onCompletion: (data, result) => this.#onRun(data, result) };
    this.#copyHandler = reactor.addHandler(copies);
    this.#runHandler = reactor.addHandler(runs);
    this.journal = options.journal && this.#openJournal(options.journal);
  }

  submitCopy(copy: number): void {
    const { copies } = this.#engine;
    const windows = this.#windows.address;
    const address = this.#windowOf(copy);
    const inChunk = copies.blockStart[copy] << this.#blockShift;
    const length = copies.lengthBytes[copy];
    const source = copies.chunk[copy] * this.#chunkBytes + inChunk;
    this.#copyPending[copy] = 2;
    this.#copyResult[copy] = 0;
    this.#copyFault[copy] = CopyFault.NONE;
    this.#isWriteAlone[copy] = 0;
    faultPoint("copy.slot-recorded");
    const ring = this.#reactor.ring;
    ring.reserve(2);
    if (copies.kind[copy] === CopyKind.ZERO) {
      new Uint8Array(this.#windows.buffer, address - windows, length).fill(0);
      prepareNop(ring, copy << 1, this.#copyHandler, SqeFlag.IO_LINK);
    } else {
      prepareRead(
        ring,
        this.#options.originalIndex,
        address | 0,
        (address / 4294967296) | 0,
        length,
        source | 0,
        (source / 4294967296) | 0,
        copy << 1,
        this.#copyHandler,
        LINKED_FILE,
      );
    }
    this.#prepareSlotWrite(copy, address);
  }

  /** Address of the copy's window. */
  #windowOf(copy: number): number {
    const { copies } = this.#engine;
    const tag = copies.bufferTag[copy];
    return (
      this.#windows.address +
      (copies.bufferOwner[copy] === BufferOwner.FRONT
        ? tag * this.#options.frontWindowBytes
        : this.#imageWindowsAt + tag * this.#options.imageWindowBytes) +
      copies.bufferOffsetBytes[copy]
    );
  }

  #prepareSlotWrite(copy: number, address: number): void {
    const { copies } = this.#engine;
    const slot = copies.slot[copy];
    const inChunk = copies.blockStart[copy] << this.#blockShift;
    const target = slotIndex(slot) * this.#slotBytes + inChunk;
    prepareWrite(
      this.#reactor.ring,
      this.#stores[slotStore(slot)],
      address | 0,
      (address / 4294967296) | 0,
      copies.lengthBytes[copy],
      target | 0,
      (target / 4294967296) | 0,
      0,
      (copy << 1) | 1,
      this.#copyHandler,
      SqeFlag.FIXED_FILE,
    );
  }

  submitRun(run: number): void {
    const { runs } = this.#engine;
    const kind = runs.kind[run];
    const tag = runs.tag[run];
    const queue = this.imageQueue as Queue;
    const length = runs.lengthBytes[run];
    const bufferOffset = runs.bufferOffsetBytes[run];
    if (kind === RunKind.ZERO) {
      queue.bufferBytes(tag).fill(0, bufferOffset, bufferOffset + length);
      prepareNop(this.#reactor.ring, run, this.#runHandler, 0);
      return;
    }
    const fromOriginal = kind === RunKind.READ_ORIGINAL;
    const slot = runs.slot[run];
    const base = fromOriginal
      ? runs.chunk[run] * this.#chunkBytes
      : slotIndex(slot) * this.#slotBytes;
    const file = fromOriginal ? this.#options.originalIndex : this.#stores[slotStore(slot)];
    const offset = base + runs.offsetInChunkBytes[run];
    // The tag's buffer does not cross 4 GiB more than once; the carry goes into the high half.
    const low = (queue.bufferLow[tag] >>> 0) + bufferOffset;
    const high = queue.bufferHigh[tag] + (low >= 4294967296 ? 1 : 0);
    if (kind === RunKind.WRITE_SLOT) {
      faultPoint("image-write.begun");
      prepareWriteFixed(
        this.#reactor.ring,
        file,
        queue.bufferIndex,
        low | 0,
        high,
        length,
        offset | 0,
        (offset / 4294967296) | 0,
        0,
        run,
        this.#runHandler,
        SqeFlag.FIXED_FILE,
      );
      return;
    }
    prepareReadFixed(
      this.#reactor.ring,
      file,
      queue.bufferIndex,
      low | 0,
      high,
      length,
      offset | 0,
      (offset / 4294967296) | 0,
      run,
      this.#runHandler,
      SqeFlag.FIXED_FILE,
    );
  }

  /** Only after the engine said that the area is closed. */
  close(): void {
    this.journal?.drop();
    for (const index of this.#stores) this.#reactor.removeFile(index);
    this.#reactor.removeHandler(this.#copyHandler);
    this.#reactor.removeHandler(this.#runHandler);
    this.#windows.unmap();
  }

  #openJournal(journal: AreaJournalSetup): AreaJournal {
    const { copies, runs } = this.#engine;
    return new AreaJournal({
      ...journal,
      reactor: this.#reactor,
      storeFds: this.#options.storeFds,
      copiesMax: copies.size,
      runsMax: runs.size,
      onCopied: (copy) => this.#copyDone(copy),
      onWritten: (run) => this.#engine.onRunDone(run, runs.lengthBytes[run]),
    });
  }

  #onCopyPart(data: number, result: number): void {
    const copy = data >> 1;
    const isWrite = (data & 1) === 1;
    const { copies } = this.#engine;
    const wanted = !isWrite && copies.kind[copy] === CopyKind.ZERO ? 0 : copies.lengthBytes[copy];
    // A failed read cancels the write: then the read is what failed, in whatever order they come.
    if (result !== wanted && (!isWrite || this.#copyFault[copy] === CopyFault.NONE)) {
      this.#copyResult[copy] = result < 0 ? result : -EIO;
      this.#copyFault[copy] = isWrite ? CopyFault.WRITE : CopyFault.READ;
    }
    this.#copyPending[copy]--;
    if (this.#copyPending[copy] > 0) return;
    assert(this.#copyPending[copy] === 0, "a copy has two completions");
    if (this.#copyResult[copy] === LINK_TORN && this.#isWriteAlone[copy] === 0) {
      // The kernel had no memory to take the write with its read, which has ended since.
      this.#isWriteAlone[copy] = 1;
      this.#copyResult[copy] = 0;
      this.#copyFault[copy] = CopyFault.NONE;
      this.#copyPending[copy] = 1;
      this.#prepareSlotWrite(copy, this.#windowOf(copy));
      return;
    }
    faultPoint("copy.data-complete");
    if (this.journal === undefined || this.#copyResult[copy] !== 0) this.#copyDone(copy);
    else {
      const from = copies.blockStart[copy];
      const to = from + this.#blocks(copies.lengthBytes[copy]);
      this.journal.copied(copy, copies.chunk[copy], copies.slot[copy], from, to);
    }
  }

  #copyDone(copy: number): void {
    this.#engine.onCopyDone(copy, this.#copyResult[copy], this.#copyFault[copy]);
    // The original's write may be prepared by now, but the kernel has not got it.
    faultPoint("copy.bit-recorded");
  }

  #onRun(run: number, result: number): void {
    const { runs } = this.#engine;
    const wanted = runs.kind[run] === RunKind.ZERO ? 0 : runs.lengthBytes[run];
    const length = runs.lengthBytes[run];
    if (runs.kind[run] === RunKind.WRITE_SLOT) faultPoint("image-write.complete");
    if (this.journal !== undefined && runs.kind[run] === RunKind.WRITE_SLOT && result === wanted) {
      const start = runs.offsetInChunkBytes[run];
      const from = start >> this.#blockShift;
      const to = this.#blocks(start + length);
      this.journal.written(run, runs.chunk[run], runs.slot[run], from, to);
      return;
    }
    this.#engine.onRunDone(run, result === wanted ? length : result < 0 ? result : -EIO);
  }

  /** Blocks that so many bytes reach into. */
  #blocks(lengthBytes: number): number {
    return (lengthBytes + (1 << this.#blockShift) - 1) >> this.#blockShift;
  }
}
