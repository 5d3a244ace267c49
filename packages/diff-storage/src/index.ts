export {
  DEFAULT_GROWTH_TIMEOUT_MS,
  DEFAULT_PORTION_BYTES,
  SlotAllocator,
  type SlotAllocatorOptions,
} from "./allocator.js";
export { commandStoreSystem } from "./command-system.js";
export { assertNoConflict, assertNotInUse, type OtherUse, otherUses } from "./conflict.js";
export {
  DIFF_STORAGE_ERROR_CODES,
  DiffStorageError,
  type DiffStorageErrorCode,
  type DiffStorageErrorDetail,
} from "./errors.js";
export type { DiffStorageEvent } from "./events.js";
export { type OpenStoreOptions, openStore } from "./open-store.js";
export {
  DEFAULT_SLOT_BYTES,
  EXTENT_SLOTS_MAX,
  type Extent,
  makeSlot,
  SLOT_INDEX_BITS,
  SLOT_MAX,
  SLOTS_PER_STORE_MAX,
  STORES_MAX,
  slotIndex,
  slotOffsetBytes,
  slotStore,
} from "./slot.js";
export type { DiffStorageStats, StoreStats } from "./stats.js";
export {
  type CloseOptions,
  DiffStorage,
  type DiffStorageOptions,
  type StoreSpec,
} from "./storage.js";
export type { Store } from "./store.js";
export type { StoreKind } from "./store-kinds.js";
export {
  type Awaitable,
  type Clock,
  type DirectIoAlignment,
  FALLOCATE_KEEP_SIZE,
  FALLOCATE_PUNCH_HOLE,
  type StoreSystem,
  systemClock,
} from "./system.js";
