/**
 * A folder with a chain of qcow2 files: a full one, and overlays of what changed since, each a point in time that QEMU
 * opens by itself.
 *
 * ```
 *   20380101T060000Z-1a2b3c4d.qcow2                   the device at that time; its backing file lies beside it
 *   20380101T060000Z-1a2b3c4d.qcow2.blksnap.json      as of which snapshot it is, and how it was left
 *   NAME.qcow2.incomplete                             is being written, or was left by a kill
 * ```
 *
 * A file gets its name when all of it and its record are on the medium. None is changed after that by an export.
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
/** Of file systems that have no modes, or not this one. */
const NO_MODE = ["EPERM", "ENOTSUP", "EOPNOTSUPP", "ENOSYS"];
const POINT = /^[0-9TZ]+-[0-9a-f]{8}\.qcow2$/;

export interface Qcow2Point extends AsOf {
  /** Of its file, in the folder. */
  readonly name: string;
  /** The file that it is an overlay of; null for a full one. */
  readonly backing: string | null;
  readonly seal: CopySeal;
  /** Of what the device held, as QEMU shows it. Absent in records of earlier programs. */
  readonly sums?: RecordedSums | undefined;
}

export function pointName(takenAt: string, id: string): string {
  const time = takenAt.replace(/\.\d+/, "").replace(/[-:]/g, "");
  return `${time}-${id.slice(0, 8)}${SUFFIX}`;
}

/** All points of a folder whose files are there, the oldest first. @throws BackupError BACKUP_DAMAGED */
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

/** What killed exports have left. No other export may run. */
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

/** Why nothing can be put on top of this point; undefined where all files that it needs are as they were left. */
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

/** A write to a file makes all overlays of it wrong, and nothing in them shows it: QEMU without root is refused. */
async function letNobodyWrite(path: string): Promise<void> {
  await chmod(path, READ_ONLY_MODE).catch((error: unknown) => {
    if (!NO_MODE.includes(errnoNameOf(error))) throw targetError("change", path, error);
  });
}

/** Lets a file that is whole have its name. */
export async function publishPoint(folder: string, point: Omit<Qcow2Point, "seal">): Promise<void> {
  const path = join(folder, point.name);
  await letNobodyWrite(path + INCOMPLETE_SUFFIX);
  const seal = await sealOfFile(path + INCOMPLETE_SUFFIX);
  await realFiles.create(path + RECORD_SUFFIX, recordText(KIND, { ...point, seal }));
  await realFiles.syncFolder(folder);
  await realFiles.rename(path + INCOMPLETE_SUFFIX, path);
  await realFiles.syncFolder(folder);
}
