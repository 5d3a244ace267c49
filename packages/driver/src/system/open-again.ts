/**
 * Open files for syncs alone. That cached data could not be written the kernel tells each open file once: of two that
 * sync by the same one, the second hears that all is well.
 */
import { type FileHandle, open } from "node:fs/promises";

/** Another open file of what the descriptor is of. It claims and locks nothing, and does not write. */
export function openAgain(fd: number): Promise<FileHandle> {
  return open(`/proc/self/fd/${fd}`, "r");
}
