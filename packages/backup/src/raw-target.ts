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
/** Of the head: is written after the rest of it. */
const PAGE_BYTES = 4096;
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

/** Whether a block device is one that was left before its end. */
export async function isHeadless(path: string): Promise<boolean> {
  const file = await open(path, constants.O_RDONLY);
  try {
    const page = Buffer.alloc(PAGE_BYTES);
    await file.read(page, 0, page.length, 0);
    return page.every((byte) => byte === 0);
  } finally {
    await file.close();
  }
}

export interface RawTargetOptions {
  readonly path: string;
  readonly capacityBytes: number;
  /** What is there is brought up to date; else it is written anew. */
  readonly isUpdate: boolean;
}

async function openFile({ path, capacityBytes, isUpdate }: RawTargetOptions): Promise<FileHandle> {
  const work = path + INCOMPLETE;
  if (await isComplete(path)) await rename(path, work);
  const file = await open(work, constants.O_RDWR | constants.O_CREAT, 0o600);
  try {
    if (!isUpdate) await file.truncate(0);
    await file.truncate(capacityBytes);
    await realFiles.syncFolder(dirname(path));
    return file;
  } catch (error) {
    await file.close();
    throw error;
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
  /** What a block device gets as its head at the end; whoever writes it writes all of it. */
  readonly #head: Buffer | undefined;

  private constructor(file: FileHandle, path: string, isBlank: boolean, head: Buffer | undefined) {
    this.#file = file;
    this.path = path;
    this.isBlank = isBlank;
    this.#head = head;
  }

  /** @throws BackupError TARGET_IN_USE, TARGET_TOO_SMALL, TARGET_FULL, TARGET_FAILED */
  static async begin(options: RawTargetOptions): Promise<RawTarget> {
    const { path, capacityBytes, isUpdate } = options;
    try {
      if ((await targetKind(path)) !== "block") {
        return new RawTarget(await openFile(options), path, !isUpdate, undefined);
      }
      const file = await openDevice(options);
      const head = Buffer.alloc(Math.min(HEAD_BYTES, capacityBytes));
      const target = new RawTarget(file, path, false, head);
      await target.#put(head, 0);
      await file.sync();
      return target;
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
      await this.#put(data.subarray(inHead), offsetBytes + inHead);
    } catch (error) {
      throw targetError("write", this.path, error);
    }
  }

  /** What is there now. The head of a block device reads as zeros. */
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
        await remember(await sealOfOpen(this.#file));
        await rename(this.path + INCOMPLETE, this.path);
        await realFiles.syncFolder(dirname(this.path));
        return;
      }
      await this.#put(this.#head.subarray(PAGE_BYTES), PAGE_BYTES);
      await this.#file.sync();
      await this.#put(this.#head.subarray(0, PAGE_BYTES), 0);
      await this.#file.sync();
      await remember(await sealOfOpen(this.#file));
    } catch (error) {
      throw targetError("write", this.path, error);
    }
  }

  close(): Promise<void> {
    return this.#file.close();
  }

  async #put(data: Uint8Array, offsetBytes: number): Promise<void> {
    for (let done = 0; done < data.length; ) {
      const rest = data.length - done;
      done += (await this.#file.write(data, done, rest, offsetBytes + done)).bytesWritten;
    }
  }
}
