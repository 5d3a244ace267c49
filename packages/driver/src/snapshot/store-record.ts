import { statSync } from "node:fs";
import type { StoreSpec } from "@blksnap/diff-storage";
import type { StoreRecord } from "../records/records.js";

/** How users name a store in memory. */
export const MEMORY_STORE = "memory:";

/** A directory gets a file with a name, so that the next daemon finds it after a crash. */
export function storeRecord(path: string, suffix: string): StoreRecord {
  const named = { path, fileName: `blksnap-store-${suffix}` };
  if (path === MEMORY_STORE) return named;
  try {
    return statSync(path).isDirectory() ? named : { path };
  } catch {
    // What is wrong with it is said when it is opened.
    return { path };
  }
}

/** @param memory where stores in memory are */
export function storeSpec({ path, fileName }: StoreRecord, memory: string): StoreSpec {
  if (fileName === undefined) return { path };
  return { path: path === MEMORY_STORE ? memory : path, fileName };
}
