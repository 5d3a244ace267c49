import { ControlError } from "@blksnap/api";
import type { Snapshot } from "./snapshot.js";

/** @throws ControlError SNAPSHOT_ALREADY_TAKEN, SNAPSHOT_BUSY unless it is in "created" */
export function assertCreated({ id, state }: Pick<Snapshot, "id" | "state">): void {
  if (state === "created") return;
  if (state === "taken") {
    throw new ControlError("SNAPSHOT_ALREADY_TAKEN", `snapshot ${id} is taken already`);
  }
  if (state === "taking") {
    const what = `a take of snapshot ${id} failed, and could not be undone`;
    const hint = "Take it again, which undoes that first, or destroy it; see the daemon's log";
    throw new ControlError("SNAPSHOT_BUSY", what, { hint });
  }
  throw new ControlError("SNAPSHOT_BUSY", `another operation on snapshot ${id} is running`);
}
