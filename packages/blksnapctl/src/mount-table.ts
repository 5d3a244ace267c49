/** The mounts that this process sees. */
import { readFileSync } from "node:fs";
import { type Mount, parseMountinfo } from "@blksnap/linux-block";

/** The topmost mount at a path; undefined if it is not a mount point. */
export function mountedAt(path: string): Mount | undefined {
  // Latin1: names need not be UTF-8.
  const mounts = parseMountinfo(readFileSync("/proc/self/mountinfo", "latin1"));
  return mounts.findLast(({ mountPoint }) => mountPoint === path);
}
