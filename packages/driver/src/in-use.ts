/** Which fronts and images are in use, and by whom. */
import { closeSync, constants, openSync } from "node:fs";
import type { Registry } from "./registry.js";
import { usersOf } from "./system/device-users.js";
import type { ServedDevice } from "./system/served-device.js";

export interface DeviceInUse {
  /** The original. */
  readonly device: string;
  /** The front or the image, `/dev/ublkbN`. */
  readonly path: string;
  readonly kind: "front" | "image";
  /** In words; empty where somebody outside of this process's sight holds it. */
  readonly users: readonly string[];
}

export function devicesInUse(registry: Registry): DeviceInUse[] {
  const served = [...registry.trackers.values()].flatMap((tracker) => {
    const { device, front } = tracker;
    const image = registry.snapshotOf(tracker)?.members.get(tracker.id)?.image;
    return [
      { device, path: front.path, kind: "front" as const },
      ...(image === undefined ? [] : [{ device, path: image.path, kind: "image" as const }]),
    ];
  });
  const users = usersOf(
    served.map(({ path }) => path),
    { exceptPid: process.pid },
  );
  return served
    .map((one) => ({ ...one, users: users.get(one.path) ?? [] }))
    .filter((one) => one.users.length > 0 || isClaimed(one.path));
}

/** Mounted or opened exclusively, also where this process cannot see by whom. */
function isClaimed(path: ServedDevice["path"]): boolean {
  try {
    closeSync(openSync(path, constants.O_RDONLY | constants.O_EXCL));
    return false;
  } catch {
    return true;
  }
}

/** "/dev/ublkb0 (/dev/sdb): mounted at /srv; …", for messages. */
export function describeInUse(inUse: readonly DeviceInUse[]): string {
  return inUse
    .map(({ path, device, kind, users }) => {
      const what = kind === "image" ? `image of ${device}` : device;
      return `${path} (${what})${users.length === 0 ? "" : `: ${users.join(", ")}`}`;
    })
    .join("; ");
}
