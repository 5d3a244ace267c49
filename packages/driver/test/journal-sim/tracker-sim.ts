/**
 * A persistent tracker in memory: writes of the front and of an image, takes, rotations of its journal and faults of
 * its medium, from a seed. At any moment judge() cuts the power and compares what would be found with what was issued.
 */
import { type CbtCheckpoint, CbtMap, CbtReason } from "@blksnap/engine";
import { readLog } from "@blksnap/journal";
import type { Dice } from "@blksnap/testing";
import { CbtJournal } from "../../../data-plane/dist/cbt-journal.js";
import {
  type AppendEntry,
  encodeAreaLost,
  encodeSwitch,
} from "../../../data-plane/dist/journal-entries.js";
import { restoreCbt } from "../../dist/records/restored-cbt.js";
import { FakeReactor, type MediumFile } from "./medium.js";
import type { SimOptions } from "./sim-options.js";

export const BLOCK_SHIFT = 16;
const BLOCK_BYTES = 2 ** BLOCK_SHIFT;
const SECTOR_BYTES = 512;
const [FRONT_DEPTH, IMAGE_DEPTH] = [8, 4];
const ID = Uint8Array.from({ length: 16 }, (_, i) => 0xa0 + i);
const GENERATION = Uint8Array.from({ length: 16 }, (_, i) => i + 1);

/** Each take makes an area. */
function areaOfTake(take: number): string {
  return `00000000-0000-4000-8000-${take.toString(16).padStart(12, "0")}`;
}

/** A journal file's content apart from the log. */
interface Named {
  readonly file: MediumFile;
  readonly checkpoint: Uint8Array;
  readonly firstSequence: number;
}

const CHECKPOINT_HEADER_BYTES = 4096;

type TagState = "free" | "waiting" | "issued";

export class TrackerSim {
  readonly kernel: FakeReactor;
  readonly cbt: CbtMap;
  readonly journal: CbtJournal;
  takes = 0;
  rotations = 0;
  failures = 0;
  readonly #dice: Dice;
  readonly #options: SimOptions;
  readonly #offsetBytes = new Float64Array(FRONT_DEPTH + IMAGE_DEPTH);
  readonly #lengthBytes = new Float64Array(FRONT_DEPTH + IMAGE_DEPTH);
  readonly #tags: TagState[] = Array(FRONT_DEPTH + IMAGE_DEPTH).fill("free");
  /** By block: the numbers of the intervals that changed it. */
  readonly #issued: Set<number>[];
  #ackedTakes = 0;
  /** Data was lost; "relied on": a later write was issued. */
  #lost: "no" | "noted" | "relied on" = "no";
  /** By tag: the request came after the loss; the old data of earlier ones was saved. */
  readonly #afterLoss: boolean[] = Array(FRONT_DEPTH + IMAGE_DEPTH).fill(false);
  /** The journal with the final name; undefined: the record was removed. */
  #named: Named | undefined;
  #mirroring = false;
  #rotation: { file: MediumFile; firstSequence: number; stale: Uint8Array } | undefined;
  /** The rotation's checkpoint: read part by part, while users write. */
  #partly: { source: CbtCheckpoint; bytes: Uint8Array; doneBytes: number } | undefined;
  #adopting = false;
  #low = false;
  #errno = 0;
  #next = 0;

  constructor(dice: Dice, options: SimOptions) {
    this.#dice = dice;
    this.#options = options;
    const { blockCount, faultChance } = options;
    this.kernel = new FakeReactor(dice);
    this.kernel.shortChance = dice.pick([0, 0, 0.1]);
    this.kernel.faults = (_, isWrite) => {
      if (dice.next() >= faultChance) return undefined;
      return isWrite ? dice.pick([-5, -28, 0]) : -5;
    };
    const capacityBytes = blockCount * BLOCK_BYTES;
    const map = { capacityBytes, blockShift: BLOCK_SHIFT, generation: GENERATION };
    const buffer = new ArrayBuffer(CbtMap.byteLength(capacityBytes, BLOCK_SHIFT));
    this.cbt = CbtMap.create(buffer, { ...map, reason: CbtReason.ATTACHED });
    this.#issued = Array.from({ length: blockCount }, () => new Set<number>());
    const file = this.#makeLog();
    this.#named = { file, checkpoint: this.#checkpoint(), firstSequence: 1 };
    this.journal = new CbtJournal({
      reactor: this.kernel.asReactor(),
      setup: { ...this.#place(file), id: [...ID], nextSequence: 1, nextCommit: 1 },
      blockShift: BLOCK_SHIFT,
      blockCount,
      turnUnits: 64,
      requestsMax: FRONT_DEPTH + IMAGE_DEPTH,
      isMarked: (block) => this.cbt.isMarked(block),
      onAdmitted: (tag) => this.#admitted(tag),
      onFault: (errno) => {
        this.#errno = errno;
      },
      onLow: () => {
        this.#low = true;
      },
    });
  }

  get hasJournal(): boolean {
    return this.#named !== undefined;
  }

  /** One random action. */
  turn(): void {
    const die = this.#dice.below(100);
    if (die < 35) this.kernel.step();
    else if (die < 60) this.#writeFront();
    else if (die < 65 && this.takes > 0) this.#writeImage();
    else if (die < 85) this.#end(this.#dice.below(this.#tags.length));
    else if (die < 89) this.#take();
    else if (die < 90) this.#loseData();
    else this.#tend();
  }

  /** Lets everything that waits continue: nothing may be left waiting. */
  drain(): void {
    for (let turn = 0; turn < 10_000; turn++) {
      this.kernel.step();
      this.#tend();
      const waits = this.#tags.includes("waiting");
      if (!waits && this.kernel.isIdle && !this.#mirroring) break;
    }
    if (this.#tags.includes("waiting")) throw new Error("a write waits for ever");
    this.#tags.forEach((_, tag) => void this.#end(tag));
  }

  // ---- users ----

  #writeFront(): void {
    const tag = this.#tags.indexOf("free");
    if (tag < 0 || tag >= FRONT_DEPTH) return;
    this.#range(tag);
    const { journal, cbt } = this;
    cbt.markRequest(this.#offsetBytes, this.#lengthBytes, tag);
    this.#tags[tag] = "waiting";
    this.#afterLoss[tag] = this.#lost !== "no";
    const admitted = journal.admit(this.#offsetBytes, this.#lengthBytes, tag);
    if (admitted || this.#options.plant === "admit before the commit") this.#issue(tag);
  }

  #writeImage(): void {
    const tag = this.#tags.indexOf("free", FRONT_DEPTH);
    if (tag < 0) return;
    this.#range(tag);
    this.#tags[tag] = "waiting";
    if (this.#options.plant === "image writes not on record") this.#issue(tag);
    else if (this.journal.admitImage(this.#offsetBytes, this.#lengthBytes, tag, tag)) {
      this.#issue(tag);
    }
  }

  /** In sequence, at random or over much of the device. */
  #range(tag: number): void {
    const { blockCount } = this.#options;
    const dice = this.#dice;
    const kind = dice.below(8);
    const blocks = kind === 0 ? 1 + dice.below(blockCount) : 1 + dice.below(2);
    const first = kind < 4 ? dice.below(blockCount) : this.#next % blockCount;
    const end = Math.min(first + blocks, blockCount);
    if (kind >= 4) this.#next = end;
    this.#offsetBytes[tag] = first * BLOCK_BYTES;
    this.#lengthBytes[tag] = (end - first) * BLOCK_BYTES;
    if (dice.below(2) === 0) this.#lengthBytes[tag]! -= 4096;
  }

  #admitted(tag: number): void {
    if (this.#tags[tag] === "waiting") this.#issue(tag);
  }

  /** The write may reach the medium from here on. */
  #issue(tag: number): void {
    this.#tags[tag] = "issued";
    if (this.#afterLoss[tag]) this.#lost = "relied on";
    this.#afterLoss[tag] = false;
    const isImage = tag >= FRONT_DEPTH;
    if (isImage) this.cbt.markRequestBoth(this.#offsetBytes, this.#lengthBytes, tag);
    const [first, last] = this.#blocks(tag);
    const number = this.takes + 1;
    for (let block = first; block <= last; block++) {
      this.#issued[block]!.add(number);
      if (isImage) this.#issued[block]!.add(number - 1);
    }
  }

  #end(tag: number): void {
    if (this.#tags[tag] === "issued") this.#tags[tag] = "free";
  }

  #blocks(tag: number): [number, number] {
    const from = this.#offsetBytes[tag]!;
    const last = from + this.#lengthBytes[tag]! - 1;
    return [Math.floor(from / BLOCK_BYTES), Math.floor(last / BLOCK_BYTES)];
  }

  /** Writes are drained first; a rotation and a take exclude each other. */
  #take(): void {
    if (this.#mirroring || this.takes >= 250) return;
    if (this.#tags.includes("waiting")) return;
    this.#tags.fill("free");
    const area = areaOfTake(this.takes + 1);
    if (this.#options.plant === "durable bits kept over a take") {
      encodeSwitch(this.cbt.info(), area, this.#append);
      this.journal.io.commitSoon();
    } else this.journal.noteSwitch(this.cbt.info(), area);
    this.cbt.switch();
    this.takes++;
    this.#lost = "no";
    const number = this.takes;
    const told = () => {
      this.#ackedTakes = Math.max(this.#ackedTakes, number);
    };
    if (this.#options.plant === "take told before it is on record") told();
    else this.journal.whenCommitted(told);
  }

  readonly #append: AppendEntry = (...entry) => this.journal.io.writer.append(...entry);

  #loseData(): void {
    if (this.#lost !== "no" || this.journal.io.writer.room < 4) return;
    this.#lost = "noted";
    const area = areaOfTake(this.takes);
    if (this.#options.plant === "lost data not waited for") encodeAreaLost(area, this.#append);
    else this.journal.noteAreaLost(area);
  }

  // ---- the main thread ----

  #tend(): void {
    if (this.#errno !== 0) this.#fail();
    else if (this.#rotation !== undefined) this.#endRotation();
    else if (this.#low || this.#dice.below(20) === 0) this.#beginRotation();
  }

  /** First the record is removed, then waiting writes continue. */
  #fail(): void {
    this.#named = undefined;
    this.#rotation = undefined;
    this.#partly = undefined;
    this.#mirroring = false;
    this.#errno = 0;
    this.failures++;
    this.journal.drop();
  }

  #beginRotation(): void {
    if (!this.hasJournal || this.#mirroring) return;
    this.#mirroring = true;
    this.#low = false;
    const file = this.#makeLog();
    file.missedWrites = this.#options.plant === "mirror that misses a commit" ? 1 : 0;
    const stale = this.#checkpoint();
    this.journal.io.whenIdle(() => {
      const place = this.#place(file);
      const { journal } = this;
      const isPlanted = this.#options.plant === "blocks ahead kept over a rotation";
      const mirrored = (firstSequence: number | null): void => {
        if (firstSequence === null || !this.hasJournal) return;
        this.#rotation = { file, firstSequence, stale };
      };
      if (!isPlanted) journal.mirror(place, mirrored);
      else {
        const firstSequence = journal.io.mirror(place);
        journal.whenCommitted(() => mirrored(firstSequence));
      }
    });
  }

  #endRotation(): void {
    const { file, firstSequence, stale } = this.#rotation!;
    if (this.#named?.file !== file) {
      const checkpoint = this.#readPart();
      if (checkpoint === undefined) return;
      const isStale = this.#options.plant === "checkpoint older than the mirror";
      this.#named = { file, checkpoint: isStale ? stale : checkpoint, firstSequence };
      return;
    }
    if (this.#adopting) return;
    this.#adopting = true;
    this.journal.io.whenIdle(() => {
      this.#adopting = false;
      if (this.#rotation === undefined) return;
      this.#rotation = undefined;
      this.#mirroring = false;
      const adopted = this.journal.io.adopt();
      if (adopted) this.rotations++;
      else this.#fail();
    });
  }

  /** The whole checkpoint, if this was the last part. */
  #readPart(): Uint8Array | undefined {
    if (this.#partly === undefined) {
      const source = this.cbt.checkpoint();
      this.#partly = { source, bytes: new Uint8Array(source.length), doneBytes: 0 };
    }
    const { source, bytes, doneBytes } = this.#partly;
    const least = doneBytes === 0 ? CHECKPOINT_HEADER_BYTES : 1;
    const most = Math.max(this.#options.blockCount >> 1, 1);
    const end = Math.min(doneBytes + least + this.#dice.below(most), bytes.length);
    source.read(bytes.subarray(doneBytes, end), doneBytes);
    this.#partly.doneBytes = end;
    if (end < bytes.length) return undefined;
    this.#partly = undefined;
    return bytes;
  }

  #makeLog(): MediumFile {
    const file = this.kernel.makeFile(this.#options.logSectors * SECTOR_BYTES);
    file.lies = this.#options.plant === "medium that does not sync";
    return file;
  }

  #place({ fd }: MediumFile) {
    const logBytes = this.#options.logSectors * SECTOR_BYTES;
    return { fd, logOffsetBytes: 0, logBytes, usedSectors: 0 };
  }

  #checkpoint(): Uint8Array {
    const source = this.cbt.checkpoint();
    const checkpoint = new Uint8Array(source.length);
    source.read(checkpoint, 0);
    return checkpoint;
  }

  // ---- the judge ----

  /** Undefined if a power cut now leaves a right state; else what is wrong. */
  judge(): string | undefined {
    if (this.#named === undefined) return undefined;
    const { file, checkpoint, firstSequence } = this.#named;
    const entries: [number, number, number, number][] = [];
    try {
      const log = file.afterPowerCut(this.#dice);
      readLog(log, ID, firstSequence, (...entry) => void entries.push(entry));
    } catch (error) {
      return `the journal is refused: ${(error as Error).message}`;
    }
    const buffer = new ArrayBuffer(CbtMap.restoredBytes(checkpoint));
    const replay = restoreCbt(buffer, { checkpoint, entries });
    const isLost = replay.problemOf(areaOfTake(this.takes)) !== undefined;
    if (this.#lost === "relied on" && !isLost) return "lost data is forgotten";
    if (this.#lost === "no" && isLost && this.#ackedTakes === this.takes) return "none was lost";
    return this.#compare(CbtMap.open(buffer));
  }

  #compare(found: CbtMap): string | undefined {
    const { blockCount } = this.#options;
    const { generation, changesNumber } = found.info();
    if (!Buffer.from(generation).equals(GENERATION)) return "another generation";
    if (changesNumber < this.#ackedTakes) return `take ${this.#ackedTakes} is forgotten`;
    if (changesNumber > this.takes) return `take ${changesNumber} never was`;
    const frozen = new Uint8Array(blockCount);
    found.readFrozen(frozen, 0, blockCount);
    // An image write is marked when it is issued, and recorded before.
    let beyond = -this.#imageBlocksWaiting();
    let marked = 0;
    for (let block = 0; block < blockCount; block++) {
      let before = 0;
      let isChanged = false;
      for (const number of this.#issued[block]!) {
        if (number > changesNumber) isChanged = true;
        else if (number > before) before = number;
      }
      if (frozen[block]! < before) {
        return `block ${block} was changed in ${before} and says ${frozen[block]}`;
      }
      if (isChanged && !found.isMarked(block))
        return `block ${block} was changed, and is not marked`;
      if (this.cbt.isMarked(block)) marked++;
      else if (found.isMarked(block) && changesNumber === this.takes) beyond++;
    }
    return beyond > marked ? `${beyond} blocks beyond ${marked} that were changed` : undefined;
  }

  #imageBlocksWaiting(): number {
    let count = 0;
    for (let tag = FRONT_DEPTH; tag < FRONT_DEPTH + IMAGE_DEPTH; tag++) {
      if (this.#tags[tag] !== "waiting") continue;
      const [first, last] = this.#blocks(tag);
      count += last - first + 1;
    }
    return count;
  }
}
