/**
 * File systems on some fronts, as a take meets them: frozen ones hold their users' writes, and a guard outlives the
 * driver. The image shows a frozen file system as it was, byte by byte; writes that waited for the thaw are not on it.
 *
 * ```
 *   new writes wait ─▶ those in flight end ─▶ frozen ─▶ the driver thaws, or it dies, or the guard does
 *                             └─▶ refused: writing continues           └─▶ then the take must fail
 *                             └─▶ hangs: the time limit passes, and the take must fail
 * ```
 */
import { Random } from "@blksnap/sim-kernel";
import type { Freeze, Freezing } from "../../dist/index.js";
import type { Device, SimSnapshot } from "./device.js";
import "./load.js";
import type { Simulation } from "./simulation.js";
import { Violation } from "./violation.js";

const { LinuxBlockError } = await import("@blksnap/linux-block");

const REQUIRED_ONE_IN = 4;
const REFUSED_ONE_IN = 8;
const HANGS_ONE_IN = 12;
const LOST_ONE_IN = 4;
/** A guard that dies does so within this time. */
const LOST_MAX_US = 400;
const LOOK_INTERVAL_MS = 0.1;

/** The outcome of a take's freeze for one device. */
type Outcome = "frozen" | "refused" | "failed" | "lost";

export class FileSystems {
  readonly random: Random;
  /** The driver's port for freezing. */
  readonly freezing: Freezing;
  readonly #sim: Simulation;
  readonly #mounted: ReadonlySet<Device>;
  /** Counts ends of drivers, and so of guards. */
  life = 0;
  /** Requests that wait for the thaw, by device. */
  readonly #held = new Map<Device, (() => void)[]>();
  /** Outcome of the last take of each device. */
  readonly #outcomes = new Map<Device, Outcome>();

  constructor(sim: Simulation, seed: number) {
    this.#sim = sim;
    this.random = new Random(seed ^ 0xf5);
    this.freezing = ({ isRequired = false }) => new SimFreeze(this, isRequired);
    this.#mounted = new Set(sim.devices.filter((_, index) => ((seed >> index) & 1) === 1));
  }

  isHeld(device: Device): boolean {
    return this.#held.has(device);
  }

  untilThawed(device: Device): Promise<void> {
    return new Promise((resolve) => this.#held.get(device)?.push(resolve));
  }

  /** Whether the image of a take in progress shows nothing that is written now. */
  isFrozen(device: Device): boolean {
    return this.#outcomes.get(device) === "frozen";
  }

  /** @returns the devices with file systems among those with these numbers */
  mountedOn(numbers: Iterable<string>): Device[] {
    const wanted = new Set(numbers);
    return [...this.#mounted].filter(({ user }) => {
      return user !== undefined && wanted.has(`${user.device.major}:${user.device.minor}`);
    });
  }

  hold(device: Device): void {
    if (this.#held.has(device)) throw new Violation(`${device.path} is frozen twice`);
    this.#held.set(device, []);
  }

  release(device: Device): void {
    const waiting = this.#held.get(device) ?? [];
    this.#held.delete(device);
    for (const resolve of waiting) resolve();
  }

  /** A timer of a guard, which does not belong to the driver's process. */
  afterUs(delayUs: number, act: () => void): void {
    this.#sim.machine.scheduler.after(delayUs, act, undefined, true);
  }

  /** The driver has died, or the power was cut. */
  releaseAll(): void {
    this.life++;
    for (const device of [...this.#held.keys()]) this.release(device);
  }

  cameTo(device: Device, outcome: Outcome): void {
    this.#sim.count(`fs-${outcome}`);
    this.#outcomes.set(device, outcome);
    if (outcome !== "frozen") return;
    for (const snapshot of this.#sim.snapshots) {
      const image = snapshot.isTaking ? snapshot.images.get(device) : undefined;
      if (image === undefined) continue;
      const volume = device.volume.clone(image.volume.name);
      snapshot.images.set(device, { ...image, volume });
    }
  }

  /** @returns the options of the take */
  takeBegins(devices: readonly Device[]): { readonly requireFreeze: boolean } {
    for (const device of devices) this.#outcomes.delete(device);
    return { requireFreeze: this.random.oneIn(REQUIRED_ONE_IN) };
  }

  /** @throws Violation if file systems were not as the take needs them */
  assertTaken(devices: readonly Device[]): void {
    for (const device of this.#thawed(devices)) {
      const outcome = this.#outcomes.get(device);
      if (outcome === "frozen" || outcome === "refused") continue;
      throw new Violation(
        `taken, and the file system of ${device.path} is ${outcome ?? "forgotten"}`,
      );
    }
  }

  /** The snapshot is as before, and may be taken again. @throws the error, if it has no cause */
  notTaken(snapshot: SimSnapshot, error: Error & { code?: string }): undefined {
    const { devices } = snapshot;
    const isFreeze = error.code === "FREEZE_FAILED" || error.code === "FREEZE_TIMEOUT";
    const isMeant = this.#thawed(devices).some((device) => {
      return ["failed", "lost", "refused"].includes(this.#outcomes.get(device) ?? "");
    });
    const hasLost = error.code === "SNAPSHOT_CORRUPTED" && snapshot.mayLose.size > 0;
    if (!hasLost && !(isFreeze && isMeant)) throw error;
    snapshot.isTaking = false;
    snapshot.isInHand = false;
    snapshot.images.clear();
    snapshot.window.length = 0;
    for (const device of devices) {
      // The failed take may have used up a number.
      device.takes = [];
      device.frozen = undefined;
      device.isInHand = false;
    }
    return undefined;
  }

  /** Those with file systems, all of which must be thawed now. */
  #thawed(devices: readonly Device[]): Device[] {
    const mounted = devices.filter((device) => this.#mounted.has(device));
    const left = mounted.find((device) => this.isHeld(device));
    if (left === undefined) return mounted;
    throw new Violation(`the file system of ${left.path} stays frozen after the take`);
  }
}

/** The file systems of one take. */
export class SimFreeze implements Freeze {
  readonly report = [];
  readonly #all: FileSystems;
  readonly #isRequired: boolean;
  readonly #held: Device[] = [];
  readonly #life: number;
  #isThawed = false;
  #isLost = false;

  constructor(all: FileSystems, isRequired: boolean) {
    this.#all = all;
    this.#life = all.life;
    this.#isRequired = isRequired;
  }

  async freeze(numbers: Iterable<string>, timeoutMs: number): Promise<void> {
    const endMs = performance.now() + timeoutMs;
    const devices = this.#all.mountedOn(numbers);
    for (const device of devices) await this.#freezeOne(device, endMs);
    if (this.#held.length === 0 || !this.#all.random.oneIn(LOST_ONE_IN)) return;
    this.#all.afterUs(this.#all.random.below(LOST_MAX_US), () => this.#lose());
  }

  assertHeld(): void {
    if (this.#isLost) throw new LinuxBlockError("FREEZE_TIMEOUT", "the guard has thawed");
  }

  async thaw(): Promise<void> {
    this.#isThawed = true;
    this.#release();
  }

  async #freezeOne(device: Device, endMs: number): Promise<void> {
    const { random } = this.#all;
    if (random.oneIn(REFUSED_ONE_IN)) {
      this.#all.cameTo(device, "refused");
      if (!this.#isRequired) return;
      throw new LinuxBlockError("FREEZE_FAILED", `${device.path}: EOPNOTSUPP`);
    }
    this.#all.hold(device);
    this.#held.push(device);
    const hangs = random.oneIn(HANGS_ONE_IN);
    while (hangs || device.writes.size > 0) {
      if (performance.now() >= endMs) {
        this.#all.cameTo(device, "failed");
        throw new LinuxBlockError("FREEZE_TIMEOUT", `${device.path} is not frozen in time`);
      }
      await new Promise((resolve) => setTimeout(resolve, LOOK_INTERVAL_MS));
    }
    this.#all.cameTo(device, "frozen");
  }

  /** The guard was killed: everything that it held is thawed before the driver knows. */
  #lose(): void {
    if (this.#isThawed || this.#all.life !== this.#life) return;
    this.#isLost = true;
    for (const device of this.#held) this.#all.cameTo(device, "lost");
    this.#release();
  }

  #release(): void {
    for (const device of this.#held.splice(0)) this.#all.release(device);
  }
}
