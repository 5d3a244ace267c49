/** What an engine may do to requests when room is short or a store hangs. */
import { FrontState } from "./front-state.js";
import type { SimDevice } from "./sim-device.js";
import type { SimIo } from "./sim-io.js";

export class Permissions {
  private readonly device: SimDevice;

  constructor(device: SimDevice) {
    this.device = device;
  }

  /** Stores hang, or use up all copies or runs with late ones. */
  get isShort(): boolean {
    const { area, engine } = this.device;
    const { copies, runs } = engine;
    return area?.hungStores !== 0 || copies.isExhausted() || runs.isExhausted();
  }

  /** While slots or memory are denied, or stores hang, writes that need them meet the overflow policy. */
  give(exhausted: boolean = this.device.engine.copies.isExhausted()): void {
    const { area, dropping, engine, image, losses, memory, overflow } = this.device;
    if (area === null || dropping) return;
    const denied = area.slots.deniedErrno !== 0;
    const { isRefused } = memory;
    if (!denied && !isRefused && !exhausted && !this.isShort) return;
    image.excuseAll();
    for (const tag of this.waitingWrites()) {
      overflow.permitRefusal(tag);
      const first = engine.front.offsetBytes[tag] / 512;
      const count = engine.front.lengthBytes[tag] / 512;
      if (!overflow.mayLose) continue;
      if (isRefused) for (const slice of memory.refusedSlices()) losses.permitSlice(area, slice);
      if (denied) losses.permitDenied(first, count, area);
      if (area.hungStores !== 0 || exhausted) losses.permitHung(first, count, area, exhausted);
    }
  }

  /** Permits the consequences of giving up a copy or run. */
  giveForLate(io: SimIo): void {
    const { area, dropping, engine, image, losses, overflow } = this.device;
    if (area === null || dropping) return;
    const { copies, front } = engine;
    image.excuseAll();
    if (io.kind !== "copy" || copies.owner[io.id] >= front.depth) return;
    if (!overflow.mayLose) {
      overflow.permitRefusal(copies.owner[io.id]);
      return;
    }
    for (let block = copies.blockStart[io.id]; block < copies.ownEnd[io.id]; block++) {
      losses.permit(copies.chunk[io.id], block);
    }
  }

  /** Write-like requests that have not been issued. */
  waitingWrites(): number[] {
    const { device } = this;
    const tags = [...device.frontState.keys()];
    return tags.filter(
      (tag) => device.frontState[tag] === FrontState.SUBMITTED && device.isWriteLike(tag),
    );
  }
}
