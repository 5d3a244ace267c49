/** What a diff storage reports unasked. Sizes in bytes, except the kernel tool's sectors. */
export type DiffStorageEvent =
  /** Little is free and the limit is reached. Reported once until free space rises again. */
  | {
      readonly type: "no_space";
      /** Present size in sectors of 512 bytes: the kernel tool's `requested_nr_sect`. */
      readonly requestedSectors: number;
      readonly freeBytes: number;
      readonly limitBytes: number;
    }
  /** Little is free and no store grows at present. Reported once until free space rises again. */
  | {
      readonly type: "low_free_space";
      /** Sectors of 512 bytes that should be added. */
      readonly requestedSectors: number;
      readonly freeBytes: number;
      readonly capacityBytes: number;
      /** Growth was tried and failed, or every store has all it can have. */
      readonly reason: "growth_failed" | "stores_exhausted";
    }
  /** A store could not grow; growth is retried after `retryInMs`. */
  | {
      readonly type: "growth_failed";
      readonly path: string;
      readonly errnoName: string;
      readonly message: string;
      /** Failures of this store in a row, this one included. */
      readonly attempt: number;
      readonly retryInMs: number;
    }
  /** Growth has exceeded its time limit; callers that need space now get "full". */
  | { readonly type: "growth_late"; readonly waitedMs: number; readonly freeBytes: number }
  /** A store that had failed or was late has grown. */
  | { readonly type: "growth_recovered"; readonly path: string; readonly capacityBytes: number }
  /** Freed space of a store could not be returned; it is reused, but the file keeps its size. */
  | {
      readonly type: "punch_failed";
      readonly path: string;
      readonly errnoName: string;
      readonly message: string;
    };

/** Bytes in a sector of the kernel tool's interface. */
export const SECTOR_BYTES = 512;
