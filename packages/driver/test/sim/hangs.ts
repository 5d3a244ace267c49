/**
 * Media that do not answer for a while: an original, a store, or the disk of the journals. What waits for a medium that
 * it does not use has an end; images lose what could not be saved in time, and late answers harm nothing.
 *
 * Calls with paths (open, unlink, statfs) hang, too. One hang in four is longer than all bounds of operations
 * (api-in-hangs.ts).
 */
import { constants } from "node:os";
import type { IoFault, IoKind, Medium } from "@blksnap/sim-kernel";
import type { DriverOptions } from "../../dist/index.js";
import { FRONT_SYNC_TIMEOUT_MS } from "../../dist/time-limits.js";
import type { Device } from "./device.js";
import { isOnDisk, KEPT_STORE } from "./settings.js";
import type { Simulation } from "./simulation.js";
import { Violation } from "./violation.js";

const { ETIMEDOUT } = constants.errno;
/** I/O that hangs longer is late. */
const IO_TIMEOUT_MS = 80;
export const HANG_OPTIONS: Partial<DriverOptions> = {
  ioTimeoutMs: IO_TIMEOUT_MS,
  // A dead process keeps its locks until its I/O has been answered.
  takeOverTimeoutMs: 5_000,
};
/** For a request that waits for a copy, and then for a journal, after others that do. */
const SERVED_MS = 4 * IO_TIMEOUT_MS;
/** For a request that needs room in a store that could not grow, twice: a growth takes as long. */
const GROWN_MS = 22_000;
const HANG_MAX_MS = 8 * IO_TIMEOUT_MS;
const STEP_MAX_MS = 25;
const LONG_ONE_IN = 4;
export const LONG_MAX_MS = 120_000;
const LONG_STEP_MAX_MS = 5_000;
/** For an operation on a medium that hangs. */
const OPERATION_MS = 60_000;
/** The same for an original, whose detach waits for the last writes to its front. */
const FLUSHED_MS = FRONT_SYNC_TIMEOUT_MS + OPERATION_MS / 2;
const STATUS_ONE_IN = 8;
const DEATH_ONE_IN = 6;
/** Chance of a power cut during a hang of the journals' disk, before it answers or soon after. */
const CUT_ONE_IN = 2;
/** Time within which the I/O of a dead process is answered. */
const OUTLIVES_MAX_MS = 200;
const HANGS: IoFault = { hangs: true };
const KINDS: readonly IoKind[] = ["read", "write", "sync", "allocate", "punch", "zero", "discard"];

export class Hang {
  readonly #sim: Simulation;
  readonly #medium: Medium;
  /** The device whose original hangs. */
  readonly #device: Device | undefined;
  readonly #untilMs: number;
  /** Only one I/O in so many hangs. */
  readonly #oneIn: number;
  /** The driver dies before the medium answers. */
  readonly #isDeath: boolean;
  /** The power is cut. */
  readonly #isCut: boolean;
  readonly #isLong: boolean;

  constructor(sim: Simulation, medium: Medium, device: Device | undefined) {
    this.#sim = sim;
    this.#medium = medium;
    this.#device = device;
    this.#oneIn = 1 + sim.random.below(2);
    this.#isDeath = sim.random.oneIn(DEATH_ONE_IN);
    const isFiles = medium === sim.machine.disksFs.medium;
    this.#isCut = isFiles && sim.random.oneIn(CUT_ONE_IN);
    this.#isLong = sim.random.oneIn(LONG_ONE_IN);
    if (this.#isLong) sim.count("long-hang");
    const longestMs = this.#isLong ? LONG_MAX_MS : HANG_MAX_MS;
    this.#untilMs = sim.machine.nowMs + 1 + sim.random.below(longestMs);
    medium.fault = ({ kind }) =>
      KINDS.includes(kind) && sim.random.oneIn(this.#oneIn) ? HANGS : undefined;
    medium.callHangs = () => sim.random.oneIn(this.#oneIn);
    sim.tell(`${medium.name} hangs`);
  }

  get stepMs(): number {
    return 1 + this.#sim.random.below(this.#isLong ? LONG_STEP_MAX_MS : STEP_MAX_MS);
  }

  /** Whether one of these originals, this store, or the records of one are on the medium. */
  concerns({
    devices,
    store,
  }: {
    devices: readonly Device[];
    store?: string | undefined;
  }): boolean {
    const { disksFs } = this.#sim.machine;
    const isFiles = this.#medium === disksFs.medium;
    if (isFiles && devices.some(({ persistent }) => persistent !== "no")) return true;
    if (isFiles ? store === KEPT_STORE : isOnDisk(store)) {
      return isFiles || this.#device === undefined;
    }
    return devices.some((device) => device === this.#device);
  }

  /** Time limit of an operation of the API on these. */
  patienceMs(what: { devices: readonly Device[]; store?: string | undefined }): number {
    if (!this.concerns(what)) return SERVED_MS;
    const isOwn = what.devices.some((device) => device === this.#device);
    return isOwn ? FLUSHED_MS : OPERATION_MS;
  }

  /** Time limit of a request of a front or an image of this device. */
  #servedMs(device: Device): number {
    if (device === this.#device) return Number.POSITIVE_INFINITY;
    const its = this.#sim.snapshots.find(({ devices }) => devices.includes(device));
    const isShort = its !== undefined && this.concerns({ devices: [], store: its.store });
    return isShort ? GROWN_MS : SERVED_MS;
  }

  /** @returns whether it is over */
  step(): boolean {
    const { api, io, machine, pending, random } = this.#sim;
    if (pending.size === 0 && random.oneIn(STATUS_ONE_IN)) this.#sim.spawn(api.status());
    io.assertServed((device) => this.#servedMs(device));
    for (const { what, sinceMs, patienceMs = SERVED_MS } of pending) {
      if (machine.nowMs - sinceMs > patienceMs) throw new Violation(`${what} waits for a medium`);
    }
    if (machine.nowMs < this.#untilMs) return false;
    const { media } = this.#sim;
    if (this.#isCut) media.cutSoon();
    if (this.#isCut && media.mayPowerGo) return false;
    if (this.#isDeath) this.#sim.die();
    return !this.#isDeath;
  }

  /** The medium answers again: everything that hung is carried out. */
  end(): void {
    this.#answer();
    this.#medium.release();
  }

  #answer(): void {
    this.#medium.fault = undefined;
    this.#medium.callHangs = undefined;
  }

  /** The driver has died: its I/O may be carried out while the next one recovers. */
  outlive(): void {
    const { machine, random } = this.#sim;
    this.#answer();
    this.#sim.count("outlived");
    const delayUs = random.below(OUTLIVES_MAX_MS) * 1000;
    machine.scheduler.after(delayUs, () => this.#medium.release());
  }
}

/** Errnos with which images may lose blocks by a hang. */
export const LATE: readonly number[] = [ETIMEDOUT];
