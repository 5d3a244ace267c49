/**
 * Persistent snapshots over stops, reboots and power cuts: their images are there again, but for those of
 * originals whose maps begin anew, as others wrote to them.
 */
import type { SimSnapshot } from "./device.js";
import type { Simulation } from "./simulation.js";

/** The driver has been stopped, or the power is gone: only what is persistent is left. */
export function keepPersistent({ snapshots }: Simulation, end: "stop" | "cut"): void {
  for (const snapshot of [...snapshots]) {
    if (snapshot.isPersistent) ended(snapshot, end);
    else snapshots.splice(snapshots.indexOf(snapshot), 1);
  }
}

function ended(snapshot: SimSnapshot, end: "stop" | "cut"): void {
  snapshot.mayLoseImages = true;
  if (snapshot.mayBeUnkept) snapshot.isGone = "unknown";
  snapshot.isInHand = false;
  snapshot.isTaking = false;
  snapshot.isLooking = false;
  // All of it is read anew, and what a cut has lost says nothing of the order of writes.
  snapshot.isLookedAt = false;
  snapshot.window.length = 0;
  for (const image of snapshot.images.values()) {
    image.user = undefined;
    image.inFlight = 0;
    if (end === "cut") image.volume.cut();
  }
}
