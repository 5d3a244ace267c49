/** Opens again files that are open already. These claim and lock nothing, and do not write. */
import { type FileHandle, open, statfs } from "node:fs/promises";

/** The type of FUSE's file systems, as statfs(2) has it. */
const FUSE = 0x6573_5546;

export function openAgain(fd: number): Promise<FileHandle> {
  return open(pathOf(fd), "r");
}

/**
 * An open file for syncs alone. The kernel reports a failed write of cached data once per open file: if two callers
 * sync by the same one, the second gets the answer that everything is on the medium. Undefined for a file system in user space:
 * it may keep data of an open file until that file itself is synced.
 */
export async function openToSync(fd: number): Promise<FileHandle | undefined> {
  if ((await statfs(pathOf(fd))).type === FUSE) return undefined;
  return openAgain(fd);
}

function pathOf(fd: number): string {
  return `/proc/self/fd/${fd}`;
}
