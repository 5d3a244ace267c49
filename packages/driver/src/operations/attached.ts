/** What a request to attach gets of a device that is attached, by now or before. */
import { type AttachResponse, ControlError } from "@blksnap/api";
import { assertFront } from "../tracker/front-state.js";
import { assertSpliced } from "../tracker/splice-watch.js";
import type { Tracker } from "../tracker/tracker.js";

/** The tracker is as requested. @throws ControlError FRONT_ENDED, TRACKER_NOT_PERSISTENT */
export function assertSatisfies(tracker: Tracker, isPersistent: boolean): void {
  assertFront(tracker);
  if (!isPersistent || tracker.persistence.state === "on") return;
  const what = `${tracker.device} is attached, but not as a persistent tracker`;
  throw new ControlError("TRACKER_NOT_PERSISTENT", what);
}

/** @throws ControlError SPLICE_LOST */
export function attachAnswer(tracker: Tracker, already: boolean): AttachResponse {
  assertSpliced(tracker);
  const { device, front, persistence, splice } = tracker;
  return {
    device,
    front: front.path,
    already_attached: already,
    persistent: persistence.state === "on",
    attach_kind: splice === undefined ? "front" : "live",
    live: splice?.path ?? null,
  };
}
