/** Other open files of what is open already. They claim and lock nothing, and do not write. */
import { type FileHandle, open, statfs } from "node:fs/promises";

/** The type of FUSE's file systems, as statfs(2) has it. */
const FUSE = 0x6573_5546;

export function openAgain(fd: number): Promise<FileHandle> {
  return open(pathOf(fd), "r");
}

/**
 * An open file for syncs alone. That cached data could not be written the kernel tells each open file once: of two that
 * sync by the same one, the second hears that all is well. Undefined where the file system is one of user space: it may
 * keep what came through an open file until that is synced.
 */
export async function openToSync(fd: number): Promise<FileHandle | undefined> {
  if ((await statfs(pathOf(fd))).type === FUSE) return undefined;
  return openAgain(fd);
}

function pathOf(fd: number): string {
  return `/proc/self/fd/${fd}`;
}
