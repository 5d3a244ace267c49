/** Whether a tracker's front is there, and unused. */
import { constants, open } from "node:fs";
import { promisify } from "node:util";
import { ControlError } from "@blksnap/api";
import type { Tracker } from "./tracker.js";

/** @throws ControlError FRONT_ENDED */
export function assertFront({ device, front }: Pick<Tracker, "device" | "front">): void {
  if (front.isLive) return;
  const what = `another program has ended the front ${front.path} of ${device}`;
  throw new ControlError("FRONT_ENDED", what);
}

/** Opens the front exclusively: nothing can mount it while it goes away. @throws FRONT_IN_USE */
export async function holdFront(path: string): Promise<number> {
  try {
    return await promisify(open)(path, constants.O_RDWR | constants.O_EXCL, 0);
  } catch (error) {
    throw new ControlError("FRONT_IN_USE", `the front ${path} is in use`, { cause: error });
  }
}
