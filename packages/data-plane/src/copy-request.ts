import type { RequestTable } from "@blksnap/engine";
import type { RequestQueue } from "@blksnap/ublk";

/** Copies request `tag` of a queue into the engine's columns, as its request `to`. */
export function copyRequest(
  queue: RequestQueue,
  table: RequestTable,
  tag: number,
  to: number,
): void {
  table.op[to] = queue.op(tag);
  table.flags[to] = queue.flags(tag);
  table.offsetBytes[to] =
    (queue.startSectorLow(tag) >>> 0) * 512 + queue.startSectorHigh(tag) * 2199023255552;
  table.lengthBytes[to] = queue.sectors(tag) * 512;
}
