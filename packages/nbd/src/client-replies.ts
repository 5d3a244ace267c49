/** Pending requests of a client, and the effect of their replies. */
import type { Arrived } from "./arrived.js";
import { NbdError } from "./errors.js";
import {
  CHUNK_DONE,
  CHUNK_ERROR_BIT,
  CHUNK_HEADER_BYTES,
  CHUNK_MAGIC,
  ChunkType,
  Command,
  EXTENDED_CHUNK_HEADER_BYTES,
  EXTENDED_CHUNK_MAGIC,
  EXTENDED_STATUS_LAYOUT,
  Limit,
  SIMPLE_REPLY_BYTES,
  SIMPLE_REPLY_MAGIC,
  STATUS_LAYOUT,
} from "./protocol.js";
import type { ByteReader } from "./socket-reader.js";

/** A run of blocks of an export with the same flags. */
export interface Extent {
  readonly offsetBytes: number;
  readonly lengthBytes: number;
  readonly flags: number;
}

export interface PendingRequest {
  readonly type: number;
  readonly offsetBytes: number;
  readonly lengthBytes: number;
  /** Target of a read. */
  readonly target: Uint8Array;
  /** Result of block status: extents by the ids of their contexts. */
  readonly extents: Map<number, Extent[]>;
  /** Length of `target`. */
  readonly arrived: Arrived;
  error: NbdError | undefined;
  /** The request has ended; `error` if it failed. */
  onEnd(): void;
}

const ERROR_BYTES_MAX: number = 6 + Limit.NAME_BYTES + 8;
const EXTENTS_MAX = 1_048_576;

function violation(what: string): NbdError {
  return new NbdError("PROTOCOL_VIOLATED", what);
}

/** @throws NbdError PROTOCOL_VIOLATED: lengths from 2^53 on, and unknown flags, are invalid */
function numberAt(bytes: Buffer, at: number): number {
  const value = bytes.readBigUInt64BE(at);
  if (value > Number.MAX_SAFE_INTEGER) throw violation(`a number of ${value}`);
  return Number(value);
}

/** Describes the next data. @param at offset in the target @throws NbdError PROTOCOL_VIOLATED */
function placeIn({ target, arrived }: PendingRequest, at: number, length: number): Uint8Array {
  const isInside = at >= 0 && length > 0 && at + length <= target.length;
  if (!isInside) throw violation("data that was not asked for");
  if (!arrived.add(at, at + length)) throw violation("data that has come already");
  return target.subarray(at, at + length);
}

export class ClientReplies {
  readonly pending: Map<bigint, PendingRequest> = new Map();
  readonly #reader: ByteReader;
  readonly #isExtended: boolean;

  constructor(reader: ByteReader, isExtended: boolean) {
    this.#reader = reader;
    this.#isExtended = isExtended;
  }

  /** Processes replies until the connection ends. @throws NbdError the reason, always */
  async run(): Promise<never> {
    for (;;) await this.#receive();
  }

  async #receive(): Promise<void> {
    const bytes = this.#isExtended ? EXTENDED_CHUNK_HEADER_BYTES : SIMPLE_REPLY_BYTES;
    const header = await this.#reader.read(bytes);
    const magic = header.readUInt32BE(0);
    const cookie = header.readBigUInt64BE(8);
    const request = this.pending.get(cookie);
    if (request === undefined) throw violation("a reply to no request");
    let isDone = true;
    if (this.#isExtended && magic === EXTENDED_CHUNK_MAGIC) {
      if (header.readBigUInt64BE(16) !== BigInt(request.offsetBytes)) {
        throw violation("a reply that names another place");
      }
      await this.#receiveChunk(request, header.readUInt16BE(6), numberAt(header, 24));
      isDone = (header.readUInt16BE(4) & CHUNK_DONE) !== 0;
    } else if (!this.#isExtended && magic === SIMPLE_REPLY_MAGIC) {
      await this.#receiveSimple(request, header.readUInt32BE(4));
    } else if (!this.#isExtended && magic === CHUNK_MAGIC) {
      const length = await this.#reader.read(CHUNK_HEADER_BYTES - SIMPLE_REPLY_BYTES);
      await this.#receiveChunk(request, header.readUInt16BE(6), length.readUInt32BE(0));
      isDone = (header.readUInt16BE(4) & CHUNK_DONE) !== 0;
    } else throw violation(`a reply with magic ${magic.toString(16)}`);
    if (!isDone) return;
    this.pending.delete(cookie);
    if (request.error === undefined && request.arrived.wholeBytes !== request.target.length) {
      request.error = violation("a reply without all of the data");
    }
    request.onEnd();
  }

  async #receiveSimple(request: PendingRequest, error: number): Promise<void> {
    if (error !== 0) {
      request.error = failed(request, error, "");
      return;
    }
    const { target } = request;
    if (target.length > 0) await this.#reader.readInto(placeIn(request, 0, target.length));
  }

  async #receiveChunk(request: PendingRequest, type: number, length: number): Promise<void> {
    if ((type & CHUNK_ERROR_BIT) !== 0) {
      if (length < 6 || length > ERROR_BYTES_MAX) throw violation(`an error of ${length} bytes`);
      const data = await this.#reader.read(length);
      const text = data.toString("utf8", 6, 6 + data.readUInt16BE(4));
      request.error ??= failed(request, data.readUInt32BE(0), text);
    } else if (type === ChunkType.NONE && length === 0) return;
    else if (type === ChunkType.OFFSET_DATA) await this.#receiveData(request, length);
    else if (type === ChunkType.OFFSET_HOLE && length === 12) await this.#receiveHole(request);
    else if (type === this.#statusType) await this.#receiveStatus(request, length);
    else throw violation(`a chunk of type ${type} with ${length} bytes`);
  }

  get #statusType(): number {
    return this.#isExtended ? ChunkType.BLOCK_STATUS_EXT : ChunkType.BLOCK_STATUS;
  }

  async #receiveData(request: PendingRequest, length: number): Promise<void> {
    if (length <= 8) throw violation("a chunk without data");
    const offset = (await this.#reader.read(8)).readBigUInt64BE(0);
    const at = Number(offset) - request.offsetBytes;
    await this.#reader.readInto(placeIn(request, at, length - 8));
  }

  async #receiveHole(request: PendingRequest): Promise<void> {
    const data = await this.#reader.read(12);
    const at = Number(data.readBigUInt64BE(0)) - request.offsetBytes;
    placeIn(request, at, data.readUInt32BE(8)).fill(0);
  }

  async #receiveStatus(request: PendingRequest, length: number): Promise<void> {
    const { headBytes, extentBytes } = this.#isExtended ? EXTENDED_STATUS_LAYOUT : STATUS_LAYOUT;
    const count = (length - headBytes) / extentBytes;
    const isStatus = request.type === Command.BLOCK_STATUS && count >= 1 && count <= EXTENTS_MAX;
    if (!isStatus || !Number.isInteger(count)) throw violation(`block status of ${length} bytes`);
    const data = await this.#reader.read(length);
    // A server may omit it.
    const told = this.#isExtended ? data.readUInt32BE(4) : 0;
    if (told !== 0 && told !== count)
      throw violation(`${count} extents, and ${told} are announced`);
    const extents: Extent[] = [];
    let offsetBytes = request.offsetBytes;
    for (let at = headBytes; at < length; at += extentBytes) {
      const lengthBytes = this.#isExtended ? numberAt(data, at) : data.readUInt32BE(at);
      const flags = this.#isExtended ? numberAt(data, at + 8) : data.readUInt32BE(at + 4);
      if (lengthBytes === 0) throw violation("an extent without length");
      extents.push({ offsetBytes, lengthBytes, flags });
      offsetBytes += lengthBytes;
    }
    const context = data.readUInt32BE(0);
    // Bounded by the number of contexts, so that an endless reply is not stored.
    if (request.extents.has(context) || request.extents.size === Limit.CONTEXTS) {
      throw violation("block status of one context twice, or of too many");
    }
    request.extents.set(context, extents);
  }
}

const NAMES: Readonly<Record<number, string>> = {
  [Command.READ]: "read",
  [Command.WRITE]: "write",
  [Command.FLUSH]: "flush",
  [Command.TRIM]: "trim",
  [Command.WRITE_ZEROES]: "write of zeroes",
  [Command.BLOCK_STATUS]: "block status",
};

function failed(request: PendingRequest, errno: number, text: string): NbdError {
  const { type, offsetBytes, lengthBytes } = request;
  const words = text === "" ? "" : `: ${text}`;
  const what = `${NAMES[type]} of ${lengthBytes} bytes at ${offsetBytes}${words}`;
  return new NbdError("REQUEST_FAILED", what, errno);
}
