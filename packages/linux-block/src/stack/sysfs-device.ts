/** A block device's entry in sysfs: its relations to other devices and files. */
import { existsSync, readlinkSync } from "node:fs";
import { basename } from "node:path";
import { type DeviceNumber, deviceKey, parseDevice } from "../device-number.js";
import { attribute, entriesOf, nameAttribute } from "../sysfs-text.js";
import type { ByteRange } from "./probe.js";

/** Sysfs's facts about one block device. */
export interface SysfsDevice {
  readonly device: DeviceNumber;
  /** "/dev/sda1", "/dev/mapper/vg-root", or "MAJOR:MINOR" where the device has no name. */
  readonly name: string;
  /** The kernel's name, such as "dm-3". */
  readonly kernelName: string;
  /** Undefined if sysfs does not report it. */
  readonly sizeBytes: number | undefined;
  /** The whole disk, for a partition. */
  readonly partitionOf: DeviceNumber | undefined;
  /** The place of a partition on its disk, if sysfs reports it. */
  readonly range: ByteRange | undefined;
  /** Devices that device-mapper, md, bcache and the like have assembled into this one. */
  readonly slaves: readonly DeviceNumber[];
  /** Of a device-mapper device; empty if it has none. */
  readonly dmUuid: string | undefined;
  /** World-wide name of a whole disk: two paths to it have the same. */
  readonly worldWideName: string | undefined;
  /** File or device behind a loop device, a zram device. */
  readonly backingPath: string | undefined;
  /** The part that a loop device shows; undefined for all. */
  readonly backingRange: ByteRange | undefined;
  /** Process that serves an nbd device. */
  readonly serverPid: number | undefined;
}

const SECTOR_BYTES = 512;
/** Types of designators that are unique to a disk; others consist of models and serial numbers. */
const WORLD_WIDE = /^(naa|eui|uuid|nvme)\.[0-9a-f-]{16,}$/i;

/** Reads a block device's entry in sysfs; undefined if there is none. */
export function readSysfsDevice(sysfsRoot: string, device: DeviceNumber): SysfsDevice | undefined {
  const dir = `${sysfsRoot}/dev/block/${deviceKey(device)}`;
  const kernelName = linkedName(dir);
  if (kernelName === undefined) return undefined;
  const mapperName = nameAttribute(dir, "dm/name");
  const isPartition = attribute(dir, "partition") !== null;
  const sectors = numberIn(dir, "size");
  const sizeBytes = sectors === undefined ? undefined : sectors * SECTOR_BYTES;
  const zram = nameAttribute(dir, "backing_dev") ?? "none";
  const loop = nameAttribute(dir, "loop/backing_file") ?? undefined;
  return {
    device,
    name: mapperName === null ? `/dev/${kernelName}` : `/dev/mapper/${mapperName}`,
    kernelName,
    sizeBytes,
    partitionOf: isPartition ? parseDevice(attribute(dir, "../dev")) : undefined,
    range: isPartition ? partitionRange(dir, sizeBytes) : undefined,
    slaves: linkedDevices(`${dir}/slaves`),
    dmUuid: mapperUuid(dir),
    worldWideName: isPartition ? undefined : worldWideNameIn(dir),
    backingPath: loop ?? (zram === "none" ? undefined : zram),
    backingRange: loop === undefined ? undefined : loopRange(dir),
    serverPid: kernelName.startsWith("nbd") ? numberIn(dir, "pid") : undefined,
  };
}

/** Entries of all devices with this kernel name; others cost no more than reading their name. */
export function sysfsDevicesNamed(sysfsRoot: string, kernelNames: RegExp): SysfsDevice[] {
  const folder = `${sysfsRoot}/dev/block`;
  return entriesOf(folder).flatMap((key) => {
    if (!kernelNames.test(linkedName(`${folder}/${key}`) ?? "")) return [];
    const number = parseDevice(key);
    return (number && readSysfsDevice(sysfsRoot, number)) ?? [];
  });
}

/** The number of the device with this kernel name; undefined if there is none. */
export function deviceNamed(sysfsRoot: string, kernelName: string): DeviceNumber | undefined {
  return parseDevice(attribute(`${sysfsRoot}/class/block/${kernelName}`, "dev"));
}

/** The devices behind the links of a folder such as "slaves". */
export function linkedDevices(folder: string): DeviceNumber[] {
  return entriesOf(folder).flatMap(
    (name) => parseDevice(attribute(`${folder}/${name}`, "dev")) ?? [],
  );
}

/** The last part of a link's target. */
function linkedName(path: string): string | undefined {
  try {
    return basename(readlinkSync(path));
  } catch {
    return undefined;
  }
}

/** Nodes that dmsetup creates may have none. */
function mapperUuid(dir: string): string | undefined {
  return nameAttribute(dir, "dm/uuid") ?? (existsSync(`${dir}/dm`) ? "" : undefined);
}

function numberIn(folder: string, name: string): number | undefined {
  const text = attribute(folder, name) ?? "";
  return /^\d+$/.test(text) ? Number(text) : undefined;
}

function partitionRange(dir: string, sizeBytes: number | undefined): ByteRange | undefined {
  const start = numberIn(dir, "start");
  if (start === undefined || sizeBytes === undefined) return undefined;
  const startBytes = start * SECTOR_BYTES;
  return { startBytes, endBytes: startBytes + sizeBytes };
}

function loopRange(dir: string): ByteRange | undefined {
  const startBytes = numberIn(dir, "loop/offset") ?? 0;
  const limit = numberIn(dir, "loop/sizelimit") ?? 0;
  if (startBytes === 0 && limit === 0) return undefined;
  return { startBytes, endBytes: limit === 0 ? Number.POSITIVE_INFINITY : startBytes + limit };
}

function worldWideNameIn(dir: string): string | undefined {
  const name = attribute(dir, "wwid") ?? attribute(dir, "device/wwid");
  return name !== null && WORLD_WIDE.test(name) ? name : undefined;
}
