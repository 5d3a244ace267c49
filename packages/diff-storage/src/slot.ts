import { checkInteger, DiffStorageError } from "./errors.js";

/*
 * A slot number is a non-negative 31-bit integer, so that it fits an element of an Int32Array and
 * negative values stay free for the maps' own marks:
 *
 *   30   28 27                         0
 *   ┌──────┬────────────────────────────┐
 *   │ store│ index of the slot in store │
 *   └──────┴────────────────────────────┘
 */

/** Bits of the index of a slot within its store. */
export const SLOT_INDEX_BITS = 28;
/** Slots that one store can have: 64 TiB of 256 KiB slots. */
export const SLOTS_PER_STORE_MAX: number = 2 ** SLOT_INDEX_BITS;
/** Stores that one diff storage can have. */
export const STORES_MAX = 8;
/** Largest slot number. */
export const SLOT_MAX: number = 2 ** 31 - 1;
/** Default size of a slot: the usual chunk. */
export const DEFAULT_SLOT_BYTES: number = 256 * 1024;
/** Most slots that are handed out at once. */
export const EXTENT_SLOTS_MAX = 1024;

const SLOT_INDEX_MASK = SLOTS_PER_STORE_MAX - 1;

/** Consecutive slots of one store. */
export interface Extent {
  readonly firstSlot: number;
  readonly count: number;
}

/** The store of a slot, 0 to 7. Allocation-free. */
export function slotStore(slot: number): number {
  return slot >>> SLOT_INDEX_BITS;
}

/** The index of a slot in its store. Allocation-free. */
export function slotIndex(slot: number): number {
  return slot & SLOT_INDEX_MASK;
}

/** Byte offset of a slot within its store. Allocation-free. */
export function slotOffsetBytes(slot: number, slotBytes: number): number {
  return (slot & SLOT_INDEX_MASK) * slotBytes;
}

/** The slot number of index `index` in store `storeIndex`. */
export function makeSlot(storeIndex: number, index: number): number {
  return (storeIndex << SLOT_INDEX_BITS) | index;
}

/** Throws ARGUMENT_INVALID unless `slotBytes` is a power of two from 4 KiB to 64 MiB. */
export function checkSlotBytes(slotBytes: number): void {
  checkInteger("slotBytes", slotBytes, 4096, 64 * 1024 * 1024);
  if ((slotBytes & (slotBytes - 1)) === 0) return;
  const text = `slotBytes must be a power of two, not ${slotBytes}`;
  throw new DiffStorageError("ARGUMENT_INVALID", text);
}

/**
 * Whole slots within a limit in bytes; Infinity without a limit.
 * Throws LIMIT_INVALID unless the limit is an integer of at least one slot.
 */
export function limitSlots(limitBytes: number | undefined, slotBytes: number): number {
  if (limitBytes === undefined || limitBytes === Number.POSITIVE_INFINITY) {
    return Number.POSITIVE_INFINITY;
  }
  if (Number.isSafeInteger(limitBytes) && limitBytes >= slotBytes) {
    return Math.floor(limitBytes / slotBytes);
  }
  const text =
    `the limit must be a whole number of bytes, at least one slot (${slotBytes}), ` +
    `not ${limitBytes}; leave it out for no limit`;
  throw new DiffStorageError("LIMIT_INVALID", text);
}
