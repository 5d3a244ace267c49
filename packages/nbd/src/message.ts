/** A `struct msghdr` with one part, for sendmsg(2). */
import { type MappedMemory, MessageFlag } from "@blksnap/uring";

const VECTOR_ADDRESS = 16;
const VECTOR_LENGTH = 24;
/** Size of the header, which the vector follows. */
const VECTOR_OFFSET = 64;

/** Space for header and vector. */
export const MESSAGE_BYTES = 128;
/** Fails without a signal if the peer is gone, and sends everything. */
export const SEND_FLAGS: number = MessageFlag.NOSIGNAL | MessageFlag.WAITALL;

/** Writes one at `at` for `bytes` bytes at `dataAt`. @returns its address */
export function writeMessage(
  { buffer, address }: MappedMemory,
  at: number,
  dataAt: number,
  bytes: number,
): number {
  const view = new DataView(buffer, at, MESSAGE_BYTES);
  const put = (offset: number, value: number): void =>
    view.setBigUint64(offset, BigInt(value), true);
  put(VECTOR_ADDRESS, address + at + VECTOR_OFFSET);
  put(VECTOR_LENGTH, 1);
  put(VECTOR_OFFSET, address + dataAt);
  put(VECTOR_OFFSET + 8, bytes);
  return address + at;
}
