/** What is mounted where, as the kernel tells this process. */
import { readFileSync } from "node:fs";
import { type Mount, parseMountinfo } from "@blksnap/linux-block";

/** The uppermost mount at a path; undefined where it is not a mount point. */
export function mountedAt(path: string): Mount | undefined {
  // One character for each byte: names need not be UTF-8.
  const mounts = parseMountinfo(readFileSync("/proc/self/mountinfo", "latin1"));
  return mounts.findLast(({ mountPoint }) => mountPoint === path);
}
