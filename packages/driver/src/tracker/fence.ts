/**
 * Fencing: a new daemon must not touch an original or a store while requests of its dead predecessor may still write
 * there. Each such request holds a reference on its file, so an exclusive open (block devices) or lock (files) succeeds
 * only when the last one has ended.
 */

import { DiffStorageError } from "@blksnap/diff-storage";
import type { BackingFile } from "@blksnap/ublk";
import { openBackingFileBeside, RECOVERY_PATIENCE_MS, UblkError } from "@blksnap/ublk";
import { retry } from "@blksnap/uring";
import { FENCE_INTERVAL_MS } from "../time-limits.js";

/** Opens an original as soon as no earlier request holds it. @throws UblkError of openBackingFileBeside */
export function openFenced(path: string, patienceMs: number): Promise<BackingFile> {
  return retry(() => openBackingFileBeside(path), {
    isPassing: (error) => error instanceof UblkError && error.code === "BACKING_BUSY",
    deadlineMs: performance.now() + patienceMs,
    intervalMs: FENCE_INTERVAL_MS,
  });
}

/** Opens stores as soon as no earlier request holds them. */
export function openStoresFenced<Opened>(open: () => Promise<Opened>): Promise<Opened> {
  return retry(open, {
    isPassing: (error) => error instanceof DiffStorageError && error.code === "STORE_BUSY",
    deadlineMs: performance.now() + RECOVERY_PATIENCE_MS,
    intervalMs: FENCE_INTERVAL_MS,
  });
}
