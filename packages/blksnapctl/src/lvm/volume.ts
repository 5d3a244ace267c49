/**
 * A logical volume in an image, beside its original, which has the same names and UUIDs. LVM writes a group's names on its
 * physical volumes, and an image must stay as it was taken, or refuses writes. So each image gets an overlay in memory,
 * which also has what a replay of a journal writes, and goes with the mount; vgimportclone gives the group in the overlays a
 * name and UUIDs of its own. LVM gets the list of devices: its configuration and its devices file stay as they are.
 */
import { closeSync, ftruncateSync, openSync, unlinkSync } from "node:fs";
import { join } from "node:path";
import { mountFailed, outputOf } from "../programs.js";
import { realPathOf } from "../real-path.js";
import { removeLeftovers, takeDown } from "./leftovers.js";
import { groupName, MEMORY_FOLDER, overlayName, ownId } from "./names.js";
import {
  chosenVolume,
  type Group,
  groupOf,
  LOGICAL_FIELDS,
  type LogicalRow,
  mapperName,
  PHYSICAL_FIELDS,
  type PhysicalRow,
  type Refusal,
  rowsOf,
} from "./report.js";

/** Memory is taken for what is written alone: names, and what a journal has. */
const OVERLAY_BYTES = 2 ** 30;
const SECTOR_BYTES = 512;
const CHUNK_SECTORS = 8;
/** Nothing is remembered of the copy, or watches it; a filter of the host's is not meant for it. */
const CONFIG = [
  "backup { backup = 0 archive = 0 }",
  "activation { monitoring = 0 }",
  'devices { filter = [ "a|.*|" ] global_filter = [ "a|.*|" ] hints = "none" }',
].join(" ");

export interface Volume {
  /** Of its node. */
  readonly path: string;
  /** As in the image: group and volume. */
  readonly name: string;
  /** @returns in words, what is left */
  close(): Promise<string[]>;
}

export interface VolumeWanted {
  readonly image: string;
  /** All images of its snapshot. */
  readonly images: readonly string[];
  readonly volume: string | undefined;
  /** Aborted when the user gives it up. */
  readonly signal: AbortSignal;
}

/** Of the system, replaced in tests. */
export interface VolumeSystem {
  /** Answers what it prints. */
  readonly program: (name: string, ...words: string[]) => Promise<string>;
  readonly removeLeftovers: () => Promise<string[]>;
  readonly takeDown: (id: string) => Promise<string[]>;
  /** On tmpfs. */
  readonly memoryFolder: string;
}

const volumeSystem: VolumeSystem = {
  program: outputOf,
  removeLeftovers: () => removeLeftovers(),
  takeDown: (id) => takeDown(id),
  memoryFolder: MEMORY_FOLDER,
};

/** LVM that knows these devices alone. */
function lvmOn(
  devices: readonly string[],
  { program: run }: VolumeSystem,
): VolumeSystem["program"] {
  const known = ["--devices", devices.join(","), "--config", CONFIG];
  return (name, ...words) => run(name, ...known, ...words);
}

function refuse(image: string, { why, hint }: Refusal): never {
  throw mountFailed(`${image}: ${why}`, hint);
}

async function find(
  { image, images, volume }: VolumeWanted,
  system: VolumeSystem,
): Promise<[Group, LogicalRow]> {
  const lvm = lvmOn(images, system);
  const report = ["--reportformat", "json"];
  const physical = await lvm("pvs", ...report, "-o", PHYSICAL_FIELDS);
  const logical = await lvm("lvs", ...report, "--units", "h", "-o", LOGICAL_FIELDS);
  const group = groupOf(
    image,
    rowsOf<PhysicalRow>(physical, "pv"),
    rowsOf<LogicalRow>(logical, "lv"),
    (path) => realPathOf(path) ?? path,
    (uuid) => realPathOf(`/dev/disk/by-id/lvm-pv-uuid-${uuid}`),
  );
  if ("why" in group) return refuse(image, group);
  const chosen = chosenVolume(group, volume);
  if ("why" in chosen) return refuse(image, chosen);
  return [group, chosen];
}

/** An empty device in memory, which goes with its last user. */
async function memoryDevice(name: string, system: VolumeSystem): Promise<string> {
  const file = join(system.memoryFolder, name);
  const fd = openSync(file, "wx", 0o600);
  try {
    ftruncateSync(fd, OVERLAY_BYTES);
    return (await system.program("losetup", "--find", "--show", file)).trim();
  } finally {
    closeSync(fd);
    unlinkSync(file);
  }
}

async function makeOverlay(image: string, name: string, system: VolumeSystem): Promise<string> {
  const bytes = Number(await system.program("blockdev", "--getsize64", image));
  const memory = await memoryDevice(name, system);
  const table = `0 ${bytes / SECTOR_BYTES} snapshot ${image} ${memory} N ${CHUNK_SECTORS}`;
  await system.program("dmsetup", "create", name, "--uuid", name, "--table", table);
  // From now on it goes with the overlay.
  await system.program("losetup", "--detach", memory);
  return `/dev/mapper/${name}`;
}

async function make(
  id: string,
  { images }: Group,
  { lv_name: volume }: LogicalRow,
  { image: mounted, signal }: VolumeWanted,
  system: VolumeSystem,
): Promise<string> {
  const step = async <Value>(work: Promise<Value>): Promise<Value> => {
    const value = await work;
    if (signal.aborted) throw mountFailed("it was given up");
    return value;
  };
  const overlays: string[] = [];
  // By the first overlay, umount knows which image was mounted.
  const ordered = [mounted, ...images.filter((image) => image !== mounted)];
  for (const [index, image] of ordered.entries()) {
    overlays.push(await step(makeOverlay(image, overlayName(id, index), system)));
  }
  const group = groupName(id);
  const lvm = lvmOn(overlays, system);
  await step(lvm("vgimportclone", "--basevgname", group, ...overlays));
  const activate = ["--activate", "y", "--ignoreactivationskip", `${group}/${volume}`];
  await step(lvm("lvchange", "--yes", ...activate));
  return `/dev/mapper/${mapperName(group, volume)}`;
}

/** Its words, with what could not be removed after it. */
export function withLeft(error: unknown, left: readonly string[]): unknown {
  if (left.length === 0) return error;
  const { message } = error as Error;
  const hint = "The next mount or umount of blksnapctl tries to remove that again";
  return mountFailed(`${message}; this is left: ${left.join("; ")}`, hint);
}

/** Nothing is left of it if it fails. @throws BlksnapClientError MOUNT_FAILED */
export async function openVolume(
  wanted: VolumeWanted,
  system: VolumeSystem = volumeSystem,
): Promise<Volume> {
  const left = await system.removeLeftovers();
  if (left.length > 0) throw withLeft(mountFailed("an earlier mount was killed"), left);
  const [group, chosen] = await find(wanted, system);
  const id = ownId();
  const close = () => system.takeDown(id);
  try {
    const path = await make(id, group, chosen, wanted, system);
    return { path, name: `${group.name}/${chosen.lv_name}`, close };
  } catch (error) {
    throw withLeft(error, await close().catch(({ message }: Error) => [message]));
  }
}
