/**
 * All memory that a server gives to the kernel, in one mapping, so that bytes can be moved inside it without creating
 * views.
 *
 * ```
 *   slot 0 | slot 1 | ...            data of requests; one registered buffer header 0 | header 1 | ...        headers
 *   of sent data: of slots, then of requests connection 0 | connection 1 ...  64 KiB received | message and its
 *   vector | bytes of the handshake
 * ```
 */
import { ENOMEM } from "@blksnap/errors";
import { NOT_REGISTERED } from "@blksnap/ublk";
import {
  PAGE_BYTES,
  PinnedMemory,
  type PinnedUnits,
  type Reactor,
  UringError,
} from "@blksnap/uring";
import { assert } from "./errors.js";

/** Header of a reply: at most a chunk with an offset, aligned. */
const HEADER_BYTES = 64;
export const RECEIVE_BYTES: number = 64 << 10;
const SEND_BYTES = PAGE_BYTES;
/** Parts for sending: a `struct msghdr`, its vector, bytes of the handshake. */
export const VECTOR_OFFSET = 64;
export const VECTOR_ENTRIES = 64;
const STAGE_OFFSET: number = VECTOR_OFFSET + VECTOR_ENTRIES * 16;
export const STAGE_BYTES: number = SEND_BYTES - STAGE_OFFSET;

export interface ArenaSizes {
  readonly slots: number;
  readonly slotBytes: number;
  readonly requests: number;
  readonly connections: number;
}

function connectionsOffset({ slots, slotBytes, requests }: ArenaSizes): number {
  return slots * slotBytes + (slots + requests) * HEADER_BYTES;
}

/** Memory that an arena needs. */
export function arenaUnits(sizes: ArenaSizes): PinnedUnits {
  const { slots, slotBytes, connections } = sizes;
  const lengthBytes = connectionsOffset(sizes) + connections * (RECEIVE_BYTES + SEND_BYTES);
  return { units: slots, unitBytes: slotBytes, lengthBytes };
}

export class Arena {
  readonly bytes: Uint8Array;
  readonly view: DataView;
  readonly address: number;
  readonly slotsBytes: number;
  readonly #pinned: PinnedMemory;
  #isPinned = false;
  readonly #connectionsAt: number;

  /** @param pinned of arenaUnits(), owned by the arena from then on. Default: it allocates its own */
  constructor(reactor: Reactor, sizes: ArenaSizes, pinned?: PinnedMemory) {
    this.slotsBytes = sizes.slots * sizes.slotBytes;
    this.#connectionsAt = connectionsOffset(sizes);
    const units = arenaUnits(sizes);
    this.#pinned = pinned ?? new PinnedMemory(reactor, units);
    const { memory } = this.#pinned;
    assert(memory.lengthBytes >= units.lengthBytes, "an arena has too little memory");
    this.bytes = new Uint8Array(memory.buffer);
    this.view = new DataView(memory.buffer);
    this.address = memory.address;
  }

  /**
   * Registers the data of requests with the ring. By default a non-root user may lock 8 MiB in all programs: beyond
   * that the arena works unregistered, at more work per request.
   */
  register(): void {
    try {
      this.#pinned.register();
      this.#isPinned = true;
    } catch (error) {
      this.#pinned.unregister();
      if (!(error instanceof UringError && error.errno === ENOMEM)) throw error;
    }
  }

  /** Number of the registered buffer of the slot, or NOT_REGISTERED. */
  bufferIndexOf(slot: number): number {
    return this.#isPinned ? this.#pinned.bufferIndexOf(slot) : NOT_REGISTERED;
  }

  unregister(): void {
    this.#isPinned = false;
    this.#pinned.unregister();
  }

  headerAt(item: number): number {
    return this.slotsBytes + item * HEADER_BYTES;
  }

  receiveAt(connection: number): number {
    return this.#connectionsAt + connection * (RECEIVE_BYTES + SEND_BYTES);
  }

  sendAt(connection: number): number {
    return this.receiveAt(connection) + RECEIVE_BYTES;
  }

  stageAt(connection: number): number {
    return this.sendAt(connection) + STAGE_OFFSET;
  }

  free(): void {
    this.#pinned.free();
  }
}
