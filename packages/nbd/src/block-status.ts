/**
 * Answers to requests for block status, written into a slot's buffer: one chunk for each context, but for
 * the header of the first, which lies where headers of slots do.
 *
 * ```
 *   header of the slot │ extents of context 0 │ header │ extents of context 1 │ ...
 * ```
 */
import type { MetaContext } from "./exports.js";
import { CHUNK_DONE, Limit } from "./protocol.js";
import { putStatus } from "./wire.js";

const STATUS_HEADER_BYTES = 24;
const EXTENT_BYTES = 8;
/** Of an answer that is shorter than asked for: runs end with blocks, whatever their size. */
const REACH_ALIGN_BYTES = 65_536;
/** A reactor serves others besides; a client that wants more asks again. */
const EXTENTS_MAX: number = Math.min(8192, Limit.EXTENTS);

/** Where a reply is written to. */
export interface StatusPlace {
  /** Of the header of the slot. */
  readonly headerView: DataView;
  readonly headerAt: number;
  /** Of its buffer, and how much that holds. */
  readonly view: DataView;
  readonly dataAt: number;
  readonly dataBytes: number;
}

/** @returns how many bytes of extents it wrote */
function putExtents(
  place: StatusPlace,
  at: number,
  context: MetaContext,
  offsetBytes: number,
  endBytes: number,
  extentsMax: number,
): number {
  const { view } = place;
  let offset = offsetBytes;
  let extents = 0;
  let last = 0;
  while (offset < endBytes) {
    const bytes = context.runBytes(offset, endBytes);
    const { flags } = context;
    if (extents > 0 && flags === last) {
      const before = at + (extents - 1) * EXTENT_BYTES;
      view.setUint32(before, view.getUint32(before) + bytes);
    } else {
      if (extents === extentsMax) break;
      view.setUint32(at + extents * EXTENT_BYTES, bytes);
      view.setUint32(at + extents * EXTENT_BYTES + 4, flags);
      extents++;
      last = flags;
    }
    offset += bytes;
  }
  return extents * EXTENT_BYTES;
}

/** All contexts together are looked at in one turn. */
function reachOf({ reachBytes }: MetaContext, contexts: number): number {
  if (reachBytes === undefined) return Number.POSITIVE_INFINITY;
  const share = Math.floor(reachBytes / contexts / REACH_ALIGN_BYTES) * REACH_ALIGN_BYTES;
  return Math.max(share, REACH_ALIGN_BYTES);
}

/** @returns how many bytes of the buffer are to be sent */
export function putBlockStatus(
  place: StatusPlace,
  cookieHigh: number,
  cookieLow: number,
  contexts: readonly MetaContext[],
  offsetBytes: number,
  lengthBytes: number,
  onlyOne: boolean,
): number {
  const room = Math.floor(place.dataBytes / contexts.length) - STATUS_HEADER_BYTES;
  const extentsMax = onlyOne ? 1 : Math.min(Math.floor(room / EXTENT_BYTES), EXTENTS_MAX);
  let at = place.dataAt;
  for (const [index, context] of contexts.entries()) {
    const headerView = index === 0 ? place.headerView : place.view;
    const headerAt = index === 0 ? place.headerAt : at;
    if (index > 0) at += STATUS_HEADER_BYTES;
    const endBytes = offsetBytes + Math.min(lengthBytes, reachOf(context, contexts.length));
    const bytes = putExtents(place, at, context, offsetBytes, endBytes, extentsMax);
    const flags = index === contexts.length - 1 ? CHUNK_DONE : 0;
    putStatus(headerView, headerAt, cookieHigh, cookieLow, flags, index, bytes);
    at += bytes;
  }
  return at - place.dataAt;
}
