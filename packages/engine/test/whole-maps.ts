/** Reads whole maps at once, for tests, whose maps are small. */
import {
  type ByteRange,
  DiffAreaMap,
  LostRangeScan,
  NO_SLOT,
  type TrackerGeometry,
} from "@blksnap/engine";

const ALL = Number.MAX_SAFE_INTEGER;

/** A thousand chunks, and one that is neither whole nor ends at a block. */
export const SMALL: TrackerGeometry = {
  capacityBytes: 1000 * 262144 + 5 * 4096 + 1024,
  logicalBlockBytes: 512,
  chunkShift: 18,
  blockShift: 12,
};

export function makeMap(geometry = SMALL): { map: DiffAreaMap; buffer: ArrayBuffer } {
  const buffer = new ArrayBuffer(DiffAreaMap.byteLength(geometry));
  return { map: DiffAreaMap.create(buffer, geometry), buffer };
}

/** Chunks of which something is recorded. */
export function touchedChunks(map: DiffAreaMap): number[] {
  const chunks: number[] = [];
  map.visitTouched(0, ALL, (chunk) => {
    chunks.push(chunk);
    return true;
  });
  return chunks;
}

/** Slots in use, with their chunks. */
export function usedSlots(map: DiffAreaMap): [slot: number, chunk: number][] {
  return touchedChunks(map)
    .map((chunk): [number, number] => [map.slotOf(chunk), chunk])
    .filter(([slot]) => slot !== NO_SLOT);
}

/** Ranges that could not be saved and read as EIO, in order. */
export function lostRanges({ map }: { map: DiffAreaMap }): ByteRange[] {
  const scan = new LostRangeScan(map, ALL);
  while (!scan.isDone) scan.step(ALL);
  return scan.ranges;
}

/** The first damage found in the map, or undefined. */
export function damageIn(map: DiffAreaMap): string | undefined {
  let found: string | undefined;
  map.visitPages(0, ALL, (chunk) => {
    found = map.damageOf(chunk);
    return found === undefined;
  });
  return found;
}
