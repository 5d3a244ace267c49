/** Exports a device into a file or block device that becomes the same, byte for byte. */
import { hostname } from "node:os";
import { CHUNK_BYTES, chunkCount, chunkLength } from "./chunks.js";
import { abortedError, BackupError } from "./errors.js";
import type { ExportOptions } from "./export-store.js";
import { realFiles } from "./files.js";
import { inFlight } from "./in-flight.js";
import { withTargetLock } from "./lock.js";
import { type AsOf, type Plan, planExport } from "./plan.js";
import { Meter } from "./progress.js";
import {
  isOfThisVersion,
  type RawRecord,
  readRecord,
  recordPathOf,
  removeRecord,
  writeRecord,
} from "./raw-record.js";
import { isComplete, isLeftUpdate, RawTarget, sealOf, targetAt, targetKind } from "./raw-target.js";
import { changeSince } from "./seal.js";
import { type TakenSnapshot, withSnapshot } from "./snapshot.js";
import { type ImageReader, openImage } from "./source.js";

const READS_IN_FLIGHT = 8;
const RAW_RECORD_HINT = "Remove it, or name another target";

export interface RawExportOptions extends ExportOptions {
  readonly target: string;
  /** Remembers as of which snapshot the target is. Default: beside a file; of a block device: none. */
  readonly record?: string | undefined;
}

export interface RawExport {
  readonly kind: "full" | "incremental";
  readonly device: string;
  readonly generation_id: string;
  readonly changes_number: number;
  readonly taken_at: string;
  readonly capacity_bytes: number;
  readonly read_bytes: number;
}

/** A part of the device to be copied. */
interface Part {
  readonly offsetBytes: number;
  readonly lengthBytes: number;
  readonly isDiscarded: boolean;
}

function partsOf(plan: Plan<RawRecord>, capacityBytes: number, headBytes: number): Part[] {
  const parts: Part[] = [];
  const add = (from: number, to: number, isDiscarded: boolean): void => {
    for (let at = from; at < to; ) {
      const end = Math.min(to, (Math.floor(at / CHUNK_BYTES) + 1) * CHUNK_BYTES);
      parts.push({ offsetBytes: at, lengthBytes: end - at, isDiscarded });
      at = end;
    }
  };
  if (plan.kind === "full") {
    for (let index = 0; index < chunkCount(capacityBytes); index++) {
      const from = index * CHUNK_BYTES;
      add(from, from + chunkLength(index, capacityBytes), false);
    }
    return parts;
  }
  add(0, headBytes, false);
  for (const { offset_bytes, length_bytes, kind } of plan.ranges) {
    const end = Math.min(offset_bytes + length_bytes, capacityBytes);
    add(Math.max(offset_bytes, headBytes), end, kind === "discarded");
  }
  return parts;
}

function isZero(data: Uint8Array): boolean {
  return data[0] === 0 && Buffer.compare(data.subarray(1), data.subarray(0, -1)) === 0;
}

async function copyParts(
  parts: readonly Part[],
  image: ImageReader,
  target: RawTarget,
  { signal, onProgress }: RawExportOptions,
): Promise<number> {
  const toRead = parts.reduce((sum, part) => sum + (part.isDiscarded ? 0 : part.lengthBytes), 0);
  const meter = new Meter(toRead, onProgress);
  await inFlight(parts, READS_IN_FLIGHT, async ({ offsetBytes, lengthBytes, isDiscarded }) => {
    if (signal?.aborted === true) throw abortedError();
    const data = Buffer.alloc(lengthBytes);
    if (!isDiscarded) await image.read(data, offsetBytes);
    if (!target.isBlank || !isZero(data)) await target.write(data, offsetBytes);
    if (!isDiscarded) meter.add(lengthBytes);
  });
  return meter.doneBytes;
}

interface TargetState {
  /** What the target is a copy of, where it is one. */
  readonly known: Pick<AsOf, "host" | "device"> | undefined;
  readonly states: readonly RawRecord[];
  readonly why: string | undefined;
}

/** The state that the target can be brought up to date from, or why there is none. */
async function stateOf(
  { target }: RawExportOptions,
  record: string | undefined,
): Promise<TargetState> {
  const known = record === undefined ? undefined : await readRecord(record);
  const kind = await targetKind(target);
  if (known === undefined) {
    if (kind === "file" && (await isComplete(target))) {
      const why = `${target} is there, and no copy that export has made`;
      throw new BackupError("TARGET_EXISTS", why, { hint: RAW_RECORD_HINT });
    }
    return { known, states: [], why: undefined };
  }
  if (kind === "missing") return { known: undefined, states: [], why: `${target} is gone` };
  if (!isOfThisVersion(known))
    return { known, states: [], why: "its record is of an earlier version" };
  // An update that has not begun yet has changed nothing.
  const seal = await sealOf(target, known.capacity_bytes);
  const change = seal === undefined ? "it is gone" : changeSince(known.seal, seal);
  if (change === undefined || (known.is_updating && (await isLeftUpdate(target, known)))) {
    return { known, states: [known], why: undefined };
  }
  return {
    known: undefined,
    states: [],
    why: `something else has written to ${target}: ${change}`,
  };
}

async function copy(
  snapshot: TakenSnapshot,
  options: RawExportOptions,
  record: string | undefined,
): Promise<RawExport> {
  const { client, wanted, target, host = hostname(), open = openImage } = options;
  const { known, states, why } = await stateOf(options, record);
  if (known !== undefined && (known.host !== host || known.device !== snapshot.device)) {
    // Unlike a point in a store, it would be gone.
    const text = `${target} is a copy of ${known.device} of ${known.host}`;
    throw new BackupError("TARGET_EXISTS", text, { hint: RAW_RECORD_HINT });
  }
  if (why !== undefined && wanted.kind === "since") {
    throw new BackupError("BACKUP_CHAIN_BROKEN", why);
  }
  let plan = await planExport(client, wanted, states, host, snapshot);
  if (plan.kind === "full" && why !== undefined) plan = { kind: "full", reason: why };
  const { capacityBytes, generationId, changesNumber, takenAt, device } = snapshot;
  const image = await open(snapshot.image);
  try {
    const base = plan.kind === "incremental" ? plan.base : undefined;
    const prepare = async (): Promise<void> => {
      if (record === undefined) return;
      if (base === undefined) await removeRecord(record);
      else await writeRecord(record, { ...base, is_updating: true });
    };
    const isUpdate = base !== undefined;
    const seal = base?.seal;
    const to = await RawTarget.begin({ path: target, capacityBytes, isUpdate, seal, prepare });
    try {
      const parts = partsOf(plan, capacityBytes, to.headBytes);
      const total = parts.reduce((sum, one) => sum + (one.isDiscarded ? 0 : one.lengthBytes), 0);
      const reason = plan.kind === "full" ? plan.reason : null;
      options.onPlan?.({ kind: plan.kind, reason, total_bytes: total });
      const read_bytes = await copyParts(parts, image, to, options);
      await image.sync();
      await snapshot.check();
      const now = {
        ...{ host, device, capacity_bytes: capacityBytes, generation_id: generationId },
        ...{ changes_number: changesNumber, taken_at: takenAt },
      };
      await to.finish(async (seal) => {
        if (record !== undefined) await writeRecord(record, { ...now, is_updating: false, seal });
      });
      const { host: _, ...told } = now;
      return { kind: plan.kind, ...told, read_bytes };
    } finally {
      await to.close();
    }
  } finally {
    await image.close();
  }
}

/**
 * Makes the target the same as the device in its snapshot. Cut short, it does not look complete, and the next
 * export continues from the snapshot that it was of.
 * @throws BackupError TARGET_EXISTS, TARGET_TOO_SMALL, TARGET_IN_USE, BACKUP_BUSY, BACKUP_CHAIN_BROKEN, ...
 */
export async function exportRaw(given: RawExportOptions): Promise<RawExport> {
  const options = { ...given, target: await targetAt(given.target) };
  const { target, wanted } = options;
  const kind = await targetKind(target);
  if (kind === "folder") {
    const hint = "Name a file or block device, or leave --raw out";
    throw new BackupError("TARGET_EXISTS", `${target} is a folder`, { hint });
  }
  const recordBeside = kind === "block" ? undefined : recordPathOf(target);
  const record = given.record === undefined ? recordBeside : await targetAt(given.record);
  if (record === undefined) {
    if (wanted.kind !== "full") {
      const hint = "Name a file that remembers it: --record FILE";
      const why = `nothing remembers as of which snapshot ${target} is`;
      throw new BackupError("BACKUP_CHAIN_BROKEN", why, { hint });
    }
    return withSnapshot(options, (snapshot) => copy(snapshot, options, record));
  }
  const run = async (): Promise<RawExport> => {
    const own = { ...options, ownSnapshot: { path: `${record}.snapshot`, files: realFiles } };
    return await withSnapshot(own, (snapshot) => copy(snapshot, options, record));
  };
  const what = `an export to ${target}`;
  const ofTarget = kind === "block" ? record : recordPathOf(target);
  // A record of another name may be that of other copies, too.
  const locked = record === ofTarget ? run : () => withTargetLock(record, what, run);
  return await withTargetLock(ofTarget, what, locked);
}
