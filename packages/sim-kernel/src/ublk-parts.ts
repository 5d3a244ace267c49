/** Splits a user's request for a ublk server: one part, or several if it is too long for one. */
import type { BlockLimits } from "./block-device.js";
import type { Io } from "./medium.js";

export const UBLK_IO_OP = {
  read: 0,
  write: 1,
  sync: 2,
  discard: 3,
  punch: 5,
  zero: 5,
  allocate: -1,
} as const;
const IO_FUA = 0x2000;
const IO_NOUNMAP = 0x8000;

/** One request to the server. */
export interface Part {
  readonly io: Io;
  readonly op: number;
  readonly flags: number;
  readonly offsetBytes: number;
  readonly lengthBytes: number;
  readonly data: Uint8Array | undefined;
  readonly done: (result: number) => void;
}

/** @param flushAfter answers it after a flush, if it has to be durable and the device has no FUA */
export function partsOf(
  io: Io,
  limits: BlockLimits,
  maxIoBytes: number,
  flushAfter: () => void,
): Part[] {
  const isTransfer = io.data !== undefined;
  const most = isTransfer
    ? maxIoBytes
    : Math.max(io.kind === "discard" ? limits.discardMaxBytes : limits.writeZeroesMaxBytes, 1);
  const count = io.kind === "sync" ? 1 : Math.max(1, Math.ceil(io.lengthBytes / most));
  let left = count;
  let worst = 0;
  const needsFlush = io.isDurable && limits.hasVolatileCache && !limits.hasFua;
  const done = (result: number): void => {
    if (result < 0) worst = result;
    left--;
    if (left > 0) return;
    if (worst < 0 || !needsFlush) io.done(worst < 0 ? worst : isTransfer ? io.lengthBytes : 0);
    else flushAfter();
  };
  const isFua = io.isDurable && limits.hasVolatileCache && limits.hasFua;
  return Array.from({ length: count }, (_, i) => {
    const start = i * most;
    const lengthBytes = Math.min(most, io.lengthBytes - start);
    return {
      io,
      op: UBLK_IO_OP[io.kind],
      flags: (isFua ? IO_FUA : 0) | (io.kind === "zero" ? IO_NOUNMAP : 0),
      offsetBytes: io.offsetBytes + start,
      lengthBytes,
      data: io.data?.subarray(start, start + lengthBytes),
      done,
    };
  });
}
