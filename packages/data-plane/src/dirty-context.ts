/**
 * What has changed since a take, as an NBD context: `qemu:dirty-bitmap:since-N` says of each CBT block whether
 * the last take found it changed after number N, as a diff does. `qemu:dirty-bitmap:since-N-of-GENERATION` says the
 * same where that is the map's generation: a client that has kept the number of another one is not misled.
 */
import type { CbtMap } from "@blksnap/engine";
import { uuidBytes, uuidText } from "@blksnap/linux-block";
import { DIRTY, type MetaContext } from "@blksnap/nbd";
import { REACTOR_TURN_UNITS } from "./turns.js";

const PREFIX = "qemu:dirty-bitmap:since-";
const OF = "-of-";

class DirtyContext implements MetaContext {
  readonly name: string;
  /** An answer is made in one turn. */
  readonly reachBytes: number;
  flags = 0;
  readonly #cbt: CbtMap;
  readonly #since: number;
  readonly #generation: Uint8Array;
  readonly #changesNumber: number;

  /** @param wanted the generation that the name has, where it has one */
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
    // Too much may be called changed, never too little.
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

/** @param generation of the map; without one the name is that of whatever generation there is */
export function dirtyContextName(since: number, generation?: Uint8Array): string {
  const of = generation === undefined ? "" : `${OF}${uuidText(generation)}`;
  return `${PREFIX}${since}${of}`;
}

/** The context of that name; undefined for another kind. */
export function dirtyContext(name: string, cbt: CbtMap): MetaContext | undefined {
  if (!name.startsWith(PREFIX)) return undefined;
  const [since, generation] = name.slice(PREFIX.length).split(OF);
  const wanted = generation === undefined ? undefined : uuidBytes(generation);
  return new DirtyContext(name, cbt, Number(since), wanted);
}
