/** Reports the progress of the first growth of a snapshot's stores, which can make a create take long. */
import type { SnapshotCreateProgress } from "@blksnap/api";
import type { Logger } from "pino";
import type { StoreRecord } from "../records/records.js";
import { FILL_LOG_INTERVAL_MS } from "../time-limits.js";

interface FilledSnapshot {
  readonly id: string;
  readonly stores: readonly StoreRecord[];
}

/** Reports to the log now and then, and to the caller each time. */
export function fillReporter(
  logger: Logger,
  { id, stores }: FilledSnapshot,
  onProgress?: (progress: SnapshotCreateProgress) => void,
): (readyBytes: number, wantedBytes: number, storeIndex: number) => void {
  let loggedMs = performance.now();
  return (readyBytes, wantedBytes, storeIndex) => {
    const store = stores[storeIndex].path;
    onProgress?.({ store, allocated_bytes: readyBytes, target_bytes: wantedBytes });
    const nowMs = performance.now();
    if (nowMs - loggedMs < FILL_LOG_INTERVAL_MS) return;
    loggedMs = nowMs;
    logger.info({ snapshot: id, store, readyBytes, wantedBytes }, "the stores are being allocated");
  };
}
