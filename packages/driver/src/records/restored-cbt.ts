/** Rebuilds a CBT map from its journal. */
import { CbtReplay } from "@blksnap/data-plane";
import { CbtMap } from "@blksnap/engine";

/** The content of a journal, to be put into a new map. */
export interface RestoredCbt {
  readonly checkpoint: Uint8Array;
  readonly entries: readonly (readonly [op: number, a: number, b: number, c: number])[];
}

/** Puts the journal's content into `buffer`. @throws EngineError, or Error, if it belongs to another map */
export function restoreCbt(buffer: ArrayBufferLike, restored: RestoredCbt): CbtReplay {
  const map = CbtMap.restore(buffer, restored.checkpoint);
  const replay = new CbtReplay(map);
  for (const entry of restored.entries) replay.apply(...entry);
  return replay;
}
