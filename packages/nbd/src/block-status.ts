/**
 * Replies to requests for block status, written into a slot's buffer: one chunk per context, except the header of the
 * first one, which is where headers of slots are.
 *
 * ```
 *   header of the slot │ extents of context 0 │ header │ extents of context 1 │ ...
 * ```
 */
import type { MetaContext } from "./exports.js";
import { CHUNK_DONE, Limit } from "./protocol.js";
import type { ReplyWriter } from "./wire.js";

/** For a reply shorter than requested: runs end at block boundaries of any block size. */
const REACH_ALIGN_BYTES = 65_536;
/** A reactor has other connections, too; a client that wants more asks again. */
const EXTENTS_MAX: number = Math.min(8192, Limit.EXTENTS);

/** Where to write a reply. */
export interface StatusPlace {
  /** Of the header of the slot. */
  readonly headerView: DataView;
  readonly headerAt: number;
  /** Its buffer, and the buffer's size. */
  readonly view: DataView;
  readonly dataAt: number;
  readonly dataBytes: number;
}

/** @returns the number of extents written */
function putExtents(
  view: DataView,
  at: number,
  writer: ReplyWriter,
  context: MetaContext,
  offsetBytes: number,
  endBytes: number,
  extentsMax: number,
): number {
  const { extentBytes } = writer;
  let offset = offsetBytes;
  let extents = 0;
  let last = 0;
  let lastBytes = 0;
  while (offset < endBytes) {
    const bytes = context.runBytes(offset, endBytes);
    const { flags } = context;
    if (extents > 0 && flags === last) {
      lastBytes += bytes;
    } else {
      if (extents === extentsMax) break;
      extents++;
      last = flags;
      lastBytes = bytes;
    }
    writer.extent(view, at + (extents - 1) * extentBytes, lastBytes, flags);
    offset += bytes;
  }
  return extents;
}

/** Budget of one turn for all contexts together. */
function reachOf({ reachBytes }: MetaContext, contexts: number): number {
  if (reachBytes === undefined) return Number.POSITIVE_INFINITY;
  const share = Math.floor(reachBytes / contexts / REACH_ALIGN_BYTES) * REACH_ALIGN_BYTES;
  return Math.max(share, REACH_ALIGN_BYTES);
}

/**
 * @param writer to the request
 * @param wanted a bit for each requested context, by its index; at least one
 * @returns how many bytes of the buffer to send
 */
export function putBlockStatus(
  place: StatusPlace,
  writer: ReplyWriter,
  contexts: readonly MetaContext[],
  wanted: number,
  offsetBytes: number,
  lengthBytes: number,
  onlyOne: boolean,
): number {
  const { statusHeaderBytes, extentBytes } = writer;
  const ids = [...contexts.keys()].filter((id) => (wanted & (1 << id)) !== 0);
  const room = Math.floor(place.dataBytes / ids.length) - statusHeaderBytes;
  const extentsMax = onlyOne ? 1 : Math.min(Math.floor(room / extentBytes), EXTENTS_MAX);
  let at = place.dataAt;
  for (const [index, id] of ids.entries()) {
    const context = contexts[id];
    const headerView = index === 0 ? place.headerView : place.view;
    const headerAt = index === 0 ? place.headerAt : at;
    if (index > 0) at += statusHeaderBytes;
    const endBytes = offsetBytes + Math.min(lengthBytes, reachOf(context, ids.length));
    const { view } = place;
    const extents = putExtents(view, at, writer, context, offsetBytes, endBytes, extentsMax);
    const flags = index === ids.length - 1 ? CHUNK_DONE : 0;
    writer.status(headerView, headerAt, flags, id, extents);
    at += extents * extentBytes;
  }
  return at - place.dataAt;
}
