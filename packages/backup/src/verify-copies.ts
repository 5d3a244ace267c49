/**
 * Reads raw copies and qcow2 files again, and compares them with the checksums of their exports: finds each changed
 * byte, and names its place.
 */
import { constants } from "node:fs";
import { open } from "node:fs/promises";
import { basename, join } from "node:path";
import type { ByteRange } from "@blksnap/api";
import { messageOf } from "@blksnap/errors";
import type { CareOptions } from "./care.js";
import { ChunkPool } from "./chunk-pool.js";
import { abortedError, BackupError, targetError } from "./errors.js";
import { realFiles } from "./files.js";
import { inFlight } from "./in-flight.js";
import { bytesOf, partsOf } from "./parts.js";
import { findPoint, isMeant, type PointWish } from "./points.js";
import { Meter } from "./progress.js";
import { breakOfChain, type Qcow2Point, qcow2Points } from "./qcow2-points.js";
import { OpenQcow2, qemuImg } from "./qemu.js";
import { isOfThisVersion, type RawRecord, readRecord, recordPathOf } from "./raw-record.js";
import { isComplete, sealOf, targetAt, targetKind } from "./raw-target.js";
import { changeSince } from "./seal.js";
import { Sums, wholeBlocks } from "./sums.js";

const READS_IN_FLIGHT = 8;
const NO_SUMS = "has no valid checksums: it is from an earlier version, or they are damaged";
const NO_SUMS_HINT = "Export in full: that records them";

/** A place that differs from what was exported. */
export interface CopyDamage {
  /** The copy or qcow2 file. */
  readonly path: string;
  readonly why: string;
  /** Offset in the device. */
  readonly offset_bytes: number;
  readonly length_bytes: number;
}

export interface CopiesVerified {
  /** Number of raw copies or qcow2 files. */
  readonly points: number;
  /** Bytes compared, of all copies. */
  readonly checked_bytes: number;
  readonly damaged: readonly CopyDamage[];
  /** Texts about problems that are no damage. */
  readonly notes: readonly string[];
}

/** The content of a copy, as its readers see it. */
interface Content {
  read(data: Uint8Array, offsetBytes: number): Promise<void>;
  emptyRanges(): Promise<readonly ByteRange[]>;
  close(): Promise<void>;
}

interface Copy {
  readonly path: string;
  readonly capacityBytes: number;
  readonly sums: Sums;
}

/** Merges adjacent places with the same reason, in order. */
function joined(damaged: readonly CopyDamage[]): CopyDamage[] {
  const sorted = [...damaged].sort((one, other) => one.offset_bytes - other.offset_bytes);
  const found: CopyDamage[] = [];
  for (const damage of sorted) {
    const last = found.at(-1);
    const isNext =
      last !== undefined && last.offset_bytes + last.length_bytes === damage.offset_bytes;
    if (isNext && last.why === damage.why) {
      found[found.length - 1] = { ...last, length_bytes: last.length_bytes + damage.length_bytes };
    } else found.push(damage);
  }
  return found;
}

/** Compares all content of a copy with its sums. */
async function damageOf(
  { path, capacityBytes, sums }: Copy,
  content: Content,
  { signal, onProgress }: CareOptions,
): Promise<CopyDamage[]> {
  // Blocks of large devices are larger than a file's holes, and only whole blocks can be compared.
  const empty = wholeBlocks(await content.emptyRanges(), capacityBytes);
  const parts = partsOf({ kind: "full" }, capacityBytes, 0, empty);
  const meter = new Meter(bytesOf(parts), onProgress);
  const damaged: CopyDamage[] = [];
  const add = (why: string, ranges: readonly ByteRange[]): void => {
    for (const range of ranges) damaged.push({ path, why, ...range });
  };
  const pool = new ChunkPool();
  try {
    await inFlight(parts, READS_IN_FLIGHT, async ({ offsetBytes, lengthBytes, isDiscarded }) => {
      if (signal?.aborted === true) throw abortedError();
      const differ = (found: Uint32Array | null): void =>
        add("it differs from what was exported", sums.differences(offsetBytes, lengthBytes, found));
      if (isDiscarded) return differ(null);
      const place = new Uint8Array(lengthBytes);
      try {
        await content.read(place, offsetBytes);
      } catch (error) {
        add(messageOf(error), [{ offset_bytes: offsetBytes, length_bytes: lengthBytes }]);
        return;
      }
      differ((await pool.sums(place, sums.windowOf(offsetBytes, lengthBytes))).sums);
      meter.add(lengthBytes);
    });
  } finally {
    await pool.close();
  }
  return joined(damaged);
}

async function openCopy(path: string): Promise<Content> {
  const file = await open(path, constants.O_RDONLY).catch((error: unknown) => {
    throw targetError("read", path, error);
  });
  return {
    async read(data, offsetBytes) {
      for (let done = 0; done < data.length; ) {
        const rest = data.length - done;
        const { bytesRead } = await file.read(data, done, rest, offsetBytes + done);
        if (bytesRead === 0) throw new Error("it ends too early");
        done += bytesRead;
      }
    },
    emptyRanges: () => Promise.resolve([]),
    close: () => file.close(),
  };
}

export interface VerifyRawOptions extends CareOptions {
  /** A file or block device. */
  readonly target: string;
  /** Default: beside a file; of a block device: none. */
  readonly record?: string | undefined;
}

async function knownCopy(target: string, record: string | undefined): Promise<RawRecord> {
  const known = record === undefined ? undefined : await readRecord(record);
  if (record === undefined || known === undefined) {
    const where = record === undefined ? "" : ` (${record} is missing)`;
    const hint = "Name the record of its export: --record FILE";
    const why = `no record says what ${target} is a copy of${where}`;
    throw new BackupError("BACKUP_NOT_FOUND", why, { hint });
  }
  if (!isOfThisVersion(known)) {
    throw new BackupError("BACKUP_VERSION", `${record} ${NO_SUMS}`, { hint: NO_SUMS_HINT });
  }
  const isThere = await isComplete(target);
  if (!isThere && (await targetKind(target)) === "missing") {
    const why = `${target} is gone, which ${record} describes`;
    throw new BackupError("BACKUP_NOT_FOUND", why, { hint: "Export in full" });
  }
  if (known.is_updating || !isThere) {
    const hint = "Complete it: export to it again, or send the stream again";
    throw new BackupError("BACKUP_INCOMPLETE", `${target} is not complete`, { hint });
  }
  return known;
}

/** Whether verifyRaw() handles a path: a file or block device, or a missing file whose record exists. */
export async function isRawCopy(path: string): Promise<boolean> {
  const kind = await targetKind(path);
  if (kind !== "missing") return kind !== "folder";
  return (await readRecord(recordPathOf(path))) !== undefined;
}

/**
 * Compares a raw copy with its record.
 * @throws BackupError BACKUP_NOT_FOUND, BACKUP_INCOMPLETE, BACKUP_VERSION, BACKUP_BUSY where it is written meanwhile, ...
 */
export async function verifyRaw(given: VerifyRawOptions): Promise<CopiesVerified> {
  const target = await targetAt(given.target);
  const beside = (await targetKind(target)) === "block" ? undefined : recordPathOf(target);
  const record = given.record === undefined ? beside : await targetAt(given.record);
  const known = await knownCopy(target, record);
  const { capacity_bytes: capacityBytes, seal } = known;
  const sums = Sums.parse(known.sums, capacityBytes);
  if (sums === undefined) {
    throw new BackupError("BACKUP_VERSION", `${record} ${NO_SUMS}`, { hint: NO_SUMS_HINT });
  }
  const now = await sealOf(target, capacityBytes);
  const change = now === undefined ? "it is gone" : changeSince(seal, now);
  const content = await openCopy(target);
  try {
    const damaged = await damageOf({ path: target, capacityBytes, sums }, content, given);
    await checkUnwritten(target, record!, known);
    const { unknownBytes } = sums;
    const notes = [
      ...(change === undefined ? [] : [`another program has written to ${target}: ${change}`]),
      ...(unknownBytes === 0 ? [] : [`${unknownBytes} bytes of ${target} have no checksum`]),
    ];
    return { points: 1, checked_bytes: capacityBytes - unknownBytes, damaged, notes };
  } finally {
    await content.close();
  }
}

/** Otherwise data that an export has written since would count as damage. */
async function checkUnwritten(target: string, record: string, before: RawRecord): Promise<void> {
  const now = await readRecord(record);
  if (JSON.stringify(now) === JSON.stringify(before)) return;
  throw new BackupError("BACKUP_BUSY", `${target} was updated in the meantime`, {
    hint: "Verify it again",
  });
}

export interface VerifyQcow2Options extends CareOptions, PointWish {
  readonly folder: string;
}

/** The files that QEMU reads for this one must be those of the records, in order. */
async function checkChain(folder: string, point: Qcow2Point, points: readonly Qcow2Point[]) {
  const path = join(folder, point.name);
  const words = ["info", "--backing-chain", "--output=json", "-U", "-f", "qcow2", path];
  const chain = JSON.parse(await qemuImg(path, ...words)) as { readonly filename: string }[];
  const found = chain.map(({ filename }) => basename(filename));
  const wanted: string[] = [];
  for (let name: string | null = point.name; name !== null; ) {
    wanted.push(name);
    name = points.find((one) => one.name === name)?.backing ?? null;
  }
  if (found.join() === wanted.join()) return;
  throw new Error(`its chain is ${found.join(", ")}; it should be ${wanted.join(", ")}`);
}

async function verifyPoint(
  folder: string,
  point: Qcow2Point,
  points: readonly Qcow2Point[],
  sums: Sums,
  options: CareOptions,
): Promise<CopyDamage[]> {
  const path = join(folder, point.name);
  const capacityBytes = point.capacity_bytes;
  try {
    await checkChain(folder, point, points);
    await qemuImg(path, "check", "-q", "-U", "-f", "qcow2", path);
    const file = await OpenQcow2.open(path, { isReadOnly: true });
    const content = {
      read: (data: Uint8Array, offsetBytes: number) => file.read(data, offsetBytes),
      emptyRanges: () => file.emptyRanges(),
      close: () => file.abandon(),
    };
    try {
      return await damageOf({ path, capacityBytes, sums }, content, options);
    } finally {
      await content.close();
    }
  } catch (error) {
    if (error instanceof BackupError && error.code === "ABORTED") throw error;
    // One that cannot be opened is damaged; the others are checked all the same.
    return [{ path, why: messageOf(error), offset_bytes: 0, length_bytes: capacityBytes }];
  }
}

/**
 * Compares each file of a folder with what QEMU shows in it, and checks the order of their chain.
 * @throws BackupError BACKUP_NOT_FOUND, BACKUP_DAMAGED if a record is damaged
 */
export async function verifyQcow2(given: VerifyQcow2Options): Promise<CopiesVerified> {
  const folder = await targetAt(given.folder);
  const { at } = given;
  // A missing program is no damage.
  await qemuImg(folder, "--version");
  const all = await qcow2Points(folder);
  const named = all.map((point) => ({ ...point, id: point.name }));
  const some = named.filter((point) => isMeant(point, given));
  const points = at === undefined ? some : [findPoint(named, given)];
  const notes: string[] = [];
  const damaged: CopyDamage[] = [];
  let checkedBytes = 0;
  for (const point of points) {
    const change = await breakOfChain(folder, point, all);
    if (change !== undefined) notes.push(change);
    const sums = Sums.parse(point.sums, point.capacity_bytes);
    const known = sums ?? new Sums(point.capacity_bytes);
    if (sums === undefined) {
      known.forget();
      notes.push(`${join(folder, point.name)} ${NO_SUMS}`);
    }
    damaged.push(...(await verifyPoint(folder, point, all, known, given)));
    checkedBytes += point.capacity_bytes - known.unknownBytes;
  }
  const unique = [...new Set(notes)];
  return { points: points.length, checked_bytes: checkedBytes, damaged, notes: unique };
}

/** Whether a folder has exported qcow2 files. */
export async function holdsQcow2(folder: string): Promise<boolean> {
  const names = await realFiles.list(folder);
  return names.some((name) => name.endsWith(".qcow2.blksnap.json"));
}
