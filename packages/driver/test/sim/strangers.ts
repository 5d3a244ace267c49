/**
 * Foreign programs: between two lives of the driver they write to originals without a front, and delete fronts. If a
 * map continues after that, it has to include their writes.
 */
import { DeviceMark, UblkState } from "@blksnap/ublk";
import type { Device } from "./device.js";
import type { Simulation } from "./simulation.js";

type UblkDevice =
  Simulation["machine"]["ublk"]["devices"] extends Map<number, infer Value> ? Value : never;

export class Strangers {
  readonly #sim: Simulation;

  constructor(sim: Simulation) {
    this.#sim = sim;
  }

  /** @returns whether a daemon of this boot has to learn of it, and whether an original was written */
  async act(): Promise<{ readonly isToBeReported: boolean; readonly hasWritten: boolean }> {
    const { devices, random } = this.#sim;
    let isToBeReported = false;
    let hasWritten = false;
    for (const device of devices) {
      const front = this.#fronts().find(({ path }) => path === device.front);
      if (front !== undefined && random.below(8) === 0 && this.#mayLose(device)) {
        await this.#delete(device, front.ublk);
        isToBeReported = true;
      }
      if (random.below(2) === 0 || this.#mayHaveFront(device)) continue;
      await this.#sim.io.writePast(device);
      hasWritten = true;
    }
    return { isToBeReported, hasWritten };
  }

  /** Only the driver would notice. */
  #mayLose(device: Device): boolean {
    const { snapshots } = this.#sim;
    const isMember = snapshots.some(({ devices }) => devices.includes(device));
    return device.attached === "yes" && device.inFlight === 0 && !device.isInHand && !isMember;
  }

  async #delete(device: Device, front: UblkDevice): Promise<void> {
    const { machine } = this.#sim;
    device.closeUser();
    this.#sim.tell(`${device.front} is deleted`);
    this.#sim.count("deleted");
    await machine.run(
      new Promise<void>((resolve) => {
        front.stop(resolve);
      }),
    );
    device.attached = "unknown";
    device.mayBeNew = true;
    device.front = undefined;
  }

  /** True also for a device that was being attached, whose front is on no record. */
  #mayHaveFront(device: Device): boolean {
    if (device.attached === "no") return false;
    const others = this.#sim.devices.filter((one) => one !== device);
    return this.#fronts().some(({ path }) => others.every(({ front }) => front !== path));
  }

  #fronts(): { readonly path: string; readonly ublk: UblkDevice }[] {
    return [...this.#sim.machine.ublk.devices.entries()]
      .filter(([, { state, info }]) => {
        return state !== UblkState.DEAD && info.serverFlags === DeviceMark.FRONT;
      })
      .map(([id, ublk]) => ({ path: `/dev/ublkb${id}`, ublk }));
  }
}
