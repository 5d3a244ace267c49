/** Errors of a live attach. */
import { ControlError } from "@blksnap/api";

/** The line is a complete drop-in file. */
const waysOn = (device: string): string =>
  "Unmount it and mount its front instead; or write the line " +
  `device = [{ device = ${JSON.stringify(device)} }] to a file in /etc/blksnap/blksnap.toml.d: from the next boot on ` +
  "its file system is mounted on its front; or put a device-mapper linear node under its file system once, and attach " +
  "that node while it is mounted";

export function unsupported(what: string, cause?: unknown): ControlError {
  return new ControlError("LIVE_UNSUPPORTED", what, { cause });
}

export function splicingFailed(what: string, cause: unknown): ControlError {
  return new ControlError("SPLICE_FAILED", what, { cause });
}

/** For a device in use that is not a device-mapper node: adds what can be done. */
export function withWaysOn(error: unknown, device: string): unknown {
  const isBusy = error instanceof ControlError && error.code === "DEVICE_BUSY";
  return isBusy
    ? new ControlError("DEVICE_BUSY", error.message, { cause: error, hint: waysOn(device) })
    : error;
}
