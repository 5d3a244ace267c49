/** Which fronts and images are in use, and by whom. */

import type { Frontend } from "./frontend/frontend.js";
import type { Registry } from "./registry.js";

export interface DeviceInUse {
  /** The original. */
  readonly device: string;
  /** The front or the image: `/dev/ublkbN`, or the address of an export. */
  readonly path: string;
  readonly kind: "front" | "image";
  /** Descriptions; empty if this process cannot see what holds it. */
  readonly users: readonly string[];
}

export async function devicesInUse(registry: Registry, frontend: Frontend): Promise<DeviceInUse[]> {
  const inUse: DeviceInUse[] = [];
  // A front that is being detached is used by this process, which will end that.
  const trackers = [...registry.trackers.values()].filter(({ isDetaching }) => !isDetaching);
  const served = trackers.flatMap((tracker) => {
    const { device, front, splice } = tracker;
    // Users of the node above a front are not affected when the front is taken out.
    const isMounted = front.isLive && splice?.leadsTo(front.id ?? -1) !== true;
    const image = registry.snapshotOf(tracker)?.members.get(tracker.id)?.image;
    return [
      ...(isMounted ? [{ device, by: front, kind: "front" as const }] : []),
      ...(image === undefined ? [] : [{ device, by: image, kind: "image" as const }]),
    ];
  });
  const used = await frontend.inUse(served.map(({ by }) => by));
  for (const { by, ...what } of served) {
    const users = used.get(by);
    if (users !== undefined) inUse.push({ ...what, path: by.path, users });
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
