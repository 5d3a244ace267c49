/** Says how far the first growth of a snapshot's stores is, for who wonders why a create takes so long. */
import type { Logger } from "pino";

const INTERVAL_MS = 1_000;

export function fillLog(
  logger: Logger,
  snapshot: string,
): (readyBytes: number, wantedBytes: number) => void {
  let toldMs = performance.now();
  return (readyBytes, wantedBytes) => {
    const nowMs = performance.now();
    if (nowMs - toldMs < INTERVAL_MS) return;
    toldMs = nowMs;
    logger.info({ snapshot, readyBytes, wantedBytes }, "the stores are being allocated");
  };
}
