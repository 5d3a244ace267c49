/**
 * A file or block device that becomes a copy of a device. It does not look complete before it is: a file has another
 * name, and a block device lacks its head, where partition tables and superblocks are.
 */

import { constants } from "node:fs";
import {
  type FileHandle,
  open,
  readFile,
  readlink,
  realpath,
  rename,
  stat,
} from "node:fs/promises";
import { basename, dirname, join, resolve } from "node:path";
import { allOf } from "@blksnap/errors";
import { keyOfNumber } from "@blksnap/linux-block";
import { BackupError, targetError } from "./errors.js";
import { realFiles } from "./files.js";
import type { PartFiles } from "./part-writes.js";
import { backdate, type CopySeal, sealName, sealOfOpen } from "./seal.js";
import { putAll, TargetFile } from "./target-file.js";

const INCOMPLETE = ".incomplete";
/** Length of a block device's head, which is written last. */
const HEAD_BYTES = 2 ** 20;
/** First part of the head, written after the rest of it. For a file: what follows its end while it has a mark. */
const PAGE_BYTES = 4096;
const MARK_TEXT = "blksnap: incomplete copy ";
const SECTOR_BYTES = 512;
const ZEROS = new Uint8Array(2 ** 20);

export type TargetKind = "missing" | "file" | "block" | "folder";

/** Undefined if nothing is there. */
async function statIfThere(path: string): Promise<Awaited<ReturnType<typeof stat>> | undefined> {
  try {
    return await stat(path);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return undefined;
    throw targetError("look at", path, error);
  }
}

/** The file or device at the path. An incomplete file counts. */
export async function targetKind(path: string): Promise<TargetKind> {
  const stats = (await statIfThere(path)) ?? (await statIfThere(path + INCOMPLETE));
  if (stats === undefined) return "missing";
  if (stats.isDirectory()) return "folder";
  if (stats.isBlockDevice()) return "block";
  if (stats.isFile()) return "file";
  throw new BackupError("TARGET_FAILED", `${path} is not a file, folder or block device`);
}

/** Whether a complete file is there. */
export async function isComplete(path: string): Promise<boolean> {
  return (await statIfThere(path)) !== undefined;
}

const LINKS_MAX = 40;

/**
 * The target of links, even if it does not exist: two paths to one file are one target, and the file is renamed, not
 * the link. For a block device, the given path.
 */
export async function targetAt(path: string): Promise<string> {
  if ((await statIfThere(path))?.isBlockDevice() === true) return path;
  let at = resolve(path);
  try {
    for (let links = 0; links < LINKS_MAX; links++) {
      const folder = await ifThere(realpath(dirname(at)));
      if (folder === undefined) return at;
      at = join(folder, basename(at));
      const link = await ifThere(readlink(at));
      if (link === undefined) return at;
      at = resolve(folder, link);
    }
  } catch (error) {
    throw targetError("look at", path, error);
  }
  throw new BackupError("TARGET_FAILED", `${path} leads through more than ${LINKS_MAX} links`);
}

/** Undefined if nothing is there, or no link. */
async function ifThere(found: Promise<string>): Promise<string | undefined> {
  try {
    return await found;
  } catch (error) {
    if (["ENOENT", "EINVAL"].includes((error as NodeJS.ErrnoException).code ?? ""))
      return undefined;
    throw error;
  }
}

/** The present state of a target. Undefined if there is none. */
export async function sealOf(path: string, capacityBytes: number): Promise<CopySeal | undefined> {
  const kind = await targetKind(path);
  if (kind !== "file" && kind !== "block") return undefined;
  const name = kind === "file" && !(await isComplete(path)) ? path + INCOMPLETE : path;
  try {
    const file = await open(name, constants.O_RDONLY);
    try {
      // Foreign writes that are only in the page cache do not count yet.
      if (kind === "block") await file.sync();
      const there = kind === "block" ? await deviceBytes(file) : capacityBytes;
      return await sealOfOpen(file, Math.min(there, capacityBytes));
    } finally {
      await file.close();
    }
  } catch (error) {
    throw targetError("read", name, error);
  }
}

async function deviceBytes(file: FileHandle): Promise<number> {
  const { rdev } = await file.stat();
  const sectors = await readFile(`/sys/dev/block/${keyOfNumber(rdev)}/size`, "utf8");
  return Number(sectors) * SECTOR_BYTES;
}

/** Mark of a target in progress: foreign content never has it. */
function pageOf(mark: string): Buffer {
  const page = Buffer.alloc(PAGE_BYTES);
  page.write(MARK_TEXT + mark);
  return page;
}

/**
 * Whether an update of the copy with this seal was interrupted here: a block device has the mark in place of its
 * head, a file after its end.
 */
export async function isLeftUpdate(
  path: string,
  { seal, capacity_bytes }: { readonly seal: CopySeal; readonly capacity_bytes: number },
): Promise<boolean> {
  const kind = await targetKind(path);
  if (kind !== "block" && (kind !== "file" || (await isComplete(path)))) return false;
  const file = await open(kind === "file" ? path + INCOMPLETE : path, constants.O_RDONLY);
  try {
    const found = Buffer.alloc(PAGE_BYTES + 1);
    const at = kind === "file" ? capacity_bytes : 0;
    const { bytesRead } = await file.read(found, 0, found.length, at);
    if (kind === "file" && bytesRead !== PAGE_BYTES) return false;
    return found.subarray(0, PAGE_BYTES).equals(pageOf(sealName(seal)));
  } catch (error) {
    throw targetError("read", path, error);
  } finally {
    await file.close();
  }
}

export interface RawTargetOptions {
  readonly path: string;
  readonly capacityBytes: number;
  /** Update the content; otherwise it is written in full. */
  readonly isUpdate: boolean;
  /** Seal of the copy to update. Without it an interrupted update cannot continue. */
  readonly seal?: CopySeal | undefined;
  /** Called when the target is known to be writable, before anything in it changes. */
  readonly prepare?: (() => Promise<void>) | undefined;
}

/** Otherwise an earlier update's mark could be mistaken for one of this content. */
async function cutMark(file: FileHandle): Promise<void> {
  const { size } = await file.stat();
  if (size < PAGE_BYTES) return;
  const start = Buffer.alloc(MARK_TEXT.length);
  await file.read(start, 0, start.length, size - PAGE_BYTES);
  if (start.toString("latin1") === MARK_TEXT) await file.truncate(size - PAGE_BYTES);
}

async function openFile(options: RawTargetOptions): Promise<FileHandle> {
  const { path, capacityBytes, isUpdate, seal, prepare } = options;
  const work = path + INCOMPLETE;
  if (await isComplete(path)) await rename(path, work);
  const file = await open(work, constants.O_RDWR | constants.O_CREAT, 0o600);
  try {
    // After a power cut no file may have its final name and other bytes. Neither step needs the other to be durable.
    await allOf([realFiles.syncFolder(dirname(path)), prepare?.() ?? Promise.resolve()]);
    if (seal !== undefined) await putAll(file, pageOf(sealName(seal)), capacityBytes);
    else {
      await cutMark(file);
      if (!isUpdate) await file.truncate(0);
      await file.truncate(capacityBytes);
    }
    await file.sync();
    return file;
  } catch (error) {
    await file.close();
    throw error;
  }
}

async function openDevice({ path, capacityBytes }: RawTargetOptions): Promise<FileHandle> {
  // Exclusive: the kernel refuses mounted or otherwise used devices.
  const file = await open(path, constants.O_RDWR | constants.O_EXCL);
  try {
    const sizeBytes = await deviceBytes(file);
    if (sizeBytes < capacityBytes) {
      const why = `${path} has ${sizeBytes} bytes, and the device ${capacityBytes}`;
      throw new BackupError("TARGET_TOO_SMALL", why);
    }
    return file;
  } catch (error) {
    await file.close();
    throw error;
  }
}

export class RawTarget {
  readonly path: string;
  /** Unwritten ranges read as zeros. */
  readonly isBlank: boolean;
  readonly #file: TargetFile;
  readonly #capacityBytes: number;
  /** The head that a block device gets at the end, in one write. */
  readonly #head: Buffer | undefined;

  private constructor(
    file: TargetFile,
    path: string,
    capacityBytes: number,
    isBlank: boolean,
    head: Buffer | undefined,
  ) {
    this.#file = file;
    this.path = path;
    this.#capacityBytes = capacityBytes;
    this.isBlank = isBlank;
    this.#head = head;
  }

  /** @throws BackupError TARGET_IN_USE, TARGET_TOO_SMALL, TARGET_FULL, TARGET_FAILED */
  static async begin(options: RawTargetOptions): Promise<RawTarget> {
    const { path, capacityBytes, isUpdate } = options;
    try {
      if ((await targetKind(path)) !== "block") {
        const file = await TargetFile.of(await openFile(options), false);
        return new RawTarget(file, path, capacityBytes, !isUpdate, undefined);
      }
      const file = await openDevice(options);
      try {
        await options.prepare?.();
        const head = Buffer.alloc(Math.min(HEAD_BYTES, capacityBytes));
        // The whole head is written at the end in any case, so the mark alone is enough to continue.
        const mark = options.seal === undefined ? "" : sealName(options.seal);
        await putAll(file, pageOf(mark).subarray(0, head.length), 0);
        await file.sync();
        await putAll(file, head.subarray(PAGE_BYTES), PAGE_BYTES);
        await file.sync();
        const device = await TargetFile.of(file, true);
        return new RawTarget(device, path, capacityBytes, false, head);
      } catch (error) {
        await file.close();
        throw error;
      }
    } catch (error) {
      throw targetError("write", path, error);
    }
  }

  /** Bytes at the start that must be written in any case. */
  get headBytes(): number {
    return this.#head?.length ?? 0;
  }

  /** @throws BackupError TARGET_FULL, TARGET_FAILED */
  async write(data: Uint8Array, offsetBytes: number): Promise<void> {
    const inHead = Math.max(0, Math.min(data.length, this.headBytes - offsetBytes));
    if (inHead > 0) this.#head?.set(data.subarray(0, inHead), offsetBytes);
    try {
      await this.#file.write(data.subarray(inHead), offsetBytes + inHead);
    } catch (error) {
      throw targetError("write", this.path, error);
    }
  }

  /** The file that threads may write after the head; they report that by wrote(). */
  get files(): PartFiles {
    return this.#file.files;
  }

  /** Threads have written so many bytes through the page cache. @throws as write(), for earlier writes */
  wrote(cachedBytes: number): void {
    try {
      this.#file.wrote(cachedBytes);
    } catch (error) {
      throw targetError("write", this.path, error);
    }
  }

  /** @throws as write() */
  async writeZeros(offsetBytes: number, lengthBytes: number): Promise<void> {
    if (this.isBlank) return;
    for (let done = 0; done < lengthBytes; done += ZEROS.length) {
      await this.write(ZEROS.subarray(0, lengthBytes - done), offsetBytes + done);
    }
  }

  /** The present content. A block device has a mark instead of its head. */
  async read(data: Uint8Array, offsetBytes: number): Promise<void> {
    try {
      for (let done = 0; done < data.length; ) {
        const rest = data.length - done;
        const { bytesRead } = await this.#file.handle.read(data, done, rest, offsetBytes + done);
        if (bytesRead === 0) throw new Error(`it ends at byte ${offsetBytes + done}`);
        done += bytesRead;
      }
    } catch (error) {
      throw targetError("read", this.path, error);
    }
  }

  /** Makes durable what was written; nothing may be written after it. @throws as write() */
  async sync(): Promise<void> {
    try {
      await this.#file.sync();
    } catch (error) {
      throw targetError("write", this.path, error);
    }
  }

  /**
   * Makes everything durable, and the target complete.
   * @param remember gets the seal of a file before it has its final name, of a block device at the end
   */
  async finish(remember: (seal: CopySeal) => Promise<void> = async () => undefined): Promise<void> {
    const { handle } = this.#file;
    try {
      await this.#file.sync();
      if (this.#head === undefined) {
        await handle.truncate(this.#capacityBytes);
        await backdate(handle);
        await handle.sync();
        await remember(await sealOfOpen(handle, this.#capacityBytes));
        await rename(this.path + INCOMPLETE, this.path);
        await realFiles.syncFolder(dirname(this.path));
        return;
      }
      await putAll(handle, this.#head.subarray(PAGE_BYTES), PAGE_BYTES);
      await handle.sync();
      await putAll(handle, this.#head.subarray(0, PAGE_BYTES), 0);
      await handle.sync();
      await remember(await sealOfOpen(handle, this.#capacityBytes));
    } catch (error) {
      throw targetError("write", this.path, error);
    }
  }

  close(): Promise<void> {
    return this.#file.close();
  }
}
