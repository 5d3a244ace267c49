/**
 * Snapshots of exports whose target has no record: a stream, or a block device. The host records them, so that the
 * next export destroys the one that a killed export has left, instead of reading it forever.
 */
import { stat } from "node:fs/promises";
import { join } from "node:path";
import { FileLock } from "./lock.js";
import { rememberedInFile } from "./remembered.js";
import type { SnapshotOptions } from "./snapshot.js";
import { hashOf } from "./stream-format.js";

export interface HostRemembers {
  /**
   * A folder of this host that records snapshots of exports whose target cannot. Nothing is recorded if there is
   * none, or if all users may write there: they could name snapshots that are then destroyed. Default: none.
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
  return await FileLock.take(folder, name, what).catch(() => undefined);
}

/** Runs `use` with options that record its own snapshot, if the host can. */
export async function withOwnSnapshot<Options extends SnapshotOptions & HostRemembers, Result>(
  options: Options,
  use: (options: Options) => Promise<Result>,
): Promise<Result> {
  const { client, hostFolder } = options;
  if (hostFolder === undefined || !(await isTrusted(hostFolder))) return await use(options);
  const { device } = await client.snapshotInfo(options.device);
  const name = `.export-${hashOf(Buffer.from(device)).slice(0, 16)}`;
  const lock = await lockOf(hostFolder, name, `an export of ${device}`);
  if (lock === undefined) return await use(options);
  try {
    const own = rememberedInFile(join(hostFolder, `${name}.snapshot`));
    return await use({ ...options, ownSnapshot: own });
  } finally {
    await lock.release();
  }
}
