/**
 * Checks the map of an area that is to be resumed. Everything that a reactor relies on is checked here: an error in the
 * reactor would stop the front.
 */

import type { AreaFigures } from "@blksnap/data-plane";
import { TURN_UNITS, Turns } from "@blksnap/data-plane";
import {
  AreaState,
  BlockState,
  DiffAreaMap,
  damageOfRecords,
  NO_SLOT,
  type TrackerGeometry,
} from "@blksnap/engine";
import { uuidBytes, uuidText } from "@blksnap/linux-block";
import { MappedMemory } from "@blksnap/uring";
import type { MapFile } from "../records/state-directory.js";
import type { MemberArea } from "./member.js";

export interface FoundArea {
  readonly used: readonly number[];
  /** Errno of its first lost block, or 0. */
  readonly faultErrno: number;
  readonly figures: AreaFigures;
}

/**
 * Gives the area's id to the map of an older daemon, which has none.
 * @returns undefined for an area that was given up before its snapshot's record could say so
 * @throws EngineError if it is not a map; Error if it belongs to another area, or is damaged
 */
export async function lookThrough(
  { id, map }: MemberArea,
  geometry: TrackerGeometry | undefined,
): Promise<FoundArea | undefined> {
  const memory = MappedMemory.file(map.fd, 0, map.lengthBytes);
  try {
    const area = DiffAreaMap.open(memory.buffer);
    // First: its device may have grown since, and been attached with another size without it.
    if (area.state === AreaState.DROPPED) return undefined;
    if (geometry !== undefined && !area.geometry.equals(geometry)) {
      throw new Error(`the map ${map.name} belongs to another device`);
    }
    if (area.state !== AreaState.ACTIVE) throw damaged(map, `it is in state ${area.state}`);
    const bytes = uuidBytes(id);
    if (area.id === undefined) area.adopt(bytes);
    else if (!Buffer.from(area.id).equals(bytes)) {
      throw new Error(`the map ${map.name} belongs to the area ${uuidText(area.id)}, not to ${id}`);
    }
    return await found(map, area);
  } finally {
    memory.unmap();
  }
}

/** In turns: there may be millions of chunks, and other devices need slots meanwhile. */
async function found(file: MapFile, map: DiffAreaMap): Promise<FoundArea> {
  const { chunkCount } = map.geometry;
  const used: number[] = [];
  const losses = new LossesInOrder(map);
  const turns = new Turns();
  let damage: string | undefined;
  for (let chunk = 0; chunk < chunkCount; ) {
    chunk = map.visitPages(chunk, TURN_UNITS, (one) => {
      damage = map.damageOf(one);
      if (damage !== undefined) return false;
      const slot = map.slotOf(one);
      if (slot !== NO_SLOT) used.push(slot);
      losses.look(one);
      return true;
    });
    if (damage !== undefined) throw damaged(file, damage);
    await turns.spend(TURN_UNITS);
  }
  const inRecords = damageOfRecords(map);
  if (inRecords !== undefined) throw damaged(file, inRecords);
  const { blocks, ranges } = losses;
  const figures = { slotsUsed: used.length, lostBlocks: blocks, lostRanges: ranges };
  return { used, faultErrno: map.faultErrno, figures };
}

/** Counts losses in chunks, which must come in order. */
class LossesInOrder {
  blocks = 0;
  ranges = 0;
  readonly #map: DiffAreaMap;
  /** The chunk after the last one that ends with a lost block. */
  #after = -1;

  constructor(map: DiffAreaMap) {
    this.#map = map;
  }

  look(chunk: number): void {
    const map = this.#map;
    if (!map.hasHoles(chunk) || map.isReleased(chunk)) return;
    const blocks = map.geometry.blocksInChunk(chunk);
    let continues = this.#after === chunk;
    for (let block = 0; block < blocks; ) {
      const end = map.stateEnd(chunk, block, blocks);
      const isLost = map.stateAt(chunk, block) === BlockState.LOST;
      if (isLost) {
        this.blocks += end - block;
        if (!continues) this.ranges++;
      }
      continues = isLost;
      block = end;
    }
    if (continues) this.#after = chunk + 1;
  }
}

function damaged({ name }: MapFile, what: string): Error {
  return new Error(`the map ${name} is damaged: ${what}`);
}
