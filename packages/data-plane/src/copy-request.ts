import type { RequestTable } from "@blksnap/engine";
import type { Queue } from "@blksnap/ublk";

/** Copies request `tag` of a queue into the engine's columns. */
export function copyRequest(queue: Queue, table: RequestTable, tag: number): void {
  table.op[tag] = queue.op(tag);
  table.flags[tag] = queue.flags(tag);
  table.offsetBytes[tag] =
    (queue.startSectorLow(tag) >>> 0) * 512 + queue.startSectorHigh(tag) * 2199023255552;
  table.lengthBytes[tag] = queue.sectors(tag) * 512;
}
