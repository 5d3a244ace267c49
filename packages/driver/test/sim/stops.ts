/**
 * Orderly ends of the driver: stops, as by an administrator, after which it starts again, mostly after a reboot; and
 * while a medium hangs, upgrades, too, which leave everything to the next daemon.
 */
import { keepPersistent } from "./kept-snapshots.js";
import type { Simulation } from "./simulation.js";
import { Violation } from "./violation.js";

const IN_HANG_ONE_IN = 100;
/** While a medium hangs: by then, what needs it has ended by its own bounds, or the driver leaves it. */
const PATIENCE_MS = 100_000;
/** For an upgrade, while operations run. */
const LEAVE_PATIENCE_MS = 31_000;
const IDLE_STEP_MS = 5;
/** While a medium hangs, what waits for it does not end soon. */
const IDLE_STEPS_IN_HANG = 200;

export class Stops {
  readonly #sim: Simulation;
  /** The driver has ended, and left nothing. */
  #isStopped = false;
  #isLeaving = false;

  constructor(sim: Simulation) {
    this.#sim = sim;
  }

  /** No operations begin, and none is answered. */
  get isLeaving(): boolean {
    return this.#isLeaving;
  }

  /** Resolves when the next life has begun. @param oneIn how rarely, while no medium hangs; 0: never */
  async step(oneIn: number): Promise<void> {
    const isHung = this.#sim.media.isFailing;
    if (oneIn === 0 || !this.#sim.random.oneIn(isHung ? IN_HANG_ONE_IN : oneIn)) return;
    // Its users' requests wait for the next life.
    if (isHung && this.#sim.random.oneIn(2)) return this.#untilNextLife(this.#leave());
    if (!(await this.#isIdle(isHung))) return;
    for (const target of [...this.#sim.devices, ...this.#sim.images()]) {
      target.user?.close();
      target.user = undefined;
    }
    if (isHung) this.#sim.count("stop-in-hang");
    await this.#untilNextLife(this.#stop());
  }

  async #untilNextLife(end: Promise<void>): Promise<void> {
    const { lives: before } = this.#sim;
    this.#sim.spawn(end);
    while (this.#sim.lives === before) {
      await this.#sim.advance(IDLE_STEP_MS);
      this.#sim.assertAll();
      if (this.#sim.media.isFailing) this.#sim.media.step(false);
    }
  }

  async #leave(): Promise<void> {
    this.#sim.count("upgrade-in-hang");
    this.#isLeaving = true;
    const leave = () => this.#sim.driver.leave();
    await this.#sim.call("leave", leave, () => undefined, LEAVE_PATIENCE_MS);
    this.#sim.die();
  }

  /** Nothing is in progress any more. */
  async #isIdle(isHung: boolean): Promise<boolean> {
    for (let steps = 0; this.#sim.io.inFlight > 0 || this.#sim.isAsked(); steps++) {
      if (isHung && steps === IDLE_STEPS_IN_HANG) return false;
      const { lives } = this.#sim;
      if (!isHung) await this.#sim.hangApi.settle();
      this.#sim.deletions.settle();
      await this.#sim.advance(IDLE_STEP_MS);
      this.#sim.assertAll();
      if (isHung && this.#sim.lives !== lives) return false;
    }
    return true;
  }

  async #stop(): Promise<void> {
    const { devices, machine, media, random } = this.#sim;
    const isLast = random.below(2) === 0 && media.mayReboot;
    const left = await this.#sim.call(
      "stop",
      () => this.#sim.driver.stop(isLast),
      () => this.mayHaveEnded(),
      PATIENCE_MS,
    );
    const mayLeave = media.isFailing || media.hasFailed;
    if (left.length > 0 && !mayLeave)
      throw new Violation(`left by an orderly stop: ${left.join(", ")}`);
    if (left.length > 0) {
      this.#sim.tell(`left by a stop: ${left.join(", ")}`);
      this.#sim.count("left");
      for (const device of devices) device.isInHand = false;
      this.mayHaveEnded();
      this.#sim.die();
      return;
    }
    this.#isStopped = true;
    this.#sim.ended();
    if (isLast) machine.reboot();
    else machine.kill();
  }

  /** An end had begun when the driver died. */
  mayHaveEnded(): void {
    const { devices, snapshots } = this.#sim;
    for (const device of devices) {
      device.mayBeNew = true;
      device.isRenewed = false;
      if (device.attached === "yes") device.attached = "unknown";
    }
    for (const snapshot of snapshots) {
      if (snapshot.isPersistent) snapshot.mayLoseImages = true;
      if (!snapshot.isPersistent || snapshot.mayBeUnkept) snapshot.isGone = "unknown";
    }
  }

  /** Called before the next life. */
  afterDeath(): void {
    this.#isLeaving = false;
    if (!this.#isStopped) return;
    this.#isStopped = false;
    this.#sim.stops++;
    for (const device of this.#sim.devices) {
      device.volume.check(0, device.disk.bytes, "the original after an orderly stop");
      device.ended();
    }
    keepPersistent(this.#sim, "stop");
  }
}
