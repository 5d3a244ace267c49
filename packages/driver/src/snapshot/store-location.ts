/**
 * Finds recorded stores by their identity, because their names may lead elsewhere now. Old data must be neither read
 * from another disk nor written to it.
 */
import { basename, dirname, join } from "node:path";
import { ControlError } from "@blksnap/api";
import type { Store, StoreSpec } from "@blksnap/diff-storage";
import { compareMarks, deviceKey, devicesLike, nodeOf, readMarks } from "@blksnap/linux-block";
import type { StoreRecord } from "../records/records.js";
import { pathTarget } from "../system/path-target.js";
import { findOriginal } from "../tracker/original.js";
import { isWithoutPath, storeSpec } from "./store-record.js";

/** Where to open them. @throws ControlError STORE_NOT_FOUND */
export async function storesToOpen(
  stores: readonly StoreRecord[],
  isRecovered: boolean,
  statePath: string,
): Promise<StoreSpec[]> {
  const found = isRecovered ? await Promise.all(stores.map(located)) : stores;
  return found.map((store) => storeSpec(store, statePath));
}

/** The records, updated by the stores that are open now. */
export function storesOpened(
  stores: readonly StoreRecord[],
  opened: readonly Pick<Store, "identity">[],
): StoreRecord[] {
  return stores.map((store, at) => identified(store, opened[at]!));
}

/** The record, updated by the store that is open now. */
export function identified(
  record: StoreRecord,
  { identity }: Pick<Store, "identity">,
): StoreRecord {
  if (isWithoutPath(record.path)) return record;
  const { marks: _, ...rest } = record;
  const marks = readMarks(identity.replace("block:", ""));
  return { ...rest, identity, ...(marks === undefined ? {} : { marks }) };
}

/** Removes what is valid in one boot only: numbers and sequences of devices and file systems. */
export function acrossBoots(record: StoreRecord): StoreRecord {
  const { identity, marks, ...rest } = record;
  if (identity === undefined) return record;
  if (marks !== undefined) return { ...rest, marks: { ...marks, diskSequence: null } };
  return { ...rest, identity: `file::${identity.split(":").at(-1)}` };
}

/**
 * The record with the path at which to open the store.
 * @throws ControlError STORE_NOT_FOUND: it is gone, or replaced by another one
 */
export async function located(record: StoreRecord): Promise<StoreRecord> {
  const { path, fileName, identity, marks } = record;
  if (isWithoutPath(path) || (identity === undefined && marks === undefined)) return record;
  const device = fileName === undefined ? path : join(path, fileName);
  const found = await find(device, record);
  if (fileName === undefined) return { ...record, path: found };
  return { ...record, path: dirname(found), fileName: basename(found) };
}

async function find(path: string, { identity, marks }: StoreRecord): Promise<string> {
  try {
    if (identity === undefined) return await findByMarks(path, marks as Marks);
    if (!identity.startsWith("file::")) {
      return (await findOriginal({ device: path, identity, ...(marks && { marks }) })).path;
    }
    const there = await pathTarget(path);
    if (there.identity.endsWith(identity.slice("file:".length))) return path;
  } catch (error) {
    const { message } = error as Error;
    throw new ControlError("STORE_NOT_FOUND", `the store ${path}: ${message}`, { cause: error });
  }
  throw new ControlError("STORE_NOT_FOUND", `the store ${path} is another file now`);
}

type Marks = NonNullable<StoreRecord["marks"]>;

/** After a reboot: its earlier name, unless that leads to another disk now. */
async function findByMarks(path: string, marks: Marks): Promise<string> {
  const { blockDevice } = await pathTarget(path).catch(() => ({ blockDevice: undefined }));
  const now = blockDevice && readMarks(deviceKey(blockDevice));
  if (now !== undefined && compareMarks(marks, now) === "same") return path;
  const [only, ...others] = devicesLike(marks);
  const node = only === undefined || others.length > 0 ? undefined : nodeOf(only);
  if (node === undefined) throw new Error("it is gone, or another disk now");
  return node;
}
