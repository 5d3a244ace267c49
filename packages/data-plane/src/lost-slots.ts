/** Counts the blocks in a truncated part of a store as lost, at once, and finds them in slices. */
import { makeSlot } from "@blksnap/diff-storage";
import type { TrackerEngine } from "@blksnap/engine";
import type { LoseSlotsRequest } from "./messages.js";
import type { Slices } from "./slices.js";
import { REACTOR_TURN_UNITS } from "./turns.js";

/** @param done called when all lost blocks are found */
export function loseSlots(
  engine: Pick<TrackerEngine, "loseSlots" | "findLost">,
  slices: Slices,
  { store, firstSlotIndex }: Pick<LoseSlotsRequest, "store" | "firstSlotIndex">,
  done: () => void,
): void {
  engine.loseSlots(makeSlot(store, firstSlotIndex));
  slices.run(() => {
    if (engine.findLost(REACTOR_TURN_UNITS)) return true;
    done();
    return false;
  });
}
