/** Encodes replies into existing memory, and decodes requests. */
import { high32, low32 } from "@blksnap/uring";
import {
  CHUNK_DONE,
  CHUNK_HEADER_BYTES,
  CHUNK_MAGIC,
  ChunkType,
  EXTENDED_CHUNK_HEADER_BYTES,
  EXTENDED_CHUNK_MAGIC,
  EXTENDED_STATUS_LAYOUT,
  SIMPLE_REPLY_BYTES,
  SIMPLE_REPLY_MAGIC,
  STATUS_LAYOUT,
} from "./protocol.js";
import type { RequestTable } from "./request-table.js";

/** An unsigned 64-bit number; beyond 2^53 the nearest representable one. */
export function u64At(view: DataView, at: number): number {
  return view.getUint32(at) * 2 ** 32 + view.getUint32(at + 4);
}

/**
 * Writes replies to one request after the other, without allocation: to() selects the request. Methods that write
 * whole messages return their length. Without structured replies only simple() is valid.
 */
export class ReplyWriter {
  #isExtended = false;
  #cookieHigh = 0;
  #cookieLow = 0;
  #offsetHigh = 0;
  #offsetLow = 0;

  /** @param isExtended as negotiated on the request's connection */
  to(table: RequestTable, request: number, isExtended: boolean): void {
    this.#isExtended = isExtended;
    this.#cookieHigh = table.cookieHigh[request];
    this.#cookieLow = table.cookieLow[request];
    this.#offsetHigh = table.offsetHigh[request];
    this.#offsetLow = table.offsetLow[request];
  }

  /** Size of the part before extents. */
  get statusHeaderBytes(): number {
    const chunkBytes = this.#isExtended ? EXTENDED_CHUNK_HEADER_BYTES : CHUNK_HEADER_BYTES;
    return chunkBytes + this.#statusLayout.headBytes;
  }

  get extentBytes(): number {
    return this.#statusLayout.extentBytes;
  }

  get #statusLayout(): typeof STATUS_LAYOUT | typeof EXTENDED_STATUS_LAYOUT {
    return this.#isExtended ? EXTENDED_STATUS_LAYOUT : STATUS_LAYOUT;
  }

  simple(view: DataView, at: number, error: number): number {
    view.setUint32(at, SIMPLE_REPLY_MAGIC);
    view.setUint32(at + 4, error);
    view.setInt32(at + 8, this.#cookieHigh);
    view.setInt32(at + 12, this.#cookieLow);
    return SIMPLE_REPLY_BYTES;
  }

  #chunk(view: DataView, at: number, flags: number, type: number, lengthBytes: number): number {
    view.setUint32(at, this.#isExtended ? EXTENDED_CHUNK_MAGIC : CHUNK_MAGIC);
    view.setUint16(at + 4, flags);
    view.setUint16(at + 6, type);
    view.setInt32(at + 8, this.#cookieHigh);
    view.setInt32(at + 12, this.#cookieLow);
    if (!this.#isExtended) {
      view.setUint32(at + 16, lengthBytes);
      return CHUNK_HEADER_BYTES;
    }
    view.setInt32(at + 16, this.#offsetHigh);
    view.setInt32(at + 20, this.#offsetLow);
    view.setUint32(at + 24, 0);
    view.setUint32(at + 28, lengthBytes);
    return EXTENDED_CHUNK_HEADER_BYTES;
  }

  /** The end of a request without payload: done, or an error without words. */
  end(view: DataView, at: number, error: number): number {
    if (error === 0) return this.#chunk(view, at, CHUNK_DONE, ChunkType.NONE, 0);
    const bytes = this.#chunk(view, at, CHUNK_DONE, ChunkType.ERROR, 6);
    view.setUint32(at + bytes, error);
    view.setUint16(at + bytes + 4, 0);
    return bytes + 6;
  }

  /** The header of `dataBytes` read at an offset of the export. */
  data(
    view: DataView,
    at: number,
    flags: number,
    offsetHigh: number,
    offsetLow: number,
    dataBytes: number,
  ): number {
    const bytes = this.#chunk(view, at, flags, ChunkType.OFFSET_DATA, dataBytes + 8);
    view.setInt32(at + bytes, offsetHigh);
    view.setInt32(at + bytes + 4, offsetLow);
    return bytes + 8;
  }

  /** The header of a context's extents. */
  status(view: DataView, at: number, flags: number, contextId: number, extents: number): number {
    const type = this.#isExtended ? ChunkType.BLOCK_STATUS_EXT : ChunkType.BLOCK_STATUS;
    const { headBytes, extentBytes } = this.#statusLayout;
    const bytes = this.#chunk(view, at, flags, type, headBytes + extents * extentBytes);
    view.setUint32(at + bytes, contextId);
    if (this.#isExtended) view.setUint32(at + bytes + 4, extents);
    return bytes + headBytes;
  }

  /** @param lengthBytes below 4 GiB without extended headers, like all requests then */
  extent(view: DataView, at: number, lengthBytes: number, flags: number): void {
    if (!this.#isExtended) {
      view.setUint32(at, lengthBytes);
      view.setUint32(at + 4, flags);
      return;
    }
    view.setInt32(at, high32(lengthBytes));
    view.setInt32(at + 4, low32(lengthBytes));
    view.setUint32(at + 8, 0);
    view.setUint32(at + 12, flags);
  }
}
