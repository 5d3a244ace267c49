/** Images that have lost blocks: those read as I/O errors, alone, and all others are right. */
import * as assert from "uvu/assert";
import { alignedBuffer, DeviceFile } from "./device-file.mjs";

/** What the driver copies at once: a lost block is as large as this. */
export const PIECE_BYTES = 4096;
/** Read at once where nothing of it is lost. */
const STRETCH_BYTES = 65536;

/** Whether the part can be read; then it must be right. */
async function isReadable(file, buffer, offset, before) {
  const failed = await file.readInto(buffer, offset).then(
    () => false,
    (error) => error.code === "EIO" || Promise.reject(error),
  );
  const expected = before.subarray(offset, offset + buffer.length);
  if (!failed) assert.ok(buffer.equals(expected), `the ${buffer.length} bytes at ${offset} differ`);
  return !failed;
}

/** @returns {Promise<boolean[]>} which pieces of the image read as I/O error; all others are right */
export async function unreadablePieces(t, image, before) {
  const file = await DeviceFile.open(t, image, { readOnly: true });
  const memory = alignedBuffer(STRETCH_BYTES);
  const lost = new Array(Math.ceil(before.length / PIECE_BYTES)).fill(false);
  for (let at = 0; at < before.length; at += STRETCH_BYTES) {
    const end = Math.min(at + STRETCH_BYTES, before.length);
    if (await isReadable(file, memory.subarray(0, end - at), at, before)) continue;
    for (let piece = at; piece < end; piece += PIECE_BYTES) {
      const part = memory.subarray(0, Math.min(PIECE_BYTES, end - piece));
      lost[piece / PIECE_BYTES] = !(await isReadable(file, part, piece, before));
    }
  }
  await file.close();
  return lost;
}

/** The same as ranges in bytes, as they are written down in tests: "offset+length". */
export async function unreadableRanges(t, image, before) {
  const lost = await unreadablePieces(t, image, before);
  const ranges = [];
  for (let first = 0; first < lost.length; first++) {
    if (!lost[first]) continue;
    let end = first;
    while (lost[end]) end++;
    ranges.push(`${first * PIECE_BYTES}+${(end - first) * PIECE_BYTES}`);
    first = end;
  }
  return ranges;
}
