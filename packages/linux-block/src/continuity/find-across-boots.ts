/** Finds a device that was in use in an earlier boot, under its old name or another one. */
import { deviceKey } from "../device-number.js";
import { entriesOf } from "../sysfs-text.js";
import { compareIdentity, type DeviceIdentity, readBlockIdentity } from "./device-identity.js";
import { nodeOf } from "./device-marks.js";
import type { FindAgainOptions } from "./find-again.js";

export interface DeviceOfEarlierBoot {
  /** The name that it had. */
  readonly device: string;
  readonly identity: DeviceIdentity;
}

/**
 * The path to open a device by: the name that it had, unless that is gone, leads to another disk, or perhaps does while
 * another device surely is the one. Undefined where there is no such device, or not yet.
 */
export async function findAcrossBoots(
  { device, identity }: DeviceOfEarlierBoot,
  { lookAt, sysfs = "/sys", dev }: FindAgainOptions,
): Promise<string | undefined> {
  let isThere = true;
  try {
    const { blockDevice } = await lookAt(device);
    if (blockDevice === undefined) return device;
    const verdict = await compare(identity, deviceKey(blockDevice), sysfs);
    if (verdict === "same") return device;
    // A name that leads to another disk is none; the disk may come later, as at boot.
    isThere = verdict === "unknown";
  } catch (error) {
    // What else can be wrong with it is said when it is opened.
    isThere = (error as NodeJS.ErrnoException).code !== "ENOENT";
  }
  const found: string[] = [];
  for (const number of entriesOf(`${sysfs}/dev/block`)) {
    if ((await compare(identity, number, sysfs)) === "same") found.push(number);
  }
  const [only] = found;
  const node = only === undefined || found.length > 1 ? undefined : nodeOf(only, sysfs, dev);
  return node ?? (isThere ? device : undefined);
}

/** By its names alone: nothing is read from devices that may be another program's. */
async function compare(
  wanted: DeviceIdentity,
  number: string,
  sysfs: string,
): Promise<ReturnType<typeof compareIdentity>> {
  const content = { fileSystem: null, uuid: null, digest: "" };
  const found = await readBlockIdentity(number, content, sysfs);
  return compareIdentity({ ...wanted, contentUuid: null }, found);
}
