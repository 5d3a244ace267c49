import { constants } from "node:fs";
import { storeKindByWord, type WordStoreKind } from "@blksnap/api";
import { DiffStorageError, type StoreSpec } from "@blksnap/diff-storage";
import { ETIMEDOUT } from "@blksnap/errors";
import { statInHelper } from "@blksnap/uring";
import { StateFile } from "../records/file-names.js";
import type { StoreRecord } from "../records/records.js";
import { STORE_OPEN_TIMEOUT_MS } from "../time-limits.js";

const { S_IFMT, S_IFDIR } = constants;

/** The folder of a store that a word names: its file has a name, so that the next daemon finds it. */
const FOLDERS: Readonly<Record<WordStoreKind, (stateDirectory: string) => string>> = {
  // Which is memory.
  memory: (stateDirectory) => stateDirectory,
};

/** True for a store that a word names: a file in memory, which has no path of its own. */
export function isWithoutPath(path: string): boolean {
  return storeKindByWord(path) !== undefined;
}

/**
 * In a directory, the file gets a name, so that the next daemon finds it after a crash.
 * @throws DiffStorageError STORE_TIMEOUT
 */
export async function storeRecord(
  path: string,
  snapshot: string,
  index: number,
  stat: typeof statInHelper = statInHelper,
): Promise<StoreRecord> {
  const named = { path, fileName: StateFile.store.name(snapshot, index) };
  if (isWithoutPath(path)) return named;
  const found = await stat(path, STORE_OPEN_TIMEOUT_MS);
  // Opened later, without a name, a folder's file would be lost to the next daemon.
  if (found === -ETIMEDOUT) {
    throw new DiffStorageError("STORE_TIMEOUT", `${path} does not answer`, { path });
  }
  // Problems with it are reported when it is opened.
  const isFolder = typeof found !== "number" && (found.mode & S_IFMT) === S_IFDIR;
  return isFolder ? named : { path };
}

export function storeSpec({ path, fileName }: StoreRecord, stateDirectory: string): StoreSpec {
  if (fileName === undefined) return { path };
  const kind = storeKindByWord(path);
  return { path: kind === undefined ? path : FOLDERS[kind](stateDirectory), fileName };
}
