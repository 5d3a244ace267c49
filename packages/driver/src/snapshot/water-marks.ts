/**
 * A device gets this many slots at first, and asks for as many when half of them are left. With 32 random writers, each
 * of which takes one, the answer may come three turns of the reactor later without any of them waiting.
 */
const WANTED_SLOTS_FIRST = 128;
/** At most this many when they are used fast; a slot should be there before it is needed. */
const WANTED_SLOTS_MAX = 1024;
/**
 * All devices together ask for at most this part of the limit at a time, and keep at most half as much more unused.
 */
const HOARD_DIVISOR = 16;

interface WaterMarks {
  readonly lowWaterSlots: number;
  readonly wantedSlots: number;
  readonly wantedSlotsMax: number;
}

/** When each of a snapshot's devices asks for slots, and for how many. */
export function waterMarks(limitSlots: number, memberCount: number): WaterMarks {
  const share = Math.floor(limitSlots / (HOARD_DIVISOR * memberCount));
  const wantedSlotsMax = Math.max(2, Math.min(WANTED_SLOTS_MAX, share));
  const wantedSlots = Math.min(WANTED_SLOTS_FIRST, wantedSlotsMax);
  return { lowWaterSlots: wantedSlots >> 1, wantedSlots, wantedSlotsMax };
}
