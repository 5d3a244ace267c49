/**
 * The kinds of stores, as users name and see them. The table of `@blksnap/diff-storage` says how each kind is opened;
 * a kind of that table that is missing here fails to compile.
 */

interface StoreKindEntry {
  /** For help, descriptions and errors. */
  readonly describe: string;
  /** The word that users write in place of a path; a kind without one is recognised by what lies at the path. */
  readonly word?: string;
}

export const STORE_KINDS = {
  file: { describe: "regular file" },
  directory: { describe: "directory" },
  block: { describe: "block device" },
  /** In the daemon's memory: lost in a power cut. */
  memory: { describe: "memory", word: "memory:" },
} as const satisfies Readonly<Record<string, StoreKindEntry>>;

export type StoreKind = keyof typeof STORE_KINDS;
/** Those that are named by a word. */
export type WordStoreKind = {
  [Kind in StoreKind]: (typeof STORE_KINDS)[Kind] extends { readonly word: string } ? Kind : never;
}[StoreKind];

export const STORE_KIND_NAMES = Object.keys(STORE_KINDS) as readonly StoreKind[];

const entries: readonly StoreKindEntry[] = Object.values(STORE_KINDS);
/** The words that users may write in place of a path. */
export const STORE_WORDS = entries.flatMap(({ word }) => word ?? []);
/** "regular file, directory, block device" */
export const STORE_PATHS_TEXT = entries
  .flatMap(({ describe, word }) => (word === undefined ? describe : []))
  .join(", ");

/** The kind that a word names; undefined for a path. */
export function storeKindByWord(text: string): WordStoreKind | undefined {
  return STORE_KIND_NAMES.find(
    (kind): kind is WordStoreKind => (STORE_KINDS[kind] as StoreKindEntry).word === text,
  );
}
