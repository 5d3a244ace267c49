/** zstd frames, RFC 8878: the header (3.1.1.1), and frames with uncompressed content (3.1.1.2). */
const MAGIC = 0xfd2fb528;
const CONTENT_SIZE_BYTES = [0, 2, 4, 8] as const;
const DICTIONARY_ID_BYTES = [0, 1, 2, 4] as const;

/** No window: all of the content at once; its length in 4 bytes. No checksum. */
const STORED_DESCRIPTOR = 0xa0;
const STORED_HEAD_BYTES = 9;
const BLOCK_HEAD_BYTES = 3;
const BLOCK_MAX_BYTES = 128 * 1024;
const LAST_BLOCK = 1;

/** A frame of raw blocks, in pieces: heads, and parts of `data` itself. @param data up to 4 GiB */
export function storedPieces(data: Uint8Array): readonly Uint8Array[] {
  const blocks = Math.max(1, Math.ceil(data.length / BLOCK_MAX_BYTES));
  const heads = Buffer.alloc(STORED_HEAD_BYTES + blocks * BLOCK_HEAD_BYTES);
  heads.writeUInt32LE(MAGIC, 0);
  heads.writeUInt8(STORED_DESCRIPTOR, 4);
  heads.writeUInt32LE(data.length, 5);
  const pieces: Uint8Array[] = [];
  let to = STORED_HEAD_BYTES;
  for (let index = 0; index < blocks; index++) {
    const part = data.subarray(index * BLOCK_MAX_BYTES, (index + 1) * BLOCK_MAX_BYTES);
    const from = index === 0 ? 0 : to;
    to = heads.writeUIntLE((part.length << 3) | (index === blocks - 1 ? LAST_BLOCK : 0), to, 3);
    pieces.push(heads.subarray(from, to), part);
  }
  return pieces;
}

/** The content's length from the frame; undefined if it does not state it, or is no frame. */
export function frameContentBytes(frame: Uint8Array): number | undefined {
  if (frame.length < 18) return frame.length < 6 ? undefined : contentBytes(padded(frame));
  return contentBytes(frame);
}

function padded(frame: Uint8Array): Uint8Array {
  const long = new Uint8Array(18);
  long.set(frame);
  return long;
}

function contentBytes(frame: Uint8Array): number | undefined {
  const view = new DataView(frame.buffer, frame.byteOffset, frame.byteLength);
  if (view.getUint32(0, true) !== MAGIC) return undefined;
  const descriptor = frame[4]!;
  const isSingle = (descriptor & 0x20) !== 0;
  const flag = (descriptor >> 6) as 0 | 1 | 2 | 3;
  const length = flag === 0 && isSingle ? 1 : CONTENT_SIZE_BYTES[flag];
  const at = 5 + (isSingle ? 0 : 1) + DICTIONARY_ID_BYTES[(descriptor & 3) as 0 | 1 | 2 | 3];
  switch (length) {
    case 1:
      return view.getUint8(at);
    case 2:
      return view.getUint16(at, true) + 256;
    case 4:
      return view.getUint32(at, true);
    case 8:
      return Number(view.getBigUint64(at, true));
    default:
      return undefined;
  }
}
