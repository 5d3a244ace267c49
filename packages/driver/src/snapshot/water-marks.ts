/** A device keeps at most this many unused slots before it asks for more, and asks for as many. */
const LOW_WATER_SLOTS_MAX = 32;
/** All devices together keep at most this part of the limit unused. */
const HOARD_DIVISOR = 16;

/** When each of a snapshot's devices asks for slots, and for how many. */
export function waterMarks(
  limitSlots: number,
  memberCount: number,
): { lowWaterSlots: number; wantedSlots: number } {
  const share = Math.floor(limitSlots / (HOARD_DIVISOR * memberCount));
  const lowWaterSlots = Math.max(1, Math.min(LOW_WATER_SLOTS_MAX, share));
  return { lowWaterSlots, wantedSlots: lowWaterSlots * 2 };
}
