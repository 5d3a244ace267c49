import { statSync } from "node:fs";
import { storeKindByWord } from "@blksnap/api";
import type { StoreSpec } from "@blksnap/diff-storage";
import { StateFile } from "../records/file-names.js";
import type { StoreRecord } from "../records/records.js";

/** True for a file in the state directory, which is memory: it has no path of its own. */
export function isWithoutPath(path: string): boolean {
  return storeKindByWord(path) !== undefined;
}

/** In a directory, the file gets a name, so that the next daemon finds it after a crash. */
export function storeRecord(path: string, snapshot: string, index: number): StoreRecord {
  const named = { path, fileName: StateFile.store.name(snapshot, index) };
  if (isWithoutPath(path)) return named;
  try {
    return statSync(path).isDirectory() ? named : { path };
  } catch {
    // Problems with it are reported when it is opened.
    return { path };
  }
}

/** @param memory the directory of stores in memory */
export function storeSpec({ path, fileName }: StoreRecord, memory: string): StoreSpec {
  if (fileName === undefined) return { path };
  return { path: isWithoutPath(path) ? memory : path, fileName };
}
