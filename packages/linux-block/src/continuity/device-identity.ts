/**
 * Whether a path still leads to the same device: names and numbers move between boots, identities do
 * not.
 *
 * Facts: drivers/scsi/scsi_sysfs.c (`device/wwid`, from VPD page 0x83), drivers/nvme/host/sysfs.c
 * (`wwid`: UUID, NGUID or EUI-64, or else controller serial, model and namespace number),
 * drivers/block/virtio_blk.c (`serial`), drivers/md/dm-sysfs.c (`dm/uuid`), block/partitions/core.c
 * (`partition`, and PARTUUID in `uevent` where the kernel is new enough).
 */

import { attribute, type BlockFolders, blockFolders, originalAt } from "../sysfs.js";
import type { ContentDigest } from "./superblocks.js";

export interface DeviceIdentity {
  /** World-wide name of the disk: SCSI, SATA, SAS, NVMe. */
  readonly wwid: string | null;
  /** Serial number that a virtio disk was given. */
  readonly serial: string | null;
  /** Of a device-mapper device: LVM, LUKS, multipath. */
  readonly dmUuid: string | null;
  /** Number of the partition; null when it is none. */
  readonly partition: number | null;
  readonly partUuid: string | null;
  /** Of the file system. */
  readonly contentUuid: string | null;
}

/** Fields that name the device itself, whatever is on it. */
const HARDWARE_FIELDS = ["wwid", "serial", "dmUuid"] as const;
const NAMING_FIELDS = [...HARDWARE_FIELDS, "partUuid"] as const;

/** @throws ControlError DEVICE_NOT_FOUND */
export async function readDeviceIdentity(
  path: string,
  content: ContentDigest,
  sysfs = "/sys",
): Promise<DeviceIdentity> {
  const { deviceNumber } = await originalAt(path);
  return readBlockIdentity(deviceNumber, content, sysfs);
}

/** @param deviceNumber "major:minor"; null for a regular file, known by its content alone */
export async function readBlockIdentity(
  deviceNumber: string | null,
  content: ContentDigest,
  sysfs = "/sys",
): Promise<DeviceIdentity> {
  const folders = deviceNumber === null ? undefined : await blockFolders(deviceNumber, sysfs);
  return { ...namesIn(folders), contentUuid: content.uuid };
}

function namesIn(folders: BlockFolders | undefined): Omit<DeviceIdentity, "contentUuid"> {
  if (folders === undefined) {
    return { wwid: null, serial: null, dmUuid: null, partition: null, partUuid: null };
  }
  const { own, disk, partition } = folders;
  return {
    wwid: attribute(disk, "wwid") ?? attribute(disk, "device/wwid"),
    serial: attribute(disk, "serial"),
    dmUuid: attribute(disk, "dm/uuid"),
    partition,
    partUuid: partition === null ? null : partUuidIn(attribute(own, "uevent")),
  };
}

function partUuidIn(uevent: string | null): string | null {
  return /^PARTUUID=(.+)$/m.exec(uevent ?? "")?.[1]?.toLowerCase() ?? null;
}

/**
 * "different" if a field that both have differs, "same" if one beside the partition's number agrees,
 * "unknown" if nothing can be compared. A file system's UUID that differs on hardware that is the same
 * tells of formatting, which is a write, not another device.
 */
export function compareIdentity(
  one: DeviceIdentity,
  other: DeviceIdentity,
): "same" | "different" | "unknown" {
  if (differingField(one, other) !== null) return "different";
  const agrees = [...NAMING_FIELDS, "contentUuid" as const].some(
    (field) => one[field] !== null && one[field] === other[field],
  );
  return agrees ? "same" : "unknown";
}

/** Whether a name that no copy of its contents has is the same, and none differs. */
export function hasSameName(one: DeviceIdentity, other: DeviceIdentity): boolean {
  if (differingField(one, other) !== null) return false;
  return NAMING_FIELDS.some((field) => one[field] !== null && one[field] === other[field]);
}

/** The first field by which two devices are told apart. */
export function differingField(
  one: DeviceIdentity,
  other: DeviceIdentity,
): keyof DeviceIdentity | null {
  // sysfs always tells whether a device is a partition, so null here is "the whole disk".
  if (one.partition !== other.partition) return "partition";
  const differ = (field: keyof DeviceIdentity) =>
    one[field] !== null && other[field] !== null && one[field] !== other[field];
  const naming = NAMING_FIELDS.find(differ);
  if (naming !== undefined) return naming;
  const sameHardware = HARDWARE_FIELDS.some(
    (field) => one[field] !== null && one[field] === other[field],
  );
  return !sameHardware && differ("contentUuid") ? "contentUuid" : null;
}
