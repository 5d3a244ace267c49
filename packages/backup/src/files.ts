/** The file operations of a store; tests make any of them fail or be the last. */
import { randomUUID } from "node:crypto";
import { constants } from "node:fs";
import {
  type FileHandle,
  link,
  mkdir,
  open,
  readdir,
  readFile,
  rename,
  stat,
  unlink,
} from "node:fs/promises";
import { dirname } from "node:path";
import { targetError } from "./errors.js";

export interface FileLook {
  readonly isFolder: boolean;
  readonly sizeBytes: number;
  readonly modifiedMs: number;
}

/** Bytes, or pieces that follow one another. */
export type Content = Uint8Array | readonly Uint8Array[];

export function lengthOfContent(content: Content): number {
  if (content instanceof Uint8Array) return content.length;
  return content.reduce((sum, { length }) => sum + length, 0);
}

export function wholeOf(content: Content): Uint8Array {
  if (content instanceof Uint8Array) return content;
  return content.length === 1 ? content[0]! : Buffer.concat(content);
}

export interface Files {
  /** Creates a folder; an existing one is fine. */
  makeFolder(path: string): Promise<void>;
  /** Names in a folder, sorted; none if it is missing. */
  list(path: string): Promise<readonly string[]>;
  /** Undefined if it is missing. */
  look(path: string): Promise<FileLook | undefined>;
  /** Undefined if it is missing. */
  read(path: string): Promise<Buffer | undefined>;
  /** Creates a new file whose content is durable before this resolves. */
  create(path: string, data: Content): Promise<void>;
  rename(from: string, to: string): Promise<void>;
  /** A second name; false if `to` is taken. */
  link(from: string, to: string): Promise<boolean>;
  /** A missing file is fine. */
  remove(path: string): Promise<void>;
  /** Makes the names in a folder durable. */
  syncFolder(path: string): Promise<void>;
}

type Step = () => Promise<void>;

function codeOf(error: unknown): string | undefined {
  return (error as NodeJS.ErrnoException).code;
}

/** Undefined if a file is missing. */
async function ifThere<T>(what: string, path: string, read: Promise<T>): Promise<T | undefined> {
  try {
    return await read;
  } catch (error) {
    if (codeOf(error) === "ENOENT") return undefined;
    throw targetError(what, path, error);
  }
}

async function attempt(what: string, path: string, step: Step): Promise<void> {
  try {
    await step();
  } catch (error) {
    throw targetError(what, path, error);
  }
}

/** Bytes of one write of pieces. File systems allocate memory for a longer one more slowly. */
const WRITE_BYTES = 2 ** 20;

/** So many of the first pieces as one write takes. */
function nextWrite(pieces: readonly Uint8Array[]): readonly Uint8Array[] {
  let bytes = 0;
  const end = pieces.findIndex(({ length }) => {
    bytes += length;
    return bytes > WRITE_BYTES;
  });
  return end === -1 ? pieces : pieces.slice(0, Math.max(1, end));
}

/** What follows the first bytes. */
export function piecesFrom(pieces: readonly Uint8Array[], bytes: number): readonly Uint8Array[] {
  let left = bytes;
  const first = pieces.findIndex(({ length }) => {
    if (left < length) return true;
    left -= length;
    return false;
  });
  if (first === -1) return [];
  return [pieces[first]!.subarray(left), ...pieces.slice(first + 1)];
}

async function writePieces(file: FileHandle, pieces: readonly Uint8Array[]): Promise<void> {
  for (let left = piecesFrom(pieces, 0); left.length > 0; ) {
    const { bytesWritten } = await file.writev(nextWrite(left));
    left = piecesFrom(left, bytesWritten);
  }
}

async function createSynced(path: string, data: Content): Promise<void> {
  const file = await open(path, constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL, 0o600);
  try {
    if (data instanceof Uint8Array || data.length === 1) await file.writeFile(wholeOf(data));
    else await writePieces(file, data);
    await file.sync();
  } finally {
    await file.close();
  }
}

async function syncFolder(path: string): Promise<void> {
  const folder = await open(path, constants.O_RDONLY | constants.O_DIRECTORY);
  try {
    await folder.sync();
  } finally {
    await folder.close();
  }
}

/** Replaces the content of a file atomically: readers find the old or the new one. */
export async function replaceFile(files: Files, path: string, data: Uint8Array): Promise<void> {
  const own = `${path}.${randomUUID()}`;
  try {
    await files.create(own, data);
    await files.rename(own, path);
  } catch (error) {
    await files.remove(own).catch(() => undefined);
    throw error;
  }
  await files.syncFolder(dirname(path));
}

/** Including its parents. Node's own way retries forever if no folder can be created there, as in /proc. */
async function makeFolders(path: string): Promise<void> {
  const make = (): Promise<void> => mkdir(path, { mode: 0o700 });
  try {
    await make().catch(async (error: unknown) => {
      if (codeOf(error) !== "ENOENT" || dirname(path) === path) throw error;
      await makeFolders(dirname(path));
      await make();
    });
  } catch (error) {
    const isThere = await stat(path).then(
      (found) => found.isDirectory(),
      () => false,
    );
    if (!isThere) throw error;
  }
}

export const realFiles: Files = {
  makeFolder: (path) => attempt("make", path, () => makeFolders(path)),
  list: async (path) => ((await ifThere("list", path, readdir(path))) ?? []).sort(),
  look: async (path) => {
    const stats = await ifThere("look at", path, stat(path));
    if (stats === undefined) return undefined;
    return { isFolder: stats.isDirectory(), sizeBytes: stats.size, modifiedMs: stats.mtimeMs };
  },
  read: (path) => ifThere("read", path, readFile(path)),
  create: (path, data) => attempt("write", path, () => createSynced(path, data)),
  rename: (from, to) => attempt("rename", from, () => rename(from, to)),
  link: async (from, to) => {
    try {
      await link(from, to);
      return true;
    } catch (error) {
      if (codeOf(error) === "EEXIST") return false;
      throw targetError("make", to, error);
    }
  },
  remove: async (path) => void (await ifThere("remove", path, unlink(path))),
  syncFolder: (path) => attempt("sync", path, () => syncFolder(path)),
};
