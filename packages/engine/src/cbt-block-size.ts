/**
 * Chooses the block size of a CBT map by the kernel module's rule: start at the smallest size and double it while
 * the map would have more blocks than wanted, but never exceed the largest size.
 */
import { EngineError } from "./errors.js";

export interface CbtBlockSizeRule {
  /** log2 of the smallest block: 16 (64 KiB) if not given. */
  minimumShift?: number;
  /** Wanted upper bound of the number of blocks: 2097152 if not given. */
  maximumCount?: number;
  /** log2 of the largest block: 26 (64 MiB) if not given. */
  maximumShift?: number;
}

/** log2 of the CBT block size for a device of `capacityBytes`. */
export function cbtBlockShift(capacityBytes: number, rule: CbtBlockSizeRule = {}): number {
  const minimumShift = rule.minimumShift ?? 16;
  const maximumCount = rule.maximumCount ?? 2_097_152;
  const maximumShift = Math.max(rule.maximumShift ?? 26, minimumShift);
  if (!(capacityBytes > 0 && minimumShift >= 9 && maximumShift <= 31 && maximumCount >= 1)) {
    throw new EngineError("BAD_GEOMETRY", "CBT block size: shifts from 9 to 31, count at least 1");
  }
  let shift = minimumShift;
  while (shift < maximumShift && Math.ceil(capacityBytes / 2 ** shift) > maximumCount) shift++;
  return shift;
}
