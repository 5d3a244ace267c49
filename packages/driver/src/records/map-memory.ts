/** Memory for what the main thread records in an area's map before a reactor has the map. */
import { readSync, writeSync } from "node:fs";
import type { DiffAreaMap } from "@blksnap/engine";
import type { MapFile } from "./state-directory.js";

/**
 * Allocates the memory of the chunk's slice by writing its content back: if the state directory is full a write fails,
 * while a store would end the process.
 * @throws the error of write(2); Error if it wrote less
 */
export function takeMapMemory({ name, fd }: MapFile, map: DiffAreaMap, chunk: number): void {
  const slice = map.slices.of(chunk);
  for (const { offsetBytes, lengthBytes } of map.slices.ranges(slice)) {
    const bytes = new Uint8Array(lengthBytes);
    readSync(fd, bytes, 0, lengthBytes, offsetBytes);
    const written = writeSync(fd, bytes, 0, lengthBytes, offsetBytes);
    if (written < lengthBytes) throw new Error(`cannot allocate memory for the map ${name}`);
  }
  map.slices.noteMemory(slice);
}
