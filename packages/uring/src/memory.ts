import { MapFlag, MapProtection } from "./abi.js";
import { assert, UringError } from "./errors.js";
import { type NativeMapping, native } from "./native.js";

/** The size of a page; io_uring and ublk map in multiples of it. */
export const PAGE_BYTES = 4096;

/** Keeps a range out of child processes. */
const MADV_DONTFORK = 10;
/** Takes the pages now, as if each were written to (Linux 5.14). */
const MADV_POPULATE_WRITE = 23;
/** Gives the pages back while the mapping stays, also locked ones (Linux 5.18). */
const MADV_DONTNEED_LOCKED = 24;

/**
 * Memory outside of the JavaScript heap, at a fixed address that the kernel can use. Unmap it explicitly: otherwise
 * only the garbage collector finds it (and not while its thread is in a reactor's loop), and it keeps its file open
 * until then.
 */
export class MappedMemory {
  /** Its address; exact, because user addresses stay below 2^47. */
  readonly address: number;
  readonly lengthBytes: number;
  readonly #mapping: unknown;
  #buffer: ArrayBuffer | undefined;

  private constructor(mapped: NativeMapping | number, lengthBytes: number, what: string) {
    if (typeof mapped === "number") {
      throw new UringError("MAP_FAILED", `cannot map ${what}`, mapped);
    }
    this.#mapping = mapped.mapping;
    this.address = mapped.address;
    this.lengthBytes = lengthBytes;
  }

  /**
   * The bytes. After unmap() its length is 0, and so is that of every view on it.
   * From the first use on, V8 counts all of them as its own memory, and collects garbage for every few new MiB: avoid
   * it for data that only the kernel transfers.
   */
  get buffer(): ArrayBuffer {
    this.#buffer ??= native.bytesOf(this.#mapping);
    return this.#buffer;
  }

  /**
   * Zeroed private memory, page aligned. Pages are taken when they are first touched.
   * @param lengthBytes 1 to 2^32; rounded up to whole pages
   * @throws UringError MAP_FAILED
   */
  static anonymous(lengthBytes: number): MappedMemory {
    const rounded = Math.ceil(lengthBytes / PAGE_BYTES) * PAGE_BYTES;
    assert(rounded > 0 && rounded <= 2 ** 32, `mapping length ${lengthBytes}`);
    const memory = new MappedMemory(
      native.mapMemory(rounded, MapFlag.NORESERVE),
      rounded,
      `${rounded} bytes of memory`,
    );
    // A fork would write-protect it under the reactors, and copy what is pinned for the kernel.
    memory.#advise(0, rounded, MADV_DONTFORK, "keep memory from child processes");
    return memory;
  }

  /**
   * A part of a file, shared with all others that map it. What is written is in the file at once,
   * and stays there when the process dies.
   * One that can be written to may be registered as a buffer, also where the file is in huge pages: its address lies in
   * a huge page where its offset does, without which Linux 6.12 to 6.15 may transfer other bytes (fixed in 6.12.36,
   * 6.15.5).
   * @param fd an open descriptor; may be closed afterwards
   * @param offsetBytes a multiple of PAGE_BYTES
   * @param lengthBytes 1 to 2^32
   * @throws UringError MAP_FAILED with the errno of mmap(2)
   */
  static file(
    fd: number,
    offsetBytes: number,
    lengthBytes: number,
    access: "read" | "read-write" = "read-write",
  ): MappedMemory {
    assert(lengthBytes > 0 && lengthBytes <= 2 ** 32, `mapping length ${lengthBytes}`);
    assert(Number.isSafeInteger(offsetBytes) && offsetBytes >= 0, `mapping offset ${offsetBytes}`);
    const protection =
      access === "read" ? MapProtection.READ : MapProtection.READ | MapProtection.WRITE;
    return new MappedMemory(
      native.mapFile(fd, offsetBytes, lengthBytes, protection, MapFlag.SHARED),
      lengthBytes,
      `${lengthBytes} bytes of descriptor ${fd}`,
    );
  }

  /** Frees the pages; the range then reads as zeroes (anonymous memory). */
  discard(offsetBytes: number, lengthBytes: number): void {
    this.#advise(offsetBytes, lengthBytes, MADV_DONTNEED_LOCKED, "discard pages");
  }

  /**
   * Allocates the pages of a range now instead of at their first use, and keeps their content. About 0.3 µs per page.
   * False if the kernel does not support it, or has no memory: the pages are then allocated later.
   */
  populate(offsetBytes: number, lengthBytes: number): boolean {
    return native.advise(this.#mapping, offsetBytes, lengthBytes, MADV_POPULATE_WRITE) >= 0;
  }

  #advise(offsetBytes: number, lengthBytes: number, advice: number, what: string): void {
    const status = native.advise(this.#mapping, offsetBytes, lengthBytes, advice);
    if (status < 0) throw new UringError("MAP_FAILED", `cannot ${what}`, status);
  }

  /** Ends the mapping. A second call does nothing. */
  unmap(): void {
    native.unmap(this.#mapping, this.#buffer);
    this.#buffer ??= new ArrayBuffer(0);
  }
}

/** The low half of an address or offset, as a signed 32-bit integer (never a heap number). */
export function low32(value: number): number {
  return value | 0;
}

/** The high half of an address or offset below 2^53. */
export function high32(value: number): number {
  return (value / 4294967296) | 0;
}
