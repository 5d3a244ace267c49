/** Stores that others truncate: the content of the slots behind the cut is gone, and the areas are told. */
import type { Random } from "./random.js";
import type { SimDevice } from "./sim-device.js";
import { type SimStore, STORE_SHIFT } from "./store.js";

export class Cuts {
  private readonly devices: readonly SimDevice[];
  private readonly store: SimStore;
  private readonly random: Random;
  /** First slots of the cuts, by device, whose chunks are not all found. */
  private readonly pending: Set<number>[];

  constructor(devices: readonly SimDevice[], store: SimStore, random: Random) {
    this.devices = devices;
    this.store = store;
    this.random = random;
    this.pending = devices.map(() => new Set());
  }

  /** Perhaps cuts a store, or looks for some of what was lost. */
  step(): void {
    const { devices, random, store } = this;
    if (random.oneIn(250)) {
      const first = store.cut(random);
      if (first >= 0) for (const device of devices) this.lose(device, first);
    }
    if (random.oneIn(12)) this.find(random.pick(devices), random.between(1, 4));
  }

  /** Another process has the maps of the dead one, and is told of the cuts again. */
  restart(device: SimDevice): void {
    for (const first of this.pending[device.number]!) this.lose(device, first);
  }

  /** Finds all that is lost. */
  finish(): void {
    for (const device of this.devices) while (this.find(device, 100));
  }

  private find(device: SimDevice, units: number): boolean {
    if (device.engine.findLost(units)) return true;
    this.pending[device.number]!.clear();
    return false;
  }

  private lose(device: SimDevice, first: number): void {
    const { area, engine, image, losses } = device;
    if (area === null || device.dropping || image.model === null) return;
    device.world.trace(() => `dev${device.number} loses slots from ${first} on`);
    const pending = this.pending[device.number]!;
    pending.add(first);
    const store = first >> STORE_SHIFT;
    // A search that is not done begins again, from the lowest of its cuts on.
    const lowest = Math.min(...[...pending].filter((slot) => slot >> STORE_SHIFT === store));
    losses.permitLost(area, (slot) => slot >= lowest && slot >> STORE_SHIFT === store);
    image.noteCut();
    engine.loseSlots(first);
  }
}
