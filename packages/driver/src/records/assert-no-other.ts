/** Whether a device may be attached as the one of a record. */
import { ControlError } from "@blksnap/api";
import type { Continuity } from "@blksnap/linux-block";

/**
 * For a device that the user has not named: attaching another disk would keep it from its owner, and the record from
 * its own device.
 * @throws ControlError DEVICE_NOT_FOUND
 */
export function assertNoOther(path: string, verdict: Continuity, doubt: string | undefined): void {
  const isOther = verdict.verdict === "other_device";
  const why = isOther ? verdict.why : doubt;
  if (why === undefined) return;
  const hint = "To track it, run blksnapctl attach --persistent";
  const what = `${path} ${isOther ? "is" : "may be"} another device than before: ${why}`;
  throw new ControlError("DEVICE_NOT_FOUND", what, { hint });
}
