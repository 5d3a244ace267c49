/**
 * Persistent snapshots after stops, reboots and power cuts: their images exist again, except those of originals whose
 * maps begin anew because others wrote to them.
 */
import type { SimSnapshot } from "./device.js";
import type { Simulation } from "./simulation.js";

/** The driver was stopped, or the power cut: only persistent snapshots are left. */
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
  snapshot.look = undefined;
  // Everything is read again, and what a power cut has lost says nothing about the order of writes.
  snapshot.isLookedAt = false;
  snapshot.window.length = 0;
  for (const image of snapshot.images.values()) {
    image.user = undefined;
    image.inFlight = 0;
    if (end === "cut") image.volume.cut();
  }
}
