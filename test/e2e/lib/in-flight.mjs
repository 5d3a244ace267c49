/** Requests that users of a device wait for. */
import { readFileSync } from "node:fs";
import { basename } from "node:path";

export function requestsInFlight(device) {
  const text = readFileSync(`/sys/block/${basename(device)}/inflight`, "utf8");
  const counts = text.trim().split(/\s+/);
  return counts.reduce((sum, count) => sum + Number(count), 0);
}
