// Files of bytes that neither compress nor repeat.
import { randomFillSync } from "node:crypto";

/** @returns {Buffer} */
export function randomFile(bytes) {
  const data = Buffer.allocUnsafe(bytes);
  for (let at = 0; at < bytes; at += 2 ** 26) {
    randomFillSync(data, at, Math.min(2 ** 26, bytes - at));
  }
  return data;
}
