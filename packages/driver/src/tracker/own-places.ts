/**
 * The daemon's own files must not lie on a device that it serves: its writes would wait for themselves, or change
 * users' data.
 */

import { fstatSync, readFileSync, readlinkSync } from "node:fs";
import { join, resolve } from "node:path";
import { ControlError } from "@blksnap/api";
import { otherUses } from "@blksnap/diff-storage";
import { EBUSY } from "@blksnap/errors";
import {
  type DeviceOrFile,
  deviceNumber,
  fieldBytes,
  fileIdentity,
  knownStackOf,
  overlapOf,
  type TopologyProbe,
} from "@blksnap/linux-block";
import { claimInHelper } from "@blksnap/uring";
import type { Snapshot } from "../snapshot/snapshot.js";
import { isWithoutPath } from "../snapshot/store-record.js";

const OUTPUTS = [1, 2];

/** A file that the daemon writes. */
export interface OwnPlace {
  /** A description. */
  readonly what: string;
  readonly at: DeviceOrFile | string;
}

/** @param directories the state directory and the persistent one */
export function ownPlaces(
  directories: readonly string[],
  snapshots: Iterable<Snapshot>,
): OwnPlace[] {
  const places: OwnPlace[] = [
    ...directories.map((path) => ({ what: "the daemon's files", at: resolve(path) })),
    ...OUTPUTS.flatMap((fd) => logOf(fd) ?? []),
  ];
  for (const { id, stores } of snapshots) {
    for (const { path, fileName } of stores) {
      if (isWithoutPath(path)) continue;
      const at = fileName === undefined ? path : join(path, fileName);
      places.push({ what: `old data of snapshot ${id}`, at });
    }
  }
  return places;
}

/** Their pages may be needed while a device is suspended; the kernel reads swap past the file system. */
export function swapFiles(swaps = "/proc/swaps"): OwnPlace[] {
  const lines = readFileSync(swaps, "latin1").trim().split("\n").slice(1);
  return lines.flatMap((line) => {
    const [path = "", type] = line.split(/\s+/);
    return type === "file" ? [{ what: "a swap file", at: fieldBytes(path).toString() }] : [];
  });
}

/** The file that an output of this process is written to. */
function logOf(fd: number): OwnPlace | undefined {
  try {
    const stats = fstatSync(fd);
    if (!stats.isFile()) return undefined;
    const identity = fileIdentity(stats.dev, stats.ino);
    const path = readlinkSync(`/proc/self/fd/${fd}`);
    return { what: "the daemon's log", at: { identity, device: deviceNumber(stats.dev), path } };
  } catch {
    return undefined;
  }
}

/** @throws ControlError DEVICE_BUSY: the daemon writes to the device, through any layers */
export async function assertNotOurs(
  device: string,
  places: readonly OwnPlace[],
  probe: TopologyProbe,
): Promise<void> {
  const stack = await knownStackOf(device, probe);
  for (const { what, at } of places) {
    const overlap = overlapOf(await knownStackOf(at, probe), stack);
    if (overlap === undefined) continue;
    const { one, other } = overlap;
    const chain = [...one.chain, ...other.chain.toReversed().slice(1)];
    const hint = "Give another device, or move what the daemon has there";
    const text = `${device} holds ${what}: ${chain.join(" → ")}`;
    throw new ControlError("DEVICE_BUSY", text, { hint });
  }
}

/**
 * Writes that bypass the front are missing from the CBT map, and make images wrong.
 * @throws ControlError DEVICE_BUSY: it is swap, or used through a loop device or a server's device
 */
export async function assertNotUsedPastUs(device: string, probe: TopologyProbe): Promise<void> {
  for (const use of await otherUses(await knownStackOf(device, probe), probe)) {
    if (use.device === undefined) throw new ControlError("DEVICE_BUSY", `${device} is swap`);
    // A loop device that is not mounted writes nothing.
    const isLoop = use.device.kernelName.startsWith("loop");
    if (isLoop && (await claimInHelper(use.name)) !== -EBUSY) continue;
    const text = `${device} is in use through ${use.name}: ${use.chain.join(" → ")}`;
    throw new ControlError("DEVICE_BUSY", text);
  }
}
