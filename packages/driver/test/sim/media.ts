/**
 * Media that fail for a while: an original, a store, or the disk that journals are on. A front gives what its
 * original gave; images lose what could not be saved; a map that could not be kept is not kept.
 *
 * Meanwhile nobody asks for operations of the API: what they do when a medium fails has tests of its own.
 */
import type { Io, Medium } from "@blksnap/sim-kernel";
import type { Device } from "./device.js";
import { EIO } from "./losses.js";
import type { Simulation } from "./simulation.js";
import { SECTOR_BYTES } from "./volume.js";

const BEGIN_ONE_IN = 50;
const STEPS_MAX = 40;
const FAILS_ONE_IN = 3;

/** A piece of I/O that has failed. */
interface Failure {
  /** Its place in the order of all things. */
  readonly at: number;
  readonly atMs: number;
  readonly device: Device | undefined;
  readonly isRead: boolean;
  readonly first: number;
  readonly end: number;
}

export class Media {
  readonly #sim: Simulation;
  readonly #isOn: boolean;
  #medium: Medium | undefined;
  #stepsLeft = 0;
  #failures: Failure[] = [];

  constructor(sim: Simulation, isOn: boolean) {
    this.#sim = sim;
    this.#isOn = isOn;
  }

  /** One fails at present. */
  get isFailing(): boolean {
    return this.#medium !== undefined;
  }

  /** Something has failed since the oldest request was made that has no answer. */
  get hasFailed(): boolean {
    return this.#failures.length > 0;
  }

  /** @param isQuiet no operation is under way */
  step(isQuiet: boolean): void {
    if (this.isFailing) {
      if (--this.#stepsLeft <= 0) this.end();
      return;
    }
    const { oldestMs } = this.#sim.io;
    this.#failures = this.#failures.filter(({ atMs }) => atMs >= oldestMs);
    if (!this.#isOn || !isQuiet || !this.#sim.random.oneIn(BEGIN_ONE_IN)) return;
    this.#begin();
  }

  end(): void {
    if (this.#medium === undefined) return;
    this.#medium.fault = undefined;
    this.#medium = undefined;
    this.#sim.tell("media are well again");
  }

  /** Whether a request of a front's user may fail that was made then. */
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
    const store = isFiles ? machine.disksFs.medium : this.#sim.storeDisk.medium;
    this.#medium = device?.disk.medium ?? store;
    this.#sim.tell(`${this.#medium.name} fails`);
    this.#sim.count(
      device === undefined ? (isFiles ? "filesFail" : "storeFails") : "originalFails",
    );
    const path = isFiles ? "/var/tmp" : "/dev/sds";
    for (const snapshot of snapshots) {
      const isHit =
        device === undefined ? snapshot.store === path : snapshot.devices.includes(device);
      if (isHit) snapshot.mayLose.add(EIO);
      if (isFiles) snapshot.mayBeUnkept = true;
    }
    for (const one of devices) if (isFiles) one.mayBeUnkept();
    const kind = random.below(3);
    this.#medium.fault = (io) => this.#fault(io, device, kind);
  }

  #fault(io: Io, device: Device | undefined, kind: number): { errno: number } | undefined {
    const isRead = io.kind === "read";
    if (io.kind === "sync" || io.kind === "allocate") return undefined;
    if ((kind === 0 && !isRead) || (kind === 1 && isRead)) return undefined;
    if (!this.#sim.random.oneIn(FAILS_ONE_IN)) return undefined;
    const first = Math.floor(io.offsetBytes / SECTOR_BYTES);
    const end = Math.ceil((io.offsetBytes + io.lengthBytes) / SECTOR_BYTES);
    const [at, atMs] = [this.#sim.tick(), this.#sim.machine.nowMs];
    this.#failures.push({ at, atMs, device, isRead, first, end });
    return { errno: EIO };
  }
}
