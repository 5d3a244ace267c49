import { DiffStorageError } from "./errors.js";
import { MEMORY_STORE_PATH, toStoreError } from "./open-store.js";
import { lookAtPath, readSysfsDevice, type TopologyProbe } from "./probe.js";
import { type DeviceNumber, deviceKey } from "./store.js";
import { type UnderlyingDevice, underlyingDevices, underlyingDevicesOfPath } from "./topology.js";

/**
 * Refuses a store that lies on a member of its own snapshot: saving old data would write to the
 * member, which saves old data, and so on.
 *
 * Three ways to conflict:
 * 1. a member is among the devices beneath the store;
 * 2. the store is a block device that a member is put together from;
 * 3. the store fills a whole disk of which a member, or what it lies on, is a partition.
 *
 * Two partitions of one disk, or two volumes of one group, don't conflict.
 *
 * Rejects with STORE_ON_MEMBER naming the layers, STORE_STACK_UNKNOWN, or the failure of looking at
 * the path, such as STORE_NOT_FOUND.
 */
export async function assertNoConflict(
  storePath: string,
  memberDevices: readonly DeviceNumber[],
  probe: TopologyProbe = {},
): Promise<void> {
  if (storePath === MEMORY_STORE_PATH || memberDevices.length === 0) return;
  const blockDevice = await blockDeviceOf(storePath, probe);
  const beneath = await underlyingDevicesOfPath(storePath, probe);
  for (const member of memberDevices) {
    const hit = beneath.find((found) => deviceKey(found.device) === deviceKey(member));
    if (hit !== undefined) throw conflict(storePath, hit.chain, hit.name);
    const memberStack = await underlyingDevices(member, probe);
    const part = blockDevice && memberStack.find((found) => sameDevice(found, blockDevice));
    if (part) throw conflict(storePath, part.chain, memberStack[0].name);
    for (const whole of beneath.filter((found) => found.via !== "partition")) {
      const partition = await partitionOf(whole, memberStack, probe);
      if (partition === undefined) continue;
      const chain = [...whole.chain, `its partition ${partition.name}`];
      throw conflict(storePath, chain, memberStack[0].name);
    }
  }
}

async function blockDeviceOf(
  storePath: string,
  probe: TopologyProbe,
): Promise<DeviceNumber | undefined> {
  try {
    return (await (probe.lookAt ?? lookAtPath)(storePath)).blockDevice;
  } catch (error) {
    throw toStoreError(error, storePath);
  }
}

function sameDevice(found: UnderlyingDevice, device: DeviceNumber): boolean {
  return deviceKey(found.device) === deviceKey(device);
}

/** The first device of a stack that is a partition of the disk `whole`. */
async function partitionOf(
  whole: UnderlyingDevice,
  stack: readonly UnderlyingDevice[],
  probe: TopologyProbe,
): Promise<UnderlyingDevice | undefined> {
  for (const found of stack) {
    const entry = await readSysfsDevice(probe.sysfsRoot ?? "/sys", found.device);
    if (entry?.partitionOf !== undefined && sameDevice(whole, entry.partitionOf)) return found;
  }
  return undefined;
}

function conflict(storePath: string, chain: readonly string[], member: string): DiffStorageError {
  const way = chain[0] === storePath ? chain : [storePath, ...chain];
  const text =
    `the store ${storePath} lies on ${member}, a device of the same snapshot ` +
    `(${way.join(" → ")}); choose a store on another disk`;
  return new DiffStorageError("STORE_ON_MEMBER", text, { path: storePath });
}
