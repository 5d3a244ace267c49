/** The parts of a device that an export copies, in order. */
import type { ByteRange, DiffRange } from "@blksnap/api";
import { CHUNK_BYTES } from "./chunks.js";

export interface Part {
  readonly offsetBytes: number;
  /** At most a chunk, and within one. */
  readonly lengthBytes: number;
  /** It no longer holds data: zeros, which are not read. */
  readonly isDiscarded: boolean;
}

type Planned =
  | { readonly kind: "full" }
  | { readonly kind: "incremental"; readonly ranges: readonly DiffRange[] };

/** The whole device as ranges: those with data as changed, the others as discarded. */
export function wholeRanges(capacityBytes: number, empty: readonly ByteRange[]): DiffRange[] {
  const ranges: DiffRange[] = [];
  let at = 0;
  const add = (end: number, kind: DiffRange["kind"]): void => {
    if (end > at) ranges.push({ offset_bytes: at, length_bytes: end - at, kind });
    at = Math.max(at, end);
  };
  for (const { offset_bytes, length_bytes } of empty) {
    add(Math.min(offset_bytes, capacityBytes), "changed");
    add(Math.min(offset_bytes + length_bytes, capacityBytes), "discarded");
  }
  add(capacityBytes, "changed");
  return ranges;
}

/**
 * @param headBytes of an incremental export, copied in any case
 * @param empty of a full export: ranges that need not be read, in order
 */
export function partsOf(
  plan: Planned,
  capacityBytes: number,
  headBytes: number,
  empty: readonly ByteRange[],
): Part[] {
  const parts: Part[] = [];
  const add = (from: number, to: number, isDiscarded: boolean): void => {
    for (let at = from; at < to; ) {
      const end = Math.min(to, (Math.floor(at / CHUNK_BYTES) + 1) * CHUNK_BYTES);
      parts.push({ offsetBytes: at, lengthBytes: end - at, isDiscarded });
      at = end;
    }
  };
  if (plan.kind === "full") {
    for (const { offset_bytes, length_bytes, kind } of wholeRanges(capacityBytes, empty)) {
      add(offset_bytes, offset_bytes + length_bytes, kind === "discarded");
    }
    return parts;
  }
  add(0, Math.min(headBytes, capacityBytes), false);
  for (const { offset_bytes, length_bytes, kind } of plan.ranges) {
    const end = Math.min(offset_bytes + length_bytes, capacityBytes);
    add(Math.max(offset_bytes, headBytes), end, kind === "discarded");
  }
  return parts;
}

/** Offsets of the parts that are read. */
export function readPlaces(parts: readonly Part[]): number[] {
  return parts.filter((part) => !part.isDiscarded).map(({ offsetBytes }) => offsetBytes);
}

export function bytesOf(parts: readonly Part[]): number {
  return parts.reduce((sum, part) => sum + (part.isDiscarded ? 0 : part.lengthBytes), 0);
}
