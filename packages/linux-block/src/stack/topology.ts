import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { EINVAL, messageOf } from "@blksnap/errors";
import { type DeviceNumber, deviceKey } from "../device-number.js";
import { LinuxBlockError } from "../errors.js";
import {
  bitmapFile,
  btrfsDevices,
  extJournalDevices,
  optionDevices,
} from "./file-system-devices.js";
import { type Mount, mountAt, parseMountinfo, superOption } from "./mountinfo.js";
import { EXPORT_TABLES, type FilesLocation, locateFiles } from "./network-files.js";
import {
  blockIdentity,
  type DeviceOrFile,
  type KnownFile,
  lookUpPath,
  type PathTarget,
  readFromDevice,
  readText,
  type TopologyProbe,
} from "./probe.js";
import { serversOf, writtenBy } from "./servers.js";
import { type Share, type Stack, type StackNode, sameShare, shareBelow } from "./stack.js";
import { superDevicesOf } from "./super-devices.js";
import { readSysfsDevice, type SysfsDevice } from "./sysfs-device.js";

/** Most layers to follow; real stacks have fewer than ten. */
const DEPTH_MAX = 64;
const DELETED = " (deleted)";
const MEMORY_FILE = "/memfd:";
const ALL: Share = { kind: "all" };
const FILE: Share = { kind: "file" };
const SERVED: Share = { kind: "served" };
/** File systems whose files report a device number that no mount has. */
const OWN_NUMBERS = ["btrfs", "bcachefs", "overlay"];

/** A device found below another one or below a file. */
export interface UnderlyingDevice {
  readonly device: DeviceNumber;
  /** Such as "/dev/sda1". */
  readonly name: string;
  /** The layers from the start to this device, in words. */
  readonly chain: readonly string[];
}

type OpenNode = StackNode & { readonly shares: Share[] };

/** A file whose file system has to be examined. */
interface Found {
  readonly path: string;
  /** In words, from the start to the file. */
  readonly chain: readonly string[];
}

/** The path of a search to a layer. */
interface Way {
  readonly share: Share;
  /** In words, from the start. */
  readonly above: readonly string[];
}

/** One search: collects each device and file with the first path to it. */
class Search {
  readonly found = new Map<string, OpenNode>();
  readonly #probe: TopologyProbe;
  readonly #sysfsRoot: string;
  readonly #procRoot: string;
  readonly #entries = new Map<string, SysfsDevice>();
  #mounts: Promise<Mount[]> | undefined;

  constructor(probe: TopologyProbe) {
    this.#probe = probe;
    this.#sysfsRoot = probe.sysfsRoot ?? "/sys";
    this.#procRoot = probe.procRoot ?? "/proc";
  }

  begin(start: DeviceOrFile | string): Promise<void> {
    const way = { share: ALL, above: [] };
    return typeof start === "string" ? this.addPath(start, way) : this.addTarget(start, way);
  }

  addTarget(place: DeviceOrFile, way: Way): Promise<void> {
    return "identity" in place ? this.addFile(place, way) : this.addDevice(place, way);
  }

  async addDevice(device: DeviceNumber, { share, above }: Way): Promise<void> {
    const entry = this.#entry(device);
    const name = entry?.name ?? deviceKey(device);
    // The file system's name in the chain already mentions its device.
    const chain = above.at(-1)?.endsWith(` on ${name}`) ? above : [...above, name];
    const node = { identity: blockIdentity(deviceKey(device)), device, name, chain };
    if (!this.#isNew(node, share)) return;
    const on = (edge: Share): Way => ({
      share: shareBelow(share, node.identity, edge),
      above: chain,
    });
    const own = this.#probe.layers?.(device);
    for (const lower of own ?? []) await this.addTarget(lower, on(ALL));
    if (entry === undefined) return;
    if (own === undefined) await this.#addServed(entry, on(SERVED));
    await this.#addParts(entry, on);
    if (entry.backingPath !== undefined) await this.#addBacking(entry, on);
  }

  /** The devices from which the kernel assembles a device. */
  async #addParts(entry: SysfsDevice, on: (edge: Share) => Way): Promise<void> {
    const { partitionOf, range, worldWideName } = entry;
    if (partitionOf !== undefined) await this.addDevice(partitionOf, on({ kind: "part", range }));
    for (const slave of entry.slaves) {
      const share = this.#isWhole(entry, slave) ? ALL : ({ kind: "slave" } as const);
      await this.addDevice(slave, on(share));
    }
    const bitmap = await bitmapFile(this.#procRoot, entry);
    if (bitmap !== undefined) await this.addPath(bitmap, on(FILE));
    // Another path to the same disk is another device with the same name.
    if (worldWideName === undefined) return;
    const { share, above } = on(ALL);
    const node = { identity: `wwid:${worldWideName}`, device: undefined, chain: above };
    this.#isNew({ ...node, name: `the disk ${worldWideName}` }, share);
  }

  /** Whether a device shows another one in full: multipath, a linear mapping. */
  #isWhole({ sizeBytes, dmUuid }: SysfsDevice, slave: DeviceNumber): boolean {
    // Volumes of one pool, or a volume and its snapshot, have the same size but not the same bytes.
    if (dmUuid === undefined || dmUuid.startsWith("LVM-") || sizeBytes === undefined) return false;
    return this.#entry(slave)?.sizeBytes === sizeBytes;
  }

  async #addServed(entry: SysfsDevice, way: Way): Promise<void> {
    for (const pid of await serversOf(this.#procRoot, entry)) {
      const above = [...way.above, `process ${pid}`];
      for (const there of await writtenBy(this.#procRoot, pid, (path) => this.#stat(path))) {
        const { blockDevice, identity, device, realPath } = there;
        if (blockDevice !== undefined) await this.addDevice(blockDevice, { ...way, above });
        else await this.addFile({ identity, device, path: realPath }, { ...way, above });
      }
    }
  }

  /** The file behind a loop device, by its identity; its name may be gone, or another file's now. */
  async #addBacking(entry: SysfsDevice, on: (edge: Share) => Way): Promise<void> {
    const { name, device, backingRange: range } = entry;
    const way = on(range === undefined ? ALL : { kind: "part", range });
    const path = entry.backingPath as string;
    const said = await this.#probe.loopBacking?.(name, device);
    if (said === undefined) await this.addPath(path, way);
    else if (said.blockDevice !== undefined) await this.addDevice(said.blockDevice, way);
    else await this.addFile({ identity: said.identity, device: said.device, path }, way);
  }

  /** Adds the target of a path: a block device, or a file and its devices. */
  async addPath(path: string, way: Way): Promise<void> {
    const chain = [...way.above, path];
    const { blockDevice, device, identity, realPath } = await this.#lookUp(path, chain);
    if (blockDevice !== undefined) await this.addDevice(blockDevice, way);
    else {
      if (!this.#isNew({ identity, device: undefined, name: path, chain }, way.share)) return;
      const mounts = await this.#readMounts();
      const mount = mountOfNumber(realPath, device, mounts) ?? mountAt(realPath, mounts);
      await this.#addFileSystem(mount, device, { path: realPath, chain });
    }
  }

  /** Adds a file that may no longer have its name. */
  async addFile({ identity, device, path }: KnownFile, { share, above }: Way): Promise<void> {
    const chain = [...above, path];
    if (!this.#isNew({ identity, device: undefined, name: path, chain }, share)) return;
    if (path.startsWith(MEMORY_FILE)) return;
    const name = path.endsWith(DELETED) ? path.slice(0, -DELETED.length) : path;
    const mounts = await this.#readMounts();
    const there = mountAt(name, mounts);
    const mount =
      mountOfNumber(name, device, mounts) ??
      (OWN_NUMBERS.includes(there?.fsType ?? "") ? there : undefined);
    await this.#addFileSystem(mount, device, { path: name, chain });
  }

  /** Adds a node; false if it was found with this share before. */
  #isNew(node: Omit<StackNode, "shares">, share: Share): boolean {
    if (node.chain.length > DEPTH_MAX) throw unknown(node.chain, `more than ${DEPTH_MAX} layers`);
    const known = this.found.get(node.identity);
    if (known === undefined) this.found.set(node.identity, { ...node, shares: [share] });
    else if (known.shares.some((one) => sameShare(one, share))) return false;
    else known.shares.push(share);
    return true;
  }

  #entry(device: DeviceNumber): SysfsDevice | undefined {
    const key = deviceKey(device);
    const known = this.#entries.get(key);
    if (known !== undefined) return known;
    const entry = readSysfsDevice(this.#sysfsRoot, device);
    if (entry !== undefined) this.#entries.set(key, entry);
    return entry;
  }

  #stat(path: string): Promise<PathTarget> {
    return (this.#probe.lookUp ?? lookUpPath)(path);
  }

  async #lookUp(path: string, chain: readonly string[]): Promise<PathTarget> {
    try {
      return await this.#stat(path);
    } catch (error) {
      throw unknown(chain, messageOf(error));
    }
  }

  #readMounts(): Promise<Mount[]> {
    const path = this.#probe.mountinfoPath ?? "/proc/self/mountinfo";
    this.#mounts ??= readFile(path, "latin1").then(parseMountinfo);
    return this.#mounts;
  }

  /** A file system, with the devices for its journal and the like. */
  async #addFileSystem(mount: Mount | undefined, device: DeviceNumber, file: Found): Promise<void> {
    if (device.major === 0) return this.#addAnonymous(mount, file);
    const { chain } = file;
    const entry = this.#entry(device);
    const name = entry?.name ?? deviceKey(device);
    const type = mount?.fsType ?? "files";
    await this.addDevice(device, { share: FILE, above: [...chain, `${type} on ${name}`] });
    if (entry !== undefined) {
      const above = [...chain, `journal of ${name}`];
      for (const one of await extJournalDevices(this.#sysfsRoot, this.#procRoot, entry)) {
        await this.addDevice(one, { share: FILE, above });
      }
      await this.#addSuperDevices(mount, entry, chain);
    }
    for (const { option, path } of mount === undefined ? [] : optionDevices(mount)) {
      await this.addPath(path, { share: FILE, above: [...chain, `${type} ${option}`] });
    }
  }

  /** Devices that a file system names in its superblock. */
  async #addSuperDevices(
    mount: Mount | undefined,
    { device, name, kernelName }: SysfsDevice,
    chain: readonly string[],
  ): Promise<void> {
    // If it is mounted in another namespace, only f2fs is recognised.
    const f2fs = await readText(`${this.#sysfsRoot}/fs/f2fs/${kernelName}/features`);
    const type = mount?.fsType ?? (f2fs === undefined ? undefined : "f2fs");
    const where = type === undefined ? undefined : superDevicesOf(type, mount?.superOptions ?? []);
    if (where === undefined) return;
    const above = [...chain, `${type} on ${name}`];
    const { startBytes, lengthBytes } = where;
    const read = this.#probe.readDevice ?? readFromDevice;
    const superblock = await read(name, device, startBytes, lengthBytes).catch((error) => {
      throw unknown(above, `its superblock cannot be read: ${messageOf(error)}`);
    });
    const named = superblock.length === lengthBytes ? where.devicesIn(superblock) : undefined;
    if (named === undefined) throw unknown(above, `it has no superblock of ${type}`);
    const way = { share: FILE, above };
    for (const path of named.paths) {
      const { blockDevice } = await this.#lookUp(path, above);
      if (blockDevice === undefined) throw unknown(above, `${path} is not a block device`);
      await this.addDevice(blockDevice, way);
    }
    for (const number of named.numbers) {
      const isThere = this.#entry(number) !== undefined;
      if (!isThere) throw unknown(above, `its journal's device ${deviceKey(number)} is gone`);
      await this.addDevice(number, way);
    }
  }

  /** A file system with a device number that is no block device's: only its mount says more. */
  async #addAnonymous(mount: Mount | undefined, { path, chain }: Found): Promise<void> {
    if (mount === undefined) throw unknown(chain, "no mount covers it");
    const above = [...chain, `${mount.fsType} on ${mount.source}`];
    const view = {
      procRoot: this.#procRoot,
      exportTables: this.#probe.exportTables ?? EXPORT_TABLES,
    };
    const place = await locateFiles(mount, path, view);
    if (place !== undefined) return this.#addFiles(mount, place, above);
    if (mount.fsType === "overlay") {
      const upper = superOption(mount, "upperdir") ?? superOption(mount, "lowerdir")?.split(":")[0];
      if (upper === undefined) throw unknown(above, "its directories are not known");
      await this.addPath(upper, { share: FILE, above });
      return;
    }
    // bcachefs names all its devices, joined by colons.
    for (const source of mount.source.split(":")) {
      if (!source.startsWith("/")) throw unknown(above, `its devices are not known (${source})`);
      const { blockDevice } = await this.#lookUp(source, above);
      if (blockDevice === undefined) throw unknown(above, `${source} is not a block device`);
      const devices =
        mount.fsType === "btrfs" ? btrfsDevices(this.#sysfsRoot, blockDevice) : [blockDevice];
      if (devices === undefined)
        throw unknown(above, `${source} is not a device of a mounted btrfs`);
      for (const device of devices) await this.addDevice(device, { share: FILE, above });
    }
  }

  /** Files of a mount that lie on another host, or in another directory. */
  async #addFiles(mount: Mount, place: FilesLocation, above: readonly string[]): Promise<void> {
    if (place.kind === "elsewhere") return;
    if (place.kind === "unknown") throw unknown(above, place.why);
    const { path, below } = place;
    const inside = join(path, below);
    const isSame = await this.#stat(inside).then(
      () => true,
      () => false,
    );
    const there = isSame ? inside : path;
    const { realPath } = await this.#lookUp(there, above);
    if (mountAt(realPath, await this.#readMounts())?.device === mount.device) {
      throw unknown(above, `it covers ${path}, which it shows`);
    }
    await this.addPath(there, { share: FILE, above });
  }
}

/** The mount of a path with a file system's number, or another mount with the same number. */
function mountOfNumber(
  path: string,
  device: DeviceNumber,
  mounts: readonly Mount[],
): Mount | undefined {
  const key = deviceKey(device);
  const there = mountAt(path, mounts);
  return there?.device === key ? there : mounts.find((mount) => mount.device === key);
}

function unknown(chain: readonly string[], why: string): LinuxBlockError {
  const text =
    `cannot find out which devices ${chain.join(" → ")} lies on: ${why}; ` +
    "choose a store on a plain file system or device";
  return new LinuxBlockError("STACK_UNKNOWN", text, { errno: EINVAL });
}

/**
 * All that a device, a file or a path lies on, itself first: through partitions, device-mapper, md, bcache, loop
 * devices, file systems with their journals, servers on this host, and the probe's own layers. The path of a
 * directory stands for its files.
 *
 * Rejects with STACK_UNKNOWN if a layer, or the path, cannot be resolved.
 */
export async function stackOf(
  start: DeviceOrFile | string,
  probe: TopologyProbe = {},
): Promise<Stack> {
  const search = new Search(probe);
  await search.begin(start);
  return search.found;
}

/** Like stackOf(), as far as layers can be resolved. */
export async function knownStackOf(
  start: DeviceOrFile | string,
  probe: TopologyProbe = {},
): Promise<Stack> {
  const search = new Search(probe);
  await search.begin(start).catch(() => undefined);
  return search.found;
}

/** The block devices of a stack. */
export function devicesIn(stack: Stack): UnderlyingDevice[] {
  return [...stack.values()].flatMap(({ device, name, chain }) =>
    device === undefined ? [] : [{ device, name, chain }],
  );
}

/** All block devices that `device` lies on, itself first. @see stackOf */
export async function underlyingDevices(
  device: DeviceNumber,
  probe: TopologyProbe = {},
): Promise<UnderlyingDevice[]> {
  return devicesIn(await stackOf(device, probe));
}

/**
 * All block devices that a file or directory lies on; for a block device's path, that device and those below it.
 * Empty for memory and network file systems. @see stackOf
 */
export async function underlyingDevicesOfPath(
  path: string,
  probe: TopologyProbe = {},
): Promise<UnderlyingDevice[]> {
  return devicesIn(await stackOf(path, probe));
}
