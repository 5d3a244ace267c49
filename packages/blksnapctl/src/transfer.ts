/** Progress of an export or restore: on a terminal, and as JSON. */
import type { Progress } from "@blksnap/backup";
import { formatBytes, formatSeconds } from "./units.js";
import type { Context } from "./verb.js";

const JSON_INTERVAL_MS = 1000;

/** "1.2 GiB of 8.0 GiB, 310.0 MiB/s, 22 s left" */
export function progressText({ done_bytes, total_bytes, ...rest }: Progress): string {
  const parts = [
    `${formatBytes(done_bytes, false)} of ${formatBytes(total_bytes, false)}`,
    `${formatBytes(rest.rate_bytes_per_s, false)}/s`,
    ...(rest.left_ms === null ? [] : [`${formatSeconds(rest.left_ms / 1000)} left`]),
  ];
  return parts.join(", ");
}

/** Updates a terminal at each report, and JSON once per second. */
export function progressReporter(
  { json, progress, printJson }: Context,
  verb: string,
): (report: Progress) => void {
  let lastMs = Number.NEGATIVE_INFINITY;
  return (report) => {
    progress(`${verb}: ${progressText(report)}`);
    const nowMs = performance.now();
    if (!json || nowMs - lastMs < JSON_INTERVAL_MS) return;
    lastMs = nowMs;
    printJson({ event: "progress", ...report });
  };
}
