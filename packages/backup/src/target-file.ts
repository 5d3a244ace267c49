/** An open file or block device for writing: uses direct I/O for large writes, if possible. */
import { constants } from "node:fs";
import { type FileHandle, open } from "node:fs/promises";
import { type OneWrite, type PartFiles, writesOf, writtenDespite } from "./part-writes.js";

/** Writeback starts after so many bytes in the page cache, so that a disk writes while more is read. */
const WRITEBACK_BYTES = 2 ** 25;

type Write = (one: OneWrite) => Promise<number>;

async function writeTo(file: FileHandle, { data, offsetBytes }: OneWrite): Promise<number> {
  return (await file.write(data, 0, data.length, offsetBytes)).bytesWritten;
}

/** Handles the requests of `writes`. */
async function writeAll(writes: ReturnType<typeof writesOf>, write: Write): Promise<number> {
  let next = writes.next();
  while (next.done !== true) next = writes.next(await write(next.value));
  return next.value;
}

/** Through the page cache. */
export async function putAll(
  file: FileHandle,
  data: Uint8Array,
  offsetBytes: number,
): Promise<void> {
  await writeAll(writesOf(data, offsetBytes, false), (one) => writeTo(file, one));
}

/** The same file opened for direct I/O. Undefined if not supported. */
async function openDirect({ fd }: FileHandle): Promise<FileHandle | undefined> {
  const flags = constants.O_WRONLY | constants.O_DIRECT;
  return await open(`/proc/self/fd/${fd}`, flags).catch(() => undefined);
}

export class TargetFile {
  readonly handle: FileHandle;
  #direct: FileHandle | undefined;
  readonly #isDevice: boolean;
  /** Whether anything was written through the page cache since the last sync. */
  #isCached = false;
  /** Serialises writes of a file: the kernel does so, too, but waiting threads would spin. */
  #lastWrite: Promise<unknown> = Promise.resolve();
  #cachedBytes = 0;
  #writeback: Promise<void> | undefined;
  /** The error of writeback: the kernel reports it once, and not at the end again. */
  #failure: unknown;

  private constructor(handle: FileHandle, direct: FileHandle | undefined, isDevice: boolean) {
    this.handle = handle;
    this.#direct = direct;
    this.#isDevice = isDevice;
  }

  /** @param handle closed with it */
  static async of(handle: FileHandle, isDevice: boolean): Promise<TargetFile> {
    return new TargetFile(handle, await openDirect(handle), isDevice);
  }

  /** For threads that write to it themselves; they report that by wrote(). */
  get files(): PartFiles {
    return { fd: this.handle.fd, directFd: this.#direct?.fd };
  }

  /** So many bytes were written through the page cache. @throws the error of earlier writes */
  wrote(cachedBytes: number): void {
    if (this.#failure !== undefined) throw this.#failure;
    this.#isCached ||= cachedBytes > 0;
    this.#cachedBytes += cachedBytes;
    if (this.#cachedBytes < WRITEBACK_BYTES || this.#writeback !== undefined) return;
    this.#cachedBytes = 0;
    this.#writeback = this.handle
      .datasync()
      .catch((error: unknown) => {
        this.#failure ??= error;
      })
      .finally(() => {
        this.#writeback = undefined;
      });
  }

  /** @throws the error of write(2), and as wrote() */
  async write(data: Uint8Array, offsetBytes: number): Promise<void> {
    const writes = writesOf(data, offsetBytes, this.#direct !== undefined);
    this.wrote(await writeAll(writes, (one) => this.#write(one)));
  }

  /**
   * Makes durable what write() wrote, and wrote() reported: call it when threads no longer write, and use no direct I/O
   * after it.
   * @throws the error of fsync(2) or close(2), and as wrote()
   */
  async sync(): Promise<void> {
    await this.#writeback;
    if (this.#failure !== undefined) throw this.#failure;
    // FUSE file systems may keep data of an open file until it is synced or closed.
    await this.#direct?.sync();
    await this.#closeDirect();
    if (this.#isCached) await this.handle.sync();
    this.#isCached = false;
  }

  async close(): Promise<void> {
    await this.#writeback;
    try {
      await this.#closeDirect();
    } finally {
      await this.handle.close();
    }
  }

  async #closeDirect(): Promise<void> {
    const direct = this.#direct;
    this.#direct = undefined;
    await direct?.close();
  }

  async #write(one: OneWrite): Promise<number> {
    if (!one.isDirect) return await this.#inTurn(() => writeTo(this.handle, one));
    try {
      return await writeTo(this.#direct!, one);
    } catch (error) {
      return writtenDespite(error, one);
    }
  }

  async #inTurn(write: () => Promise<number>): Promise<number> {
    const written = this.#isDevice ? write() : this.#lastWrite.then(write);
    this.#lastWrite = written.catch(() => undefined);
    return await written;
  }
}
