/**
 * A file or block device that becomes a copy of a device. Until it is one it does not look like one: a file
 * has another name, and a block device has no head, where partition tables and superblocks are.
 */
import { createHash } from "node:crypto";
import { constants } from "node:fs";
import { type FileHandle, open, readFile, rename, stat } from "node:fs/promises";
import { dirname } from "node:path";
import { keyOfNumber } from "@blksnap/linux-block";
import { BackupError, targetError } from "./errors.js";
import { realFiles } from "./files.js";

const INCOMPLETE = ".incomplete";
/** Of a block device: is written last. */
const HEAD_BYTES = 2 ** 20;
/** Of the head: is written after the rest of it. Of a file: what is behind its end while it has a mark. */
const PAGE_BYTES = 4096;
const MARK_TEXT = "blksnap: incomplete copy ";
const SECTOR_BYTES = 512;

export type TargetKind = "missing" | "file" | "block" | "folder";

/** Undefined where there is nothing. */
async function statIfThere(path: string): Promise<Awaited<ReturnType<typeof stat>> | undefined> {
  try {
    return await stat(path);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return undefined;
    throw targetError("look at", path, error);
  }
}

/** What is at the path. A file that is not complete yet counts. */
export async function targetKind(path: string): Promise<TargetKind> {
  const stats = (await statIfThere(path)) ?? (await statIfThere(path + INCOMPLETE));
  if (stats === undefined) return "missing";
  if (stats.isDirectory()) return "folder";
  if (stats.isBlockDevice()) return "block";
  if (stats.isFile()) return "file";
  throw new BackupError("TARGET_FAILED", `${path} is no file, folder or block device`);
}

/** Whether there is a file under its own name. */
export async function isComplete(path: string): Promise<boolean> {
  return (await statIfThere(path)) !== undefined;
}

/** What tells whether others have written to a target since. Undefined where there is none. */
export async function sealOf(path: string): Promise<string | undefined> {
  const kind = await targetKind(path);
  if (kind !== "file" && kind !== "block") return undefined;
  const name = kind === "file" && !(await isComplete(path)) ? path + INCOMPLETE : path;
  const file = await open(name, constants.O_RDONLY).catch((error: unknown) => {
    throw targetError("read", name, error);
  });
  try {
    return await sealOfOpen(file);
  } finally {
    await file.close();
  }
}

/** Of a file its size and time; of a block device, which has no time, its head. */
async function sealOfOpen(file: FileHandle): Promise<string> {
  const stats = await file.stat({ bigint: true });
  if (stats.isFile()) return `${stats.size} bytes, written at ${stats.mtimeNs}`;
  const head = Buffer.alloc(HEAD_BYTES);
  const { bytesRead } = await file.read(head, 0, head.length, 0);
  return createHash("sha256").update(head.subarray(0, bytesRead)).digest("hex");
}

/** What a target has while it is written: nothing that others have put there has this. */
function pageOf(mark: string): Buffer {
  const page = Buffer.alloc(PAGE_BYTES);
  page.write(MARK_TEXT + mark);
  return page;
}

/**
 * Whether an update of the copy with this seal was left before its end here: a block device has the mark in place of
 * its head, a file behind its end.
 */
export async function isLeftUpdate(
  path: string,
  { seal, capacity_bytes }: { readonly seal: string; readonly capacity_bytes: number },
): Promise<boolean> {
  const kind = await targetKind(path);
  if (kind !== "block" && (kind !== "file" || (await isComplete(path)))) return false;
  const file = await open(kind === "file" ? path + INCOMPLETE : path, constants.O_RDONLY);
  try {
    const found = Buffer.alloc(PAGE_BYTES + 1);
    const at = kind === "file" ? capacity_bytes : 0;
    const { bytesRead } = await file.read(found, 0, found.length, at);
    if (kind === "file" && bytesRead !== PAGE_BYTES) return false;
    return found.subarray(0, PAGE_BYTES).equals(pageOf(seal));
  } catch (error) {
    throw targetError("read", path, error);
  } finally {
    await file.close();
  }
}

export interface RawTargetOptions {
  readonly path: string;
  readonly capacityBytes: number;
  /** What is there is brought up to date; else it is written anew. */
  readonly isUpdate: boolean;
  /** Seal of the copy that is brought up to date. Without it nothing continues what is cut short. */
  readonly mark?: string | undefined;
  /** Is done when it is clear that the target can be written, before anything in it changes. */
  readonly prepare?: (() => Promise<void>) | undefined;
}

/** An earlier update's mark may not be taken for one of this content. */
async function cutMark(file: FileHandle): Promise<void> {
  const { size } = await file.stat();
  if (size < PAGE_BYTES) return;
  const start = Buffer.alloc(MARK_TEXT.length);
  await file.read(start, 0, start.length, size - PAGE_BYTES);
  if (start.toString("latin1") === MARK_TEXT) await file.truncate(size - PAGE_BYTES);
}

async function openFile(options: RawTargetOptions): Promise<FileHandle> {
  const { path, capacityBytes, isUpdate, mark = "", prepare } = options;
  const work = path + INCOMPLETE;
  if (await isComplete(path)) await rename(path, work);
  const file = await open(work, constants.O_RDWR | constants.O_CREAT, 0o600);
  try {
    // After a power cut no file may have its own name, and other bytes.
    await realFiles.syncFolder(dirname(path));
    await prepare?.();
    if (mark !== "") await putAll(file, pageOf(mark), capacityBytes);
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

async function putAll(file: FileHandle, data: Uint8Array, offsetBytes: number): Promise<void> {
  for (let done = 0; done < data.length; ) {
    const rest = data.length - done;
    done += (await file.write(data, done, rest, offsetBytes + done)).bytesWritten;
  }
}

async function openDevice({ path, capacityBytes }: RawTargetOptions): Promise<FileHandle> {
  // Exclusive: the kernel refuses what is mounted, or part of something else.
  const file = await open(path, constants.O_RDWR | constants.O_EXCL);
  try {
    const { rdev } = await file.stat();
    const size = await readFile(`/sys/dev/block/${keyOfNumber(rdev)}/size`, "utf8");
    const sizeBytes = Number(size) * SECTOR_BYTES;
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
  /** It reads as zeros where nothing is written. */
  readonly isBlank: boolean;
  readonly #file: FileHandle;
  readonly #capacityBytes: number;
  /** What a block device gets as its head at the end; whoever writes it writes all of it. */
  readonly #head: Buffer | undefined;

  private constructor(
    file: FileHandle,
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
        return new RawTarget(await openFile(options), path, capacityBytes, !isUpdate, undefined);
      }
      const file = await openDevice(options);
      try {
        await options.prepare?.();
        const head = Buffer.alloc(Math.min(HEAD_BYTES, capacityBytes));
        // All of the head is written at the end in any case, so that the mark alone is enough to continue.
        await putAll(file, pageOf(options.mark ?? "").subarray(0, head.length), 0);
        await file.sync();
        await putAll(file, head.subarray(PAGE_BYTES), PAGE_BYTES);
        await file.sync();
        return new RawTarget(file, path, capacityBytes, false, head);
      } catch (error) {
        await file.close();
        throw error;
      }
    } catch (error) {
      throw targetError("write", path, error);
    }
  }

  /** Bytes at the start that have to be written in any case. */
  get headBytes(): number {
    return this.#head?.length ?? 0;
  }

  /** @throws BackupError TARGET_FULL, TARGET_FAILED */
  async write(data: Uint8Array, offsetBytes: number): Promise<void> {
    const inHead = Math.max(0, Math.min(data.length, this.headBytes - offsetBytes));
    if (inHead > 0) this.#head?.set(data.subarray(0, inHead), offsetBytes);
    try {
      await putAll(this.#file, data.subarray(inHead), offsetBytes + inHead);
    } catch (error) {
      throw targetError("write", this.path, error);
    }
  }

  /** What is there now. A block device has a mark, not its head. */
  async read(data: Uint8Array, offsetBytes: number): Promise<void> {
    try {
      for (let done = 0; done < data.length; ) {
        const rest = data.length - done;
        const { bytesRead } = await this.#file.read(data, done, rest, offsetBytes + done);
        if (bytesRead === 0) throw new Error(`it ends at byte ${offsetBytes + done}`);
        done += bytesRead;
      }
    } catch (error) {
      throw targetError("read", this.path, error);
    }
  }

  /**
   * Has all be on the medium, and lets it look complete.
   * @param remember gets the seal of a file before it has its name again, of a block device at the end
   */
  async finish(remember: (seal: string) => Promise<void> = async () => undefined): Promise<void> {
    try {
      await this.#file.sync();
      if (this.#head === undefined) {
        await this.#file.truncate(this.#capacityBytes);
        await this.#file.sync();
        await remember(await sealOfOpen(this.#file));
        await rename(this.path + INCOMPLETE, this.path);
        await realFiles.syncFolder(dirname(this.path));
        return;
      }
      await putAll(this.#file, this.#head.subarray(PAGE_BYTES), PAGE_BYTES);
      await this.#file.sync();
      await putAll(this.#file, this.#head.subarray(0, PAGE_BYTES), 0);
      await this.#file.sync();
      await remember(await sealOfOpen(this.#file));
    } catch (error) {
      throw targetError("write", this.path, error);
    }
  }

  close(): Promise<void> {
    return this.#file.close();
  }
}
