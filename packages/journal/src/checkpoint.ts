import { crc32 } from "node:zlib";
import { JournalError } from "./errors.js";
import {
  checkpointFileBytes,
  PAGE_BYTES,
  PAGE_PAYLOAD_BYTES,
  PageOffset,
  tagOf,
} from "./layout.js";

/** The beginning of a journal, read part by part and in order: it need not be in memory as a whole. */
export interface CheckpointSource {
  readonly length: number;
  /** Fills `into` with the bytes from `offset` on. */
  read(into: Uint8Array, offset: number): void;
}

/** Payload as pages with checksums, in the form of the file from page `firstPage` on. */
export function encodeCheckpoint(
  payload: Uint8Array,
  id: Uint8Array,
  firstPage: number = 0,
): Uint8Array {
  const pages = new Uint8Array(checkpointFileBytes(payload.length));
  const view = new DataView(pages.buffer);
  const tag = tagOf(id);
  for (let at = 0, number = 0; at < pages.length; at += PAGE_BYTES, number++) {
    const from = number * PAGE_PAYLOAD_BYTES;
    pages.set(payload.subarray(from, from + PAGE_PAYLOAD_BYTES), at);
    view.setUint32(at + PageOffset.NUMBER, firstPage + number, true);
    view.setInt32(at + PageOffset.TAG, tag, true);
    const checked = pages.subarray(at, at + PageOffset.CHECKSUM);
    view.setUint32(at + PageOffset.CHECKSUM, crc32(checked), true);
  }
  return pages;
}

/**
 * Copies the payload of pages, from page `firstPage` on, into the checkpoint's.
 * @throws JournalError JOURNAL_DAMAGED, naming the page
 */
export function decodeCheckpoint(
  pages: Uint8Array,
  payload: Uint8Array,
  id: Uint8Array,
  firstPage: number = 0,
): void {
  const view = new DataView(pages.buffer, pages.byteOffset, pages.length);
  const tag = tagOf(id);
  for (let at = 0, number = firstPage; at < pages.length; at += PAGE_BYTES, number++) {
    const right =
      view.getUint32(at + PageOffset.CHECKSUM, true) ===
        crc32(pages.subarray(at, at + PageOffset.CHECKSUM)) &&
      view.getUint32(at + PageOffset.NUMBER, true) === number &&
      view.getInt32(at + PageOffset.TAG, true) === tag;
    if (!right) {
      throw new JournalError("JOURNAL_DAMAGED", `page ${number} of the checkpoint is damaged`);
    }
    const from = number * PAGE_PAYLOAD_BYTES;
    const length = Math.min(PAGE_PAYLOAD_BYTES, payload.length - from);
    payload.set(pages.subarray(at, at + length), from);
  }
}
