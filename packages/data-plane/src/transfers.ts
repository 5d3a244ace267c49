/** Reads and writes of registered files, from memory that may be in a registered buffer. */
import { NOT_REGISTERED } from "@blksnap/ublk";
import {
  prepareRead,
  prepareReadFixed,
  prepareWrite,
  prepareWriteFixed,
  type Ring,
  SqeFlag,
} from "@blksnap/uring";

/** @param buffer the registered buffer of the memory, or NOT_REGISTERED */
export function transferRead(
  ring: Ring,
  file: number,
  buffer: number,
  low: number,
  high: number,
  bytes: number,
  offsetLow: number,
  offsetHigh: number,
  data: number,
  handler: number,
  flags: number = SqeFlag.FIXED_FILE,
): void {
  if (buffer === NOT_REGISTERED)
    prepareRead(ring, file, low, high, bytes, offsetLow, offsetHigh, data, handler, flags);
  else
    prepareReadFixed(
      ring,
      file,
      buffer,
      low,
      high,
      bytes,
      offsetLow,
      offsetHigh,
      data,
      handler,
      flags,
    );
}

/** As transferRead(), alone. */
export function transferWrite(
  ring: Ring,
  file: number,
  buffer: number,
  low: number,
  high: number,
  bytes: number,
  offsetLow: number,
  offsetHigh: number,
  data: number,
  handler: number,
  flags: number = SqeFlag.FIXED_FILE,
): void {
  if (buffer === NOT_REGISTERED)
    prepareWrite(ring, file, low, high, bytes, offsetLow, offsetHigh, 0, data, handler, flags);
  else
    prepareWriteFixed(
      ring,
      file,
      buffer,
      low,
      high,
      bytes,
      offsetLow,
      offsetHigh,
      0,
      data,
      handler,
      flags,
    );
}
