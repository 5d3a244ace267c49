/** Splits a device into chunks, and finds the changed parts of each. */
import type { DiffRange } from "@blksnap/api";

export const CHUNK_BYTES: number = 4 * 2 ** 20;
/** More chunks would make a manifest too long for a string. */
const CHUNKS_MAX = 2 ** 22;
/** The largest device: 16 TiB. */
export const CAPACITY_MAX_BYTES: number = CHUNKS_MAX * CHUNK_BYTES;

export function chunkCount(capacityBytes: number): number {
  return Math.ceil(capacityBytes / CHUNK_BYTES);
}

/** The last chunk ends with the device. */
export function chunkLength(index: number, capacityBytes: number): number {
  return Math.min(CHUNK_BYTES, capacityBytes - index * CHUNK_BYTES);
}

/** A part of a chunk, with its offset in the chunk. */
export interface Piece {
  readonly startBytes: number;
  readonly lengthBytes: number;
  /** It no longer holds data: zeros, which are not read. */
  readonly isDiscarded: boolean;
}

/** The changed pieces of each chunk that has some, sorted and clipped to the device. */
export function piecesByChunk(
  ranges: readonly DiffRange[],
  capacityBytes: number,
): Map<number, Piece[]> {
  const found = new Map<number, Piece[]>();
  for (const { offset_bytes, length_bytes, kind } of ranges) {
    const endBytes = Math.min(offset_bytes + length_bytes, capacityBytes);
    for (let at = offset_bytes; at < endBytes; ) {
      const index = Math.floor(at / CHUNK_BYTES);
      const startBytes = at - index * CHUNK_BYTES;
      const lengthBytes = Math.min(endBytes - at, CHUNK_BYTES - startBytes);
      const pieces = found.get(index) ?? [];
      pieces.push({ startBytes, lengthBytes, isDiscarded: kind === "discarded" });
      found.set(index, pieces);
      at += lengthBytes;
    }
  }
  return found;
}

export function lengthOf(pieces: readonly Piece[]): number {
  return pieces.reduce((sum, { lengthBytes }) => sum + lengthBytes, 0);
}

/** Bytes to read for the pieces. */
export function bytesToRead(pieces: readonly Piece[]): number {
  return pieces.reduce((sum, piece) => sum + (piece.isDiscarded ? 0 : piece.lengthBytes), 0);
}
