/** Which fronts and images are in use, and by whom. */

import { usersOf } from "@blksnap/linux-block";
import { claimInHelper } from "@blksnap/uring";
import type { Registry } from "./registry.js";
import { CLAIM_TIMEOUT_MS } from "./time-limits.js";

export interface DeviceInUse {
  /** The original. */
  readonly device: string;
  /** The front or the image, `/dev/ublkbN`. */
  readonly path: string;
  readonly kind: "front" | "image";
  /** In words; empty where this process cannot see what holds it. */
  readonly users: readonly string[];
}

export async function devicesInUse(registry: Registry): Promise<DeviceInUse[]> {
  // A front that is being detached is used by this process, which ends that in any case.
  const trackers = [...registry.trackers.values()].filter(({ isDetaching }) => !isDetaching);
  const served = trackers.flatMap((tracker) => {
    const { device, front, splice } = tracker;
    // Users of the node above a front are not affected when it is taken out.
    const isMounted = front.isLive && splice?.leadsTo(front.id) !== true;
    const image = registry.snapshotOf(tracker)?.members.get(tracker.id)?.image;
    return [
      ...(isMounted ? [{ device, path: front.path, kind: "front" as const }] : []),
      ...(image === undefined ? [] : [{ device, path: image.path, kind: "image" as const }]),
    ];
  });
  const users = usersOf(
    served.map(({ path }) => path),
    { exceptPid: process.pid },
  );
  const inUse: DeviceInUse[] = [];
  for (const one of served) {
    const of = users.get(one.path) ?? [];
    // Mounted or opened exclusively, also where this process cannot see by whom.
    const isUsed = of.length > 0 || (await claimInHelper(one.path, CLAIM_TIMEOUT_MS)) < 0;
    if (isUsed) inUse.push({ ...one, users: of });
  }
  return inUse;
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
