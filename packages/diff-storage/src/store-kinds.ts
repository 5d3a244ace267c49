/** The kinds of stores and their properties: the only place that distinguishes kinds. */
import type { Stats } from "node:fs";
import {
  OPEN_CREATE,
  OPEN_EXCLUSIVE,
  OPEN_NO_FOLLOW,
  OPEN_READ_WRITE,
  OPEN_UNNAMED_FILE,
} from "./open-flags.js";
import type { Awaitable, StoreSystem } from "./system.js";

interface HowToOpen {
  /** A named file is made in the directory. */
  readonly named: boolean;
  readonly reopen: boolean;
}

interface StoreKindTraits {
  /** What is finally opened. A file grows, and can be truncated and punched; a device does not change. */
  readonly medium: "file" | "device";
  /** Whether others can open the same bytes by the given name. */
  readonly isNamed: boolean;
  /** The file is made for the store, so it has to belong to this user. */
  readonly isMade: boolean;
  /** Whether statfs(2) of the path reports the free space. */
  readonly isOnFileSystem: boolean;
}

/** A kind that is recognized by what is at a path. */
interface KindAtPath extends StoreKindTraits {
  readonly isAt: (stats: Stats) => boolean;
  readonly openFlags: (how: HowToOpen) => number;
}

/** A kind that is given by a word; a file with that name is written "./WORD". Only a limit bounds it. */
interface KindByWord extends StoreKindTraits {
  readonly word: string;
  /** Makes the file; returns its descriptor. */
  readonly make: (system: StoreSystem) => Awaitable<number>;
}

export type PathStoreKind = "file" | "directory" | "block";
export type WordStoreKind = "memory";
/** What a store is made of. */
export type StoreKind = PathStoreKind | WordStoreKind;

export const STORE_KINDS: Readonly<
  Record<PathStoreKind, KindAtPath> & Record<WordStoreKind, KindByWord>
> = {
  file: {
    medium: "file",
    isNamed: true,
    isMade: false,
    isOnFileSystem: true,
    isAt: (stats) => stats.isFile(),
    openFlags: () => OPEN_READ_WRITE,
  },
  directory: {
    medium: "file",
    isNamed: false,
    isMade: true,
    isOnFileSystem: true,
    isAt: (stats) => stats.isDirectory(),
    openFlags({ named, reopen }) {
      if (!named) return OPEN_READ_WRITE | OPEN_UNNAMED_FILE | OPEN_EXCLUSIVE;
      const flags = OPEN_READ_WRITE | OPEN_NO_FOLLOW;
      return reopen ? flags : flags | OPEN_CREATE | OPEN_EXCLUSIVE;
    },
  },
  block: {
    medium: "device",
    isNamed: true,
    isMade: false,
    isOnFileSystem: false,
    isAt: (stats) => stats.isBlockDevice(),
    openFlags: () => OPEN_READ_WRITE | OPEN_EXCLUSIVE,
  },
  memory: {
    medium: "file",
    isNamed: false,
    isMade: true,
    isOnFileSystem: false,
    word: "memory",
    make: (system) => system.createMemoryFile("blksnap-diff"),
  },
};

export function isDevice(kind: StoreKind): boolean {
  return STORE_KINDS[kind].medium === "device";
}

/** The kind for a word; undefined for a path. */
export function kindByWord(text: string): WordStoreKind | undefined {
  const kinds = Object.keys(STORE_KINDS) as StoreKind[];
  return kinds.find((kind): kind is WordStoreKind => {
    const traits = STORE_KINDS[kind];
    return "word" in traits && traits.word === text;
  });
}

/** The kind for what is at a path; undefined if it cannot be a store. */
export function kindAtPath(stats: Stats): PathStoreKind | undefined {
  const kinds = Object.keys(STORE_KINDS) as StoreKind[];
  return kinds.find((kind): kind is PathStoreKind => {
    const traits = STORE_KINDS[kind];
    return "isAt" in traits && traits.isAt(stats);
  });
}
