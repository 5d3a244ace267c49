/**
 * The journal of an area on both of its threads: the reactor appends to it, and the main thread makes its logs longer
 * and renews it. Every step of a file, every message between the threads and every step of the ring takes its own time,
 * now and then as long as hundreds of commits. No request may wait while nothing works on it.
 */
import type { LogNeed } from "@blksnap/data-plane";
import { DiffAreaMap } from "@blksnap/engine";
import { JournalDraft } from "@blksnap/journal";
import { RegularFile, SimMachine } from "@blksnap/sim-kernel";
import { Dice } from "@blksnap/testing";
import * as assert from "uvu/assert";
import { AreaJournal } from "../../../data-plane/dist/area-journal.js";
import { carryOutArea } from "../../../data-plane/dist/area-requests.js";
import type { AreaRequest } from "../../../data-plane/dist/messages.js";
import {
  AreaJournalFile,
  type AreaJournalRequests,
  loadAreaJournal,
} from "../../dist/records/area-journal-file.js";
import { PackedFile, PackedKernel } from "./packed-kernel.js";

const AREA = "0d1f7a52-6a2e-4a53-9c1e-0f4bb6b1a003";
const FOLDER = "/var/lib/blksnap";
/** Not a descriptor of the simulated process. */
const STORE_FD = 2 ** 20;
const SECTOR_BYTES = 512;
const COPIES = 32;
const BLOCKS_PER_CHUNK = 64;
/** Simulated time, much longer than all delays of a seed together. */
const LIMIT_MS = 3_600_000;
const REACTOR_FULL = new Error("a reactor has no room for more registered files");
const ENOSPC = Object.assign(new Error("no space left on device"), { code: "ENOSPC" });

/** Deliberate mistakes of the main thread that must be found. */
export type RenewalPlant = "none" | "a need during a renewal joins it" | "a need is forgotten";

export interface RenewalOutcome {
  readonly problem: string | undefined;
  readonly renewals: number;
  readonly growths: number;
  /** Successors for which there was no room, on the medium or in the reactor. */
  readonly refusals: number;
  /** Areas that have ended in the middle of it. */
  readonly ends: number;
}

/** Registers no more files when it is told so. */
class RenewalKernel extends PackedKernel {
  refuses: () => boolean = () => false;

  override addFile(fd: number): number {
    if (this.refuses()) throw REACTOR_FULL;
    return super.addFile(fd);
  }
}

/** What a ring has registered stays open there, also if the descriptor is closed. */
class SimFile extends PackedFile {
  readonly #file: RegularFile;

  constructor(machine: SimMachine, fd: number) {
    super(fd, 0);
    const { node } = machine.process.file(fd, "register");
    assert.instance(node, RegularFile);
    this.#file = node as RegularFile;
  }

  override write(offset: number, bytes: Uint8Array): void {
    this.#file.content.write(offset, bytes);
  }

  override sync(): void {
    // Power cuts are not simulated here.
  }
}

class RenewalSim {
  renewals = 0;
  growths = 0;
  refusals = 0;
  ends = 0;
  readonly #machine: SimMachine;
  readonly #dice: Dice;
  readonly #plant: RenewalPlant;
  readonly #kernel = new RenewalKernel();
  readonly #map: DiffAreaMap;
  /** One step of a file or message in so many takes long. */
  readonly #slowOneIn: number;
  readonly #refusedOneIn: number;
  readonly #depth: number;
  readonly #problems: unknown[] = [];
  readonly #waiting = new Map<number, readonly [chunk: number, block: number]>();
  #file!: AreaJournalFile;
  #journal!: AreaJournal;
  /** How many saves are left, and with how many of them left the area ends; 0: it does not. */
  #saves: number;
  readonly #endsAt: number;
  #hasEnded = false;
  #serving = 0;
  #renewing: Promise<void> | undefined;
  #isArmed = false;
  /** When the last message arrives, to the reactor and to the main thread: they keep their order. */
  readonly #lastUs = { reactor: 0, main: 0 };

  constructor(machine: SimMachine, dice: Dice, saves: number, plant: RenewalPlant) {
    this.#machine = machine;
    this.#dice = dice;
    this.#plant = plant;
    this.#saves = saves;
    this.#slowOneIn = dice.pick([2, 5, 20]);
    this.#refusedOneIn = dice.pick([0, 0, 2, 8]);
    this.#depth = dice.pick([1, 1, 4, COPIES]);
    this.#endsAt = dice.pick([0, 0, dice.below(saves)]);
    this.#map = newMap(dice.pick([3, 40, 200]));
    this.#kernel.useFile(new PackedFile(STORE_FD, 0));
    machine.disksFs.medium.fault = () => ({ delayMs: this.#delayUs() / 1000 });
    const later = machine.later.bind(machine);
    machine.later = async (action) => {
      await new Promise<void>((resolve) => this.#after(this.#delayUs(), resolve));
      return later(action);
    };
  }

  /** Everything is saved, all needs are served, and the file has what the reactor's map has. */
  async run(): Promise<void> {
    const machine = this.#machine;
    const directory = { file: (name: string) => `${FOLDER}/${name}`, answerTimeoutMs: LIMIT_MS };
    machine.files.mkdir(FOLDER, true);
    await this.#step(async () => {
      this.#file = await AreaJournalFile.create(directory as never, AREA);
    });
    this.#journal = this.#openJournal();
    this.#kernel.refuses = () => this.#isRefused();
    for (let copy = 0; copy < this.#depth; copy++) this.#save(copy);
    const isDone = (): boolean => this.#saves + this.#waiting.size + this.#serving === 0;
    await machine.run(() => this.#problems.length > 0 || isDone(), LIMIT_MS);
    if (this.#problems.length > 0) throw this.#problems[0];
    if (!this.#hasEnded) {
      if (this.#kernel.filesOpen !== 2) throw new Error(`${this.#kernel.filesOpen} files, not 2`);
      this.#journal.drop();
    }
    await machine.run(() => this.#kernel.filesOpen === 0, LIMIT_MS);
    await this.#step(() => this.#file.close());
    const names = machine.files.readdir(FOLDER);
    if (names.length !== 1) throw new Error(`files are left: ${names.join(" ")}`);
    if (this.#hasEnded) return;
    const found = newMap(this.#map.geometry.chunkCount);
    await this.#step(() => loadAreaJournal(directory as never, AREA, found, () => undefined));
    this.#assertSame(found);
  }

  async #step(work: () => Promise<void>): Promise<void> {
    await this.#machine.run(work(), LIMIT_MS);
  }

  #assertSame(found: DiffAreaMap): void {
    for (let chunk = 0; chunk < found.geometry.chunkCount; chunk++) {
      for (const word of [0, 1]) {
        const bits = this.#map.dataBits(chunk, word);
        if (found.dataBits(chunk, word) !== bits) throw new Error(`chunk ${chunk} is not found`);
      }
    }
  }

  // ---- time ----

  #delayUs(): number {
    const mostUs =
      this.#dice.below(this.#slowOneIn) === 0 ? this.#dice.pick([1e3, 1e4, 1e5, 1e6]) : 50;
    return 1 + this.#dice.below(mostUs);
  }

  #after(delayUs: number, action: () => void): void {
    this.#machine.scheduler.after(delayUs, action, undefined, true);
  }

  #send(to: "reactor" | "main", action: () => void): void {
    const { nowUs } = this.#machine.scheduler;
    this.#lastUs[to] = Math.max(this.#lastUs[to], nowUs + this.#delayUs());
    this.#after(this.#lastUs[to] - nowUs, action);
  }

  // ---- the reactor ----

  #openJournal(): AreaJournal {
    this.#kernel.useFile(new SimFile(this.#machine, this.#file.setup.fd));
    return new AreaJournal({
      reactor: this.#kernel.asReactor(),
      setup: this.#file.setup,
      ticker: { start: () => undefined } as never,
      syncFds: [STORE_FD],
      copiesMax: COPIES,
      runsMax: COPIES,
      onCopied: (copy) => this.#saved(copy),
      onWritten: () => undefined,
      onFault: (errno) => this.#problems.push(new Error(`the journal has failed: ${errno}`)),
      onLow: (need) => this.#tell(need),
    });
  }

  #save(copy: number): void {
    if (this.#saves === 0) return;
    this.#saves--;
    if (this.#saves === this.#endsAt && this.#endsAt > 0) {
      this.#end();
      return;
    }
    const chunk = this.#dice.below(this.#map.geometry.chunkCount);
    const block = this.#dice.below(BLOCKS_PER_CHUNK);
    if (this.#map.slotOf(chunk) < 0) this.#map.setSlot(chunk, chunk + 1);
    this.#waiting.set(copy, [chunk, block]);
    this.#journal.copied(copy, chunk, chunk + 1, block, block + 1);
    this.#arm();
  }

  /** The area ends, whatever the journal is doing. */
  #end(): void {
    this.#saves = 0;
    this.#hasEnded = true;
    this.ends++;
    this.#journal.drop();
  }

  #saved(copy: number): void {
    const [chunk, block] = this.#waiting.get(copy)!;
    this.#map.setSaved(chunk, block, block + 1);
    this.#waiting.delete(copy);
    if (this.#saves > 0) this.#after(this.#dice.below(100), () => this.#save(copy));
  }

  /** One step of the ring after the other, as long as there are any. */
  #arm(): void {
    if (this.#isArmed) return;
    this.#isArmed = true;
    this.#after(1 + this.#dice.below(100), () => {
      this.#isArmed = false;
      if (this.#attempt(() => this.#kernel.step())) this.#arm();
    });
  }

  /** As a reactor does, it continues. */
  #attempt(work: () => boolean): boolean {
    try {
      return work();
    } catch (error) {
      if (error !== REACTOR_FULL) this.#problems.push(error);
      return true;
    }
  }

  #isRefused(): boolean {
    const isRefused = this.#refusedOneIn > 0 && this.#dice.below(this.#refusedOneIn) === 0;
    if (isRefused) this.refusals++;
    return isRefused;
  }

  #ask<Reply>(request: AreaRequest): Promise<Reply> {
    const device = { areaOf: () => ({ journal: this.#journal, map: this.#map, isOpen: true }) };
    return new Promise((resolve, reject) => {
      const done = (value: unknown): void => this.#send("main", () => resolve(value as Reply));
      this.#send("reactor", () => {
        try {
          carryOutArea(device as never, request, done, () => true);
        } catch (error) {
          this.#send("main", () => reject(error));
        }
        this.#arm();
      });
    });
  }

  // ---- the main thread ----

  get #requests(): AreaJournalRequests {
    const its = { tracker: 1, area: AREA } as const;
    return {
      compact: (location) => {
        this.#kernel.useFile(new SimFile(this.#machine, location.fd));
        return this.#ask({ type: "compactAreaJournal", ...its, ...location });
      },
      adopt: () => {
        this.renewals++;
        return this.#ask({ type: "adoptAreaJournal", ...its });
      },
      abandon: () => this.#ask({ type: "abandonAreaJournal", ...its }),
      grown: (fd, logBytes) => {
        this.growths++;
        return this.#ask({ type: "growAreaJournal", ...its, fd, logBytes });
      },
    };
  }

  #tell(need: LogNeed): void {
    this.#serving++;
    this.#send("main", () => {
      this.#serve(need)
        .catch((error: unknown) => this.#problems.push(error))
        .finally(() => this.#serving--);
    });
  }

  async #serve(need: LogNeed): Promise<void> {
    if (this.#plant === "a need is forgotten" && this.#dice.below(8) === 0) return;
    const isJoined = this.#plant === "a need during a renewal joins it" && need === "renewal";
    if (!isJoined) return this.#file.serve(need, this.#requests);
    this.#renewing ??= this.#file.serve(need, this.#requests).finally(() => {
      this.#renewing = undefined;
    });
    await this.#renewing;
  }

  /** A short log; on a full disk, none. */
  async makeDraft(make: () => Promise<JournalDraft>): Promise<JournalDraft> {
    if (this.#isRefused()) throw ENOSPC;
    return make();
  }

  async growDraft(grow: () => Promise<void>): Promise<void> {
    if (this.#isRefused()) throw ENOSPC;
    return grow();
  }
}

function newMap(chunkCount: number): DiffAreaMap {
  const geometry = {
    capacityBytes: chunkCount * 2 ** 18,
    logicalBlockBytes: 512,
    chunkShift: 18,
    blockShift: 12,
  };
  return DiffAreaMap.create(new ArrayBuffer(DiffAreaMap.byteLength(geometry)), geometry);
}

const { create } = JournalDraft;
const { grow } = JournalDraft.prototype;

export async function runRenewals(
  seed: number,
  saves: number,
  plant: RenewalPlant = "none",
): Promise<RenewalOutcome> {
  const dice = new Dice(seed);
  const logBytes = SECTOR_BYTES * dice.pick([100, 130, 200]);
  const machine = new SimMachine({ seed });
  const sim = machine.start(() => new RenewalSim(machine, dice, saves, plant));
  let isFirst = true;
  JournalDraft.create = (path, journal, checkpointBytes) => {
    const make = () => create.call(JournalDraft, path, { ...journal, logBytes }, checkpointBytes);
    if (!isFirst) return sim.makeDraft(make);
    isFirst = false;
    return make();
  };
  JournalDraft.prototype.grow = function (longerBytes): Promise<void> {
    return sim.growDraft(() => grow.call(this, longerBytes));
  };
  let problem: string | undefined;
  try {
    await sim.run();
  } catch (error) {
    problem = `seed ${seed}: ${(error as Error).message}`;
  } finally {
    JournalDraft.create = create;
    JournalDraft.prototype.grow = grow;
    await machine.close();
  }
  const { renewals, growths, refusals, ends } = sim;
  return { problem, renewals, growths, refusals, ends };
}
