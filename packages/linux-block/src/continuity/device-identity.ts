/**
 * Whether a path still leads to the same device: names and numbers change between boots, identities do not.
 *
 * Facts: drivers/scsi/scsi_sysfs.c (`device/wwid`, from VPD page 0x83), drivers/nvme/host/sysfs.c
 * (`wwid`: UUID, NGUID or EUI-64, or else controller serial, model and namespace number),
 * drivers/block/virtio_blk.c (`serial`), drivers/md/dm-sysfs.c (`dm/uuid`), block/partitions/core.c
 * (`partition`, `start`, and PARTUUID in `uevent` where the kernel is new enough), drivers/block/loop.c
 * (`loop/offset`; LOOP_SET_STATUS changes it under the same `diskseq`).
 */

import { type BlockFolders, blockFolders, originalAt } from "../sysfs.js";
import { attribute } from "../sysfs-text.js";
import type { ContentDigest } from "./superblocks.js";

export interface DeviceIdentity {
  /** World-wide name of the disk: SCSI, SATA, SAS, NVMe. */
  readonly wwid: string | null;
  /** Serial number that a virtio disk was given. */
  readonly serial: string | null;
  /** Of a device-mapper device: LVM, LUKS, multipath. */
  readonly dmUuid: string | null;
  /** Number of the partition; null for a whole disk. */
  readonly partition: number | null;
  readonly partUuid: string | null;
  /** Of the file system. */
  readonly contentUuid: string | null;
  /**
   * Where a partition begins on its disk, or a loop device in its file: the bytes to which the names lead. Null if
   * unknown; absent in records of earlier versions, which means 0.
   */
  readonly startBytes?: number | null;
}

/** Fields that may distinguish two devices. */
export type NamingField = Exclude<keyof DeviceIdentity, "startBytes">;

/** Fields that identify the device itself, whatever its content. */
const HARDWARE_FIELDS = ["wwid", "serial", "dmUuid"] as const;
/** Unit of sysfs, whatever the disk's sector size. */
const SECTOR_BYTES = 512;
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

/** @param deviceNumber "major:minor"; null for a regular file, identified by its content alone */
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
    const names = { wwid: null, serial: null, dmUuid: null, partition: null, partUuid: null };
    return { ...names, startBytes: null };
  }
  const { own, disk, partition } = folders;
  return {
    wwid: attribute(disk, "wwid") ?? attribute(disk, "device/wwid"),
    serial: attribute(disk, "serial"),
    dmUuid: attribute(disk, "dm/uuid"),
    partition,
    partUuid: partition === null ? null : partUuidIn(attribute(own, "uevent")),
    startBytes: startBytesOf(folders),
  };
}

function startBytesOf({ own, disk, partition }: BlockFolders): number | null {
  const sectors = partition === null ? "0" : attribute(own, "start");
  if (sectors === null) return null;
  return Number(sectors) * SECTOR_BYTES + Number(attribute(disk, "loop/offset") ?? 0);
}

function partUuidIn(uevent: string | null): string | null {
  return /^PARTUUID=(.+)$/m.exec(uevent ?? "")?.[1]?.toLowerCase() ?? null;
}

/**
 * "different" if a common field differs, "same" if one besides the partition's number agrees, "unknown" if nothing
 * can be compared. Another UUID of the file system on the same hardware indicates formatting, which is a write, not
 * another device.
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

/** Whether a name that no copy of the content has agrees, and none differs. */
export function hasSameName(one: DeviceIdentity, other: DeviceIdentity): boolean {
  if (differingField(one, other) !== null) return false;
  return NAMING_FIELDS.some((field) => one[field] !== null && one[field] === other[field]);
}

/** The first field by which two devices differ. */
export function differingField(one: DeviceIdentity, other: DeviceIdentity): NamingField | null {
  // sysfs always reports whether a device is a partition, so null means "the whole disk".
  if (one.partition !== other.partition) return "partition";
  const differ = (field: NamingField) =>
    one[field] !== null && other[field] !== null && one[field] !== other[field];
  const naming = NAMING_FIELDS.find(differ);
  if (naming !== undefined) return naming;
  const sameHardware = HARDWARE_FIELDS.some(
    (field) => one[field] !== null && one[field] === other[field],
  );
  return !sameHardware && differ("contentUuid") ? "contentUuid" : null;
}
