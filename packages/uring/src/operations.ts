/**
 * The catalogue of operations: one function per operation, each writes one whole SQE.
 *
 * 64-bit values travel as two signed halves (`low32`, `high32` of memory.ts), so that no call
 * allocates. `userLow` and `userHigh` come back with the completion. `sqeFlags` are `SqeFlag` bits.
 * `fd` is a descriptor, or with SqeFlag.FIXED_FILE the index of a registered file.
 */
import { Opcode, SyncRangeFlag } from "./abi.js";
import type { Ring } from "./ring.js";

const SOCK_CLOEXEC = 0o2000000;
const SHUT_RDWR = 2;
/** Of an offset of 2 EiB. */
const BEYOND_FILES_HIGH = 0x2000_0000;

function prepare(
  ring: Ring,
  opcode: number,
  fd: number,
  addressLow: number,
  addressHigh: number,
  length: number,
  offsetLow: number,
  offsetHigh: number,
  operationFlags: number,
  bufferIndex: number,
  userLow: number,
  userHigh: number,
  sqeFlags: number,
): number {
  const sqe = ring.nextSqe();
  const words = ring.sqes32;
  words[sqe] = opcode | (sqeFlags << 8);
  words[sqe + 1] = fd;
  words[sqe + 2] = offsetLow;
  words[sqe + 3] = offsetHigh;
  words[sqe + 4] = addressLow;
  words[sqe + 5] = addressHigh;
  words[sqe + 6] = length;
  words[sqe + 7] = operationFlags;
  words[sqe + 8] = userLow;
  words[sqe + 9] = userHigh;
  words[sqe + 10] = bufferIndex;
  words[sqe + 11] = 0;
  words[sqe + 12] = 0;
  words[sqe + 13] = 0;
  words[sqe + 14] = 0;
  words[sqe + 15] = 0;
  return sqe;
}

/** Does nothing; completes with 0. */
export function prepareNop(ring: Ring, userLow: number, userHigh: number, sqeFlags: number): void {
  prepare(ring, Opcode.NOP, -1, 0, 0, 0, 0, 0, 0, 0, userLow, userHigh, sqeFlags);
}

/** pread: completes with the bytes read (0 at the end of the file) or a negative errno. */
export function prepareRead(
  ring: Ring,
  fd: number,
  addressLow: number,
  addressHigh: number,
  lengthBytes: number,
  offsetLow: number,
  offsetHigh: number,
  userLow: number,
  userHigh: number,
  sqeFlags: number,
): void {
  prepare(
    ring,
    Opcode.READ,
    fd,
    addressLow,
    addressHigh,
    lengthBytes,
    offsetLow,
    offsetHigh,
    0,
    0,
    userLow,
    userHigh,
    sqeFlags,
  );
}

/** pwrite: completes with the bytes written or a negative errno. `rwFlags` are `RwFlag` bits. */
export function prepareWrite(
  ring: Ring,
  fd: number,
  addressLow: number,
  addressHigh: number,
  lengthBytes: number,
  offsetLow: number,
  offsetHigh: number,
  rwFlags: number,
  userLow: number,
  userHigh: number,
  sqeFlags: number,
): void {
  prepare(
    ring,
    Opcode.WRITE,
    fd,
    addressLow,
    addressHigh,
    lengthBytes,
    offsetLow,
    offsetHigh,
    rwFlags,
    0,
    userLow,
    userHigh,
    sqeFlags,
  );
}

/** Like prepareRead, into registered buffer `bufferIndex`; the address must lie inside it. */
export function prepareReadFixed(
  ring: Ring,
  fd: number,
  bufferIndex: number,
  addressLow: number,
  addressHigh: number,
  lengthBytes: number,
  offsetLow: number,
  offsetHigh: number,
  userLow: number,
  userHigh: number,
  sqeFlags: number,
): void {
  prepare(
    ring,
    Opcode.READ_FIXED,
    fd,
    addressLow,
    addressHigh,
    lengthBytes,
    offsetLow,
    offsetHigh,
    0,
    bufferIndex,
    userLow,
    userHigh,
    sqeFlags,
  );
}

/** Like prepareWrite, from registered buffer `bufferIndex`; the address must lie inside it. */
export function prepareWriteFixed(
  ring: Ring,
  fd: number,
  bufferIndex: number,
  addressLow: number,
  addressHigh: number,
  lengthBytes: number,
  offsetLow: number,
  offsetHigh: number,
  rwFlags: number,
  userLow: number,
  userHigh: number,
  sqeFlags: number,
): void {
  prepare(
    ring,
    Opcode.WRITE_FIXED,
    fd,
    addressLow,
    addressHigh,
    lengthBytes,
    offsetLow,
    offsetHigh,
    rwFlags,
    bufferIndex,
    userLow,
    userHigh,
    sqeFlags,
  );
}

/** fsync, or fdatasync with `FsyncFlag.DATASYNC`. */
export function prepareFsync(
  ring: Ring,
  fd: number,
  fsyncFlags: number,
  userLow: number,
  userHigh: number,
  sqeFlags: number,
): void {
  prepare(ring, Opcode.FSYNC, fd, 0, 0, 0, 0, 0, fsyncFlags, 0, userLow, userHigh, sqeFlags);
}

/**
 * Whether writing back cached data of an open file has failed since the last call, or since the last sync: completes
 * with the error, or 0. It writes nothing, and waits for nothing.
 */
export function prepareWritebackError(
  ring: Ring,
  fd: number,
  userLow: number,
  userHigh: number,
  sqeFlags: number,
): void {
  const { SYNC_FILE_RANGE: op } = Opcode;
  const flags = SyncRangeFlag.WAIT_BEFORE;
  // sync_file_range(2) of a byte beyond any file: there is nothing to wait for.
  prepare(ring, op, fd, 0, 0, 1, 0, BEYOND_FILES_HIGH, flags, 0, userLow, userHigh, sqeFlags);
}

/**
 * fallocate with `FallocateMode` bits. On block devices PUNCH_HOLE zeroes and may deallocate,
 * ZERO_RANGE zeroes without deallocating.
 */
export function prepareFallocate(
  ring: Ring,
  fd: number,
  mode: number,
  offsetLow: number,
  offsetHigh: number,
  lengthLow: number,
  lengthHigh: number,
  userLow: number,
  userHigh: number,
  sqeFlags: number,
): void {
  // The kernel takes the length from the address field and the mode from the length field.
  prepare(
    ring,
    Opcode.FALLOCATE,
    fd,
    lengthLow,
    lengthHigh,
    mode,
    offsetLow,
    offsetHigh,
    0,
    0,
    userLow,
    userHigh,
    sqeFlags,
  );
}

/**
 * Accepts the next connection of a listening socket: completes with its close-on-exec descriptor, or a negative
 * errno.
 */
export function prepareAccept(ring: Ring, fd: number, userLow: number, userHigh: number): void {
  prepare(ring, Opcode.ACCEPT, fd, 0, 0, 0, 0, 0, SOCK_CLOEXEC, 0, userLow, userHigh, 0);
}

/** recv(2): completes with the bytes received, 0 if the peer has shut down, or a negative errno. */
export function prepareReceive(
  ring: Ring,
  fd: number,
  addressLow: number,
  addressHigh: number,
  lengthBytes: number,
  messageFlags: number,
  userLow: number,
  userHigh: number,
): void {
  prepare(
    ring,
    Opcode.RECV,
    fd,
    addressLow,
    addressHigh,
    lengthBytes,
    0,
    0,
    messageFlags,
    0,
    userLow,
    userHigh,
    0,
  );
}

/**
 * sendmsg(2): completes with the bytes sent or a negative errno. The address is that of a `struct msghdr`,
 * which the kernel reads when it takes the entry, as the vector that it names.
 */
export function prepareSendMessage(
  ring: Ring,
  fd: number,
  headerLow: number,
  headerHigh: number,
  messageFlags: number,
  userLow: number,
  userHigh: number,
): void {
  prepare(
    ring,
    Opcode.SENDMSG,
    fd,
    headerLow,
    headerHigh,
    1,
    0,
    0,
    messageFlags,
    0,
    userLow,
    userHigh,
    0,
  );
}

/** shutdown(2) in both directions: pending operations on the connection complete. */
export function prepareShutdown(ring: Ring, fd: number, userLow: number, userHigh: number): void {
  prepare(ring, Opcode.SHUTDOWN, fd, 0, 0, SHUT_RDWR, 0, 0, 0, 0, userLow, userHigh, 0);
}

/** Completes with the ready `POLL*` bits once the descriptor has one of `events`. */
export function preparePoll(
  ring: Ring,
  fd: number,
  events: number,
  userLow: number,
  userHigh: number,
): void {
  prepare(ring, Opcode.POLL_ADD, fd, 0, 0, 0, 0, 0, events, 0, userLow, userHigh, 0);
}

/**
 * Completes with -ETIME (62) when the time has passed. The address is that of a timespec of two
 * 64-bit words, seconds and nanoseconds, which must stay until then.
 */
export function prepareTimeout(
  ring: Ring,
  timespecLow: number,
  timespecHigh: number,
  userLow: number,
  userHigh: number,
): void {
  prepare(ring, Opcode.TIMEOUT, -1, timespecLow, timespecHigh, 1, 0, 0, 0, 0, userLow, userHigh, 0);
}

/** Cancels the operation with that user data: 0, -ENOENT (not found) or -EALREADY (running). */
export function prepareCancel(
  ring: Ring,
  targetLow: number,
  targetHigh: number,
  userLow: number,
  userHigh: number,
): void {
  prepare(
    ring,
    Opcode.ASYNC_CANCEL,
    -1,
    targetLow,
    targetHigh,
    0,
    0,
    0,
    0,
    0,
    userLow,
    userHigh,
    0,
  );
}

/** Posts a completion with `targetLow/High` as user data and `value` as result to a ring, which may be this one. */
export function prepareMessage(
  ring: Ring,
  targetRingFd: number,
  value: number,
  targetLow: number,
  targetHigh: number,
  userLow: number,
  userHigh: number,
): void {
  prepare(
    ring,
    Opcode.MSG_RING,
    targetRingFd,
    0,
    0,
    value,
    targetLow,
    targetHigh,
    0,
    0,
    userLow,
    userHigh,
    0,
  );
}

/**
 * A driver's own command. Returns the index in sqes32 of its bytes (16; 80 in an SQE128 ring), all zero; fill them in
 * before the next call.
 */
export function prepareCommand(
  ring: Ring,
  fd: number,
  commandOp: number,
  userLow: number,
  userHigh: number,
  sqeFlags: number,
): number {
  const sqe = prepare(
    ring,
    Opcode.URING_CMD,
    fd,
    0,
    0,
    0,
    commandOp,
    0,
    0,
    0,
    userLow,
    userHigh,
    sqeFlags,
  );
  if (ring.sqeWords === 32) ring.sqes32.fill(0, sqe + 16, sqe + 32);
  return sqe + 12;
}
