/**
 * What a request for block status may say behind its header, where there are extended headers:
 * `u64 length | u32 context ...`.
 */
import { Limit } from "./protocol.js";

const LENGTH_BYTES = 8;
const ID_BYTES = 4;
/** A longer one names a context twice, or one that is not there. */
export const FILTER_BYTES_MAX: number = LENGTH_BYTES + Limit.CONTEXTS * ID_BYTES;

/**
 * @param payloadBytes at most FILTER_BYTES_MAX
 * @param contexts how many there are
 * @returns a bit for each that is named; 0 where it is not as it has to be
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
