/** Targets of paths, queried in this machine's helper processes: see path-target.ts of @blksnap/linux-block. */
import { boundedLookup, findAcrossBoots, identityAt, type PathLookup } from "@blksnap/linux-block";
import { statInHelper } from "@blksnap/uring";
import type { PersistentTrackerRecord } from "../records/tracker-records.js";

export const pathTarget: PathLookup = boundedLookup(statInHelper);

/** @throws LinuxBlockError DEVICE_NOT_FOUND, DEVICE_FAILED (ETIMEDOUT) */
export function identityOf(path: string, lookUp: PathLookup = pathTarget): Promise<string> {
  return identityAt(path, lookUp);
}

/** Where to open the original of a tracker from an earlier boot; see findAcrossBoots(). */
export function findPersistent({
  device,
  tracking,
}: Pick<PersistentTrackerRecord, "device" | "tracking">): Promise<string | undefined> {
  return findAcrossBoots({ device, identity: tracking.identity }, { lookUp: pathTarget });
}
