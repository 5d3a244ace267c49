/**
 * Parses the payload of a request for block status with extended headers:
 * `u64 length | u32 context ...`.
 */
import { Limit } from "./protocol.js";

const LENGTH_BYTES = 8;
const ID_BYTES = 4;
/** A longer one names a context twice, or an unknown one. */
export const FILTER_BYTES_MAX: number = LENGTH_BYTES + Limit.CONTEXTS * ID_BYTES;

/**
 * @param payloadBytes at most FILTER_BYTES_MAX
 * @param contexts their number
 * @returns a bit for each named one; 0 if it is invalid
 */
export function filterBits(
  view: DataView,
  at: number,
  payloadBytes: number,
  contexts: number,
): number {
  if (payloadBytes % ID_BYTES !== 0) return 0;
  let bits = 0;
  for (let place = LENGTH_BYTES; place < payloadBytes; place += ID_BYTES) {
    const id = view.getUint32(at + place);
    if (id >= contexts || (bits & (1 << id)) !== 0) return 0;
    bits |= 1 << id;
  }
  return bits;
}
