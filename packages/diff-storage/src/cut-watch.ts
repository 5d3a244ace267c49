import type { StoreSpace } from "./space.js";
import type { Clock } from "./system.js";

const INTERVAL_MS = 1_000;

/** By another program, or by the store's medium. */
export type LossOfStore = "cut" | "unwritten";

export interface CutWatchOptions {
  readonly spaces: readonly StoreSpace[];
  readonly clock: Clock;
  /** What was stored there is lost: a file was truncated, or its cached data could not be written back. */
  readonly onCut: (space: StoreSpace, why: LossOfStore) => void;
}

/**
 * Watches for truncation of the files that old data is in. What was cut off reads as the file's end, but
 * as zeros, which look like data, once the file is longer again: so it is looked for each second, and
 * before each growth.
 *
 * A file that was cut off and made longer again between two looks has its length, but no space: what was
 * preallocated stays allocated until this daemon punches it out. The space that the file system needs for its own
 * notes of the file counts as well, so a few KiB less at the end can stay unseen.
 *
 * Where writes go through a cache, what could not be written back is found there until its memory is needed, and then
 * the store has what was there before. Nobody is told of it who does not ask, so that is asked, too.
 */
export class CutWatch {
  readonly #options: CutWatchOptions;
  /** Per store: bytes that were there at the last look, as far as they are its own. */
  readonly #floors: number[];
  /**
   * Per store: whether all its slots had space at the last look. What this daemon preallocates has; a file of an
   * earlier one may have been copied since, with holes for zeros, so that is looked at first.
   */
  readonly #whole: (boolean | undefined)[];
  readonly #looking = new Map<StoreSpace, Promise<void>>();
  #cancel: (() => void) | undefined;
  #stopped = false;

  constructor(options: CutWatchOptions) {
    this.#options = options;
    this.#floors = options.spaces.map(() => 0);
    this.#whole = options.spaces.map(() => undefined);
  }

  start(): void {
    this.#cancel = this.#options.clock.after(INTERVAL_MS, () => {
      // One that does not answer is not asked again meanwhile.
      for (const space of this.#options.spaces) void this.look(space);
      if (!this.#stopped) this.start();
    });
  }

  stop(): void {
    this.#stopped = true;
    this.#cancel?.();
  }

  /** Resolves when no look is under way. */
  async idle(): Promise<void> {
    await Promise.all(this.#looking.values());
  }

  /** Looks at a store; onCut is called before this ends. What cannot be looked at is taken for whole. */
  look(space: StoreSpace): Promise<void> {
    const looking = this.#looking.get(space) ?? this.#look(space).catch(() => undefined);
    this.#looking.set(space, looking);
    return looking.finally(() => this.#looking.delete(space));
  }

  async #look(space: StoreSpace): Promise<void> {
    // Of a slot that is free by now, perhaps.
    const isUnwritten = (await space.store.hasLostWrites?.()) === true && space.usedSlots > 0;
    if (isUnwritten && !this.#stopped) this.#options.onCut(space, "unwritten");
    const { storeIndex: index, slotBytes, moves } = space;
    // What a growth that is under way adds can be taken back.
    const ownBytes = space.endSlots * slotBytes;
    const neededBytes = space.committedStillSlots * slotBytes;
    const present = await space.store.presence?.();
    if (present === undefined || this.#stopped) return;
    const floor = this.#floors[index];
    this.#floors[index] = Math.min(present.sizeBytes, ownBytes);
    // Of space that came or went meanwhile nothing is known.
    const isJudged = present.allocatedBytes !== undefined && space.moves === moves;
    const isWhole = !isJudged || present.allocatedBytes >= neededBytes;
    const wasWhole = this.#whole[index] ?? neededBytes === 0;
    const isHollow = wasWhole && !isWhole;
    this.#whole[index] = isJudged ? isWhole : wasWhole;
    if (present.sizeBytes < floor || isHollow) this.#options.onCut(space, "cut");
  }
}
