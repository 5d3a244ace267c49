/** Exports a device as a qcow2 file, in full or as an overlay of the changes since the previous one. */
import { randomUUID } from "node:crypto";
import { join } from "node:path";
import { doneChunks, keptReason } from "./done-chunks.js";
import { BackupError } from "./errors.js";
import { emptyOf, type RawExport } from "./export-raw.js";
import type { ExportOptions } from "./export-store.js";
import { realFiles } from "./files.js";
import { type HostIdentity, hostOf, isSameHost, otherMachineNote } from "./host.js";
import { withTargetLock } from "./lock.js";
import { copyParts } from "./part-copy.js";
import { bytesOf, partsOf, readPlaces } from "./parts.js";
import { asOf, type Plan, planExport, withoutHost } from "./plan.js";
import {
  breakOfChain,
  INCOMPLETE_SUFFIX,
  pointName,
  publishPoint,
  type Qcow2Point,
  qcow2Points,
  removeLeft,
} from "./qcow2-points.js";
import { OpenQcow2, qemuImg } from "./qemu.js";
import { isComplete, targetAt, targetKind } from "./raw-target.js";
import { rememberedInFile } from "./remembered.js";
import { type TakenSnapshot, withSnapshot } from "./snapshot.js";
import { type ImageReader, openImage } from "./source.js";
import { hashOf } from "./stream-format.js";
import { type Sums, sumsOnto } from "./sums.js";

const CHAIN = "blksnap-qcow2";

export interface Qcow2ExportOptions extends ExportOptions {
  /** A folder, created if it is missing. */
  readonly folder: string;
}

export interface Qcow2Export extends RawExport {
  /** Name of the new file. */
  readonly path: string;
}

async function planQcow2(
  { client, wanted, folder, onNote }: Qcow2ExportOptions,
  host: HostIdentity,
  snapshot: TakenSnapshot,
): Promise<Plan<Qcow2Point>> {
  const points = await qcow2Points(folder);
  const otherMachine = otherMachineNote(points, host, snapshot.device);
  if (otherMachine !== undefined && wanted.kind !== "full") onNote?.(otherMachine);
  const own = points.filter((one) => isSameHost(one, host) && one.device === snapshot.device);
  const plan = await planExport(client, wanted, own, host, snapshot);
  if (plan.kind === "full") return plan;
  const reason = await breakOfChain(folder, plan.base, points);
  if (reason === undefined) return plan;
  if (wanted.kind === "since") throw new BackupError("BACKUP_CHAIN_BROKEN", reason);
  return { kind: "full", reason };
}

/** Creates the file, without a point's name yet. @param sums gets those of the written data */
async function writeFile(
  path: string,
  plan: Plan<Qcow2Point>,
  image: ImageReader,
  options: Qcow2ExportOptions,
  snapshot: TakenSnapshot,
  sums: Sums | undefined,
): Promise<{ readonly readBytes: number; readonly freedBytes: number }> {
  const { capacityBytes } = snapshot;
  const empty = plan.kind === "full" ? await emptyOf(image, capacityBytes) : [];
  const parts = partsOf(plan, capacityBytes, 0, empty);
  const reason = plan.kind === "full" ? plan.reason : null;
  const total_bytes = bytesOf(parts);
  const kept = keptReason(snapshot, total_bytes, options);
  options.onPlan?.({ kind: plan.kind, reason, total_bytes, kept });
  const backing = plan.kind === "full" ? [] : ["-b", plan.base.name, "-F", "qcow2"];
  // With the device's mode from the first byte on: qemu-img keeps the mode of an existing file.
  await realFiles.create(path, Buffer.alloc(0));
  await qemuImg(path, "create", "-q", "-f", "qcow2", ...backing, path, String(capacityBytes));
  const isBlank = plan.kind === "full";
  const file = await OpenQcow2.open(path, { isBlank });
  let isFinished = false;
  try {
    const freed = doneChunks(snapshot, readPlaces(parts), kept, options);
    const done = (offsetBytes: number): void => freed.done(offsetBytes);
    const readBytes = await copyParts(parts, image, file, sums, options, done).finally(freed.end);
    await file.finish();
    isFinished = true;
    await qemuImg(path, "check", "-q", "-f", "qcow2", path);
    return { readBytes, freedBytes: freed.end() };
  } finally {
    if (!isFinished) await file.abandon();
  }
}

async function copy(snapshot: TakenSnapshot, options: Qcow2ExportOptions): Promise<Qcow2Export> {
  const { folder, open = openImage } = options;
  const host = hostOf(options);
  const now = asOf(snapshot, host);
  const plan = await planQcow2(options, host, snapshot);
  const name = pointName(now.taken_at, randomUUID());
  const path = join(folder, name);
  const image = await open(snapshot.image, snapshot.exported);
  try {
    const written = path + INCOMPLETE_SUFFIX;
    const sums = sumsOnto(plan.kind === "full" ? undefined : plan.base, snapshot.capacityBytes);
    const { readBytes, freedBytes } = await writeFile(
      written,
      plan,
      image,
      options,
      snapshot,
      sums,
    );
    await image.sync();
    await snapshot.check(freedBytes);
    const backing = plan.kind === "full" ? null : plan.base.name;
    await publishPoint(folder, { ...now, name, backing, sums: sums?.record() });
    return { kind: plan.kind, ...withoutHost(now), read_bytes: readBytes, path };
  } catch (error) {
    await removeLeft(folder).catch(() => undefined);
    throw error;
  } finally {
    await image.close();
  }
}

/**
 * Exports the device as a new file. An interruption at any moment leaves the existing files unchanged.
 * @throws BackupError BACKUP_BUSY, BACKUP_CHAIN_BROKEN, TARGET_EXISTS, TARGET_FULL, TARGET_FAILED, ...
 */
export async function exportQcow2(given: Qcow2ExportOptions): Promise<Qcow2Export> {
  const folder = await targetAt(given.folder);
  const kind = await targetKind(folder);
  if (kind !== "folder" && kind !== "missing") {
    const hint = "Name a folder: each point in time is a file in it";
    throw new BackupError("TARGET_EXISTS", `${folder} is not a folder`, { hint });
  }
  await realFiles.makeFolder(folder);
  if (await isComplete(join(folder, "blksnap-backup.json"))) {
    const hint = "Name another folder, or omit --qcow2";
    throw new BackupError("TARGET_EXISTS", `${folder} holds backups of another kind`, { hint });
  }
  const ofDevice = hashOf(Buffer.from(given.device)).slice(0, 16);
  const own = rememberedInFile(join(folder, `.${CHAIN}-${ofDevice}.snapshot`));
  const options = { ...given, folder, ownSnapshot: own };
  return await withTargetLock(join(folder, CHAIN), `an export to ${folder}`, async () => {
    await removeLeft(folder);
    return await withSnapshot(options, (snapshot) => copy(snapshot, options));
  });
}
