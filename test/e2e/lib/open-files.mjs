/** What processes have open. */
import { readdirSync, readlinkSync } from "node:fs";
import { until } from "./wait.mjs";

function hasOpen(pid, path) {
  const folder = `/proc/${pid}/fd`;
  return readdirSync(folder).some((fd) => {
    try {
      return readlinkSync(`${folder}/${fd}`) === path;
    } catch {
      // Closed since the names were read.
      return false;
    }
  });
}

/** A program that was started opens its files in its own time. */
export function untilOpen(pid, path) {
  return until(`process ${pid} has ${path} open`, () => hasOpen(pid, path));
}
