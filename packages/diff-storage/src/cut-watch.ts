import type { StoreSpace } from "./space.js";
import type { Clock } from "./system.js";

const INTERVAL_MS = 1_000;

/** Caused by another program, or by the store's medium. */
export type LossOfStore = "cut" | "unwritten";

export interface CutWatchOptions {
  readonly spaces: readonly StoreSpace[];
  readonly clock: Clock;
  /** A store's content is lost: its file was truncated, or its cached data could not be written back. */
  readonly onCut: (space: StoreSpace, why: LossOfStore) => void;
}

/**
 * Watches for truncation of the files with old data. The truncated part reads as the end of the file, but as zeros,
 * which look like data, once the file is longer again: so files are checked each second, and before each growth.
 *
 * A file that was truncated and extended again between two checks has its length, but not its space: what was
 * preallocated stays allocated until this daemon punches it out. The file system's own space for the file counts as
 * well, so a few KiB less at the end may go unnoticed.
 *
 * If writes go through a cache, data that could not be written back is still found there until its memory is needed;
 * after that the store has the former content. The kernel reports that only if asked, so it is asked, too.
 */
export class CutWatch {
  readonly #options: CutWatchOptions;
  /** Per store: bytes of its own at the last check. */
  readonly #floors: number[];
  /**
   * Per store: whether all its slots had space at the last check. What this daemon preallocates has; a file of an
   * earlier one may have been copied since, with holes for zeros, so that is checked first.
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
      // A store that does not answer is not asked again meanwhile.
      for (const space of this.#options.spaces) void this.look(space);
      if (!this.#stopped) this.start();
    });
  }

  stop(): void {
    this.#stopped = true;
    this.#cancel?.();
  }

  /** Resolves when no check is in progress. */
  async idle(): Promise<void> {
    await Promise.all(this.#looking.values());
  }

  /** Checks a store, and calls onCut before it resolves. A store that cannot be checked counts as complete. */
  look(space: StoreSpace): Promise<void> {
    const looking = this.#looking.get(space) ?? this.#look(space).catch(() => undefined);
    this.#looking.set(space, looking);
    return looking.finally(() => this.#looking.delete(space));
  }

  /** As look(), but a check in progress does not suffice: it may have asked before. */
  async lookAgain(space: StoreSpace): Promise<void> {
    await this.#looking.get(space);
    // The store may be closed once idle() has ended.
    if (!this.#stopped) await this.look(space);
  }

  async #look(space: StoreSpace): Promise<void> {
    // The lost data may be of slots that are free by now.
    const isUnwritten = (await space.store.hasLostWrites?.()) === true && space.usedSlots > 0;
    if (isUnwritten && !this.#stopped) this.#options.onCut(space, "unwritten");
    const { storeIndex: index, slotBytes, moves } = space;
    // A growth in progress may be undone.
    const ownBytes = space.endSlots * slotBytes;
    const neededBytes = space.committedStillSlots * slotBytes;
    const present = await space.store.presence?.();
    if (present === undefined || this.#stopped) return;
    const floor = this.#floors[index];
    this.#floors[index] = Math.min(present.sizeBytes, ownBytes);
    // If space was added or freed meanwhile, nothing is known.
    const isJudged = present.allocatedBytes !== undefined && space.moves === moves;
    const isWhole = !isJudged || present.allocatedBytes >= neededBytes;
    const wasWhole = this.#whole[index] ?? neededBytes === 0;
    const isHollow = wasWhole && !isWhole;
    this.#whole[index] = isJudged ? isWhole : wasWhole;
    if (present.sizeBytes < floor || isHollow) this.#options.onCut(space, "cut");
  }
}
