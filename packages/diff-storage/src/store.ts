import type { DeviceNumber } from "@blksnap/linux-block";
import type { StoreKind } from "./store-kinds.js";

/** What a file is at a moment. */
export interface StorePresence {
  readonly sizeBytes: number;
  /** Space behind it; undefined where the file system does not count what was preallocated. */
  readonly allocatedBytes: number | undefined;
}

/**
 * An open place for old data. Data I/O goes straight to `fd`; the methods here only manage space.
 * All methods reject with errors that carry an errno name in `code`.
 */
export interface Store {
  readonly kind: StoreKind;
  /** Path as opened (absolute), or "memory". */
  readonly path: string;
  readonly fd: number;
  /** Whether `fd` does direct I/O: offsets, lengths and memory must then be aligned. */
  readonly directIo: boolean;
  /** Alignment that I/O on `fd` needs, in bytes; 1 for buffered I/O. */
  readonly alignmentBytes: number;
  /** The block device itself, or the device of the file system the file lies on. */
  readonly device: DeviceNumber;
  /** Bytes the store had when it was opened: size of the device or of the file. */
  readonly openedBytes: number;
  /** Limit of this store alone in bytes; Infinity when it has none. */
  readonly limitBytes: number;
  /** Whether `preallocate` can go beyond `openedBytes`. */
  readonly growable: boolean;
  /** Whether `punch` gives space back. */
  readonly punchable: boolean;

  /** From here on I/O may have this alignment: where that is not enough for direct I/O, without it. */
  allowAlignment(bytes: number): Promise<void>;
  /** Makes sure that a range is backed by allocated space, extending the file if needed. */
  preallocate(offsetBytes: number, lengthBytes: number): Promise<void>;
  /** Cuts off what a failed `preallocate` left behind `endBytes`; never below `openedBytes`. */
  trim(endBytes: number): Promise<void>;
  /** Gives the space of a range back; its content becomes undefined. */
  punch(offsetBytes: number, lengthBytes: number): Promise<void>;
  /** What is there of a file at this moment; undefined for what no other program can cut off. */
  presence?(): Promise<StorePresence | undefined>;
  /** Whether data that was written there may be gone, since it was asked last; absent where that cannot be known. */
  hasLostWrites?(): Promise<boolean>;
  /** Bytes the file system could still give; undefined where that says nothing. */
  availableBytes(): Promise<number | undefined>;
  /**
   * Gives a file that was created for this store another name in its directory. It is on the medium when this ends.
   * @param onRenamed called when it has the name, and the medium may not; not once the store is closed
   * @throws the error of rename(2) or fsync(2); Error of any other store
   */
  rename?(fileName: string, onRenamed: () => void): Promise<void>;
  /**
   * Closes the descriptor. A file created for this store under a name is removed unless
   * `keepNamedFile`; a file that existed before stays as it is.
   */
  close(keepNamedFile: boolean): Promise<void>;
}
