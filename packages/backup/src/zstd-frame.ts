/** The head of a zstd frame, RFC 8878, 3.1.1.1. */
const MAGIC = 0xfd2fb528;
const CONTENT_SIZE_BYTES = [0, 2, 4, 8] as const;
const DICTIONARY_ID_BYTES = [0, 1, 2, 4] as const;

/** How long the content is, as the frame tells; undefined where it does not, or is no frame. */
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
