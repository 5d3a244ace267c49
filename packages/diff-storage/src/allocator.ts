import { CutWatch, type LossOfStore } from "./cut-watch.js";
import { assert, checkInteger, DiffStorageError } from "./errors.js";
import type { DiffStorageEvent } from "./events.js";
import { Growth } from "./growth.js";
import { LowSpaceWatch } from "./low-space.js";
import { Puncher } from "./punch.js";
import { DecayingRate } from "./rate.js";
import {
  checkSlotBytes,
  DEFAULT_SLOT_BYTES,
  EXTENT_SLOTS_MAX,
  type Extent,
  limitSlots,
  STORES_MAX,
  slotIndex,
  slotStore,
} from "./slot.js";
import { StoreSpace } from "./space.js";
import type { DiffStorageStats } from "./stats.js";
import type { Store } from "./store.js";
import { type Clock, systemClock } from "./system.js";
import { ExtentWaiters } from "./waiters.js";

/** Default growth portion in bytes: the module's `diff_storage_minimum`. */
export const DEFAULT_PORTION_BYTES: number = 2 ** 30;
/** Default time limit of a growth, in milliseconds. */
export const DEFAULT_GROWTH_TIMEOUT_MS = 10_000;
/** An extent takes at most this part of the ready slots, so that several devices find some. */
const SHARE_DIVISOR = 8;

/** Settings of an allocator, all optional. */
export interface SlotAllocatorOptions {
  /** Size of a slot: a power of two from 4 KiB to 64 MiB. */
  readonly slotBytes?: number;
  /** Upper bound of the space of all stores together, at least one slot. Default: none. */
  readonly limitBytes?: number;
  /** Bytes by which the storage grows; growth starts when half of it, or less, is ready. */
  readonly portionBytes?: number;
  /** Longest time for which a caller that needs slots gets "wait", 1 ms to 1 h. */
  readonly growthTimeoutMs?: number;
  readonly clock?: Clock;
  /** Receives the events; must not throw. */
  readonly onEvent?: (event: DiffStorageEvent) => void;
  /** The content of a store's slots from this one on is lost: for example, another program has truncated its file. */
  readonly onCut?: (storeIndex: number, firstSlotIndex: number, why: LossOfStore) => void;
  /** Receives the progress of the first portion: bytes that are ready, bytes wanted, and the store that grows. */
  readonly onFill?: (readyBytes: number, wantedBytes: number, storeIndex: number) => void;
}

/**
 * Hands out slots of several stores and keeps enough of them ready.
 *
 * All calls must come from one thread. Nothing here waits for I/O: growth and punching run in the background, and
 * callers that got "wait" are notified of every change.
 */
export class SlotAllocator {
  readonly slotBytes: number;
  #spaces: StoreSpace[];
  #growth: Growth;
  #puncher: Puncher;
  #lowSpace: LowSpaceWatch;
  #waiters: ExtentWaiters;
  #rate: DecayingRate;
  #clock: Clock;
  #limitSlots: number;
  #targetSlots: number;
  readonly #cutWatch: CutWatch;
  readonly #onCut: NonNullable<SlotAllocatorOptions["onCut"]>;
  #listeners = new Set<() => void>();
  #notifying = false;
  #started = false;
  #stopped = false;

  /**
   * `stores`, 1 to 8 of them, in the order in which they are filled.
   * Throws STORE_COUNT_INVALID, LIMIT_INVALID or ARGUMENT_INVALID.
   */
  constructor(stores: readonly Store[], options: SlotAllocatorOptions = {}) {
    checkStoreCount(stores.length);
    this.slotBytes = options.slotBytes ?? DEFAULT_SLOT_BYTES;
    checkSlotBytes(this.slotBytes);
    const portionBytes = options.portionBytes ?? DEFAULT_PORTION_BYTES;
    checkInteger("portionBytes", portionBytes, this.slotBytes, Number.MAX_SAFE_INTEGER);
    const timeoutMs = options.growthTimeoutMs ?? DEFAULT_GROWTH_TIMEOUT_MS;
    checkInteger("growthTimeoutMs", timeoutMs, 1, 3_600_000);
    const ownLimits = stores.reduce(
      (sum, store) => sum + limitSlots(store.limitBytes, this.slotBytes),
      0,
    );
    this.#limitSlots = Math.min(limitSlots(options.limitBytes, this.slotBytes), ownLimits);
    // Files that are larger than the limit may be used up to it, the first ones first.
    let countedSlots = 0;
    this.#spaces = stores.map((store, index) => {
      const own = limitSlots(store.limitBytes, this.slotBytes);
      const most = this.#limitSlots - countedSlots;
      const space = new StoreSpace(store, index, this.slotBytes, own, most);
      countedSlots += space.countedSlots;
      return space;
    });
    const portionSlots = Math.floor(portionBytes / this.slotBytes);
    this.#targetSlots = Math.min(portionSlots, this.#limitSlots);
    const lowWaterSlots = Math.floor(this.#targetSlots / 2);
    this.#clock = options.clock ?? systemClock;
    const emit = options.onEvent ?? (() => undefined);
    const changed = (): void => this.#changed();
    const shared = { spaces: this.#spaces, clock: this.#clock, emit, changed };
    const limit = this.#limitSlots;
    this.#onCut = options.onCut ?? (() => undefined);
    this.#cutWatch = new CutWatch({ ...shared, onCut: (space, why) => this.#cutOff(space, why) });
    const bytesOf = (slots: number): number => slots * this.slotBytes;
    this.#growth = new Growth({
      ...shared,
      portionSlots,
      lowWaterSlots,
      limitSlots: limit,
      timeoutMs,
      beforeGrowth: (space) => this.#cutWatch.look(space),
      onFill:
        options.onFill &&
        ((ready, target, { storeIndex }) =>
          options.onFill?.(bytesOf(ready), bytesOf(target), storeIndex)),
    });
    this.#puncher = new Puncher({ ...shared, keepReadySlots: this.#targetSlots });
    this.#lowSpace = new LowSpaceWatch(this.slotBytes, portionSlots, lowWaterSlots, emit);
    this.#waiters = new ExtentWaiters(
      (maxSlots) => this.#allocate(maxSlots),
      this.#clock,
      timeoutMs,
    );
    this.#rate = new DecayingRate(this.#clock.nowMs());
  }

  /**
   * Marks slots that an earlier process's maps name as used; all others are free. Call it before `start`. Slots beyond
   * a file's end are reported by onCut. Throws SLOT_INVALID for a slot outside the stores or named twice.
   */
  reserveForRecovery(usedSlots: Iterable<number>): void {
    assert(!this.#started, "slots are reserved before the start");
    const cut = new Set<StoreSpace>();
    for (const slot of usedSlots) {
      const space = Number.isInteger(slot) && slot >= 0 ? this.#spaces[slotStore(slot)] : undefined;
      if (space === undefined) {
        throw new DiffStorageError("SLOT_INVALID", `slot ${slot} lies in no store`);
      }
      if (!space.reserve(slotIndex(slot))) cut.add(space);
    }
    for (const space of cut) {
      const firstSlotIndex = Math.floor(space.store.openedBytes / this.slotBytes);
      this.#onCut(space.storeIndex, firstSlotIndex, "cut");
    }
  }

  /**
   * Makes the first portion ready. With `required` it rejects with STORE_FULL or the store's own error if that fails,
   * and with ABORTED; without, the storage grows in the background.
   */
  async start(required: boolean, signal?: AbortSignal): Promise<void> {
    assert(!this.#started, "started once");
    this.#started = true;
    if (required) await this.#growth.fill(this.#targetSlots, signal);
    if (!this.#stopped) this.#cutWatch.start();
    this.#check();
  }

  /**
   * Takes up to `maxSlots` (1 to 2^28; at most 1024 are given) consecutive slots, fewer when few are ready. "wait":
   * growth is pending, ask again after a change. "full": none will be ready soon.
   * The time limit restarts whenever growth brings slots, so a caller that asks repeatedly without success needs a time
   * limit of its own.
   */
  allocateExtent(maxSlots: number): Extent | "wait" | "full" {
    checkInteger("maxSlots", maxSlots, 1, 2 ** 28);
    // Slots that became ready belong to the waiting callers first.
    if (this.#waiters.count > 0) return this.#stopped ? "full" : "wait";
    return this.#allocate(maxSlots);
  }

  /**
   * As `allocateExtent`, but waits: resolves with an extent, or with "full" after the growth time limit at the latest.
   * First come, first served. If the signal aborts, it resolves with "full" and takes nothing.
   */
  allocateExtentWhenReady(maxSlots: number, signal?: AbortSignal): Promise<Extent | "full"> {
    const now = this.allocateExtent(maxSlots);
    if (now !== "wait") return Promise.resolve(now);
    return this.#waiters.add(maxSlots, signal);
  }

  /** As `allocateExtentWhenReady`, for the first slots of a user: the forecast counts use, not what is in stock. */
  async allocateStockWhenReady(maxSlots: number): Promise<Extent | "full"> {
    const extent = await this.allocateExtentWhenReady(maxSlots);
    if (extent !== "full") this.#rate.note(-extent.count, this.#clock.nowMs());
    return extent;
  }

  /**
   * Frees slots. Their content is lost.
   * Throws SLOT_INVALID, changing nothing, if one of them is not in use.
   */
  free(firstSlot: number, count: number): void {
    checkInteger("firstSlot", firstSlot, 0, 2 ** 31 - 1);
    checkInteger("count", count, 1, 2 ** 28 - slotIndex(firstSlot));
    const space = this.#spaces[slotStore(firstSlot)];
    if (space === undefined) {
      throw new DiffStorageError("SLOT_INVALID", `slot ${firstSlot} lies in no store`);
    }
    space.release(slotIndex(firstSlot), count);
    if (this.#stopped) return;
    this.#check();
    this.#puncher.check();
    this.#changed();
  }

  /**
   * Suspends a store that does not answer: no slot of it is handed out, and it does not grow. Other stores grow in its
   * place.
   */
  suspend(storeIndex: number, isSuspended: boolean): void {
    this.#spaces[storeIndex].suspended = isSuspended;
    if (this.#stopped) return;
    this.#check();
    this.#changed();
  }

  /** A suspended store has slots, or room for them: "full" does not mean lack of space. */
  get isWithholding(): boolean {
    const roomSlots = Math.max(0, this.#limitSlots - this.#growth.countedSlots);
    return this.#spaces.some((space) => space.isWithholding(roomSlots));
  }

  /**
   * Calls `listener` after each change that may turn "wait" into another answer. Returns the function to unsubscribe.
   */
  onChange(listener: () => void): () => void {
    this.#listeners.add(listener);
    return () => void this.#listeners.delete(listener);
  }

  /** Checks the stores now, as is done each second; see onCut. */
  async look(): Promise<void> {
    await Promise.all(this.#spaces.map((space) => this.#cutWatch.lookAgain(space)));
  }

  /** Present sizes, use and forecast. */
  stats(): DiffStorageStats {
    const bytes = (slots: number): number => slots * this.slotBytes;
    const readySlots = this.#growth.readySlots;
    const usedSlots = this.#spaces.reduce((sum, space) => sum + space.usedSlots, 0);
    const roomSlots = this.#growth.likelyRoomSlots;
    const perSecond = this.#rate.perSecond(this.#clock.nowMs());
    const secondsToFull = (readySlots + roomSlots) / perSecond;
    return {
      slotBytes: this.slotBytes,
      capacityBytes: bytes(this.#growth.committedSlots),
      allocatedBytes: bytes(usedSlots),
      freeBytes: bytes(readySlots),
      limitBytes: Number.isFinite(this.#limitSlots) ? bytes(this.#limitSlots) : undefined,
      fillBytesPerSecond: bytes(perSecond),
      secondsToFull: Number.isFinite(secondsToFull) ? secondsToFull : undefined,
      lowSpace: this.#lowSpace.isLow(this.#view()),
      waiting: this.#waiters.count,
      stores: this.#spaces.map((space, index) => ({
        kind: space.store.kind,
        path: space.store.path,
        directIo: space.store.directIo,
        capacityBytes: bytes(space.committedSlots),
        allocatedBytes: bytes(space.usedSlots),
        freeBytes: bytes(space.readySlots),
        holeBytes: bytes(space.holeSlots),
        limitBytes: Number.isFinite(space.store.limitBytes) ? space.store.limitBytes : undefined,
        availableBytes: this.#growth.availableBytes(index),
        growing: space.growing,
        lastError: this.#growth.lastError(index),
      })),
    };
  }

  /** Ends growth and punching, and answers all waiting callers with "full". Slots can still be freed. */
  stop(): void {
    this.#stopped = true;
    this.#growth.stop();
    this.#puncher.stop();
    this.#cutWatch.stop();
    this.#changed();
  }

  /** Resolves when no growth and no punch is in flight. */
  async idle(): Promise<void> {
    await Promise.all([this.#growth.idle(), this.#puncher.idle(), this.#cutWatch.idle()]);
  }

  #allocate(maxSlots: number): Extent | "wait" | "full" {
    if (this.#stopped) return "full";
    const share = Math.floor(this.#growth.readySlots / SHARE_DIVISOR);
    const wanted = Math.max(1, Math.min(maxSlots, EXTENT_SLOTS_MAX, share));
    for (const space of this.#spaces) {
      const extent = space.acquire(wanted);
      if (extent === undefined) continue;
      this.#rate.note(extent.count, this.#clock.nowMs());
      this.#check();
      return extent;
    }
    return this.#growth.answer();
  }

  /**
   * It is no longer known where the file was truncated, because later copies have extended it again, nor which data
   * could not be written back. So its whole content counts as lost, and nothing new is stored there.
   */
  #cutOff(space: StoreSpace, why: LossOfStore): void {
    space.retire();
    this.#onCut(space.storeIndex, 0, why);
    this.#check();
    this.#changed();
  }

  #check(): void {
    this.#growth.check();
    this.#lowSpace.check(this.#view());
  }

  #view(): Parameters<LowSpaceWatch["check"]>[0] {
    const { committedSlots, countedSlots, roomSlots, growing, failing } = this.#growth;
    const readySlots = this.#spaces.reduce((sum, space) => sum + space.spareSlots, 0);
    const limitSlots = this.#limitSlots;
    return { readySlots, committedSlots, countedSlots, limitSlots, roomSlots, growing, failing };
  }

  /** Notifies waiting callers, once per turn of the event loop and never from within a caller's call. */
  #changed(): void {
    if (this.#notifying) return;
    this.#notifying = true;
    queueMicrotask(() => {
      this.#notifying = false;
      if (!this.#stopped) this.#lowSpace.check(this.#view());
      this.#waiters.serve();
      for (const listener of [...this.#listeners]) listener();
    });
  }
}

/** Throws STORE_COUNT_INVALID unless 1 to 8 stores are given. */
export function checkStoreCount(count: number): void {
  if (count >= 1 && count <= STORES_MAX) return;
  const text = `a diff storage has 1 to ${STORES_MAX} stores, not ${count}`;
  throw new DiffStorageError("STORE_COUNT_INVALID", text);
}
