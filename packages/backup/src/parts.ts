/** The parts of a device that an export copies, one by one and in order. */
import type { DiffRange } from "@blksnap/api";
import { CHUNK_BYTES } from "./chunks.js";

export interface Part {
  readonly offsetBytes: number;
  /** At most a chunk, and within one. */
  readonly lengthBytes: number;
  /** It holds no data any more: zeros, and not to be read. */
  readonly isDiscarded: boolean;
}

type Planned =
  | { readonly kind: "full" }
  | { readonly kind: "incremental"; readonly ranges: readonly DiffRange[] };

/** @param headBytes of an incremental one, that are copied in any case */
export function partsOf(plan: Planned, capacityBytes: number, headBytes: number): Part[] {
  const parts: Part[] = [];
  const add = (from: number, to: number, isDiscarded: boolean): void => {
    for (let at = from; at < to; ) {
      const end = Math.min(to, (Math.floor(at / CHUNK_BYTES) + 1) * CHUNK_BYTES);
      parts.push({ offsetBytes: at, lengthBytes: end - at, isDiscarded });
      at = end;
    }
  };
  if (plan.kind === "full") {
    add(0, capacityBytes, false);
    return parts;
  }
  add(0, Math.min(headBytes, capacityBytes), false);
  for (const { offset_bytes, length_bytes, kind } of plan.ranges) {
    const end = Math.min(offset_bytes + length_bytes, capacityBytes);
    add(Math.max(offset_bytes, headBytes), end, kind === "discarded");
  }
  return parts;
}

export function bytesOf(parts: readonly Part[]): number {
  return parts.reduce((sum, part) => sum + (part.isDiscarded ? 0 : part.lengthBytes), 0);
}
