/**
 * Media that fail for a while, or hang (hangs.ts): an original, a store, or the disk of the journals. A front returns
 * the error of its original; images lose what could not be saved; a map that could not be kept is not kept.
 *
 * While a medium fails, no operations of the API are started, because separate tests cover them. While one hangs, they
 * are (api-in-hangs.ts).
 */
import type { Io, IoFault, Medium } from "@blksnap/sim-kernel";
import type { DriverOptions } from "../../dist/index.js";
import type { Device } from "./device.js";
import { HANG_OPTIONS, Hang, LATE } from "./hangs.js";
import { forgetRemovals, removalsUnderWay } from "./load.js";
import { EIO } from "./losses.js";
import { isOnDisk, KEPT_STORE } from "./settings.js";
import type { SimOptions, Simulation } from "./simulation.js";
import { SECTOR_BYTES } from "./volume.js";

const BEGIN_ONE_IN = 50;
const STEPS_MAX = 40;
const FAILS_ONE_IN = 3;
/** Of the failures: a part is transferred. */
const SHORT_ONE_IN = 3;
const SHORTAGE_ONE_IN = 3;
const ENOMEM = 12;
/** Text in the driver's log about what a power cut would restore. */
const STILL_THERE = "a power cut before that would bring it back";
const NOT_RECORDED = "the end of tracking could not be recorded";

/** A failed I/O. */
interface Failure {
  /** When it happened, by the simulation's counter of events. */
  readonly at: number;
  readonly atMs: number;
  readonly device: Device | undefined;
  readonly isRead: boolean;
  readonly first: number;
  readonly end: number;
}

export class Media {
  readonly #sim: Simulation;
  readonly #fails: boolean;
  readonly #hangs: boolean;
  #medium: Medium | undefined;
  #hang: Hang | undefined;
  #isFiles = false;
  #stepsLeft = 0;
  #isBelieved = false;
  #isUnreported = false;
  #cutsSoon = false;
  #failures: Failure[] = [];

  constructor(sim: Simulation, { hasFailures = false, hasHangs = false }: SimOptions) {
    this.#sim = sim;
    this.#fails = hasFailures;
    this.#hangs = hasHangs;
  }

  get driverOptions(): Partial<DriverOptions> {
    return this.#hangs ? HANG_OPTIONS : {};
  }

  /** Simulated time of a step. */
  get stepMs(): number {
    return this.#hang?.stepMs ?? (this.#sim.random.below(4) === 0 ? 0.5 : 0.1);
  }

  /** A medium fails or hangs at present. */
  get isFailing(): boolean {
    return this.#medium !== undefined;
  }

  /**
   * False if the disk of the journals has something stale that a power cut would restore: a map or images whose
   * journals have failed, a snapshot that was destroyed, a front that has gone. The driver logs that, and retries until
   * it is removed; the next life records what is true.
   */
  get mayPowerGo(): boolean {
    if (this.#isBelieved && removalsUnderWay() === 0) this.#isBelieved = false;
    return !(this.#isBelieved || this.#isUnreported);
  }

  /** Everything written can be written back first. */
  get mayReboot(): boolean {
    return this.mayPowerGo && !(this.isFailing && this.#isFiles);
  }

  /** A line of the driver's log. */
  onLog(line: string): void {
    if (line.startsWith("fatal") || line.includes(STILL_THERE)) {
      this.#sim.count("believed");
      this.#isBelieved = true;
    }
    if (line.includes(NOT_RECORDED)) this.#isUnreported = true;
  }

  /** Another life serves: it has recorded what is true. */
  recovered(): void {
    this.#isBelieved = false;
    this.#isUnreported = false;
  }

  /** Operations may be started. */
  get mayAsk(): boolean {
    return !this.isFailing || this.#hang !== undefined;
  }

  /** Time limit of an operation on these; undefined if nothing hangs. */
  patienceMs(what: Parameters<Hang["patienceMs"]>[0]): number | undefined {
    return this.#hang?.patienceMs(what);
  }

  /** Something has failed since the oldest unanswered request was made. */
  get hasFailed(): boolean {
    return this.#failures.length > 0 || this.#hang !== undefined;
  }

  /** Cuts the power as soon as that is allowed. */
  cutSoon(): void {
    this.#cutsSoon = true;
  }

  /** @param isQuiet no operation is in progress */
  step(isQuiet: boolean): void {
    if (this.#cutsSoon && this.mayPowerGo) {
      this.#cutsSoon = false;
      this.#sim.cutPower();
      return;
    }
    if (this.#hang !== undefined) {
      if (this.#hang.step()) this.end();
      return;
    }
    if (this.isFailing) {
      if (--this.#stepsLeft <= 0) this.end();
      return;
    }
    const { oldestMs } = this.#sim.io;
    this.#failures = this.#failures.filter(({ atMs }) => atMs >= oldestMs);
    if (!(this.#fails || this.#hangs) || !isQuiet || !this.#sim.random.oneIn(BEGIN_ONE_IN)) return;
    this.#begin();
  }

  end(): void {
    if (this.#medium === undefined) return;
    this.#medium.fault = undefined;
    this.#medium = undefined;
    this.#hang?.end();
    this.#answersAgain();
    this.#sim.tell("media are well again");
  }

  /** The driver has died. @param isPowerGone with the machine */
  afterDeath(isPowerGone: boolean): void {
    const hang = this.#hang;
    this.#cutsSoon = false;
    this.#isUnreported = !this.mayPowerGo;
    forgetRemovals();
    if (isPowerGone && this.#isFiles) this.#sim.count("cut-after-files");
    if (hang === undefined || isPowerGone || this.#sim.random.oneIn(4)) {
      this.end();
      return;
    }
    hang.outlive();
    this.#medium = undefined;
    this.#answersAgain();
  }

  /** Requests made up to now may fail, because they met something late. */
  #answersAgain(): void {
    if (this.#hang === undefined) return;
    this.#hang = undefined;
    this.#note(undefined, true, 0, 0);
  }

  /** Whether a request that a front's user made then may fail. */
  mayFail(device: Device, isRead: boolean, first: number, count: number, askedAt: number): boolean {
    return this.#failures.some(
      (failure) =>
        failure.device === device &&
        failure.isRead === isRead &&
        failure.at > askedAt &&
        failure.first < first + count &&
        failure.end > first,
    );
  }

  #begin(): void {
    const { devices, machine, random, snapshots } = this.#sim;
    this.#stepsLeft = 1 + random.below(STEPS_MAX);
    const device = devices[random.below(devices.length + 2)];
    const isFiles = device === undefined && random.oneIn(2);
    this.#isFiles = isFiles;
    const store = isFiles ? machine.disksFs.medium : this.#sim.storeDisk.medium;
    this.#medium = device?.disk.medium ?? store;
    const whose = device === undefined ? (isFiles ? "files" : "store") : "original";
    this.#sim.count(`${whose}-${this.#hangs ? "hang" : "failure"}`);
    for (const snapshot of snapshots) {
      const { store } = snapshot;
      const isOnIt = isFiles ? store === KEPT_STORE : isOnDisk(store);
      const isHit = device === undefined ? isOnIt : snapshot.devices.includes(device);
      const errnos = this.#hangs ? (device === undefined ? LATE : []) : [EIO];
      for (const errno of errnos) if (isHit) snapshot.mayLose.add(errno);
      // A journal needs its store as well as its own disk.
      if (isFiles || (device === undefined && isOnIt)) snapshot.mayBeUnkept = true;
    }
    for (const one of devices) if (isFiles) one.mayBeUnkept();
    if (this.#hangs) {
      this.#hang = new Hang(this.#sim, this.#medium, device);
      return;
    }
    this.#sim.tell(`${this.#medium.name} fails`);
    const kind = random.below(3);
    this.#medium.fault = (io) => this.#fault(io, device, kind);
  }

  #fault(io: Io, device: Device | undefined, kind: number): IoFault | undefined {
    const { random } = this.#sim;
    const isRead = io.kind === "read";
    if (io.kind === "sync" || io.kind === "allocate") return undefined;
    if ((kind === 0 && !isRead) || (kind === 1 && isRead)) return undefined;
    if (!random.oneIn(FAILS_ONE_IN)) return undefined;
    // The kernel has no memory for it: it is repeated, and nobody learns of it.
    if (!this.#isFiles && random.oneIn(SHORTAGE_ONE_IN)) return { errno: ENOMEM };
    const first = Math.floor(io.offsetBytes / SECTOR_BYTES);
    const end = Math.ceil((io.offsetBytes + io.lengthBytes) / SECTOR_BYTES);
    this.#note(device, isRead, first, end);
    const isTransfer = isRead || io.kind === "write";
    if (!isTransfer || !random.oneIn(SHORT_ONE_IN)) return { errno: EIO };
    return { shortBytes: random.below(end - first) * SECTOR_BYTES };
  }

  #note(device: Device | undefined, isRead: boolean, first: number, end: number): void {
    const [at, atMs] = [this.#sim.tick(), this.#sim.machine.nowMs];
    this.#failures.push({ at, atMs, device, isRead, first, end });
  }
}
