/** Finds a device of an earlier boot, by its old name or another one. */
import { deviceKey } from "../device-number.js";
import { entriesOf } from "../sysfs-text.js";
import { compareIdentity, type DeviceIdentity, readBlockIdentity } from "./device-identity.js";
import { nodeOf } from "./device-marks.js";
import type { FindAgainOptions } from "./find-again.js";

export interface DeviceOfEarlierBoot {
  /** Its old name. */
  readonly device: string;
  readonly identity: DeviceIdentity;
}

/**
 * The path to open a device by: its old name, unless that is gone, leads to another disk, or only perhaps leads to
 * this one while another device certainly is it. Undefined if there is no such device, or not yet.
 */
export async function findAcrossBoots(
  { device, identity }: DeviceOfEarlierBoot,
  { lookUp, sysfs = "/sys", dev }: FindAgainOptions,
): Promise<string | undefined> {
  let isThere = true;
  try {
    const { blockDevice } = await lookUp(device);
    if (blockDevice === undefined) return device;
    const verdict = await compare(identity, deviceKey(blockDevice), sysfs);
    if (verdict === "same") return device;
    // A name that leads to another disk does not count; the disk may appear later, as at boot.
    isThere = verdict === "unknown";
  } catch (error) {
    // The open reports any other problem.
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

/** By its names alone: reads nothing from devices that may belong to another program. */
async function compare(
  wanted: DeviceIdentity,
  number: string,
  sysfs: string,
): Promise<ReturnType<typeof compareIdentity>> {
  const content = { fileSystem: null, uuid: null, digest: "" };
  const found = await readBlockIdentity(number, content, sysfs);
  return compareIdentity({ ...wanted, contentUuid: null }, found);
}
