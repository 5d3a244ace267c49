import type { StoreKind } from "./store-kinds.js";

/** Sizes and use of one store, in bytes. */
export interface StoreStats {
  readonly kind: StoreKind;
  readonly path: string;
  readonly directIo: boolean;
  /** Space of slots that are in use or ready, or being preallocated or punched. */
  readonly capacityBytes: number;
  readonly allocatedBytes: number;
  readonly freeBytes: number;
  /** Parts of the file without space. */
  readonly holeBytes: number;
  /** Limit of this store alone; undefined for none. */
  readonly limitBytes: number | undefined;
  /** What its file system could still provide when it last grew; undefined if unknown. */
  readonly availableBytes: number | undefined;
  readonly growing: boolean;
  /** Why its last growth failed; undefined after a success. */
  readonly lastError: unknown;
}

/** Sizes and use of a diff storage, in bytes. */
export interface DiffStorageStats {
  readonly slotBytes: number;
  readonly capacityBytes: number;
  readonly allocatedBytes: number;
  /** Ready to be handed out. */
  readonly freeBytes: number;
  /** Upper bound of `capacityBytes`; undefined for none. */
  readonly limitBytes: number | undefined;
  /** Bytes handed out per second; the last minute counts most. */
  readonly fillBytesPerSecond: number;
  /**
   * Seconds until stores, their disks and the limit are used up at that rate; undefined while nothing is being used.
   * The free space of disks is as of the last growth.
   */
  readonly secondsToFull: number | undefined;
  /** Free space is at half a portion or less. */
  readonly lowSpace: boolean;
  /** Requests for slots that wait for growth. */
  readonly waiting: number;
  readonly stores: readonly StoreStats[];
}
