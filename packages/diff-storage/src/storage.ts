import { allOf } from "@blksnap/errors";
import type { EventSink } from "@blksnap/event-queue";
import {
  checkStoreCount,
  DEFAULT_GROWTH_TIMEOUT_MS,
  SlotAllocator,
  type SlotAllocatorOptions,
} from "./allocator.js";
import { checkInteger, DiffStorageError } from "./errors.js";
import type { DiffStorageEvent } from "./events.js";
import { type OpenStoreOptions, openStore } from "./open-store.js";
import { DEFAULT_SLOT_BYTES, type Extent, limitSlots } from "./slot.js";
import type { DiffStorageStats } from "./stats.js";
import type { Store } from "./store.js";
import { kindByWord } from "./store-kinds.js";
import { type Clock, type StoreSystem, systemClock } from "./system.js";

/** Longer than a file system takes that answers, however busy it is. */
const OPEN_TIMEOUT_MS = 30_000;

/** One store of a diff storage. */
export interface StoreSpec extends Pick<OpenStoreOptions, "limitBytes" | "directIo" | "fileName"> {
  /** Regular file, directory or block device, or "memory". */
  readonly path: string;
}

/** Settings of a diff storage. */
export interface DiffStorageOptions extends Omit<SlotAllocatorOptions, "onEvent"> {
  /** 1 to 8 stores in the order in which they are filled: the fast one first. */
  readonly stores: readonly StoreSpec[];
  readonly system: StoreSystem;
  /** Alignment of all I/O: the smallest logical block size of the originals. */
  readonly requiredAlignmentBytes?: number;
  /** Receives events; an EventQueue, or any object with a `push` that does not throw. */
  readonly events?: EventSink<DiffStorageEvent>;
  /**
   * Slots that an earlier process's maps name. The stores are those that it left, whatever their size: if it was killed
   * while it tried out a store, or left holes in one of several, they exceed the limit.
   */
  readonly recoverSlots?: Iterable<number>;
  /**
   * Called with the stores when all are open and claimed, before anything in them changes. If it rejects, they are not
   * used.
   */
  readonly onOpened?: (stores: readonly Store[]) => Promise<void>;
  /** Gives up opening, and undoes it. */
  readonly signal?: AbortSignal;
}

/** How to close a diff storage. */
export interface CloseOptions {
  /** Leave files made under a `fileName` for the next process. */
  readonly keepNamedFiles?: boolean;
  /** Longest wait for growth in flight, in milliseconds. Default: the growth time limit. */
  readonly timeoutMs?: number;
}

/**
 * The place of one snapshot's old data: its open stores, and the allocator of their slots.
 *
 * Data I/O is the caller's: to `stores[slotStore(slot)].fd` at `slotOffsetBytes(slot, slotBytes)`.
 */
export class DiffStorage {
  /** Index in this array is the store number in slots. */
  readonly stores: readonly Store[];
  readonly slotBytes: number;
  #allocator: SlotAllocator;
  #clock: Clock;
  #closeTimeoutMs: number;
  #closing: Promise<boolean> | undefined;
  readonly #tracked = new Set<Promise<void>>();

  private constructor(
    stores: readonly Store[],
    allocator: SlotAllocator,
    timeoutMs: number,
    clock: Clock,
  ) {
    this.stores = stores;
    this.slotBytes = allocator.slotBytes;
    this.#allocator = allocator;
    this.#closeTimeoutMs = timeoutMs;
    this.#clock = clock;
  }

  /**
   * Opens all stores and makes the first portion ready (the smaller of portion and limit).
   *
   * Rejects with DiffStorageError; stores are closed again, and files are as before. With `recoverSlots`, a full disk
   * is no reason to reject: the existing data counts more.
   */
  static async open(options: DiffStorageOptions): Promise<DiffStorage> {
    const { stores: specs, events } = options;
    checkStoreCount(specs.length);
    checkLimits(options);
    const stores: Store[] = [];
    const recovering = options.recoverSlots !== undefined;
    const clock = options.clock ?? systemClock;
    const timeoutMs = options.growthTimeoutMs ?? DEFAULT_GROWTH_TIMEOUT_MS;
    let allocator: SlotAllocator | undefined;
    try {
      for (const spec of specs) {
        const opening = openStore(spec.path, storeOptions(spec, options));
        stores.push(await openedInTime(opening, spec.path, recovering, clock));
      }
      await options.onOpened?.(stores);
      // Earlier losses of a file are not losses of old data; without this, the next check would report them.
      if (!recovering) for (const store of stores) await store.hasLostWrites?.();
      const onEvent = (event: DiffStorageEvent): void => void events?.push(event);
      allocator = new SlotAllocator(stores, { ...options, onEvent });
      if (options.recoverSlots !== undefined) allocator.reserveForRecovery(options.recoverSlots);
      await allocator.start(!recovering, options.signal);
      return new DiffStorage(stores, allocator, timeoutMs, clock);
    } catch (error) {
      allocator?.stop();
      const undone = (allocator?.idle() ?? Promise.resolve()).then(() => undo(stores, recovering));
      await within(undone, timeoutMs, clock);
      throw error;
    }
  }

  /** I/O to the stores may have this alignment from now on. @throws DiffStorageError */
  async allowAlignment(bytes: number): Promise<void> {
    for (const store of this.stores) await store.allowAlignment(bytes);
  }

  /** See `SlotAllocator.allocateExtent`. */
  allocateExtent(maxSlots: number): Extent | "wait" | "full" {
    return this.#allocator.allocateExtent(maxSlots);
  }

  /** See `SlotAllocator.allocateStockWhenReady`. */
  allocateStockWhenReady(maxSlots: number): Promise<Extent | "full"> {
    return this.#allocator.allocateStockWhenReady(maxSlots);
  }

  /** See `SlotAllocator.allocateExtentWhenReady`. */
  allocateExtentWhenReady(maxSlots: number, signal?: AbortSignal): Promise<Extent | "full"> {
    return this.#allocator.allocateExtentWhenReady(maxSlots, signal);
  }

  /** See `SlotAllocator.free`. */
  free(firstSlot: number, count: number): void {
    this.#allocator.free(firstSlot, count);
  }

  /** See `SlotAllocator.suspend`. */
  suspend(storeIndex: number, isSuspended: boolean): void {
    this.#allocator.suspend(storeIndex, isSuspended);
  }

  /** See `SlotAllocator.isWithholding`. */
  get isWithholding(): boolean {
    return this.#allocator.isWithholding;
  }

  /** See `SlotAllocator.onChange`. */
  onChange(listener: () => void): () => void {
    return this.#allocator.onChange(listener);
  }

  /** See `SlotAllocator.look`. */
  look(): Promise<void> {
    return this.#allocator.look();
  }

  /**
   * The caller's own I/O on a store's descriptor, which may take longer than the caller waits: close() waits for it.
   */
  track<Result>(io: Promise<Result>): Promise<Result> {
    const ended = io.then(
      () => undefined,
      () => undefined,
    );
    this.#tracked.add(ended);
    void ended.then(() => this.#tracked.delete(ended));
    return io;
  }

  /** Present sizes, use and forecast. */
  stats(): DiffStorageStats {
    return this.#allocator.stats();
  }

  /**
   * Ends growth and answers waiting callers with "full": the allocator changes the stores no more, but they stay open.
   * Returns whether that was reached in time; if not, a growth or tracked I/O in flight can still change its store.
   */
  rest(timeoutMs: number): Promise<boolean> {
    this.#allocator.stop();
    return within(this.#idle(), timeoutMs, this.#clock);
  }

  async #idle(): Promise<void> {
    await this.#allocator.idle();
    await Promise.all(this.#tracked);
  }

  /**
   * Ends growth, answers waiting callers with "full", and closes the stores. The caller's own I/O must have ended.
   * Regular files keep their length; memory and unnamed files vanish.
   *
   * Resolves with true when everything is closed. False: a growth or tracked I/O did not end in time; its store is
   * closed as soon as it does. May be called again.
   */
  close(options: CloseOptions = {}): Promise<boolean> {
    this.#closing ??= this.#close(options);
    return this.#closing;
  }

  async #close(options: CloseOptions): Promise<boolean> {
    const timeoutMs = options.timeoutMs ?? this.#closeTimeoutMs;
    checkInteger("timeoutMs", timeoutMs, 0, 3_600_000);
    this.#allocator.stop();
    // A descriptor must not be closed, and its number reused, during an operation on it.
    const closed = this.#idle().then(async () => {
      const keeps = options.keepNamedFiles === true;
      await allOf(this.stores.map((store) => store.close(keeps)));
    });
    return within(closed, timeoutMs, this.#clock);
  }
}

/** Whether `work` ends within `timeoutMs`; it continues if not. */
async function within(work: Promise<unknown>, timeoutMs: number, clock: Clock): Promise<boolean> {
  let cancel: (() => void) | undefined;
  const late = new Promise<boolean>((done) => {
    cancel = clock.after(timeoutMs, () => done(false));
  });
  return Promise.race([work.then(() => true), late]).finally(cancel);
}

/** Restores files as they were found. With recovery they contain the user's data, and stay in any case. */
async function undo(stores: readonly Store[], recovering: boolean): Promise<void> {
  const undoing = stores.map(async (store) => {
    if (!recovering) await store.trim(0).catch(() => undefined);
    await store.close(recovering).catch(() => undefined);
  });
  await Promise.all(undoing);
}

/** A store that is opened too late is closed again. @throws DiffStorageError STORE_TIMEOUT; as `opening` does */
async function openedInTime(
  opening: Promise<Store>,
  path: string,
  recovering: boolean,
  clock: Clock,
): Promise<Store> {
  if (await within(opening, OPEN_TIMEOUT_MS, clock)) return opening;
  void opening.then((store) => undo([store], recovering)).catch(() => undefined);
  const text = `${path} cannot be opened in ${OPEN_TIMEOUT_MS} ms; choose a store on something that answers`;
  throw new DiffStorageError("STORE_TIMEOUT", text, { path });
}

function storeOptions(spec: StoreSpec, options: DiffStorageOptions): OpenStoreOptions {
  const { path: _path, ...own } = spec;
  const { system, slotBytes, requiredAlignmentBytes } = options;
  return {
    ...own,
    system,
    reopen: options.recoverSlots !== undefined,
    ...(slotBytes === undefined ? {} : { slotBytes }),
    ...(requiredAlignmentBytes === undefined ? {} : { requiredAlignmentBytes }),
  };
}

function checkLimits(options: DiffStorageOptions): void {
  const slotBytes = options.slotBytes ?? DEFAULT_SLOT_BYTES;
  const total = limitSlots(options.limitBytes, slotBytes);
  for (const spec of options.stores) {
    const own = limitSlots(spec.limitBytes, slotBytes);
    if (kindByWord(spec.path) === undefined || Number.isFinite(Math.min(total, own))) continue;
    const text = "a store in memory needs a limit, its own or that of the whole storage";
    throw new DiffStorageError("LIMIT_REQUIRED", text, { path: spec.path });
  }
}
