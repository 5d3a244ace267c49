/**
 * What has changed since a take, as an NBD context: `qemu:dirty-bitmap:since-N` says of each CBT block whether
 * the last take found it changed after number N, as a diff does.
 */
import type { CbtMap } from "@blksnap/engine";
import { DIRTY, type MetaContext } from "@blksnap/nbd";
import { REACTOR_TURN_UNITS } from "./turns.js";

const PREFIX = "qemu:dirty-bitmap:since-";

class DirtyContext implements MetaContext {
  readonly name: string;
  /** An answer is made in one turn. */
  readonly reachBytes: number;
  flags = 0;
  readonly #cbt: CbtMap;
  readonly #since: number;
  readonly #generation: Uint8Array;
  readonly #changesNumber: number;

  constructor(cbt: CbtMap, since: number) {
    const { generation, changesNumber, blockBytes } = cbt.info();
    this.name = dirtyContextName(since);
    this.#cbt = cbt;
    this.#since = since;
    this.#generation = generation;
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

export function dirtyContextName(since: number): string {
  return `${PREFIX}${since}`;
}

/** The context of that name; undefined for another kind. */
export function dirtyContext(name: string, cbt: CbtMap): MetaContext | undefined {
  if (!name.startsWith(PREFIX)) return undefined;
  return new DirtyContext(cbt, Number(name.slice(PREFIX.length)));
}
