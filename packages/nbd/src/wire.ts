/**
 * Encoders of replies, into memory that is there: none allocates. Cookies travel as two halves. Each answers
 * the bytes that it wrote.
 */
import {
  CHUNK_DONE,
  CHUNK_HEADER_BYTES,
  CHUNK_MAGIC,
  ChunkType,
  SIMPLE_REPLY_BYTES,
  SIMPLE_REPLY_MAGIC,
} from "./protocol.js";

export function putSimpleReply(
  view: DataView,
  at: number,
  cookieHigh: number,
  cookieLow: number,
  error: number,
): number {
  view.setUint32(at, SIMPLE_REPLY_MAGIC);
  view.setUint32(at + 4, error);
  view.setInt32(at + 8, cookieHigh);
  view.setInt32(at + 12, cookieLow);
  return SIMPLE_REPLY_BYTES;
}

function putChunk(
  view: DataView,
  at: number,
  cookieHigh: number,
  cookieLow: number,
  flags: number,
  type: number,
  lengthBytes: number,
): number {
  view.setUint32(at, CHUNK_MAGIC);
  view.setUint16(at + 4, flags);
  view.setUint16(at + 6, type);
  view.setInt32(at + 8, cookieHigh);
  view.setInt32(at + 12, cookieLow);
  view.setUint32(at + 16, lengthBytes);
  return CHUNK_HEADER_BYTES;
}

/** The end of a request without payload: done, or an error without words. */
export function putEnd(
  view: DataView,
  at: number,
  cookieHigh: number,
  cookieLow: number,
  error: number,
): number {
  if (error === 0) {
    return putChunk(view, at, cookieHigh, cookieLow, CHUNK_DONE, ChunkType.NONE, 0);
  }
  putChunk(view, at, cookieHigh, cookieLow, CHUNK_DONE, ChunkType.ERROR, 6);
  view.setUint32(at + CHUNK_HEADER_BYTES, error);
  view.setUint16(at + CHUNK_HEADER_BYTES + 4, 0);
  return CHUNK_HEADER_BYTES + 6;
}

/** What stands before `dataBytes` read at a place of the export. */
export function putData(
  view: DataView,
  at: number,
  cookieHigh: number,
  cookieLow: number,
  flags: number,
  offsetHigh: number,
  offsetLow: number,
  dataBytes: number,
): number {
  putChunk(view, at, cookieHigh, cookieLow, flags, ChunkType.OFFSET_DATA, dataBytes + 8);
  view.setInt32(at + CHUNK_HEADER_BYTES, offsetHigh);
  view.setInt32(at + CHUNK_HEADER_BYTES + 4, offsetLow);
  return CHUNK_HEADER_BYTES + 8;
}

/** What stands before `extentsBytes` of extents of a context. */
export function putStatus(
  view: DataView,
  at: number,
  cookieHigh: number,
  cookieLow: number,
  flags: number,
  contextId: number,
  extentsBytes: number,
): number {
  putChunk(view, at, cookieHigh, cookieLow, flags, ChunkType.BLOCK_STATUS, extentsBytes + 4);
  view.setUint32(at + CHUNK_HEADER_BYTES, contextId);
  return CHUNK_HEADER_BYTES + 4;
}
