import { statSync } from "node:fs";
import { storeKindByWord, type WordStoreKind } from "@blksnap/api";
import type { StoreSpec } from "@blksnap/diff-storage";
import { StateFile } from "../records/file-names.js";
import type { StoreRecord } from "../records/records.js";

/** The folder of a store that a word names: its file has a name, so that the next daemon finds it. */
const FOLDERS: Readonly<Record<WordStoreKind, (stateDirectory: string) => string>> = {
  // Which is memory.
  memory: (stateDirectory) => stateDirectory,
};

/** True for a store that a word names: a file in memory, which has no path of its own. */
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

export function storeSpec({ path, fileName }: StoreRecord, stateDirectory: string): StoreSpec {
  if (fileName === undefined) return { path };
  const kind = storeKindByWord(path);
  return { path: kind === undefined ? path : FOLDERS[kind](stateDirectory), fileName };
}
