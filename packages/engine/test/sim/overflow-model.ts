/**
 * What may happen to a write to the original that finds no room for its old data, by the area's overflow policy: when
 * it may be refused, and when its blocks may be lost.
 */
import { OverflowPolicy } from "@blksnap/engine";

const EIO = 5;
const ENOSPC = 28;
/** Ticks that a blocked write waits. */
export const BLOCKED_TICKS_MAX = 3;

export class OverflowModel {
  readonly policy: number;
  /** A write has waited its full time, and no slots were granted since. */
  private gaveUp = false;
  private ticks = 0;
  private readonly submittedAt: Int32Array;
  private readonly refusable: Uint8Array;

  constructor(policy: number, depth: number) {
    this.policy = policy;
    this.submittedAt = new Int32Array(depth);
    this.refusable = new Uint8Array(depth);
  }

  /** True if a block may be lost that cannot be written to its slot, or has none. */
  get mayLose(): boolean {
    return this.policy === OverflowPolicy.BREAK_SNAPSHOT || this.gaveUp;
  }

  submitted(tag: number): void {
    this.submittedAt[tag] = this.ticks;
    this.refusable[tag] = 0;
  }

  /** The request may have found no room. */
  permitRefusal(tag: number): void {
    if (this.policy === OverflowPolicy.FAIL_WRITES) this.refusable[tag] = 1;
  }

  /** True if the request may end with this result although none of it was issued. */
  mayRefuse(tag: number, result: number): boolean {
    return this.refusable[tag] === 1 && (result === -EIO || result === -ENOSPC);
  }

  /** A tick, while these requests are waiting. */
  tick(waiting: readonly number[]): void {
    this.ticks++;
    for (const tag of waiting) {
      if (this.ticks - this.submittedAt[tag] > BLOCKED_TICKS_MAX) this.gaveUp = true;
    }
  }

  /** Slots were granted, or a new area or process begins. */
  begin(): void {
    this.gaveUp = false;
  }
}
