/** Where a store keeps what it has, by key: a folder, or a bucket of an object store. */

export interface ObjectEntry {
  /** Names with slashes between them, as of a path. */
  readonly key: string;
  readonly sizeBytes: number;
  /** When it was written, by the clock of the place. */
  readonly modifiedMs: number;
}

/** What is written is seen by all at once, in `get` and in `list`. */
export interface Objects {
  /** For messages. */
  readonly path: string;
  /** How many operations keep it busy. */
  readonly depth: number;
  /** It compares what comes to it with a SHA-256, which `put` is best told. */
  readonly isHashed: boolean;
  pathOf(key: string): string;
  /** Undefined where there is none. */
  look(key: string): Promise<ObjectEntry | undefined>;
  /** Undefined where there is none. */
  get(key: string): Promise<Buffer | undefined>;
  /**
   * A reader finds all of it, or what was there before.
   * @param sha256 of the data, in hexadecimal
   * @throws BackupError TARGET_FULL, TARGET_FAILED
   */
  put(key: string, data: Uint8Array, sha256?: string): Promise<void>;
  /** All whose keys begin like this: with a slash at its end, or empty. */
  list(prefix: string): AsyncIterable<ObjectEntry>;
  /** One that is not there is fine. */
  remove(key: string): Promise<void>;
  /** Has what was done with these keys outlast a power cut. */
  sync(keys: Iterable<string>): Promise<void>;
  /** Removes what killed programs were writing; nothing else may write now. */
  removeUnfinished(): Promise<void>;
}
