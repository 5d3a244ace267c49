/**
 * Which file systems have data on a device, through all layers of the kernel:
 *
 * ```
 *   level 1   file system ── loop device ◀─ file on the file system of level 0
 *   level 0   file system ── dm, md ◀─ partition ◀─ member
 * ```
 */
import { basename, join } from "node:path";
import { attribute, entriesOf, nameAttribute } from "../sysfs-text.js";
import { type Mount, mountAt } from "./mountinfo.js";
import type { SystemView } from "./mounts.js";

/** A file system: one superblock, however often it is mounted. */
export interface FileSystem {
  /** "major:minor" of the superblock. */
  readonly device: string;
  /** In mountinfo's order; at least one. */
  readonly mounts: readonly Mount[];
  /** Larger than that of each file system beneath it. */
  readonly level: number;
}

/** The kernel's report on the file behind a loop device; "major:minor". */
export interface LoopFile {
  /** Of its file system. */
  readonly fileSystem: string;
  /** The device, if it is one; undefined for a regular file. */
  readonly device: string | undefined;
}

/** Facts that are visible only outside the users' mount namespace. */
export interface Elsewhere {
  readonly mounts: readonly Mount[];
  /** By the name of the loop device. */
  readonly loopFiles: ReadonlyMap<string, LoopFile>;
}

/** Everything above some devices. */
export interface FileSystemStack {
  /** In the order in which to freeze them. */
  readonly fileSystems: readonly FileSystem[];
  /** Devices, and those above them, without a known mounted file system. */
  readonly others: readonly { readonly device: string; readonly level: number }[];
}

/** These have data on several devices, and a device number of their own. */
export const MULTI_DEVICE_TYPES: readonly string[] = ["btrfs", "bcachefs"];
/** Mount options that name one more device of the file system: xfs's log and realtime device. */
const DEVICE_OPTIONS = ["logdev=", "rtdev="];
const DELETED = " (deleted)";

/**
 * The file systems with data on any of the devices, in the order in which to freeze them: one that lies on a file of
 * another comes before that other, whose freeze would block its writes. Read-only ones are omitted, because nothing
 * on them changes.
 * @param members "major:minor" of block devices
 * @param elsewhere facts outside the users' namespace
 */
export function stackAbove(
  members: Iterable<string>,
  view: SystemView,
  elsewhere: Elsewhere = { mounts: [], loopFiles: new Map() },
): FileSystemStack {
  const mounts = view.readMounts();
  const all = fileSystems([...mounts, ...elsewhere.mounts], view);
  const loops = loopDevices(mounts, view, elsewhere.loopFiles);
  const stack = new BlockStack(view.sysfs);
  for (const member of members) stack.raise(member, 0);
  const levels = new Map<string, number>();
  // Each round settles one more level; there are at most as many as loop devices.
  for (let round = 0; round <= loops.length; round++) {
    for (const { device, devices } of all) {
      const level = Math.max(...devices.map((one) => stack.level(one)));
      if (level >= 0) levels.set(device, level);
    }
    for (const { device, backingDevice, backingFileSystem, superblock } of loops) {
      // The file system itself may be unknown.
      const said = superblock ?? "";
      const hidden = stack.level(said) < 0 ? undefined : stack.level(said);
      const below = levels.get(said) ?? hidden ?? levels.get(backingFileSystem ?? "");
      const level = below === undefined ? stack.level(backingDevice ?? "") : below + 1;
      if (level >= 0) stack.raise(device, level);
    }
  }
  const above = all
    .filter(({ device }) => levels.has(device))
    .map((one) => ({ ...one, level: levels.get(one.device) ?? 0 }));
  const known = new Set(above.flatMap(({ devices }) => devices));
  return {
    fileSystems: above
      .filter(({ mounts: [first] }) => !isReadOnly(first))
      // The root file system, mounted before all others, is frozen last and so for the shortest time.
      .reverse()
      .sort((one, other) => other.level - one.level)
      .map(({ device, mounts: its, level }) => ({ device, mounts: its, level })),
    others: stack.others(known),
  };
}

function isReadOnly(mount: Mount | undefined): boolean {
  return mount?.superOptions.includes("ro") ?? true;
}

/** Devices at or above the members, each with its level. */
class BlockStack {
  readonly #sysfs: string;
  readonly #levels = new Map<string, number>();

  constructor(sysfs: string) {
    this.#sysfs = sysfs;
  }

  /** -1: it is not in the stack. */
  level(device: string): number {
    return this.#levels.get(device) ?? -1;
  }

  /** All devices but those. */
  others(known: ReadonlySet<string>): { device: string; level: number }[] {
    return [...this.#levels]
      .filter(([device]) => !known.has(device))
      .map(([device, level]) => ({ device, level }));
  }

  /** Raises the device, and all above it, at least to this level. */
  raise(device: string, level: number): void {
    if (this.level(device) >= level) return;
    this.#levels.set(device, level);
    const folder = join(this.#sysfs, "dev/block", device);
    const holders = entriesOf(join(folder, "holders")).map((name) => join("holders", name));
    const partitions = entriesOf(folder).filter((name) => attribute(folder, `${name}/partition`));
    for (const name of [...partitions, ...holders]) {
      const above = attribute(folder, `${name}/dev`);
      if (above !== null) this.raise(above, level);
    }
  }
}

/** A file system and all known devices of its data. */
interface PlacedFileSystem extends Omit<FileSystem, "level"> {
  readonly devices: readonly string[];
}

function fileSystems(mounts: readonly Mount[], view: SystemView): PlacedFileSystem[] {
  const bySuperblock = new Map<string, Mount[]>();
  for (const mount of mounts) {
    const known = bySuperblock.get(mount.device);
    if (known === undefined) bySuperblock.set(mount.device, [mount]);
    else known.push(mount);
  }
  const btrfs = btrfsDevices(view.sysfs);
  return [...bySuperblock].map(([device, its]) => ({
    device,
    mounts: its,
    devices: [device, ...its.flatMap((mount) => furtherDevices(mount, btrfs, view))],
  }));
}

/** Devices of a file system besides that of its number. */
function furtherDevices(
  { fsType, source, superOptions }: Mount,
  btrfs: readonly BtrfsDevices[],
  view: SystemView,
): string[] {
  const options = superOptions.flatMap((option) =>
    DEVICE_OPTIONS.filter((name) => option.startsWith(name)).map((name) =>
      option.slice(name.length),
    ),
  );
  const sources = MULTI_DEVICE_TYPES.includes(fsType) ? source.split(":") : [];
  const devices = [...sources, ...options].flatMap((path) => nodeNumber(path, view) ?? []);
  if (fsType !== "btrfs") return devices;
  const own = btrfs.filter(
    ({ names: known, numbers }) =>
      known.includes(basename(source)) || numbers.some((number) => devices.includes(number)),
  );
  return [...devices, ...own.flatMap(({ numbers }) => numbers)];
}

/** The devices of one btrfs. */
interface BtrfsDevices {
  readonly names: readonly string[];
  readonly numbers: readonly string[];
}

function btrfsDevices(sysfs: string): BtrfsDevices[] {
  const folder = join(sysfs, "fs/btrfs");
  return entriesOf(folder).map((uuid) => {
    const devices = join(folder, uuid, "devices");
    const known = entriesOf(devices);
    return {
      names: known,
      numbers: known.flatMap((name) => attribute(devices, `${name}/dev`) ?? []),
    };
  });
}

/** A loop device, and what holds its data: a device, or the superblock with its backing file. */
interface LoopDevice {
  readonly device: string;
  readonly backingDevice: string | undefined;
  readonly backingFileSystem: string | undefined;
  /** That superblock by the kernel's report, if known. */
  readonly superblock: string | undefined;
}

function loopDevices(
  mounts: readonly Mount[],
  view: SystemView,
  files: Elsewhere["loopFiles"],
): LoopDevice[] {
  const folder = join(view.sysfs, "block");
  return entriesOf(folder).flatMap((name) => {
    const file = nameAttribute(folder, `${name}/loop/backing_file`);
    const device = attribute(folder, `${name}/dev`);
    if (file === null || device === null) return [];
    const path = file.endsWith(DELETED) ? file.slice(0, -DELETED.length) : file;
    const { device: special, fileSystem: superblock } = files.get(name) ?? {};
    const backingDevice = special ?? nodeNumber(path, view);
    const backingFileSystem =
      backingDevice === undefined ? mountAt(path, mounts)?.device : undefined;
    return [{ device, backingDevice, backingFileSystem, superblock }];
  });
}

/** Only below /dev: a stat elsewhere could hang for a dead server. */
function nodeNumber(path: string, view: SystemView): string | undefined {
  return path.startsWith("/dev/") ? view.deviceNumber(path) : undefined;
}
