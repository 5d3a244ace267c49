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
 * A copy that may go behind its write (CopyMode) only reads at first: its slot is written when onCopyRead() has notified
 * the engine that the read has ended, and together with the original, which the engine writes in the same call.
 *
 * A copy's id is freed only after both completions, so that no late one can meet a new copy with the same id. A short
 * transfer breaks the link and counts as failed. If the kernel accepted only the read (Ring.reserve), the write
 * follows when the read has ended.
 *
 * I/O for which io_uring had no memory or thread is retried, as for requests of a front; if a copy's read has
 * succeeded, only the write is.
 *
 * The engine gives up I/O that a store does not answer in time; here the tag loses that buffer, and close() keeps
 * memory and files until the answer arrives.
 */
import { slotIndex, slotStore } from "@blksnap/diff-storage";
import {
  CopyFault,
  CopyKind,
  CopyMode,
  IoState,
  RunKind,
  type TrackerEngine,
} from "@blksnap/engine";
import { type RequestQueue, SecondTries } from "@blksnap/ublk";
import {
  assert,
  type CompletionHandler,
  LINK_TORN,
  prepareNop,
  type Reactor,
  SqeFlag,
} from "@blksnap/uring";
import type { AreaIoOptions, AreaJournalSetup } from "./area-io-options.js";
import { AreaJournal } from "./area-journal.js";
import { CopyWindows, WINDOW_KINDS } from "./copy-windows.js";
import { faultPoint } from "./fault-points.js";
import { ImageBuffers } from "./image-buffers.js";
import { transferRead, transferWrite } from "./transfers.js";

const EIO = 5;
const LINKED_FILE = SqeFlag.FIXED_FILE | SqeFlag.IO_LINK;

export class AreaIo {
  readonly #options: AreaIoOptions;
  readonly #engine: TrackerEngine;
  readonly #reactor: Reactor;
  readonly #chunkBytes: number;
  /** Size of a slot in the stores. */
  readonly #slotBytes: number;
  readonly #blockShift: number;
  readonly #stores: Int32Array;
  readonly #windows: CopyWindows;
  readonly #copyHandler: number;
  readonly #runHandler: number;
  /** Per copy: completions to come, and its result so far. */
  readonly #copyPending: Uint8Array;
  readonly #copyResult: Int32Array;
  readonly #copyFault: Uint8Array;
  /** Its read has ended: the write is in flight alone. */
  readonly #isWriteAlone: Uint8Array;
  /** Only its read is in flight; its write follows. */
  readonly #isReadAlone: Uint8Array;
  readonly #copyTries: SecondTries;
  readonly #runTries: SecondTries;
  /** Undefined unless the snapshot is persistent. */
  readonly journal: AreaJournal | undefined;
  /** The image's queues, of the device and of NBD, whose buffers the runs use; and the one that each run uses. */
  #image: ImageBuffers | undefined;
  #nbdImage: ImageBuffers | undefined;
  readonly #runImages: (ImageBuffers | undefined)[];
  /** Windows, images and journals that I/O in flight still needs. */
  #inUse = WINDOW_KINDS;
  #onIdle: (() => void) | undefined;

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
    this.#windows = new CopyWindows({ ...options, onIdle: () => this.#release() });
    this.#runImages = new Array<ImageBuffers | undefined>(engine.runs.size).fill(undefined);
    this.#copyPending = new Uint8Array(engine.copies.size);
    this.#copyResult = new Int32Array(engine.copies.size);
    this.#copyFault = new Uint8Array(engine.copies.size);
    this.#isWriteAlone = new Uint8Array(engine.copies.size);
    this.#isReadAlone = new Uint8Array(engine.copies.size);
    const copies: CompletionHandler = {
      onCompletion: (data, result) => this.#onCopyPart(data, result),
    };
    const runs: CompletionHandler = { onCompletion: (data, result) => this.#onRun(data, result) };
    const retryCopy = (copy: number): void => this.#retryCopy(copy);
    this.#copyTries = new SecondTries(reactor, engine.copies.size, retryCopy, { isSeries: true });
    this.#runTries = new SecondTries(reactor, engine.runs.size, (run) => this.#retryRun(run));
    this.#copyHandler = reactor.addHandler(copies);
    this.#runHandler = reactor.addHandler(runs);
    this.journal = options.journal && this.#openJournal(options.journal);
    if (this.journal !== undefined) this.#inUse++;
  }

  submitCopy(copy: number): void {
    this.#windows.begin(copy);
    this.#options.ticker.start();
    this.#copyTries.begin(copy);
    faultPoint("copy.slot-recorded");
    this.#startCopy(copy);
  }

  #startCopy(copy: number): void {
    const { copies } = this.#engine;
    this.#copyPending[copy] = 2;
    this.#copyResult[copy] = 0;
    this.#copyFault[copy] = CopyFault.NONE;
    this.#isWriteAlone[copy] = 0;
    this.#isReadAlone[copy] = 0;
    if (copies.mode[copy] !== CopyMode.LINKED) {
      this.#startPart(copy);
      return;
    }
    const ring = this.#reactor.ring;
    ring.reserve(2);
    if (copies.kind[copy] === CopyKind.ZERO) {
      this.#windows.bytesOf(copy).fill(0);
      prepareNop(ring, copy << 1, this.#copyHandler, SqeFlag.IO_LINK);
    } else {
      this.#prepareSourceRead(copy, LINKED_FILE);
    }
    this.#prepareSlotWrite(copy);
  }

  /** Starts the read alone, or the write of the data in its place. */
  #startPart(copy: number): void {
    if (this.#engine.copies.mode[copy] === CopyMode.APART) {
      this.#copyPending[copy] = 1;
      this.#isReadAlone[copy] = 1;
      this.#prepareSourceRead(copy, SqeFlag.FIXED_FILE);
    } else {
      this.#writeAlone(copy);
      this.#engine.onCopyRead(copy);
    }
  }

  #prepareSourceRead(copy: number, flags: number): void {
    const { chunk, blockStart, lengthBytes } = this.#engine.copies;
    const { originalIndex: file } = this.#options;
    const source = chunk[copy] * this.#chunkBytes + (blockStart[copy] << this.#blockShift);
    const { addressLow, addressHigh } = this.#windows;
    transferRead(
      this.#reactor.ring,
      file,
      this.#windows.bufferIndexOf(copy),
      addressLow[copy],
      addressHigh[copy],
      lengthBytes[copy],
      source | 0,
      (source / 4294967296) | 0,
      copy << 1,
      this.#copyHandler,
      flags,
    );
  }

  #prepareSlotWrite(copy: number): void {
    const { slot: slots, blockStart, lengthBytes } = this.#engine.copies;
    const slot = slots[copy];
    const target = slotIndex(slot) * this.#slotBytes + (blockStart[copy] << this.#blockShift);
    const { addressLow, addressHigh } = this.#windows;
    transferWrite(
      this.#reactor.ring,
      this.#stores[slotStore(slot)],
      this.#windows.bufferIndexOf(copy),
      addressLow[copy],
      addressHigh[copy],
      lengthBytes[copy],
      target | 0,
      (target / 4294967296) | 0,
      (copy << 1) | 1,
      this.#copyHandler,
    );
  }

  submitRun(run: number): void {
    const isNbd = this.#engine.runs.tag[run] >= this.#options.imageDepth;
    const image = (isNbd ? this.#nbdImage : this.#image) as ImageBuffers;
    if (!image.begin(run, this.#imageTagOf(run))) {
      this.#engine.onRunDone(run, -EIO);
      return;
    }
    this.#runImages[run] = image;
    this.#options.ticker.start();
    this.#runTries.begin(run);
    this.#startRun(run, image);
  }

  /** The tag in the image's queue, of its device or of NBD. */
  #imageTagOf(run: number): number {
    const tag = this.#engine.runs.tag[run];
    return tag - (tag >= this.#options.imageDepth ? this.#options.imageDepth : 0);
  }

  #startRun(run: number, { queue }: ImageBuffers): void {
    const { runs } = this.#engine;
    const kind = runs.kind[run];
    const tag = this.#imageTagOf(run);
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
    if (kind === RunKind.WRITE_SLOT) faultPoint("image-write.begun");
    const buffer = queue.bufferIndex[tag];
    const handler = this.#runHandler;
    const offsetLow = offset | 0;
    const offsetHigh = (offset / 4294967296) | 0;
    const { ring } = this.#reactor;
    const at = low | 0;
    if (kind === RunKind.WRITE_SLOT)
      transferWrite(ring, file, buffer, at, high, length, offsetLow, offsetHigh, run, handler);
    else transferRead(ring, file, buffer, at, high, length, offsetLow, offsetHigh, run, handler);
  }

  /** The image's queue, or its successor's; runs of the old one are answered all the same. */
  set imageQueue(queue: RequestQueue) {
    this.#image?.close();
    this.#image = this.#buffersOf(queue);
  }

  /** The queue of the image's NBD server. Its tags follow those of the device, from imageDepth on, and only read. */
  set nbdQueue(queue: RequestQueue) {
    this.#nbdImage?.close();
    this.#nbdImage = this.#buffersOf(queue);
  }

  #buffersOf(queue: RequestQueue): ImageBuffers {
    this.#inUse++;
    return new ImageBuffers(queue, this.#engine.runs.size, () => this.#release());
  }

  /** A copy is late: it keeps its window, and its tag gets another. */
  setCopyLate(copy: number): void {
    this.#windows.setLate(copy);
  }

  setRunLate(run: number): void {
    this.#runImages[run]?.setLate(run);
  }

  /**
   * Call it only after the engine's onAreaClosed. Returns true if nothing is late.
   * @param onIdle called otherwise, when everything has been answered
   */
  close(onIdle: () => void): boolean {
    this.journal?.drop();
    this.journal?.io.whenClosed(() => this.#release());
    this.#image?.close();
    this.#nbdImage?.close();
    this.#windows.close();
    this.#onIdle = onIdle;
    return this.#inUse === 0;
  }

  #release(): void {
    this.#inUse--;
    if (this.#inUse > 0) return;
    for (const index of this.#stores) this.#reactor.removeFile(index);
    this.#reactor.removeHandler(this.#copyHandler);
    this.#reactor.removeHandler(this.#runHandler);
    this.#copyTries.close();
    this.#runTries.close();
    this.#windows.unmap();
    this.#onIdle?.();
  }

  #openJournal(journal: AreaJournalSetup): AreaJournal {
    const { copies, runs } = this.#engine;
    return new AreaJournal({
      ...journal,
      reactor: this.#reactor,
      ticker: this.#options.ticker,
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
    // A failed read cancels the write: then the fault is the read's, in whatever order the completions come.
    if (result !== wanted && (!isWrite || this.#copyFault[copy] === CopyFault.NONE)) {
      this.#copyResult[copy] = result < 0 ? result : -EIO;
      this.#copyFault[copy] = isWrite ? CopyFault.WRITE : CopyFault.READ;
    }
    if (!isWrite && result === wanted) {
      if (this.#isReadAlone[copy] === 1 && this.#writeBehind(copy)) return;
      this.#engine.onCopyRead(copy);
    }
    this.#copyPending[copy]--;
    if (this.#copyPending[copy] > 0) return;
    assert(this.#copyPending[copy] === 0, "a copy has two completions");
    if (copies.state[copy] === IoState.LIVE && this.#isCopyTriedAgain(copy)) return;
    this.#endCopy(copy);
  }

  /**
   * The old data is in the copy's window: writes the slot, together with what the engine issues now.
   * @returns false if the copy has been given up: its slot is not written
   */
  #writeBehind(copy: number): boolean {
    if (this.#engine.copies.state[copy] !== IoState.LIVE) return false;
    this.#isReadAlone[copy] = 0;
    this.#writeAlone(copy);
    faultPoint("copy.old-data-read");
    this.#engine.onCopyRead(copy);
    faultPoint("copy.left-behind");
    return true;
  }

  /** Whether the kernel could not carry out the copy, so that it is retried. */
  #isCopyTriedAgain(copy: number): boolean {
    const result = this.#copyResult[copy];
    const isWrite = this.#copyFault[copy] === CopyFault.WRITE;
    if (isWrite && result === LINK_TORN && this.#isWriteAlone[copy] === 0) {
      // The kernel had no memory to accept the write with its read, which has ended since. A read that fails with the
      // same number leaves nothing to write.
      this.#writeAlone(copy);
      return true;
    }
    return this.#copyTries.tryAgain(copy, result);
  }

  #retryCopy(copy: number): void {
    // The copy is late by now, or its area has been dropped: its window may belong to another.
    if (this.#engine.copies.state[copy] !== IoState.LIVE) this.#endCopy(copy);
    else if (this.#copyFault[copy] === CopyFault.WRITE) this.#writeAlone(copy);
    else this.#startCopy(copy);
  }

  #writeAlone(copy: number): void {
    this.#isWriteAlone[copy] = 1;
    this.#copyResult[copy] = 0;
    this.#copyFault[copy] = CopyFault.NONE;
    this.#copyPending[copy] = 1;
    this.#prepareSlotWrite(copy);
  }

  #endCopy(copy: number): void {
    const { copies } = this.#engine;
    this.#windows.end(copy);
    faultPoint("copy.data-complete");
    const isRecorded = this.#copyResult[copy] === 0 && copies.state[copy] === IoState.LIVE;
    if (this.journal === undefined || !isRecorded) this.#copyDone(copy);
    else {
      this.#engine.onCopyWritten(copy);
      const from = copies.blockStart[copy];
      const to = from + this.#blocks(copies.lengthBytes[copy]);
      this.journal.copied(copy, copies.chunk[copy], copies.slot[copy], from, to);
    }
  }

  #copyDone(copy: number): void {
    this.#options.copyDurations.end(copy);
    this.#engine.onCopyDone(copy, this.#copyResult[copy], this.#copyFault[copy]);
    // The original's write may be prepared by now, but is not submitted.
    faultPoint("copy.bit-recorded");
  }

  #onRun(run: number, result: number): void {
    const { runs } = this.#engine;
    const wanted = runs.kind[run] === RunKind.ZERO ? 0 : runs.lengthBytes[run];
    if (runs.state[run] === IoState.LIVE && this.#runTries.tryAgain(run, result)) return;
    const length = runs.lengthBytes[run];
    this.#runImages[run]?.end(run);
    if (runs.kind[run] === RunKind.WRITE_SLOT) faultPoint("image-write.complete");
    const isWritten = runs.kind[run] === RunKind.WRITE_SLOT && result === wanted;
    if (this.journal !== undefined && isWritten && runs.state[run] === IoState.LIVE) {
      this.#engine.onRunWritten(run);
      const start = runs.offsetInChunkBytes[run];
      const from = start >> this.#blockShift;
      const to = this.#blocks(start + length);
      this.journal.written(run, runs.chunk[run], runs.slot[run], from, to);
      return;
    }
    this.#engine.onRunDone(run, result === wanted ? length : result < 0 ? result : -EIO);
  }

  #retryRun(run: number): void {
    // A late run has ended for its request, whose tag another request may have by now. If another part of the request
    // is late, the request fails, and the tag's buffer may not have its data.
    const { image, runs } = this.#engine;
    const isWanted = runs.state[run] === IoState.LIVE && image.error[runs.tag[run]] === 0;
    if (isWanted) this.#startRun(run, this.#runImages[run] as ImageBuffers);
    else this.#onRun(run, -EIO);
  }

  /** How many blocks that many bytes reach into. */
  #blocks(lengthBytes: number): number {
    return (lengthBytes + (1 << this.#blockShift) - 1) >> this.#blockShift;
  }
}
