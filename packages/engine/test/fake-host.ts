/**
 * A host with real bytes in memory: it queues every question of the engine, and answers when the test says so, in order
 * or as the test picks.
 */
import {
  BufferOwner,
  CbtMap,
  CopyFault,
  CopyKind,
  CopyMode,
  DiffArea,
  DiffAreaMap,
  type DiffAreaOptions,
  type EngineIo,
  RequestOp,
  RunKind,
  TrackerEngine,
  type TrackerGeometry,
} from "@blksnap/engine";

export const GENERATION: Uint8Array = Uint8Array.from({ length: 16 }, (_, index) => index + 1);

export interface HostOptions {
  geometry?: Partial<TrackerGeometry>;
  frontDepth?: number;
  imageDepth?: number;
  copiesMax?: number;
  runsMax?: number;
  copyWindowBytes?: number;
  /** Size of each place of the area's map; the map has one for each tag of the front. */
  placeBytes?: number;
  forgetsDiscards?: boolean;
}

/** A copy that may go behind its write is read and written in two steps. */
type Question = {
  kind: "original" | "copy" | "copyRead" | "copyWrite" | "run" | "kept";
  id: number;
};
const WINDOW_BYTES = 64 * 1024;

export class FakeHost implements EngineIo {
  readonly geometry: TrackerGeometry;
  readonly engine: TrackerEngine;
  readonly cbt: CbtMap;
  readonly original: Uint8Array;
  readonly slots: Map<number, Uint8Array> = new Map();
  readonly frontData: Uint8Array[];
  readonly imageData: Uint8Array[];
  /** Copy windows of the front: its places. */
  readonly frontWindows: Uint8Array[];
  readonly options: HostOptions;
  readonly frontResults: Map<number, number> = new Map();
  readonly imageResults: Map<number, number> = new Map();
  readonly questions: Question[] = [];
  readonly wanted: number[] = [];
  readonly freed: number[] = [];
  readonly faults: number[] = [];
  drained = 0;
  closed = 0;
  /** Called before each I/O: a negative errno makes it fail. */
  fault: (kind: string, id: number) => number = () => 0;
  /** Which side of a copy fails. */
  faultSide: number = CopyFault.READ;
  blockedReported = 0;
  mapBuffer: ArrayBuffer = new ArrayBuffer(0);
  readonly late: Question[] = [];
  hung: number[] = [];

  constructor(options: HostOptions = {}) {
    this.options = options;
    this.geometry = {
      capacityBytes: 64 * 4096,
      logicalBlockBytes: 512,
      chunkShift: 16,
      blockShift: 12,
      ...options.geometry,
    };
    const { capacityBytes } = this.geometry;
    const cbtBuffer = new ArrayBuffer(CbtMap.byteLength(capacityBytes, 16));
    this.cbt = CbtMap.create(cbtBuffer, { capacityBytes, blockShift: 16, generation: GENERATION });
    this.original = new Uint8Array(capacityBytes);
    for (let at = 0; at < capacityBytes; at += 512)
      this.original.fill(1 + ((at >> 9) % 100), at, at + 512);
    const frontDepth = options.frontDepth ?? 8;
    const imageDepth = options.imageDepth ?? 8;
    this.frontData = Array.from({ length: frontDepth }, () => new Uint8Array(0));
    this.frontWindows = this.frontData.map(() => new Uint8Array(WINDOW_BYTES));
    this.imageData = Array.from({ length: imageDepth }, () => new Uint8Array(0));
    this.engine = new TrackerEngine(this.geometry, this, {
      frontDepth,
      imageDepth,
      copyWindowBytes: options.copyWindowBytes ?? 64 * 1024,
      copiesMax: options.copiesMax ?? 16,
      runsMax: options.runsMax ?? 16,
      forgetsDiscards: options.forgetsDiscards ?? false,
      cbt: this.cbt,
    });
  }

  /** Attaches an area with `slots` free slots and takes the snapshot. */
  take(slots = 1000, options: DiffAreaOptions = {}): DiffArea {
    const area = this.attach(slots, options);
    this.engine.hold();
    this.engine.switchAndRelease();
    return area;
  }

  /** Attaches an area with `slots` free slots. */
  attach(slots = 1000, options: DiffAreaOptions = {}): DiffArea {
    const { placeBytes = 0 } = this.options;
    const places = { count: placeBytes === 0 ? 0 : this.frontData.length, placeBytes };
    const buffer = new ArrayBuffer(DiffAreaMap.byteLength(this.geometry, places));
    const map = DiffAreaMap.create(buffer, this.geometry, undefined, true, places);
    this.mapBuffer = buffer;
    const area = new DiffArea(map, { lowWaterSlots: 0, ...options });
    if (slots > 0) area.grantSlots(0, slots);
    this.engine.attachArea(area);
    return area;
  }

  /** The host of the next process: questions of this one are never answered. */
  nextLife(options: DiffAreaOptions = {}): FakeHost {
    const next = new FakeHost(this.options);
    next.original.set(this.original);
    for (const [slot, data] of this.slots) next.slots.set(slot, data);
    for (const [tag, window] of this.frontWindows.entries()) next.frontWindows[tag]!.set(window);
    next.mapBuffer = this.mapBuffer;
    const map = DiffAreaMap.open(next.mapBuffer);
    next.engine.resumeArea(new DiffArea(map, { lowWaterSlots: 0, ...options }));
    return next;
  }

  front(tag: number, op: number, offset: number, length: number, fill = 0): void {
    const { front } = this.engine;
    front.op[tag] = op;
    front.offsetBytes[tag] = offset;
    front.lengthBytes[tag] = length;
    this.frontData[tag] = new Uint8Array(op === RequestOp.DISCARD ? 0 : length).fill(fill);
    this.frontResults.delete(tag);
    this.engine.submitFront(tag);
  }

  image(tag: number, op: number, offset: number, length: number, fill = 0): void {
    const { image } = this.engine;
    image.op[tag] = op;
    image.offsetBytes[tag] = offset;
    image.lengthBytes[tag] = length;
    this.imageData[tag] = new Uint8Array(op === RequestOp.DISCARD ? 0 : length).fill(fill);
    this.imageResults.delete(tag);
    this.engine.submitImage(tag);
  }

  /** Answers the waiting questions of this kind, or those picked of them; returns how many. */
  answer(kind?: Question["kind"], pick: (id: number) => boolean = () => true): number {
    const due = this.questions.filter((q) => (kind === undefined || q.kind === kind) && pick(q.id));
    for (const question of due) {
      this.questions.splice(this.questions.indexOf(question), 1);
      this.perform(question);
    }
    return due.length;
  }

  /** Answers until no question is left. */
  run(): void {
    while (this.answer() > 0);
  }

  /** Reads the image, answering everything in order. */
  readImage(offset: number, length: number): { result: number; data: Uint8Array } {
    this.image(0, RequestOp.READ, offset, length, 0xee);
    this.run();
    return { result: this.imageResults.get(0)!, data: this.imageData[0] };
  }

  submitOriginal(id: number): void {
    this.questions.push({ kind: "original", id });
  }
  submitKept(): void {
    this.questions.push({ kind: "kept", id: 0 });
  }
  submitCopy(id: number): void {
    const mode = this.engine.copies.mode[id];
    if (mode === CopyMode.APART) this.questions.push({ kind: "copyRead", id });
    else if (mode === CopyMode.BEHIND) {
      this.questions.push({ kind: "copyWrite", id });
      this.engine.onCopyRead(id);
    } else this.questions.push({ kind: "copy", id });
  }
  submitRun(id: number): void {
    this.questions.push({ kind: "run", id });
  }
  completeFront(tag: number, result: number): void {
    this.frontResults.set(tag, result);
  }
  completeImage(tag: number, result: number): void {
    this.imageResults.set(tag, result);
  }
  requestMapSlice(_slice: number): void {}
  requestSlots(wanted: number): void {
    this.wanted.push(wanted);
  }
  freeSlot(slot: number): void {
    this.freed.push(slot);
  }
  onWritesBlocked(): void {
    this.blockedReported++;
  }
  onDrained(): void {
    this.drained++;
  }
  onAreaFault(errno: number): void {
    this.faults.push(errno);
  }
  onCopyLate(id: number): void {
    this.late.push({ kind: "copy", id });
  }
  onRunLate(id: number): void {
    this.late.push({ kind: "run", id });
  }
  onStoreHung(store: number): void {
    this.hung.push(store);
  }
  onStoreAnswered(store: number): void {
    this.hung = this.hung.filter((one) => one !== store);
  }
  onAreaClosed(): void {
    this.closed++;
  }

  /** The copies in flight have read their old data; then so many ticks pass. */
  hang(ticks: number): void {
    for (const { kind, id } of this.questions) if (kind === "copy") this.engine.onCopyRead(id);
    for (let tick = 0; tick < ticks; tick++) this.engine.tick();
  }

  private perform({ kind, id }: Question): void {
    const failure = this.fault(kind, id);
    if (kind === "original") this.engine.onOriginalDone(id, failure || this.doOriginal(id));
    else if (kind === "kept") this.engine.onKeptDone(failure || this.doKept());
    else if (kind === "copyRead") this.readCopy(id, failure);
    else if (kind === "copyWrite") this.writeCopy(id, failure);
    else if (kind === "run") this.engine.onRunDone(id, failure || this.doRun(id));
    else {
      if (failure === 0) this.doCopy(id);
      this.engine.onCopyDone(id, failure, failure === 0 ? CopyFault.NONE : this.faultSide);
    }
  }

  private readCopy(id: number, failure: number): void {
    if (failure !== 0) {
      this.engine.onCopyDone(id, failure, CopyFault.READ);
      return;
    }
    const [from, length] = this.sourceOf(id);
    const { bufferTag, bufferOffsetBytes } = this.engine.copies;
    const old = this.original.subarray(from, from + length);
    this.frontWindows[bufferTag[id]!]!.set(old, bufferOffsetBytes[id]);
    this.questions.push({ kind: "copyWrite", id });
    this.engine.onCopyRead(id);
  }

  private writeCopy(id: number, failure: number): void {
    const { blockStart, bufferTag, bufferOffsetBytes, slot } = this.engine.copies;
    const at = bufferOffsetBytes[id]!;
    const data = this.frontWindows[bufferTag[id]!]!.subarray(at, at + this.sourceOf(id)[1]);
    const start = blockStart[id]! << this.geometry.blockShift;
    if (failure === 0) this.slot(slot[id]!).set(data, start);
    this.engine.onCopyDone(id, failure, failure === 0 ? CopyFault.NONE : CopyFault.WRITE);
  }

  /** Where a copy reads from, and how many bytes. */
  private sourceOf(id: number): [number, number] {
    const { blockStart, chunk, lengthBytes } = this.engine.copies;
    const start = blockStart[id]! << this.geometry.blockShift;
    return [chunk[id]! * 2 ** this.geometry.chunkShift + start, lengthBytes[id]!];
  }

  private slot(slot: number): Uint8Array {
    let data = this.slots.get(slot);
    if (data === undefined) {
      data = new Uint8Array(1 << this.geometry.chunkShift).fill(0xdd);
      this.slots.set(slot, data);
    }
    return data;
  }

  private doOriginal(tag: number): number {
    const { front } = this.engine;
    const offset = front.offsetBytes[tag];
    const length = front.lengthBytes[tag];
    const op = front.op[tag];
    if (op === RequestOp.WRITE) this.original.set(this.frontData[tag], offset);
    else if (op === RequestOp.READ) {
      this.frontData[tag].set(this.original.subarray(offset, offset + length));
    } else if (op !== RequestOp.FLUSH) this.original.fill(0, offset, offset + length);
    return op === RequestOp.READ || op === RequestOp.WRITE ? length : 0;
  }

  private doKept(): number {
    const { offsetBytes, lengthBytes } = this.engine.keptSlice;
    this.original.fill(0, offsetBytes[0], offsetBytes[0] + lengthBytes[0]);
    return 0;
  }

  private doCopy(id: number): void {
    const { copies } = this.engine;
    const start = copies.blockStart[id] << this.geometry.blockShift;
    const from = copies.chunk[id] * 2 ** this.geometry.chunkShift + start;
    const length = copies.lengthBytes[id];
    const window =
      copies.bufferOwner[id] === BufferOwner.FRONT ? 64 * 1024 : this.engine.imageCopyWindowBytes;
    if (copies.bufferOffsetBytes[id] + length > window) throw new Error("copy window overrun");
    const data =
      copies.kind[id] === CopyKind.ZERO
        ? new Uint8Array(length)
        : this.original.subarray(from, from + length);
    if (data.length !== length) throw new Error("copy beyond the device");
    this.slot(copies.slot[id]).set(data, start);
  }

  private doRun(id: number): number {
    const { runs } = this.engine;
    const length = runs.lengthBytes[id];
    const at = runs.offsetInChunkBytes[id];
    const buffer = this.imageData[runs.tag[id]]
      .subarray(runs.bufferOffsetBytes[id])
      .subarray(0, length);
    if (buffer.length !== length) throw new Error("run beyond the data buffer");
    const kind = runs.kind[id];
    if (kind === RunKind.READ_ORIGINAL) {
      const from = runs.chunk[id] * 2 ** this.geometry.chunkShift + at;
      buffer.set(this.original.subarray(from, from + length));
    } else if (kind === RunKind.READ_SLOT) {
      buffer.set(this.slot(runs.slot[id]).subarray(at, at + length));
    } else if (kind === RunKind.WRITE_SLOT) this.slot(runs.slot[id]).set(buffer, at);
    else buffer.fill(0);
    return length;
  }
}
