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
import { MappedMemory, PAGE_BYTES, type Reactor, UringError } from "@blksnap/uring";
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
export function arenaBytes(sizes: ArenaSizes): number {
  return connectionsOffset(sizes) + sizes.connections * (RECEIVE_BYTES + SEND_BYTES);
}

export class Arena {
  readonly bytes: Uint8Array;
  readonly view: DataView;
  readonly address: number;
  readonly slotsBytes: number;
  readonly #memory: MappedMemory;
  readonly #connectionsAt: number;

  /** @param memory of at least arenaBytes(), owned by the arena from then on. Default: it allocates its own */
  constructor(sizes: ArenaSizes, memory?: MappedMemory) {
    this.slotsBytes = sizes.slots * sizes.slotBytes;
    this.#connectionsAt = connectionsOffset(sizes);
    const lengthBytes = arenaBytes(sizes);
    this.#memory = memory ?? MappedMemory.anonymous(lengthBytes);
    assert(this.#memory.lengthBytes >= lengthBytes, "an arena has too little memory");
    this.bytes = new Uint8Array(this.#memory.buffer);
    this.view = new DataView(this.#memory.buffer);
    this.address = this.#memory.address;
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

  unmap(): void {
    this.#memory.unmap();
  }
}

/**
 * Registers the data of requests with the ring. By default a non-root user may lock 8 MiB in all programs: beyond
 * that the arena works unregistered, at more work per request.
 * @returns number of the registered buffer, or NOT_REGISTERED
 */
export function registered(reactor: Reactor, { address, slotsBytes }: Arena): number {
  try {
    return reactor.addBuffer(address, slotsBytes);
  } catch (error) {
    if (error instanceof UringError && error.errno === ENOMEM) return NOT_REGISTERED;
    throw error;
  }
}
