/**
 * The area of a persistent snapshot in memory: copies, writes and discards of an image, lost blocks, and a main thread
 * that extends and renews logs when it gets to it, at random. At any moment judge() cuts the power and compares what
 * would be found with what writes to the original relied on.
 */

import type { LogNeed } from "@blksnap/data-plane";
import { AreaReplay } from "@blksnap/data-plane";
import { makeSlot, slotStore } from "@blksnap/diff-storage";
import { BlockState, DiffAreaMap, NO_SLOT, type TrackerGeometry } from "@blksnap/engine";
import { readLog } from "@blksnap/journal";
import type { Dice } from "@blksnap/testing";
import { AreaJournal } from "../../../data-plane/dist/area-journal.js";
import { grownLogBytes } from "../../dist/records/area-journal-file.js";
import type { FakeReactor, MediumFile } from "./medium.js";
import type { PackedFile, PackedKernel } from "./packed-kernel.js";

const ID = Uint8Array.from({ length: 16 }, (_, i) => 0x30 + i);
const COPIES = 32;
const RUNS = 32;
const STORES = 3;

/** Deliberate mistakes that the judge must find. */
export type AreaPlant =
  | "none"
  | "successor named before it is complete"
  | "successor that misses a part"
  | "old journal continues alone after the rename"
  | "parts that are older than their commit"
  | "a store that is not synced"
  | "torn chain that continues";

export interface AreaSimOptions {
  readonly chunkCount: number;
  readonly chunkShift: number;
  readonly logBytes: number;
  readonly plant: AreaPlant;
  /** Discards of an image, in percent of all actions. */
  readonly discards: number;
  /** Copies, in percent. The remaining actions are writes to an image. */
  readonly copies: number;
}

type File = MediumFile | PackedFile;
type Kernel = FakeReactor | PackedKernel;

/** A journal file with its name. */
interface Named {
  readonly file: File;
  readonly firstSequence: number;
}

/** A save that waits for its commit: its copy or run. */
interface Pending {
  readonly chunk: number;
  readonly slot: number;
  readonly from: number;
  readonly to: number;
  /** Number of syncs of the store before its data was written there. */
  readonly syncsBefore: number;
}

export class AreaSim {
  readonly map: DiffAreaMap;
  readonly journal: AreaJournal;
  commits = 0;
  renewals = 0;
  growths = 0;
  largestLogBytes = 0;
  /** Largest number of sectors of a successor when it was complete. */
  largestBase = 0;
  readonly #kernel: Kernel;
  readonly #dice: Dice;
  readonly #options: AreaSimOptions;
  readonly #geometry: TrackerGeometry;
  /** Only their syncs matter. */
  readonly #stores: readonly File[];
  readonly #copies: (Pending | undefined)[] = Array(COPIES).fill(undefined);
  readonly #runs: (Pending | undefined)[] = Array(RUNS).fill(undefined);
  /** Waiting saves, by chunk: a busy chunk is not discarded. */
  readonly #busy = new Map<number, number>();
  readonly #freeSlots: number[] = [];
  readonly #discard = { offsetBytes: new Float64Array(1), lengthBytes: new Float64Array(1) };
  #nextSlot = 0;
  #named: Named;
  /** Tasks of the main thread. */
  readonly #tasks: (() => void)[] = [];
  #successor: File | undefined;
  #renewing = false;

  constructor(kernel: Kernel, dice: Dice, options: AreaSimOptions) {
    this.#kernel = kernel;
    this.#dice = dice;
    this.#options = options;
    const { chunkCount, chunkShift } = options;
    this.#geometry = {
      capacityBytes: chunkCount * 2 ** chunkShift - 512,
      logicalBlockBytes: 512,
      chunkShift,
      blockShift: 12,
    };
    this.map = this.#newMap();
    this.#stores = Array.from({ length: STORES }, () => kernel.makeFile(0));
    const file = kernel.makeFile(options.logBytes);
    this.#named = { file, firstSequence: 1 };
    this.journal = new AreaJournal({
      reactor: kernel.asReactor(),
      setup: {
        fd: file.fd,
        logOffsetBytes: 0,
        logBytes: options.logBytes,
        usedSectors: 0,
        id: [...ID],
        nextSequence: 1,
        nextCommit: 1,
      },
      ticker: { start: () => undefined } as never,
      syncFds: this.#stores.map(({ fd }) => fd),
      copiesMax: COPIES,
      runsMax: RUNS,
      onCopied: (copy) => this.#saved(this.#copies, copy),
      onWritten: (run) => this.#saved(this.#runs, run),
      onFault: (errno) => {
        throw new Error(`the journal failed: ${errno}`);
      },
      onLow: (need) => this.#tasks.push(() => this.#tend(need)),
    });
    if (options.plant === "parts that are older than their commit") this.#plantOldParts();
    if (options.plant === "a store that is not synced") this.#plantForgottenStore();
  }

  get isIdle(): boolean {
    return this.#busy.size === 0 && this.#tasks.length === 0 && !this.#renewing;
  }

  /** One action of users. */
  act(): void {
    const die = this.#dice.below(100);
    const { discards, copies } = this.#options;
    if (die < discards) this.#discardSome();
    else if (die < discards + 1) this.#lose();
    else if (die < discards + copies) this.#copy();
    else this.#writeImage();
  }

  /** The main thread runs its oldest task. */
  tend(): void {
    this.#tasks.shift()?.();
  }

  // ---- users ----

  #copy(): void {
    const chunk = this.#dice.below(this.#options.chunkCount);
    const blocks = this.map.geometry.blocksInChunk(chunk);
    const from = this.map.nextUnsaved(chunk, this.#dice.below(blocks), blocks);
    if (from === blocks || this.#isPending(chunk, from)) return;
    let to = from + 1;
    const most = Math.min(from + this.#dice.pick([1, 2, 9]), blocks);
    while (to < most && this.map.stateAt(chunk, to) === BlockState.UNSAVED) {
      if (this.#isPending(chunk, to)) break;
      to++;
    }
    this.#save(this.#copies, chunk, from, to);
  }

  #writeImage(): void {
    const chunk = this.#dice.below(this.#options.chunkCount);
    const blocks = this.map.geometry.blocksInChunk(chunk);
    const from = this.#dice.below(blocks);
    const to = Math.min(from + this.#dice.pick([1, 1, 3]), blocks);
    for (let block = from; block < to; block++) if (this.#isPending(chunk, block)) return;
    this.#save(this.#runs, chunk, from, to);
  }

  #save(waiting: (Pending | undefined)[], chunk: number, from: number, to: number): void {
    const id = waiting.indexOf(undefined);
    if (id < 0) return;
    if (this.map.slotOf(chunk) === NO_SLOT) {
      const store = this.#dice.below(STORES);
      this.map.setSlot(chunk, this.#freeSlots.pop() ?? makeSlot(store, this.#nextSlot++));
    }
    const slot = this.map.slotOf(chunk);
    waiting[id] = { chunk, slot, from, to, syncsBefore: this.#syncsOf(slot) };
    this.#busy.set(chunk, (this.#busy.get(chunk) ?? 0) + 1);
    if (waiting === this.#copies) this.journal.copied(id, chunk, slot, from, to);
    else this.journal.written(id, chunk, slot, from, to);
  }

  #saved(waiting: (Pending | undefined)[], id: number): void {
    const { chunk, from, to } = waiting[id]!;
    waiting[id] = undefined;
    const left = this.#busy.get(chunk)! - 1;
    if (left > 0) this.#busy.set(chunk, left);
    else this.#busy.delete(chunk);
    this.map.setSaved(chunk, from, to);
    this.commits++;
  }

  #isPending(chunk: number, block: number): boolean {
    if (!this.#busy.has(chunk)) return false;
    const has = (one: Pending | undefined): boolean =>
      one !== undefined && one.chunk === chunk && one.from <= block && block < one.to;
    return this.#copies.some(has) || this.#runs.some(has);
  }

  #discardSome(): void {
    const { chunkCount } = this.#options;
    const { chunkBytes } = this.map.geometry;
    const first = this.#dice.below(chunkCount);
    const end = Math.min(first + this.#dice.pick([1, 1, 2, 5]), chunkCount);
    for (let chunk = first; chunk < end; chunk++) {
      if (this.#busy.has(chunk)) continue;
      const slot = this.map.release(chunk);
      if (slot !== NO_SLOT) this.#freeSlots.push(slot);
    }
    this.#discard.offsetBytes[0] = first * chunkBytes;
    this.#discard.lengthBytes[0] = (end - first) * chunkBytes;
    this.journal.recordDiscard(this.#discard, 0, this.map);
  }

  #lose(): void {
    const chunk = this.#dice.below(this.#options.chunkCount);
    const block = this.#dice.below(this.map.geometry.blocksInChunk(chunk));
    if (this.map.stateAt(chunk, block) !== BlockState.UNSAVED) return;
    if (!this.#isPending(chunk, block)) this.map.setLost(chunk, block, block + 1);
  }

  // ---- the main thread ----

  #tend(need: LogNeed): void {
    if (need === "log") this.#grow(this.#named.file);
    else if (need === "mirror" && this.#successor !== undefined) this.#grow(this.#successor);
    else if (need === "renewal" && !this.#renewing) this.#renew();
  }

  #grow(file: File): void {
    this.growths++;
    const logBytes = grownLogBytes(contentOf(file).length);
    file.grow(logBytes);
    this.largestLogBytes = Math.max(this.largestLogBytes, logBytes);
    this.#tasks.push(() => this.journal.io.grown(file.fd, logBytes));
  }

  #renew(): void {
    this.#renewing = true;
    const { logBytes, plant } = this.#options;
    const file = this.#kernel.makeFile(logBytes);
    this.#successor = file;
    const { fd } = file;
    const place = { fd, logOffsetBytes: 0, logBytes, usedSectors: 0 };
    const map = plant === "successor that misses a part" ? this.#mapWithout() : this.map;
    this.journal.compact(place, map, (firstSequence) => {
      if (firstSequence === null) throw new Error("the compaction was given up");
      this.#tasks.push(() => this.#publish(file, firstSequence));
    });
    if (plant !== "successor named before it is complete") return;
    this.journal.io.whenIdle(() => {
      this.#named = { file, firstSequence: this.journal.io.writer.nextSequence >>> 0 };
    });
  }

  #publish(file: File, firstSequence: number): void {
    const before = this.#named.file;
    this.#successor = undefined;
    this.#named = { file, firstSequence };
    this.renewals++;
    if (this.#options.plant === "old journal continues alone after the rename") {
      this.#tasks.push(() => this.journal.abandon(() => undefined));
      return;
    }
    this.#tasks.push(() =>
      this.journal.adopt((adopted) => {
        if (!adopted) throw new Error("the successor was not adopted");
        this.#kernel.removeMedium(before as never);
        this.#renewing = false;
      }),
    );
  }

  // ---- plants ----

  /** A map in which one chunk in four is missing. */
  #mapWithout(): DiffAreaMap {
    const { map } = this;
    return new Proxy(map, {
      get: (_, key) => {
        const value = map[key as keyof DiffAreaMap] as unknown;
        if (key !== "visitTouched") return typeof value === "function" ? value.bind(map) : value;
        return (from: number, units: number, visit: (chunk: number) => boolean) =>
          map.visitTouched(from, units, (chunk) => chunk % 4 === 0 || visit(chunk));
      },
    });
  }

  /** Puts parts after what was appended before them. */
  #plantOldParts(): void {
    const { writer } = this.journal.io;
    const late: [number, number, number, number][] = [];
    const prepend = writer.prepend.bind(writer);
    writer.prepend = (op, a, b, c) => void late.push([op, a, b, c]);
    const seal = writer.seal.bind(writer);
    writer.seal = () => {
      seal();
      for (const entry of late.splice(0)) if (writer.prefixRoom > 0) prepend(...entry);
    };
  }

  #plantForgottenStore(): void {
    const { io } = this.journal;
    const touch = io.touch.bind(io);
    io.touch = (store) => {
      if (store !== STORES - 1) touch(store);
    };
  }

  // ---- the judge ----

  /** What would be wrong after a power cut now, or undefined. */
  judge(): string | undefined {
    const { file, firstSequence } = this.#named;
    const log = file.afterPowerCut(this.#dice);
    const found = this.#newMap();
    try {
      readLog(log, ID, firstSequence, new AreaReplay(found, () => undefined).apply);
    } catch (error) {
      return `the journal is refused: ${(error as Error).message}`;
    }
    this.largestBase = Math.max(this.largestBase, this.#entriesAtMost());
    for (let chunk = 0; chunk < this.#options.chunkCount; chunk++) {
      const problem = this.#compare(found, chunk);
      if (problem !== undefined) return problem;
    }
    return undefined;
  }

  /** Most sectors that the whole map takes as entries. */
  #entriesAtMost(): number {
    let chunks = 0;
    this.map.visitTouched(0, Number.MAX_SAFE_INTEGER, () => ++chunks > 0);
    return Math.ceil((chunks * (1 + 2 * this.map.geometry.wordsPerChunk)) / 30);
  }

  #compare(found: DiffAreaMap, chunk: number): string | undefined {
    const { map } = this;
    const blocks = map.geometry.blocksInChunk(chunk);
    for (let block = 0; block < blocks; ) {
      const end = Math.min(
        map.stateEnd(chunk, block, blocks),
        found.stateEnd(chunk, block, blocks),
      );
      const is = map.stateAt(chunk, block);
      const was = found.stateAt(chunk, block);
      const slot = found.slotOf(chunk);
      const where = `chunk ${chunk}, blocks ${block} to ${end}: state ${is}, found ${was} in ${slot}`;
      if (is === BlockState.DATA && (was !== is || slot !== map.slotOf(chunk))) return where;
      if (is === BlockState.LOST && was !== is && was !== BlockState.UNSAVED) {
        // A write to the image that is in flight completes it.
        if (!this.#areComing(chunk, slot, block, end, was)) return where;
      }
      if (is === BlockState.UNSAVED && was !== is) {
        if (!this.#areComing(chunk, slot, block, end, was)) return where;
      }
      block = end;
    }
    return undefined;
  }

  /** Saves of these blocks are in flight, and their data is certainly in the store. */
  #areComing(chunk: number, slot: number, from: number, to: number, was: number): boolean {
    if (was !== BlockState.DATA || slot !== this.map.slotOf(chunk)) return false;
    for (let block = from; block < to; block++) {
      const has = (one: Pending | undefined): boolean =>
        one?.chunk === chunk &&
        one.from <= block &&
        block < one.to &&
        one.syncsBefore < this.#syncsOf(slot);
      if (!this.#copies.some(has) && !this.#runs.some(has)) return false;
    }
    return true;
  }

  #syncsOf(slot: number): number {
    return this.#stores[slotStore(slot)]!.syncs;
  }

  #newMap(): DiffAreaMap {
    const buffer = new ArrayBuffer(DiffAreaMap.byteLength(this.#geometry));
    return DiffAreaMap.create(buffer, this.#geometry);
  }
}

function contentOf(file: File): Uint8Array {
  return "content" in file ? file.content : file.durable;
}
