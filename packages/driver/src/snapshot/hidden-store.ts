/**
 * A store under another name than the record on the medium has: a boot from there then finds it gone, and the snapshot
 * with it, in place of images that miss what was not recorded. The store can be on a disk that answers where the one of
 * the record does not.
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

/** The names that the file of a store may have; none where it is the user's own, or a device. */
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

/** Of no store of the snapshot. */
function hiddenName(snapshot: string, stores: readonly StoreRecord[], index: number): string {
  return StateFile.store.name(snapshot, stores.length + index);
}

/** Whether one of its stores is a file of ours in a directory. */
export function canRename({ id, stores }: Pick<Snapshot, "id" | "stores">): boolean {
  return stores.some((_, index) => storeFiles(id, stores, index).length > 1);
}

/**
 * Gives one of the stores another name, or takes the mark out of one that has no name of ours. A snapshot without one of
 * its stores, or without its mark, is lost. It is on record here before it is on the store's medium: this daemon may die.
 * @throws Error where neither is possible, or the medium fails
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
  // A rename to it would do nothing, and a boot from the medium may know that name.
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
