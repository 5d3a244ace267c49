/**
 * This host's record of an export's own snapshot, by device: the next export of the device, to whatever target, destroys
 * the snapshot that a killed one has left. The record begins before the snapshot has an id, because a kill may come in
 * between, and only while no other export of the device has it.
 */
import { stat } from "node:fs/promises";
import { join } from "node:path";
import type { BlksnapClient } from "@blksnap/client";
import { FileLock } from "./lock.js";
import { type Remembered, rememberedHere } from "./remembered.js";
import { hashOf } from "./stream-format.js";

export interface HostRemembers {
  /**
   * A folder of this host that records snapshots of exports. Nothing is recorded if there is none, or if all users may
   * write there: they could name snapshots that are then destroyed. Default: none.
   */
  readonly hostFolder?: string | undefined;
}

const OTHERS_WRITE = 0o002;

async function isTrusted(folder: string): Promise<boolean> {
  const stats = await stat(folder).catch(() => undefined);
  return stats?.isDirectory() === true && (stats.mode & OTHERS_WRITE) === 0;
}

async function lockOf(folder: string, name: string, what: string): Promise<FileLock | undefined> {
  // Another export of the device holds it, or this user may not write there.
  return await FileLock.acquire(folder, name, what).catch(() => undefined);
}

/** Runs `use` with the host's record, if it has one for this export. */
export async function withHostRecord<Result>(
  options: HostRemembers & {
    readonly client: Pick<BlksnapClient, "snapshotInfo">;
    readonly device: string;
  },
  use: (record: Remembered | undefined) => Promise<Result>,
): Promise<Result> {
  const { client, hostFolder } = options;
  if (hostFolder === undefined || !(await isTrusted(hostFolder))) return await use(undefined);
  const { device } = await client.snapshotInfo(options.device);
  const name = `.export-${hashOf(Buffer.from(device)).slice(0, 16)}`;
  const lock = await lockOf(hostFolder, name, `an export of ${device}`);
  if (lock === undefined) return await use(undefined);
  try {
    return await use(rememberedHere(join(hostFolder, `${name}.snapshot`)));
  } finally {
    await lock.release();
  }
}
