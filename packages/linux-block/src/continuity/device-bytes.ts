/** Reads a device, and parses the bytes. */
import type { FileHandle } from "node:fs/promises";
import { uuidText } from "../uuid.js";

/** Reads exactly this many bytes, or fails. */
export type ReadBytes = (offsetBytes: number, lengthBytes: number) => Promise<Uint8Array>;

/** Reads through an open file or device. */
export function fileReader(file: FileHandle): ReadBytes {
  return async (offsetBytes, lengthBytes) => {
    const bytes = new Uint8Array(lengthBytes);
    let done = 0;
    while (done < lengthBytes) {
      const { bytesRead } = await file.read(bytes, done, lengthBytes - done, offsetBytes + done);
      if (bytesRead === 0) {
        throw new Error(
          `it ends at byte ${offsetBytes + done}, before ${offsetBytes + lengthBytes}`,
        );
      }
      done += bytesRead;
    }
    return bytes;
  };
}

export function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

export function uuidAt(bytes: Uint8Array, offsetBytes: number): string {
  return uuidText(bytes.subarray(offsetBytes, offsetBytes + 16));
}
