/**
 * Media that do not answer for a while: an original, a store, or the disk that journals are on. What waits for another
 * medium than its own has an end; images lose what could not be saved in time, and what is answered late harms nothing.
 */
import { constants } from "node:os";
import type { IoFault, IoKind, Medium } from "@blksnap/sim-kernel";
import type { DriverOptions } from "../../dist/index.js";
import type { Device } from "./device.js";
import type { Simulation } from "./simulation.js";
import { Violation } from "./violation.js";

const { ETIMEDOUT } = constants.errno;
/** What hangs longer is late. */
const IO_TIMEOUT_MS = 80;
export const HANG_OPTIONS: Partial<DriverOptions> = {
  ioTimeoutMs: IO_TIMEOUT_MS,
  // A process that has died keeps its locks until its I/O has been answered.
  takeOverTimeoutMs: 5_000,
};
/** For what waits for a copy, and then for a journal, behind others that do. */
const SERVED_MS = 4 * IO_TIMEOUT_MS;
const HANG_MAX_MS = 8 * IO_TIMEOUT_MS;
const STEP_MAX_MS = 25;
const STATUS_ONE_IN = 8;
const DEATH_ONE_IN = 6;
/** I/O of a process that has died is answered within this. */
const OUTLIVES_MAX_MS = 200;
const HANGS: IoFault = { hangs: true };
/** A file's growth has a bound of its own, and a test: @blksnap/diff-storage. */
const KINDS: readonly IoKind[] = ["read", "write", "sync", "punch", "zero", "discard"];

export class Hang {
  readonly #sim: Simulation;
  readonly #medium: Medium;
  /** Whose original it is. */
  readonly #device: Device | undefined;
  readonly #untilMs: number;
  /** Only some of its I/O is not answered. */
  readonly #oneIn: number;
  /** The driver dies before the medium answers. */
  readonly #isDeath: boolean;

  constructor(sim: Simulation, medium: Medium, device: Device | undefined) {
    this.#sim = sim;
    this.#medium = medium;
    this.#device = device;
    this.#oneIn = 1 + sim.random.below(2);
    this.#isDeath = sim.random.oneIn(DEATH_ONE_IN);
    this.#untilMs = sim.machine.nowMs + 1 + sim.random.below(HANG_MAX_MS);
    medium.fault = ({ kind }) =>
      KINDS.includes(kind) && sim.random.oneIn(this.#oneIn) ? HANGS : undefined;
    sim.tell(`${medium.name} hangs`);
  }

  get stepMs(): number {
    return 1 + this.#sim.random.below(STEP_MAX_MS);
  }

  /** @returns whether it is over */
  step(): boolean {
    const { api, io, machine, pending, random } = this.#sim;
    if (pending.size === 0 && random.oneIn(STATUS_ONE_IN)) this.#sim.spawn(api.status());
    io.assertServed(SERVED_MS, this.#device);
    for (const { what, sinceMs } of pending) {
      if (machine.nowMs - sinceMs > SERVED_MS) throw new Violation(`${what} waits for a medium`);
    }
    if (machine.nowMs < this.#untilMs) return false;
    if (this.#isDeath) this.#sim.die();
    return !this.#isDeath;
  }

  /** The medium answers again: all that hung is carried out. */
  end(): void {
    this.#medium.fault = undefined;
    this.#medium.release();
  }

  /** The driver has died: what it had asked for may be carried out while the next one recovers. */
  outlive(): void {
    const { machine, random } = this.#sim;
    this.#medium.fault = undefined;
    this.#sim.count("outlived");
    const delayUs = random.below(OUTLIVES_MAX_MS) * 1000;
    machine.scheduler.after(delayUs, () => this.#medium.release());
  }
}

/** How images may lose blocks by it. */
export const LATE: readonly number[] = [ETIMEDOUT];
