import type { StoreSpace } from "./space.js";
import type { Clock } from "./system.js";

const INTERVAL_MS = 1_000;

export interface CutWatchOptions {
  readonly spaces: readonly StoreSpace[];
  readonly clock: Clock;
  /** A file was truncated: what was stored beyond its end is lost. */
  readonly onCut: (space: StoreSpace) => void;
}

/**
 * Watches for truncation of the files that old data is in. What was cut off reads as the file's end, but
 * as zeros, which look like data, once the file is longer again: so it is looked for each second, and
 * before each growth.
 */
export class CutWatch {
  readonly #options: CutWatchOptions;
  /** Per store: bytes that were there at the last look, as far as they are its own. */
  readonly #floors: number[];
  readonly #looking = new Map<StoreSpace, Promise<void>>();
  #cancel: (() => void) | undefined;
  #stopped = false;

  constructor(options: CutWatchOptions) {
    this.#options = options;
    this.#floors = options.spaces.map(() => 0);
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
    // What a growth that is under way adds can be taken back.
    const ownBytes = space.endSlots * space.slotBytes;
    const presentBytes = await space.store.presentBytes?.();
    if (presentBytes === undefined || this.#stopped) return;
    const floor = this.#floors[space.storeIndex];
    this.#floors[space.storeIndex] = Math.min(presentBytes, ownBytes);
    if (presentBytes < floor) this.#options.onCut(space);
  }
}
