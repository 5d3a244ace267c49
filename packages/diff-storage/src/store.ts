import type { DeviceNumber } from "@blksnap/linux-block";
import type { StoreKind } from "./store-kinds.js";

/** The size and space of a file at a moment. */
export interface StorePresence {
  readonly sizeBytes: number;
  /** Its space; undefined if the file system does not count preallocated space. */
  readonly allocatedBytes: number | undefined;
}

/**
 * An open store for old data. Data I/O goes directly to `fd`; the methods here only manage space. All methods reject
 * with errors that have an errno name in `code`.
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
  /** Of the device or file, as identityOfStats() names it. */
  readonly identity: string;
  /** Bytes the store had when it was opened: size of the device or of the file. */
  readonly openedBytes: number;
  /** Limit of this store alone in bytes; Infinity when it has none. */
  readonly limitBytes: number;
  /** Whether `preallocate` can go beyond `openedBytes`. */
  readonly growable: boolean;
  /** Whether `punch` gives space back. */
  readonly punchable: boolean;

  /** I/O may have this alignment from now on: if direct I/O needs more, it ends. */
  allowAlignment(bytes: number): Promise<void>;
  /** Makes sure that a range has allocated space, extending the file if needed. */
  preallocate(offsetBytes: number, lengthBytes: number): Promise<void>;
  /** Whether space is memory, which takes its time with each page, and keeps writes to the store waiting meanwhile. */
  isInMemory?(): Promise<boolean>;
  /** Removes what a failed `preallocate` left after `endBytes`; never below `openedBytes`. */
  trim(endBytes: number): Promise<void>;
  /** Frees the space of a range; its content becomes undefined. */
  punch(offsetBytes: number, lengthBytes: number): Promise<void>;
  /** The file's present size and space; undefined if no other program can truncate it. */
  presence?(): Promise<StorePresence | undefined>;
  /** Whether data written there may have been lost since the last call; absent if that cannot be known. */
  hasLostWrites?(): Promise<boolean>;
  /** Bytes that the file system could still provide; undefined if it does not report them. */
  availableBytes(): Promise<number | undefined>;
  /**
   * Renames a file that was created for this store, within its directory. Resolves when that is on the medium.
   * @param onRenamed called when it has the name, perhaps before that is on the medium; not after the store is closed
   * @throws the error of rename(2) or fsync(2); Error for any other store
   */
  rename?(fileName: string, onRenamed: () => void): Promise<void>;
  /**
   * Closes the descriptor. A file created for this store under a name is removed unless
   * `keepNamedFile`; a file that existed before stays as it is.
   */
  close(keepNamedFile: boolean): Promise<void>;
}
