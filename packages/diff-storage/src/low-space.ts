import { type DiffStorageEvent, SECTOR_BYTES } from "./events.js";

/** What the watch checks. In slots, unless named otherwise. */
export interface LowSpaceView {
  readonly readySlots: number;
  readonly committedSlots: number;
  /** The used part of the limit. */
  readonly countedSlots: number;
  readonly limitSlots: number;
  /** Slots that stores and limits still allow. */
  readonly roomSlots: number;
  readonly growing: boolean;
  /** Every store that could grow failed in its last attempt. */
  readonly failing: boolean;
}

/** Reports each shortage once, with its kind. */
export class LowSpaceWatch {
  #slotBytes: number;
  #portionSlots: number;
  #lowWaterSlots: number;
  #emit: (event: DiffStorageEvent) => void;
  #saidNoSpace = false;
  #saidLow = false;

  constructor(
    slotBytes: number,
    portionSlots: number,
    lowWaterSlots: number,
    emit: (event: DiffStorageEvent) => void,
  ) {
    this.#slotBytes = slotBytes;
    this.#portionSlots = portionSlots;
    this.#lowWaterSlots = lowWaterSlots;
    this.#emit = emit;
  }

  isLow(view: LowSpaceView): boolean {
    return view.readySlots <= this.#lowWaterSlots;
  }

  /** Call it after every change of the ready slots or of growth. */
  check(view: LowSpaceView): void {
    if (!this.isLow(view)) {
      this.#saidNoSpace = false;
      this.#saidLow = false;
      return;
    }
    const freeBytes = view.readySlots * this.#slotBytes;
    const capacityBytes = view.committedSlots * this.#slotBytes;
    if (view.countedSlots >= view.limitSlots && view.roomSlots === 0) {
      if (this.#saidNoSpace || view.growing) return;
      this.#saidNoSpace = true;
      this.#emit({
        type: "no_space",
        requestedSectors: capacityBytes / SECTOR_BYTES,
        freeBytes,
        limitBytes: view.limitSlots * this.#slotBytes,
      });
      return;
    }
    const exhausted = view.roomSlots === 0 && !view.growing;
    if (this.#saidLow || !(exhausted || view.failing)) return;
    this.#saidLow = true;
    this.#emit({
      type: "low_free_space",
      requestedSectors: (this.#portionSlots * this.#slotBytes) / SECTOR_BYTES,
      freeBytes,
      capacityBytes,
      reason: exhausted ? "stores_exhausted" : "growth_failed",
    });
  }
}
