/** The files of a block device in /sys. */
import type { BlockDevice } from "./block-device.js";
import { Directory, Link } from "./nodes.js";
import type { Tree } from "./tree.js";

const SECTOR_BYTES = 512;

/** An attribute with its own read and write functions. */
export interface Attribute {
  readonly read: () => string;
  readonly write?: (text: string) => number;
}

/** Further attributes of a device's queue, by name. */
export type QueueAttributes = Readonly<Record<string, Attribute>>;

function folderOf({ name }: BlockDevice): string {
  return `/sys/devices/virtual/block/${name}`;
}

export function addBlockFolder(tree: Tree, device: BlockDevice, more: QueueAttributes): void {
  const folder = folderOf(device);
  const { limits, major, minor, name } = device;
  const sequence = String(++tree.diskSequence);
  const own: Record<string, () => string> = {
    dev: () => `${major}:${minor}`,
    size: () => String(device.capacityBytes / SECTOR_BYTES),
    ro: () => (limits.isReadOnly ? "1" : "0"),
    removable: () => "0",
    diskseq: () => sequence,
    stat: () => statOf(device),
    uevent: () => `MAJOR=${major}\nMINOR=${minor}\nDEVNAME=${name}\nDEVTYPE=disk\n`,
  };
  const queue: Record<string, () => string> = {
    logical_block_size: () => String(limits.logicalBlockBytes),
    physical_block_size: () => String(limits.physicalBlockBytes),
    discard_max_bytes: () => String(limits.discardMaxBytes),
    discard_granularity: () => String(limits.discardGranularityBytes),
    write_zeroes_max_bytes: () => String(limits.writeZeroesMaxBytes),
    write_cache: () => (limits.hasVolatileCache ? "write back" : "write through"),
    fua: () => (limits.hasFua ? "1" : "0"),
    rotational: () => (limits.isRotational ? "1" : "0"),
    iostats: () => "1",
    zoned: () => "none",
    stable_writes: () => (limits.needsStablePages === true ? "1" : "0"),
    dma_alignment: () => "3",
  };
  const { serial } = device;
  if (serial !== undefined) own["serial"] = () => serial;
  for (const [key, read] of Object.entries(own)) tree.makeText(`${folder}/${key}`, line(read));
  for (const [key, read] of Object.entries(queue)) {
    tree.makeText(`${folder}/queue/${key}`, line(read));
  }
  tree.makeText(
    `${folder}/queue/scheduler`,
    () => "[none]\n",
    (text) => text.length,
  );
  for (const [key, { read, write }] of Object.entries(more)) {
    tree.makeText(`${folder}/queue/${key}`, line(read), write);
  }
  tree.makeDirectory(`${folder}/holders`);
  tree.makeDirectory(`${folder}/slaves`);
  const numbers = tree.makeDirectory("/dev/block");
  numbers.set(`${major}:${minor}`, new Link(numbers.fs, `/dev/${name}`));
  for (const path of linksTo(device)) {
    const at = path.lastIndexOf("/");
    const directory = tree.makeDirectory(path.slice(0, at));
    directory.set(path.slice(at + 1), new Link(directory.fs, folder));
  }
}

export function removeBlockFolder(tree: Tree, device: BlockDevice): void {
  const byNumber = `/dev/block/${device.major}:${device.minor}`;
  for (const path of [folderOf(device), byNumber, ...linksTo(device)]) {
    const at = path.lastIndexOf("/");
    const parent = tree.node(path.slice(0, at), "rm");
    if (parent instanceof Directory) parent.remove(path.slice(at + 1));
  }
}

function linksTo({ name, major, minor }: BlockDevice): string[] {
  return [`/sys/block/${name}`, `/sys/class/block/${name}`, `/sys/dev/block/${major}:${minor}`];
}

function line(read: () => string): () => string {
  return () => `${read()}\n`;
}

/** The fields that matter: sectors read, written and discarded. */
function statOf({ counters }: BlockDevice): string {
  const { read, write, discard } = counters;
  return `0 0 ${Math.floor(read)} 0 0 0 ${Math.floor(write)} 0 0 0 0 0 0 ${Math.floor(discard)} 0 0 0`;
}
