/** The storage of a store, by key: a folder, or a bucket of an object store. */
import type { Content } from "./files.js";

export interface ObjectEntry {
  /** Names joined by slashes, like a path. */
  readonly key: string;
  readonly sizeBytes: number;
  /** Time of the write, by the storage's clock. */
  readonly modifiedMs: number;
}

/** Strongly consistent: `get` and `list` see a write at once. */
export interface Objects {
  /** For messages. */
  readonly path: string;
  /** Number of concurrent operations that keep it busy. */
  readonly depth: number;
  /** It verifies uploads against a SHA-256, which `put` should get from the caller. */
  readonly isHashed: boolean;
  pathOf(key: string): string;
  /** Undefined if it is missing. */
  look(key: string): Promise<ObjectEntry | undefined>;
  /** Undefined if it is missing. */
  get(key: string): Promise<Buffer | undefined>;
  /**
   * Atomic: a reader finds the new or the former content.
   * @param sha256 of the data, in hexadecimal
   * @throws BackupError TARGET_FULL, TARGET_FAILED
   */
  put(key: string, data: Content, sha256?: string): Promise<void>;
  /** All objects with this prefix: it ends with a slash, or is empty. */
  list(prefix: string): AsyncIterable<ObjectEntry>;
  /** A missing one is fine. */
  remove(key: string): Promise<void>;
  /** Makes operations on these keys durable. */
  sync(keys: Iterable<string>): Promise<void>;
  /** Removes incomplete writes of killed programs; call it only while nothing else writes. */
  removeUnfinished(): Promise<void>;
}
