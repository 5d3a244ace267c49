/**
 * A folder with a chain of qcow2 files: a full one, and overlays of later changes; QEMU can open each as a point in
 * time.
 *
 * ```
 *   20380101T060000Z-1a2b3c4d.qcow2                   the device at that time; its backing file is in the same folder
 *   20380101T060000Z-1a2b3c4d.qcow2.blksnap.json      the snapshot that it is of, and its final state
 *   NAME.qcow2.incomplete                             in progress, or left by a kill
 * ```
 *
 * A file gets its name when the file and its record are durable. No export changes it after that.
 */
import { constants } from "node:fs";
import { chmod, open } from "node:fs/promises";
import { join } from "node:path";
import { errnoNameOf } from "@blksnap/errors";
import { targetError } from "./errors.js";
import { realFiles } from "./files.js";
import type { AsOf } from "./plan.js";
import { type CopySeal, changeSince, sealOfOpen } from "./seal.js";
import type { RecordedSums } from "./sums.js";
import { parseRecord, type RecordKind, recordText } from "./versioned-record.js";

const SUFFIX = ".qcow2";
const KIND: RecordKind = {
  format: "blksnap-qcow2-point",
  version: 1,
  what: "record of a qcow2 file",
  hint: `Remove it, and all ${SUFFIX} files that need its own`,
};
const RECORD_SUFFIX = ".blksnap.json";
export const INCOMPLETE_SUFFIX = ".incomplete";
const READ_ONLY_MODE = 0o400;
/** Errors of file systems without modes, or without this one. */
const NO_MODE = ["EPERM", "ENOTSUP", "EOPNOTSUPP", "ENOSYS"];
const POINT = /^[0-9TZ]+-[0-9a-f]{8}\.qcow2$/;

export interface Qcow2Point extends AsOf {
  /** Name of its file in the folder. */
  readonly name: string;
  /** Its backing file; null for a full one. */
  readonly backing: string | null;
  readonly seal: CopySeal;
  /** Sums of the device's content, as QEMU shows it. Absent in records of earlier programs. */
  readonly sums?: RecordedSums | undefined;
}

export function pointName(takenAt: string, id: string): string {
  const time = takenAt.replace(/\.\d+/, "").replace(/[-:]/g, "");
  return `${time}-${id.slice(0, 8)}${SUFFIX}`;
}

/** All points of a folder whose files exist, the oldest first. @throws BackupError BACKUP_DAMAGED */
export async function qcow2Points(folder: string): Promise<readonly Qcow2Point[]> {
  const names = new Set(await realFiles.list(folder));
  const points: Qcow2Point[] = [];
  for (const name of names) {
    if (!POINT.test(name) || !names.has(name + RECORD_SUFFIX)) continue;
    const path = join(folder, name + RECORD_SUFFIX);
    const text = await realFiles.read(path);
    if (text === undefined) continue;
    const { fields } = parseRecord(KIND, text.toString(), path);
    points.push({ ...(fields as unknown as Qcow2Point), name });
  }
  return points.sort((one, other) => (one.taken_at < other.taken_at ? -1 : 1));
}

/** Removes leftovers of killed exports. No other export may run. */
export async function removeLeft(folder: string): Promise<void> {
  const names = await realFiles.list(folder);
  for (const name of names) {
    const point = name.slice(0, -INCOMPLETE_SUFFIX.length);
    if (!name.endsWith(INCOMPLETE_SUFFIX) || !POINT.test(point)) continue;
    await realFiles.remove(join(folder, point + RECORD_SUFFIX));
    await realFiles.remove(join(folder, name));
  }
}

async function sealOfFile(path: string): Promise<CopySeal> {
  try {
    const file = await open(path, constants.O_RDONLY);
    try {
      await file.sync();
      return await sealOfOpen(file, (await file.stat()).size);
    } finally {
      await file.close();
    }
  } catch (error) {
    throw targetError("read", path, error);
  }
}

/** Why this point cannot get an overlay; undefined if all files that it needs are unchanged. */
export async function breakOfChain(
  folder: string,
  point: Qcow2Point,
  points: readonly Qcow2Point[],
): Promise<string | undefined> {
  for (let at: Qcow2Point | undefined = point; at !== undefined; ) {
    const { name, backing, seal }: Qcow2Point = at;
    const change = changeSince(seal, await sealOfFile(join(folder, name)));
    if (change !== undefined) return `another program has written to ${name}: ${change}`;
    if (backing === null) return undefined;
    at = points.find((one) => one.name === backing);
    if (at === undefined) return `${backing}, which ${name} needs, is gone`;
  }
  return undefined;
}

/** A write to a file corrupts all its overlays without a trace in them: deny it to QEMU without root. */
async function makeReadOnly(path: string): Promise<void> {
  await chmod(path, READ_ONLY_MODE).catch((error: unknown) => {
    if (!NO_MODE.includes(errnoNameOf(error))) throw targetError("change", path, error);
  });
}

/** Gives a complete file its name. */
export async function publishPoint(folder: string, point: Omit<Qcow2Point, "seal">): Promise<void> {
  const path = join(folder, point.name);
  await makeReadOnly(path + INCOMPLETE_SUFFIX);
  const seal = await sealOfFile(path + INCOMPLETE_SUFFIX);
  await realFiles.create(path + RECORD_SUFFIX, recordText(KIND, { ...point, seal }));
  await realFiles.syncFolder(folder);
  await realFiles.rename(path + INCOMPLETE_SUFFIX, path);
  await realFiles.syncFolder(folder);
}
