/**
 * Free space of an ext2, ext3 or ext4 on an image, according to `dumpe2fs`. Only trusted if the file system is
 * consistent without its journal: unmounted, mounted read-only, or frozen at the take. A pending replay may have
 * allocated blocks that the bitmaps call free.
 */
import { type FileHandle, open } from "node:fs/promises";
import type { ByteRange } from "@blksnap/api";
import { messageOf } from "@blksnap/errors";
import { runForLines } from "@blksnap/linux-block";
import { BackupError } from "./errors.js";
import { type ImageReader, openImage } from "./source.js";

/** Shorter free space is read: a separate part costs more. */
const FREE_BYTES_MIN = 131_072;
/** mke2fs leaves zeros before the superblock. */
const SUPERBLOCK_AT = 1024;
const HEAD_BYTES = 2048;
const MAGIC = { at: 0x38, value: 0xef53 };
const STATE = { at: 0x3a, clean: 1 };
const INCOMPATIBLE = { at: 0x60, needsRecovery: 4, isJournal: 8 };
const READ_ONLY_COMPATIBLE = { at: 0x64, bigalloc: 0x200 };

function unknown(image: string, why: string, cause?: unknown): BackupError {
  const hint = "Omit --allocated-only to read the whole image";
  const text = `can't determine what is allocated on ${image}: ${why}`;
  return new BackupError("IMAGE_FAILED", text, { hint, cause });
}

/**
 * Why free space is unknown; undefined if it is known.
 * @param head of the device
 */
function obstacle(head: Buffer): string | undefined {
  const superblock = head.subarray(SUPERBLOCK_AT);
  if (superblock.readUInt16LE(MAGIC.at) !== MAGIC.value) {
    return "it has no ext2, ext3 or ext4 on the whole device";
  }
  // Tools that partition a disk leave the superblock of an earlier file system where it is.
  if (head.subarray(0, SUPERBLOCK_AT).some((byte) => byte !== 0)) {
    return "its file system does not start at the beginning: there is a partition table, a label or a boot loader";
  }
  const incompatible = superblock.readUInt32LE(INCOMPATIBLE.at);
  if ((incompatible & INCOMPATIBLE.needsRecovery) !== 0) {
    return "its file system needs a journal replay: it was in use, and not frozen at take";
  }
  if (superblock.readUInt16LE(STATE.at) !== STATE.clean) {
    return "its file system was in use without a journal, or has errors";
  }
  const hasClusters =
    (superblock.readUInt32LE(READ_ONLY_COMPATIBLE.at) & READ_ONLY_COMPATIBLE.bigalloc) !== 0;
  if (hasClusters || (incompatible & INCOMPATIBLE.isJournal) !== 0) {
    return "its file system has a feature that is not supported (bigalloc, a journal)";
  }
  return undefined;
}

/** @throws BackupError IMAGE_FAILED */
async function checkLookable(image: string): Promise<void> {
  if (!image.startsWith("/")) throw unknown(image, "it is not a block device or file");
  const head = Buffer.alloc(HEAD_BYTES);
  let file: FileHandle | undefined;
  let bytesRead: number;
  try {
    file = await open(image, "r");
    ({ bytesRead } = await file.read(head, 0, HEAD_BYTES, 0));
  } catch (error) {
    throw unknown(image, messageOf(error), error);
  } finally {
    await file?.close();
  }
  const why = bytesRead < HEAD_BYTES ? "it is too small" : obstacle(head);
  if (why !== undefined) throw unknown(image, why);
}

function endOf(ranges: readonly ByteRange[]): number {
  const last = ranges.at(-1);
  return last === undefined ? 0 : last.offset_bytes + last.length_bytes;
}

/** Adds a range that begins no earlier than the last one: to that, where it reaches it. */
function join(ranges: ByteRange[], range: ByteRange): void {
  const last = ranges.at(-1);
  const lastEnd = endOf(ranges);
  if (last === undefined || range.offset_bytes > lastEnd) {
    ranges.push(range);
    return;
  }
  const { offset_bytes } = last;
  const end = Math.max(lastEnd, range.offset_bytes + range.length_bytes);
  ranges[ranges.length - 1] = { offset_bytes, length_bytes: end - offset_bytes };
}

/** Gathers free space from lines as `dumpe2fs` prints them. */
export class FreeSpaceReader {
  readonly ranges: ByteRange[] = [];
  /** What does not fit together; undefined where all does. */
  problem: string | undefined;
  #blockBytes = 0;
  /** Blocks that the group of these lines says it has free; -1 before the first group. */
  #wantedBlocks = -1;
  #blocks = 0;

  readonly line = (text: string): void => {
    const size = /^Block size: +(\d+)$/.exec(text);
    if (size !== null) this.#blockBytes = Number(size[1]);
    else if (/^Group \d+: /.test(text)) this.#begin(text);
    else if (/^\*\*\* Checksum errors/.test(text)) this.problem ??= text;
    const wanted = /^ +(\d+) free (?:blocks|clusters), /.exec(text);
    if (wanted !== null) this.#wantedBlocks = Number(wanted[1]);
    // The same words stand in the superblock's part, before all groups.
    const free = this.#wantedBlocks < 0 ? null : /^ +Free blocks: (.*)$/.exec(text);
    if (free === null) return;
    for (const run of free[1]!.split(", ")) this.#add(run);
  };

  /** A wrong checksum of a descriptor is a remark for `dumpe2fs`, and in some versions one of bitmaps. */
  #begin(text: string): void {
    this.end();
    if (text.includes("(EXPECTED ")) this.problem ??= `a descriptor has a wrong checksum: ${text}`;
  }

  /** The last group's lines have been read, or all. */
  end(): void {
    if (this.#wantedBlocks >= 0 && this.#blocks !== this.#wantedBlocks) {
      this.problem ??= `a group has ${this.#wantedBlocks} free blocks, and names ${this.#blocks}`;
    }
    this.#wantedBlocks = -1;
    this.#blocks = 0;
  }

  #add(run: string): void {
    const found = /^(\d+)(?:-(\d+))?$/.exec(run);
    if (found === null) return;
    const first = Number(found[1]);
    const count = Number(found[2] ?? first) - first + 1;
    this.#blocks += count;
    const offset_bytes = first * this.#blockBytes;
    const length_bytes = count * this.#blockBytes;
    if (count <= 0 || this.#blockBytes === 0 || offset_bytes < endOf(this.ranges)) {
      this.problem ??= `"${run}" is out of order`;
    } else join(this.ranges, { offset_bytes, length_bytes });
  }
}

/** @throws BackupError IMAGE_FAILED */
async function freeSpaceOf(image: string): Promise<readonly ByteRange[]> {
  const reader = new FreeSpaceReader();
  const { failure, status, said } = await runForLines("dumpe2fs", ["--", image], reader.line);
  reader.end();
  if (failure !== undefined) throw unknown(image, `dumpe2fs (e2fsprogs): ${failure.message}`);
  if (status !== 0) throw unknown(image, `dumpe2fs: ${said.trim()}`);
  if (reader.problem !== undefined) throw unknown(image, reader.problem);
  return reader.ranges.filter(({ length_bytes }) => length_bytes >= FREE_BYTES_MIN);
}

/** Both together. @param one sorted and disjoint @param other likewise */
export function unionOf(one: readonly ByteRange[], other: readonly ByteRange[]): ByteRange[] {
  const all = [...one, ...other].sort((a, b) => a.offset_bytes - b.offset_bytes);
  const union: ByteRange[] = [];
  for (const range of all) join(union, range);
  return union;
}

/**
 * As openImage(), but what the file system of the image has no use for counts as empty: a full export reads what is
 * allocated, and has zeros in place of what is free. For `open` of the exports. emptyRanges() fails where that cannot be
 * told, as IMAGE_FAILED; an incremental export does not ask.
 * @throws BackupError IMAGE_FAILED
 */
export async function openAllocated(
  image: string,
  exported: string | null = null,
): Promise<ImageReader> {
  const reader = await openImage(image, exported);
  return {
    ...reader,
    emptyRanges: async () => {
      await checkLookable(image);
      return unionOf(await reader.emptyRanges(), await freeSpaceOf(image));
    },
  };
}
