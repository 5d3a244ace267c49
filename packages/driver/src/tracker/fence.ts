/**
 * Fencing: a new daemon must not touch an original or a store while requests of its dead predecessor
 * may still write there. Each such request holds a reference on the file that it was issued on, so
 * an exclusive open (block devices) or lock (files) succeeds only when the last has ended.
 */

import { DiffStorageError } from "@blksnap/diff-storage";
import type { BackingFile } from "@blksnap/ublk";
import { openBackingFileBeside, RECOVERY_PATIENCE_MS, UblkError } from "@blksnap/ublk";
import { FENCE_INTERVAL_MS } from "../time-limits.js";

/** Opens an original as soon as nobody holds it any more. @throws UblkError of openBackingFileBeside */
export function openFenced(path: string, patienceMs: number): Promise<BackingFile> {
  return retry(
    () => openBackingFileBeside(path),
    (error) => error instanceof UblkError && error.code === "BACKING_BUSY",
    patienceMs,
  );
}

/** Opens stores as soon as nobody holds them any more. */
export function openStoresFenced<Opened>(open: () => Promise<Opened>): Promise<Opened> {
  return retry(
    open,
    (error) => error instanceof DiffStorageError && error.code === "STORE_BUSY",
    RECOVERY_PATIENCE_MS,
  );
}

async function retry<Value>(
  attempt: () => Promise<Value>,
  isBusy: (error: unknown) => boolean,
  patienceMs: number,
): Promise<Value> {
  const deadlineMs = performance.now() + patienceMs;
  for (;;) {
    try {
      return await attempt();
    } catch (error) {
      if (!isBusy(error) || performance.now() > deadlineMs) throw error;
    }
    await new Promise((resolve) => setTimeout(resolve, FENCE_INTERVAL_MS));
  }
}
