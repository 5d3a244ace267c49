import type { StoreKind } from "./store-kinds.js";

/** Sizes and use of one store, in bytes. */
export interface StoreStats {
  readonly kind: StoreKind;
  readonly path: string;
  readonly directIo: boolean;
  /** Space behind slots, in use or ready, and on its way to or from that. */
  readonly capacityBytes: number;
  readonly allocatedBytes: number;
  readonly freeBytes: number;
  /** Parts of the file without space behind them. */
  readonly holeBytes: number;
  /** Limit of this store alone; undefined for none. */
  readonly limitBytes: number | undefined;
  /** What its file system could still give when it last grew; undefined while not known. */
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
  /** Bound of `capacityBytes`; undefined for none. */
  readonly limitBytes: number | undefined;
  /** Bytes handed out per second, of which the last minute counts most. */
  readonly fillBytesPerSecond: number;
  /**
   * Seconds until stores, their disks and the limit are used up at that rate; undefined while
   * nothing is being used. Free space on disks is taken from the last growth.
   */
  readonly secondsToFull: number | undefined;
  /** Free space is down to half a portion or less. */
  readonly lowSpace: boolean;
  /** Requests for slots that wait for growth. */
  readonly waiting: number;
  readonly stores: readonly StoreStats[];
}
