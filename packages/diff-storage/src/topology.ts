import { readFile } from "node:fs/promises";
import { DiffStorageError, messageOf } from "./errors.js";
import { type Mount, mountAt, parseMountinfo, superOption } from "./mountinfo.js";
import {
  btrfsDevices,
  lookAtPath,
  type PathDevices,
  readSysfsDevice,
  type TopologyProbe,
} from "./probe.js";
import { type DeviceNumber, deviceKey } from "./store.js";

/** Layers that are followed; real stacks have fewer than ten. */
const DEPTH_MAX = 64;

/** How one device or file lies on the next. */
export type LayerKind = "self" | "partition" | "slave" | "file" | "layer";

/** A device found beneath another one or beneath a file. */
export interface UnderlyingDevice {
  readonly device: DeviceNumber;
  /** Such as "/dev/sda1". */
  readonly name: string;
  /** How the layer above lies on it. "self": it is where the search began. */
  readonly via: LayerKind;
  /** The layers from the start to this device, in words. */
  readonly chain: readonly string[];
}

/** File systems that lie on no local block device. */
const DEVICELESS =
  /^(tmpfs|ramfs|devtmpfs|hugetlbfs|proc|sysfs|nfs4?|cifs|smb3|9p|virtiofs|ceph|afs|fuse|fuse\..+)$/;

/** One search: collects each device once, with the way by which it was found first. */
class Search {
  readonly found = new Map<string, UnderlyingDevice>();
  #probe: TopologyProbe;
  #sysfsRoot: string;
  #mounts: Promise<Mount[]> | undefined;

  constructor(probe: TopologyProbe) {
    this.#probe = probe;
    this.#sysfsRoot = probe.sysfsRoot ?? "/sys";
  }

  async addDevice(device: DeviceNumber, via: LayerKind, above: readonly string[]): Promise<void> {
    const key = deviceKey(device);
    if (this.found.has(key)) return;
    if (above.length >= DEPTH_MAX) throw unknown(above, `more than ${DEPTH_MAX} layers`);
    const entry = await readSysfsDevice(this.#sysfsRoot, device);
    const name = entry?.name ?? key;
    // A file system's name in the chain mentions its device already.
    const chain = above.at(-1)?.endsWith(` on ${name}`) ? above : [...above, name];
    this.found.set(key, { device, name, via, chain });
    for (const lower of this.#probe.layers?.(device) ?? []) {
      await this.addDevice(lower, "layer", chain);
    }
    if (entry === undefined) return;
    if (entry.partitionOf !== undefined) {
      await this.addDevice(entry.partitionOf, "partition", chain);
    }
    for (const slave of entry.slaves) await this.addDevice(slave, "slave", chain);
    if (entry.backingPath !== undefined) await this.addPath(entry.backingPath, chain, "file");
  }

  /** Adds the devices a file lies on, or a block device named by its path. */
  async addPath(path: string, above: readonly string[], via: LayerKind): Promise<void> {
    const chain = [...above, path];
    if (chain.length >= DEPTH_MAX) throw unknown(chain, `more than ${DEPTH_MAX} layers`);
    const there = await this.#lookAt(path, chain);
    if (there.blockDevice !== undefined) {
      await this.addDevice(there.blockDevice, via, above);
      return;
    }
    const mount = mountAt(there.realPath, await this.#readMounts());
    if (there.device.major !== 0) {
      const entry = await readSysfsDevice(this.#sysfsRoot, there.device);
      const name = entry?.name ?? deviceKey(there.device);
      await this.addDevice(there.device, "file", [
        ...chain,
        `${mount?.fsType ?? "files"} on ${name}`,
      ]);
      if (mount !== undefined) await this.#addLogDevices(mount, chain);
      return;
    }
    await this.#addAnonymous(mount, chain);
  }

  async #lookAt(path: string, chain: readonly string[]): Promise<PathDevices> {
    try {
      return await (this.#probe.lookAt ?? lookAtPath)(path);
    } catch (error) {
      throw unknown(chain, messageOf(error));
    }
  }

  #readMounts(): Promise<Mount[]> {
    const path = this.#probe.mountinfoPath ?? "/proc/self/mountinfo";
    this.#mounts ??= readFile(path, "latin1").then(parseMountinfo);
    return this.#mounts;
  }

  /** A file system whose device number is none of a block device: only its mount tells more. */
  async #addAnonymous(mount: Mount | undefined, chain: readonly string[]): Promise<void> {
    if (mount === undefined) throw unknown(chain, "no mount covers it");
    if (DEVICELESS.test(mount.fsType)) return;
    const label = [...chain, `${mount.fsType} on ${mount.source}`];
    if (mount.fsType === "overlay") {
      const upper = superOption(mount, "upperdir") ?? superOption(mount, "lowerdir")?.split(":")[0];
      if (upper === undefined) throw unknown(label, "its directories are not known");
      await this.addPath(upper, label, "file");
      return;
    }
    // bcachefs names all its devices, joined by colons.
    for (const source of mount.source.split(":")) {
      if (!source.startsWith("/")) throw unknown(label, `its devices are not known (${source})`);
      const { blockDevice } = await this.#lookAt(source, label);
      if (blockDevice === undefined) throw unknown(label, `${source} is not a block device`);
      const devices =
        mount.fsType === "btrfs" ? await btrfsDevices(this.#sysfsRoot, blockDevice) : [blockDevice];
      for (const device of devices) await this.addDevice(device, "file", label);
    }
  }

  /** Devices that a file system writes to besides the main one. */
  async #addLogDevices(mount: Mount, chain: readonly string[]): Promise<void> {
    for (const option of ["logdev", "rtdev", "journal_path"]) {
      const path = superOption(mount, option);
      if (path !== undefined)
        await this.addPath(path, [...chain, `${mount.fsType} ${option}`], "file");
    }
  }
}

function unknown(chain: readonly string[], why: string): DiffStorageError {
  const text =
    `cannot find out which devices ${chain.join(" → ")} lies on: ${why}; ` +
    "choose a store on a plain file system or device";
  return new DiffStorageError("STORE_STACK_UNKNOWN", text, { path: chain[0] });
}

/**
 * All block devices that `device` lies on, itself first: through partitions, device-mapper, md, loop
 * devices with the file systems beneath them, and the probe's own layers.
 *
 * Rejects with STORE_STACK_UNKNOWN where a layer cannot be resolved.
 */
export async function underlyingDevices(
  device: DeviceNumber,
  probe: TopologyProbe = {},
): Promise<UnderlyingDevice[]> {
  const search = new Search(probe);
  await search.addDevice(device, "self", []);
  return [...search.found.values()];
}

/**
 * All block devices that a file or directory lies on; for a block device's path, that device and what
 * is beneath it. Empty for memory and network file systems.
 *
 * Rejects with STORE_STACK_UNKNOWN where a layer, or the path, cannot be resolved.
 */
export async function underlyingDevicesOfPath(
  path: string,
  probe: TopologyProbe = {},
): Promise<UnderlyingDevice[]> {
  const search = new Search(probe);
  await search.addPath(path, [], "self");
  return [...search.found.values()];
}
