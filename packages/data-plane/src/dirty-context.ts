/**
 * Changes since a take, as an NBD context: `qemu:dirty-bitmap:since-N` says for each CBT block whether the last take
 * found it changed after number N, as a diff does. `qemu:dirty-bitmap:since-N-of-GENERATION` does the same if that is
 * the map's generation: so a client that knows a number of another generation is not misled.
 */
import type { CbtMap } from "@blksnap/engine";
import { uuidBytes, uuidText } from "@blksnap/linux-block";
import { DIRTY, type MetaContext } from "@blksnap/nbd";
import { REACTOR_TURN_UNITS } from "./turns.js";

const PREFIX = "qemu:dirty-bitmap:since-";
const OF = "-of-";

class DirtyContext implements MetaContext {
  readonly name: string;
  /** An answer takes one turn. */
  readonly reachBytes: number;
  flags = 0;
  readonly #cbt: CbtMap;
  readonly #since: number;
  readonly #generation: Uint8Array;
  readonly #changesNumber: number;

  /** @param wanted the generation in the name, if it has one */
  constructor(name: string, cbt: CbtMap, since: number, wanted: Uint8Array | undefined) {
    const { generation, changesNumber, blockBytes } = cbt.info();
    this.name = name;
    this.#cbt = cbt;
    this.#since = since;
    this.#generation = wanted ?? generation;
    this.#changesNumber = changesNumber;
    this.reachBytes = REACTOR_TURN_UNITS * blockBytes;
  }

  runBytes(offsetBytes: number, endBytes: number): number {
    const cbt = this.#cbt;
    const since = this.#since;
    // Too much may be reported as changed, never too little.
    if (!cbt.isAt(this.#generation, this.#changesNumber)) {
      this.flags = DIRTY;
      return endBytes - offsetBytes;
    }
    const blockBytes = 2 ** cbt.blockShift;
    const end = Math.ceil(endBytes / blockBytes);
    let block = Math.floor(offsetBytes / blockBytes);
    const isChanged = cbt.frozenNumber(block) > since;
    do block++;
    while (block < end && cbt.frozenNumber(block) > since === isChanged);
    this.flags = isChanged ? DIRTY : 0;
    return Math.min(block * blockBytes, endBytes) - offsetBytes;
  }
}

/** @param generation of the map; without it, the name fits any generation */
export function dirtyContextName(since: number, generation?: Uint8Array): string {
  const of = generation === undefined ? "" : `${OF}${uuidText(generation)}`;
  return `${PREFIX}${since}${of}`;
}

/** The context with that name; undefined for names of other kinds. */
export function dirtyContext(name: string, cbt: CbtMap): MetaContext | undefined {
  if (!name.startsWith(PREFIX)) return undefined;
  const [since, generation] = name.slice(PREFIX.length).split(OF);
  const wanted = generation === undefined ? undefined : uuidBytes(generation);
  return new DirtyContext(name, cbt, Number(since), wanted);
}
