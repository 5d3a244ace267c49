/** Errors of a live attach. */
import { ControlError } from "@blksnap/api";

const WAYS_ON =
  "Unmount it and mount its front instead; or put a device-mapper linear node under its file system once, " +
  "and attach that node while it is mounted";

export function unsupported(what: string, cause?: unknown): ControlError {
  return new ControlError("LIVE_UNSUPPORTED", what, { cause });
}

export function splicingFailed(what: string, cause: unknown): ControlError {
  return new ControlError("SPLICE_FAILED", what, { cause });
}

/** Of a device in use that is no device-mapper node: says what can be done. */
export function withWaysOn(error: unknown): unknown {
  const isBusy = error instanceof ControlError && error.code === "DEVICE_BUSY";
  return isBusy
    ? new ControlError("DEVICE_BUSY", error.message, { cause: error, hint: WAYS_ON })
    : error;
}
