/** Where a persistent tracker's original is: at the name of attach, or, after a reboot, at another one. */
import {
  compareIdentity,
  type DeviceIdentity,
  deviceKey,
  entriesOf,
  nodeOf,
  type PathTarget,
  readBlockIdentity,
} from "@blksnap/linux-block";
import { pathTarget } from "../system/path-target.js";
import type { PersistentTrackerRecord } from "./tracker-records.js";

type Wanted = Pick<PersistentTrackerRecord, "device" | "tracking">;

/** Where it is looked for; each may be replaced in tests. */
export interface FindOptions {
  readonly sysfs?: string;
  readonly dev?: string;
  readonly lookAt?: (path: string) => Promise<PathTarget>;
}

/**
 * The path to open it by: its name of attach, unless that is gone or leads to another disk, and another
 * device surely is the one. Undefined where there is nothing by that name, and no such device.
 */
export async function findPersistent(
  { device, tracking }: Wanted,
  { sysfs = "/sys", dev, lookAt = pathTarget }: FindOptions = {},
): Promise<string | undefined> {
  let isThere = true;
  try {
    const { blockDevice } = await lookAt(device);
    if (blockDevice === undefined) return device;
    const verdict = await compare(tracking.identity, deviceKey(blockDevice), sysfs);
    if (verdict !== "different") return device;
  } catch (error) {
    // What else can be wrong with it is said when it is opened.
    isThere = (error as NodeJS.ErrnoException).code !== "ENOENT";
  }
  const found: string[] = [];
  for (const number of entriesOf(`${sysfs}/dev/block`)) {
    if ((await compare(tracking.identity, number, sysfs)) === "same") found.push(number);
  }
  const [only] = found;
  const node = only === undefined || found.length > 1 ? undefined : nodeOf(only, sysfs, dev);
  return node ?? (isThere ? device : undefined);
}

/** By its names alone: nothing is read from devices that may be anybody's. */
async function compare(
  wanted: DeviceIdentity,
  number: string,
  sysfs: string,
): Promise<ReturnType<typeof compareIdentity>> {
  const content = { fileSystem: null, uuid: null, digest: "" };
  const found = await readBlockIdentity(number, content, sysfs);
  return compareIdentity({ ...wanted, contentUuid: null }, found);
}
