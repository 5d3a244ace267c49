import { errnoNameOf, messageOf } from "@blksnap/errors";
import { DiffStorageError } from "./errors.js";
import type { DiffStorageEvent } from "./events.js";
import { FillWatch } from "./fill-watch.js";
import { fullError } from "./full-error.js";
import type { StoreSpace } from "./space.js";
import { isDevice } from "./store-kinds.js";
import type { Clock } from "./system.js";

/** Pause after the first failure of a store's growth; doubles with each further one, up to the last. */
const BACKOFF_FIRST_MS = 100;
const BACKOFF_LAST_MS = 30_000;
/** Space is allocated in steps: slots are ready after each, and a slow disk shows its progress. */
const STEP_BYTES = 2 ** 24;
/** The same of memory under load: for as long as it takes (33 µs), writes to the file wait, each at the cost of a processor. */
const MEMORY_STEP_BYTES = 2 ** 18;
/** Before the slots are in use, a step this quick is followed by one twice as long: each costs several system calls. */
const QUICK_STEP_MS = 10;
/** The minimum of an attempt, whatever the file system reports as available. */
const ATTEMPT_SLOTS_MIN = 16;
/** Before the slots are in use, a step may take this many times as long as under load. */
const FILL_PATIENCE = 6;

/** The parts and settings of growth. Sizes in slots. */
export interface GrowthParts {
  readonly spaces: readonly StoreSpace[];
  readonly clock: Clock;
  /** Slots added at a time. */
  readonly portionSlots: number;
  /** Growth starts when this many slots, or fewer, are ready. */
  readonly lowWaterSlots: number;
  /** Upper bound of the committed slots of all stores together; Infinity for none. */
  readonly limitSlots: number;
  /** After this time without success, callers that need slots get "full". */
  readonly timeoutMs: number;
  readonly emit: (event: DiffStorageEvent) => void;
  /** Called before a store becomes longer. */
  readonly beforeGrowth?: ((space: StoreSpace) => Promise<void>) | undefined;
  /** Called at each step before the slots are in use, with the store that grows. */
  readonly onFill?:
    | ((readySlots: number, targetSlots: number, space: StoreSpace) => void)
    | undefined;
  /** Slots became ready, or the answer to waiting callers changed. */
  readonly changed: () => void;
}

/** The attempts of one store to grow. */
interface Attempts {
  readonly space: StoreSpace;
  /** Start of the attempt in flight, or of its present step. */
  startedMs: number | undefined;
  /** Failures in a row. */
  failures: number;
  /** No attempt before this time. */
  notBeforeMs: number;
  /** Slots to ask for next; halved by failures, so that the rest of a nearly full disk gets used. */
  stepSlots: number;
  lastError: unknown;
  /** What the file system could still provide after the last attempt; undefined if unknown. */
  availableBytes: number | undefined;
}

/**
 * Keeps slots ready ahead of need. Stores grow in their order, one portion at a time, and the allocator never waits
 * for them. After a failure a store pauses longer each time, and the next one is tried; a store whose attempt hangs is
 * skipped after the time limit.
 */
export class Growth {
  #parts: GrowthParts;
  #stores: Attempts[];
  #inFlight = new Set<Promise<unknown>>();
  /** Since when slots are wanted without any coming; undefined while enough are ready. */
  #wantedSinceMs: number | undefined;
  #late = false;
  #filling: FillWatch | undefined;
  #stopped = false;
  /** Called at each step while filling. */
  #onStep: (space: StoreSpace) => void = () => undefined;
  #cancelTimer: (() => void) | undefined;

  constructor(parts: GrowthParts) {
    this.#parts = parts;
    this.#stores = parts.spaces.map((space) => ({
      space,
      startedMs: undefined,
      failures: 0,
      notBeforeMs: Number.NEGATIVE_INFINITY,
      stepSlots: parts.portionSlots,
      lastError: undefined,
      availableBytes: undefined,
    }));
  }

  get readySlots(): number {
    return this.#parts.spaces.reduce((sum, space) => sum + space.readySlots, 0);
  }

  get committedSlots(): number {
    return this.#parts.spaces.reduce((sum, space) => sum + space.committedSlots, 0);
  }

  /** The used part of the limit: by space, or by files that existed before. */
  get countedSlots(): number {
    return this.#parts.spaces.reduce((sum, space) => sum + space.countedSlots, 0);
  }

  /** Slots that stores and limits still allow, whatever room their disks have. */
  get roomSlots(): number {
    const stores = this.#stores.reduce((sum, store) => sum + this.#room(store), 0);
    return Math.max(0, Math.min(this.#parts.limitSlots - this.committedSlots, stores));
  }

  /** As `roomSlots`, but no more than the stores' disks had at the last growth. */
  get likelyRoomSlots(): number {
    const stores = this.#stores.reduce((sum, store) => {
      const { space, availableBytes } = store;
      // A file that existed may already have space for its holes.
      const available =
        Math.floor((availableBytes ?? Infinity) / space.slotBytes) + space.holeSlots;
      return sum + Math.min(this.#room(store), available);
    }, 0);
    return Math.max(0, Math.min(this.#parts.limitSlots - this.committedSlots, stores));
  }

  get growing(): boolean {
    return this.#stores.some((store) => store.startedMs !== undefined);
  }

  /** True if every store that could grow failed in its last attempt, and there is at least one. */
  get failing(): boolean {
    const able = this.#stores.filter((store) => this.#isAble(store));
    return able.length > 0 && able.every((store) => store.failures > 0);
  }

  /** Why a store's last attempt failed; undefined after a success. */
  lastError(storeIndex: number): unknown {
    return this.#stores[storeIndex].lastError;
  }

  /** What a store's file system could still provide after its last growth, in bytes. */
  availableBytes(storeIndex: number): number | undefined {
    return this.#stores[storeIndex].availableBytes;
  }

  /** The answer for a caller that needs slots while none is ready. */
  answer(): "wait" | "full" {
    if (this.#stopped || this.#wantedSinceMs === undefined) return "full";
    const nowMs = this.#parts.clock.nowMs();
    const hope = this.#stores.some(
      (store) => this.#isAble(store) && !this.#isOverdue(store, nowMs),
    );
    if (!hope) return "full";
    const waitedMs = nowMs - this.#wantedSinceMs;
    return waitedMs < this.#parts.timeoutMs ? "wait" : "full";
  }

  /**
   * Grows until `targetSlots` are ready, before they are in use, as long as that makes progress.
   *
   * Rejects with STORE_FULL, STORE_TIMEOUT, ABORTED or the store's own error if that fails.
   */
  async fill(targetSlots: number, signal?: AbortSignal): Promise<void> {
    const { clock, timeoutMs, onFill } = this.#parts;
    const watch = new FillWatch(clock, timeoutMs * FILL_PATIENCE, signal);
    this.#filling = watch;
    const report = (space: StoreSpace): void => onFill?.(this.readySlots, targetSlots, space);
    this.#onStep = (space) => {
      watch.stepped();
      report(space);
    };
    try {
      for (const [index, store] of this.#stores.entries()) {
        const isLast = !this.#stores.slice(index + 1).some((later) => this.#isAble(later));
        while (this.readySlots < targetSlots && this.#isAble(store)) {
          const missing = targetSlots - this.readySlots;
          if (isLast) await this.#checkAvailable(store, missing);
          report(store.space);
          await watch.wait(this.#attempt(store, missing));
          report(store.space);
          if (signal?.aborted) throw this.#abort();
          if (store.failures > 0 || store.startedMs !== undefined) break;
        }
      }
    } finally {
      this.#filling = undefined;
    }
    if (this.readySlots >= targetSlots) return;
    const failed = this.#stores.find((store) => store.lastError !== undefined);
    if (failed !== undefined) throw failed.lastError;
    const hanging = this.#stores.find((store) => store.startedMs !== undefined);
    if (hanging === undefined) return;
    const { path } = hanging.space.store;
    const text = `${path} has allocated nothing for ${timeoutMs * FILL_PATIENCE} ms; check its disk`;
    throw new DiffStorageError("STORE_TIMEOUT", text, { path });
  }

  /** Starts growth if it is needed now. Call it after every change of the ready slots. */
  check(): void {
    this.#cancelTimer?.();
    this.#cancelTimer = undefined;
    if (this.#stopped) return;
    const able = this.#stores.filter((store) => this.#isAble(store));
    if (this.readySlots > this.#parts.lowWaterSlots || able.length === 0) {
      this.#wantedSinceMs = undefined;
      this.#late = false;
      return;
    }
    const nowMs = this.#parts.clock.nowMs();
    this.#wantedSinceMs ??= nowMs;
    this.#startOne(able, nowMs);
    this.#noteLate(nowMs);
    this.#arm(nowMs);
  }

  /** No attempt starts after this; those in flight continue. */
  stop(): void {
    this.#stopped = true;
    this.#cancelTimer?.();
    this.#cancelTimer = undefined;
  }

  /** Resolves when no attempt is in flight. */
  async idle(): Promise<void> {
    while (this.#inFlight.size > 0) await Promise.all(this.#inFlight);
  }

  #abort(): DiffStorageError {
    this.#stopped = true;
    return new DiffStorageError("ABORTED", "nothing waits for the stores any more");
  }

  /** Fails early rather than fill a disk in vain. */
  async #checkAvailable(store: Attempts, missingSlots: number): Promise<void> {
    const { space } = store;
    const availableBytes = await space.store.availableBytes();
    const wanted = this.#room(store, missingSlots) - space.holeSlots;
    if (availableBytes === undefined || wanted * space.slotBytes <= availableBytes) return;
    const error = Object.assign(new Error("no space left on device"), { code: "ENOSPC" });
    throw fullError(error, space, wanted, availableBytes);
  }

  /** Slots that a store may still get under its own limit and the common one, at most `most`. */
  #room(store: Attempts, most = Number.POSITIVE_INFINITY): number {
    const { space } = store;
    const others = this.countedSlots - space.countedSlots;
    const room = this.#parts.limitSlots - others - space.committedSlots;
    return space.roomSlots(Math.max(0, Math.min(room, most)));
  }

  #isAble(store: Attempts): boolean {
    return store.startedMs !== undefined || this.#room(store) > 0;
  }

  #isOverdue(store: Attempts, nowMs: number): boolean {
    return store.startedMs !== undefined && nowMs - store.startedMs >= this.#parts.timeoutMs;
  }

  #startOne(able: readonly Attempts[], nowMs: number): void {
    for (const store of able) {
      if (store.startedMs !== undefined) {
        if (this.#isOverdue(store, nowMs)) continue;
        return;
      }
      if (store.notBeforeMs > nowMs) continue;
      void this.#attempt(store, store.stepSlots);
      return;
    }
  }

  #noteLate(nowMs: number): void {
    const waitedMs = nowMs - this.#wantedSinceMs!;
    if (this.#late || waitedMs < this.#parts.timeoutMs) return;
    this.#late = true;
    const freeBytes = this.readySlots * this.#parts.spaces[0].slotBytes;
    this.#parts.emit({ type: "growth_late", waitedMs: Math.round(waitedMs), freeBytes });
  }

  /** Sets the timer for the next moment at which something may be due. */
  #arm(nowMs: number): void {
    const { clock, timeoutMs } = this.#parts;
    const moments = this.#stores.flatMap((store) => {
      if (store.startedMs !== undefined) return [store.startedMs + timeoutMs];
      return this.#isAble(store) ? [store.notBeforeMs] : [];
    });
    moments.push(this.#wantedSinceMs! + timeoutMs);
    const next = Math.min(...moments.filter((moment) => moment > nowMs));
    if (!Number.isFinite(next)) return;
    this.#cancelTimer = clock.after(next - nowMs, () => {
      this.check();
      this.#parts.changed();
    });
  }

  /** One preallocation of up to `wantedSlots`. Never rejects; the result is noted in `store`. */
  #attempt(store: Attempts, wantedSlots: number): Promise<void> {
    store.startedMs = this.#parts.clock.nowMs();
    // A device has all its space from the start, so it needs no portions, and no steps.
    const slots = isDevice(store.space.store.kind) ? Infinity : wantedSlots;
    const running = this.#grow(store, slots)
      .then(
        () => this.#succeeded(store),
        (error: unknown) => this.#failed(store, error),
      )
      .then(() => {
        this.#inFlight.delete(running);
        if (this.#filling !== undefined) return;
        this.check();
        this.#parts.changed();
      });
    this.#inFlight.add(running);
    return running;
  }

  /** Grows step by step, until so many slots are ready, or there is no more room. */
  async #grow(store: Attempts, wantedSlots: number): Promise<void> {
    const { clock } = this.#parts;
    const { slotBytes, store: place } = store.space;
    const inSteps = !isDevice(place.kind);
    const isShort = this.#filling === undefined && (await place.isInMemory?.()) === true;
    const stepBytes = isShort ? MEMORY_STEP_BYTES : STEP_BYTES;
    let stepSlots = inSteps ? Math.max(1, Math.floor(stepBytes / slotBytes)) : wantedSlots;
    for (let left = wantedSlots; left > 0 && !this.#stopped; ) {
      const begunMs = clock.nowMs();
      const grown = await this.#step(store, Math.min(left, stepSlots));
      left -= grown;
      if (grown === 0 || left <= 0 || !inSteps) return;
      // Under load a long step would keep writes to the store waiting.
      if (this.#filling !== undefined && clock.nowMs() - begunMs <= QUICK_STEP_MS) stepSlots *= 2;
      this.#steppedOn(store);
    }
  }

  /** Returns how many slots have become ready. */
  async #step(store: Attempts, wantedSlots: number): Promise<number> {
    const { space } = store;
    await this.#parts.beforeGrowth?.(space);
    const availableBytes = await space.store.availableBytes();
    store.availableBytes = availableBytes;
    // The number may be stale, or ignore space that is allocated already, so it only sizes the attempt.
    const availableSlots = Math.floor((availableBytes ?? Infinity) / space.slotBytes);
    const sized = Math.min(wantedSlots, Math.max(availableSlots, ATTEMPT_SLOTS_MIN));
    const slots = this.#room(store, sized);
    if (slots === 0 || this.#stopped) return 0;
    const range = space.beginGrowth(slots);
    try {
      await space.store.preallocate(range.first * space.slotBytes, range.count * space.slotBytes);
      space.endGrowth(true);
      if (availableBytes !== undefined) {
        store.availableBytes = Math.max(0, availableBytes - range.count * space.slotBytes);
      }
      return range.count;
    } catch (error) {
      // The store's end is unchanged, so the trim removes no slot that was handed out.
      await space.store.trim(space.endSlots * space.slotBytes).catch(() => undefined);
      space.endGrowth(false);
      throw fullError(error, space, range.count, availableBytes);
    }
  }

  /** A step has succeeded, and the next one begins: callers need not wait for that. */
  #steppedOn(store: Attempts): void {
    const nowMs = this.#parts.clock.nowMs();
    store.startedMs = nowMs;
    if (this.#filling !== undefined) {
      this.#onStep(store.space);
      return;
    }
    if (this.#wantedSinceMs !== undefined) this.#wantedSinceMs = nowMs;
    this.#parts.changed();
  }

  #succeeded(store: Attempts): void {
    const { space } = store;
    const wasTroubled = store.failures > 0 || this.#late;
    store.startedMs = undefined;
    store.failures = 0;
    store.notBeforeMs = Number.NEGATIVE_INFINITY;
    store.lastError = undefined;
    store.stepSlots = this.#parts.portionSlots;
    this.#wantedSinceMs = undefined;
    this.#late = false;
    if (!wasTroubled) return;
    const capacityBytes = this.committedSlots * space.slotBytes;
    this.#parts.emit({ type: "growth_recovered", path: space.store.path, capacityBytes });
  }

  #failed(store: Attempts, error: unknown): void {
    const { clock, emit } = this.#parts;
    store.startedMs = undefined;
    store.lastError = error;
    const retryInMs = Math.min(BACKOFF_FIRST_MS * 2 ** store.failures, BACKOFF_LAST_MS);
    store.failures += 1;
    store.notBeforeMs = clock.nowMs() + retryInMs;
    store.stepSlots = Math.max(1, Math.floor(store.stepSlots / 2));
    emit({
      type: "growth_failed",
      path: store.space.store.path,
      errnoName: errnoNameOf(error instanceof DiffStorageError ? (error.cause ?? error) : error),
      message: messageOf(error),
      attempt: store.failures,
      retryInMs,
    });
  }
}
