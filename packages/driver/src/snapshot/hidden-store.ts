/**
 * Renames a store to a name that the record on the medium does not have: a boot from the medium then finds the store
 * gone, and the snapshot lost, instead of showing images that miss what was not recorded. The store can be on a disk
 * that answers while the record's disk does not.
 */
import { join } from "node:path";
import type { DiffStorage, StoreSystem } from "@blksnap/diff-storage";
import type { DriverContext } from "../context.js";
import { StateFile } from "../records/file-names.js";
import type { StoreMark, StoreRecord } from "../records/records.js";
import { changeRecord } from "./change-record.js";
import type { Snapshot } from "./snapshot.js";
import { removeMark } from "./store-mark.js";
import { isWithoutPath } from "./store-record.js";

type HidingContext = {
  readonly storeSystem: Pick<StoreSystem, "assertAnswers" | "writeSynced">;
} & Pick<DriverContext, "state" | "logger">;

type Hidden = Pick<Snapshot, "id" | "stores" | "slotBytes"> & {
  storeMark?: StoreMark | undefined;
  readonly storage: Pick<DiffStorage, "stores" | "track">;
};

/** Possible names of the store's file; none if it is the user's own file, or a device. */
export function storeFiles(
  snapshot: string,
  stores: readonly StoreRecord[],
  index: number,
): string[] {
  const { path, fileName } = stores[index] as StoreRecord;
  if (fileName === undefined) return [];
  if (isWithoutPath(path)) return [fileName];
  return [fileName, hiddenName(snapshot, stores, index)];
}

/** A name that no store of the snapshot has. */
function hiddenName(snapshot: string, stores: readonly StoreRecord[], index: number): string {
  return StateFile.store.name(snapshot, stores.length + index);
}

/** Whether one of its stores is a file of ours in a directory. */
export function canRename({ id, stores }: Pick<Snapshot, "id" | "stores">): boolean {
  return stores.some((_, index) => storeFiles(id, stores, index).length > 1);
}

/**
 * Renames one of the stores, or removes the mark from one whose name is not ours. A snapshot without one of its stores,
 * or without its mark, is lost. The change is on record here before it is on the store's medium, because this daemon
 * may die.
 * @throws Error if neither is possible, or the medium fails
 */
export async function hideStore(context: HidingContext, snapshot: Hidden): Promise<void> {
  const { id, stores: records, storage } = snapshot;
  if (!canRename(snapshot)) {
    recordHidden(context, snapshot);
    await removeMark(context, snapshot);
    return;
  }
  const index = records.findIndex((_, at) => storeFiles(id, records, at).length > 1);
  const [record, store] = [records[index], storage.stores[index]];
  if (record === undefined || store?.rename === undefined) {
    throw new Error("no store of it is a file in a directory");
  }
  // A disk that does not answer would keep a thread.
  await context.storeSystem.assertAnswers?.(join(record.path, record.fileName ?? ""));
  const fileName = hiddenName(id, records, index);
  // Renaming it to the same name would do nothing, and a boot from the medium may know that name.
  if (record.fileName === fileName)
    throw new Error(`${record.path} has it under that name already`);
  await store.rename(fileName, () => {
    snapshot.stores = records.with(index, { ...record, fileName });
    recordHidden(context, snapshot);
  });
}

/** The next daemon must not make it persistent again: the store has no further name. */
function recordHidden(
  context: Pick<DriverContext, "state" | "logger">,
  { id, stores }: Pick<Snapshot, "id" | "stores">,
): void {
  changeRecord(context, id, { stores, persistent: false });
}
