/** Checks that a target is not on the exported device: it would copy its own writes. */

import { fstatSync } from "node:fs";
import { readlink, stat } from "node:fs/promises";
import { dirname } from "node:path";
import { allOf } from "@blksnap/errors";
import {
  type DeviceOrFile,
  deviceKey,
  deviceOrFile,
  identityAt,
  knownStackOf,
  LinuxBlockError,
  lookUpPath,
  overlapOf,
  stackOf,
} from "@blksnap/linux-block";
import { BackupError } from "./errors.js";
import { isComplete, targetAt } from "./raw-target.js";
import type { BackupClient } from "./snapshot.js";

type Layers = Map<string, readonly DeviceOrFile[]>;

/** Fronts and images lie on their originals, which the kernel does not know. */
async function layersOf(client: BackupClient): Promise<Layers> {
  const { trackers, snapshots } = await client.status();
  const images = snapshots.flatMap(({ devices }) => devices);
  const pairs = [
    ...trackers.map(({ device, front }) => [front, device] as const),
    ...images.map(({ device, image }) => [image, device] as const),
  ];
  const layers: Layers = new Map();
  for (const [upper, original] of pairs) {
    const { blockDevice } = await lookUpPath(upper ?? "").catch(() => ({ blockDevice: undefined }));
    if (blockDevice === undefined) continue;
    const identity = await identityAt(original, lookUpPath).catch(() => undefined);
    if (identity !== undefined) {
      layers.set(deviceKey(blockDevice), [deviceOrFile(identity, original)]);
    }
  }
  return layers;
}

async function nearestThere(path: string): Promise<string> {
  let at = path;
  while (at !== "/" && !(await isComplete(at))) at = dirname(at);
  return at;
}

/**
 * @param path absolute path of a target, which need not exist yet
 * @throws BackupError TARGET_ON_DEVICE
 */
export async function checkApart(
  client: BackupClient,
  path: string,
  device: string,
): Promise<void> {
  const [{ device: original }, layers, there] = await allOf([
    client.snapshotInfo(device),
    layersOf(client),
    targetAt(path).then(nearestThere),
  ]);
  const probe = { layers: (one: Parameters<typeof deviceKey>[0]) => layers.get(deviceKey(one)) };
  try {
    const [target, source] = await allOf([stackOf(there, probe), stackOf(original, probe)]);
    const overlap = overlapOf(target, source);
    if (overlap === undefined) return;
    const chain = overlap.one.chain.join(" → ");
    const isIt = overlap.one.chain.length === 1;
    const where = isIt ? `is ${original}` : `lies on ${original} (${chain})`;
    const isNamed = isIt && path === original;
    const why = isNamed ? "is the device that is exported" : `${where}, which is exported`;
    throw new BackupError("TARGET_ON_DEVICE", `${path} ${why}`);
  } catch (error) {
    // For example network file systems: the kernel does not report their devices.
    if (!(error instanceof LinuxBlockError)) throw error;
  }
}

/** How the daemon writes to this file or device when it writes to the tracked one; undefined: it does not. */
async function roleFor(device: string, identity: string): Promise<string | undefined> {
  const own = await lookUpPath(device).catch(() => undefined);
  if (own?.identity === identity) return "is";
  return (await knownStackOf(device)).has(identity) ? "is below" : undefined;
}

/**
 * Fails if the daemon tracks the target, or what lies on it, as a loop device does on its file: it would neither track
 * these writes nor save old data. For block devices the kernel knows that, for files the daemon. Without a daemon,
 * nothing is tracked.
 * @throws BackupError TARGET_IN_USE
 */
export async function checkUntracked(
  client: Pick<BackupClient, "status">,
  path: string,
): Promise<void> {
  const there = await lookUpPath(path).catch(() => undefined);
  if (there === undefined) return;
  const trackers = await client.status().then(
    (status) => status.trackers,
    () => [],
  );
  for (const { device } of trackers) {
    const role = await roleFor(device, there.identity);
    if (role === undefined) continue;
    const hint = "Name another target and write that to the front, or detach the device first";
    throw new BackupError(
      "TARGET_IN_USE",
      `${path} ${role} the tracked device ${device}, which the daemon writes`,
      { hint },
    );
  }
}

/**
 * Like `checkApart`, for an open descriptor. A pipe or socket passes: its reader's target is unknown.
 * @throws BackupError TARGET_ON_DEVICE
 */
export async function checkOpenApart(
  client: BackupClient,
  fd: number,
  device: string,
): Promise<void> {
  const stats = fstatSync(fd);
  if (!stats.isFile() && !stats.isBlockDevice()) return;
  const link = `/proc/self/fd/${fd}`;
  const name = await readlink(link);
  // The name may be gone, or lead to another file by now.
  const named = await stat(name).catch(() => undefined);
  const isNamed = named?.dev === stats.dev && named.ino === stats.ino;
  await checkApart(client, isNamed ? name : link, device);
}
