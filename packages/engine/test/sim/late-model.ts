/**
 * Which I/O may be late, by an independent clock: when the store's part of it has taken longer than the bound, or, once
 * the area is dropped, any part.
 */
import type { SimDevice } from "./sim-device.js";
import type { SimIo } from "./sim-io.js";
import { STORE_SHIFT } from "./store.js";
import { require } from "./violation.js";

export const LATE_TICKS = 3;

export class LateModel {
  /** Bit per store that the engine has reported as hung. */
  reportedHung = 0;
  /** Slots of closed areas that late I/O still uses. */
  readonly formerSlots: Set<number> = new Set();
  private ticks = 0;
  private readonly device: SimDevice;

  constructor(device: SimDevice) {
    this.device = device;
  }

  asked(io: SimIo): void {
    const hangs = io.usesSlot() && ((this.reportedHung >> (io.slot >> STORE_SHIFT)) & 1) === 1;
    require(!hangs, () => `${io.kind} ${io.id} goes to a store that hangs`);
    this.begins(io);
  }

  begins(io: SimIo): void {
    io.since = this.ticks;
  }

  storeHangs(store: number): void {
    require((this.reportedHung & (1 << store)) === 0, () => `store ${store} hangs twice`);
    this.reportedHung |= 1 << store;
    // Requests that were woken see it in the same event.
    this.device.permissions.give();
  }

  storeAnswers(store: number): void {
    require((this.reportedHung & (1 << store)) !== 0, () =>
      `store ${store} answers, but did not hang`);
    const late = this.device
      .ios()
      .filter((io) => io.isReportedLate && io.slot >> STORE_SHIFT === store);
    const isOfFormer = late.every((io) => this.formerSlots.has(io.slot));
    require(isOfFormer, () => `store ${store} answers with something late`);
    this.reportedHung &= ~(1 << store);
  }

  /** Late I/O keeps its slots, and no other is in flight. */
  areaClosed(): void {
    for (const io of this.device.ios()) {
      require(io.isOfOriginal || io.isReportedLate, () => `area closed under ${io.kind}`);
      if (io.usesSlot()) this.formerSlots.add(io.slot);
    }
    this.reportedHung = 0;
  }

  restart(): void {
    this.formerSlots.clear();
    this.reportedHung = 0;
  }

  /** Late I/O was answered: the slot of a closed area is free now. */
  ends(io: SimIo): void {
    const { device } = this;
    if (!io.usesSlot() || device.ios().some((other) => other.slot === io.slot)) return;
    if (this.formerSlots.delete(io.slot)) device.store.release(io.slot, device.number);
  }

  /** A tick: permits its consequences, passes it to the engine, and checks that the engine kept the bound. */
  tick(): void {
    const { device } = this;
    this.ticks++;
    const due = device.ios().filter((io) => this.isDue(io));
    for (const io of due) {
      io.isLate = true;
      device.permissions.giveForLate(io);
    }
    const { copies } = device.engine;
    const lateCopies = due.filter(({ kind }) => kind === "copy").length;
    device.permissions.give(copies.lateCount + lateCopies === copies.size);
    device.engine.tick();
    for (const io of due) {
      require(io.isReportedLate, () => `${io.kind} ${io.id} is not given up after its bound`);
    }
  }

  /** The engine gives up this I/O. */
  told(kind: string, id: number): void {
    const io = this.device.ios().find((one) => one.kind === kind && one.id === id);
    require(io?.isLate === true && !io.isReportedLate, () => `${kind} ${id} is late for no reason`);
    io!.isReportedLate = true;
  }

  private isDue(io: SimIo): boolean {
    if (io.isOfOriginal || io.isLate) return false;
    return this.ticks - io.since > LATE_TICKS && (io.isStoring || this.device.dropping);
  }
}
