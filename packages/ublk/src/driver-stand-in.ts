/**
 * Replaces the kernel's driver on a reactor's ring, without a device: each command of a queue becomes a NOP that
 * brings the next request, or waits here for one. The kernel executes all other operations of the reactor.
 *
 * ```
 *   Queue ── URING_CMD ──▶ beforeEnter() ──▶ source.next(tag) ── NOP ──▶ kernel ──▶ Queue.onCompletion(tag, 0)
 *                                   └── there is none ──▶ kept ── serve() ──▶ …
 * ```
 *
 * Pages of a request with zero copy are memory of this process, in the slot of its tag. The kernel treats their first
 * byte as offset 0; here entries get the address of that byte.
 */
import { closeSync, writeSync } from "node:fs";
import {
  assert,
  createMemoryFile,
  high32,
  low32,
  MappedMemory,
  Opcode,
  prepareMessage,
  prepareNop,
  type Reactor,
  type Ring,
} from "@blksnap/uring";
import { IO_DESC_BYTES, IO_RES_ABORT, QUEUE_DEPTH_MAX } from "./abi.js";

const DESC_WORDS = IO_DESC_BYTES / 4;
const ADDRESS_WORD = 4;
const USER_DATA_WORD = 8;
const BUFFER_WORD = 10;
const COMMAND_WORD = 12;
const PLACE_MASK = 0xffff;
const NO_FILE = -1;

/** Source of the requests of a device. */
export interface RequestSource {
  /**
   * Puts the tag's next request into its descriptor, as the driver has it: op, sectors, low and high half of the first
   * sector.
   * @param result that of the tag's request before; 0 for its first one
   * @returns false if there is none: the tag waits for serve()
   */
  next(descriptor: Int32Array, result: number): boolean;
}

const NO_REQUESTS: RequestSource = { next: () => false };

interface StandInDevice {
  readonly charFd: number;
  readonly memory: MappedMemory;
  readonly descriptors: readonly Int32Array[];
  /** User data of the commands that wait, by tag. */
  readonly kept: Map<number, readonly [number, number]>;
  readonly pagesBytes: number;
  source: RequestSource;
}

/**
 * Allocates all of it: without memory a store would end the process. Then the file is closed. @throws UringError,
 * Error
 */
function descriptorsOf(charFd: number): MappedMemory {
  const fileBytes = QUEUE_DEPTH_MAX * IO_DESC_BYTES;
  try {
    const written = writeSync(charFd, new Uint8Array(fileBytes));
    if (written < fileBytes) throw new Error("the descriptors of a stand-in get no memory");
    return MappedMemory.file(charFd, 0, fileBytes);
  } catch (error) {
    closeSync(charFd);
    throw error;
  }
}

export class DriverStandIn {
  readonly #devices = new Map<number, StandInDevice>();
  /** By their place in the ring's table of registered buffers. */
  readonly #pages = new Map<number, MappedMemory>();
  #reactor: Reactor | undefined;
  #keptHandler = 0;

  /** The reactor whose ring was created with beforeEnter. */
  use(reactor: Reactor): void {
    this.#reactor = reactor;
    this.#keptHandler = reactor.addHandler({ onCompletion: () => undefined });
  }

  /**
   * A character device with a queue of `depth` tags, for Queue. It lives as long as this.
   * @param maxIoBytes of the longest request
   */
  addDevice(depth: number, maxIoBytes: number): number {
    const charFd = createMemoryFile("ublkc");
    const memory = descriptorsOf(charFd);
    const descriptors = Array.from(
      { length: depth },
      (_, tag) => new Int32Array(memory.buffer, tag * IO_DESC_BYTES, DESC_WORDS),
    );
    this.#devices.set(charFd, {
      charFd,
      memory,
      descriptors,
      kept: new Map(),
      pagesBytes: maxIoBytes,
      source: NO_REQUESTS,
    });
    return charFd;
  }

  /** From now on requests of the device come from `source`. */
  serve(charFd: number, source: RequestSource): void {
    const device = this.#deviceOf(charFd);
    device.source = source;
    for (const [tag, [low, high]] of device.kept) {
      if (!source.next(device.descriptors[tag] as Int32Array, 0)) return;
      device.kept.delete(tag);
      prepareNop(this.#ring, low, high, 0);
    }
  }

  /** Number of tags that wait for a request. */
  idleTags(charFd: number): number {
    return this.#deviceOf(charFd).kept.size;
  }

  /** Ends the queue of a device whose tags all wait. */
  end(charFd: number): void {
    const { kept } = this.#deviceOf(charFd);
    for (const [low, high] of kept.values()) {
      prepareMessage(this.#ring, this.#ring.fd, IO_RES_ABORT, low, high, 0, this.#keptHandler);
    }
    kept.clear();
  }

  /** Call it when the reactor has ended. */
  close(): void {
    for (const { charFd, memory } of this.#devices.values()) {
      memory.unmap();
      closeSync(charFd);
    }
    for (const memory of this.#pages.values()) memory.unmap();
  }

  /** For the reactor's ring. What is new in it is found by its opcode: an entry is written whole each time. */
  readonly beforeEnter = (ring: Ring): void => {
    const { sqes32: words, sqEntries, sqeWords } = ring;
    for (let sqe = 0; sqe < sqEntries * sqeWords; sqe += sqeWords) {
      const opcode = words[sqe] & 0xff;
      if (opcode === Opcode.URING_CMD) this.#takeCommand(words, sqe);
      else if (opcode === Opcode.READ_FIXED || opcode === Opcode.WRITE_FIXED)
        this.#placePages(words, sqe);
    }
  };

  get #ring(): Ring {
    assert(this.#reactor !== undefined, "the stand-in of a driver has no reactor");
    return this.#reactor.ring;
  }

  #deviceOf(charFd: number): StandInDevice {
    const device = this.#devices.get(charFd);
    assert(device !== undefined, "a command of no device");
    return device;
  }

  #takeCommand(words: Int32Array, sqe: number): void {
    const device = this.#deviceOf(words[sqe + 1]);
    const registration = words[sqe + ADDRESS_WORD];
    if (registration !== 0) this.#registerPages(registration & PLACE_MASK, device);
    const tag = words[sqe + COMMAND_WORD] >>> 16;
    const low = words[sqe + USER_DATA_WORD];
    const high = words[sqe + USER_DATA_WORD + 1];
    const descriptor = device.descriptors[tag] as Int32Array;
    const isNext = device.source.next(descriptor, words[sqe + COMMAND_WORD + 1]);
    if (!isNext) device.kept.set(tag, [low, high]);
    words.fill(0, sqe, sqe + this.#ring.sqeWords);
    words[sqe + 1] = NO_FILE;
    words[sqe + USER_DATA_WORD] = isNext ? low : 0;
    words[sqe + USER_DATA_WORD + 1] = isNext ? high : this.#keptHandler;
  }

  #registerPages(place: number, { pagesBytes }: StandInDevice): void {
    if (this.#pages.has(place)) return;
    const memory = MappedMemory.anonymous(pagesBytes);
    this.#pages.set(place, memory);
    this.#ring.setBuffer(place, memory.address, memory.lengthBytes);
  }

  #placePages(words: Int32Array, sqe: number): void {
    const at = sqe + ADDRESS_WORD;
    if (words[at] !== 0 || words[at + 1] !== 0) return;
    const address = this.#pages.get(words[sqe + BUFFER_WORD] & PLACE_MASK)?.address ?? 0;
    words[at] = low32(address);
    words[at + 1] = high32(address);
  }
}
