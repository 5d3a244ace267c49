/** Whether a tracker's front exists. */
import { ControlError } from "@blksnap/api";
import type { Tracker } from "./tracker.js";

/** @throws ControlError FRONT_ENDED */
export function assertFront({ device, front }: Pick<Tracker, "device" | "front">): void {
  if (front.isLive) return;
  const what = `another program has ended the front ${front.path} of ${device}`;
  throw new ControlError("FRONT_ENDED", what);
}
