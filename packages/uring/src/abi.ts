/**
 * io_uring's numbers, from `include/uapi/linux/io_uring.h` of Linux 6.12 (MIT side of its licence).
 *
 * One SQE, in 32-bit words (an SQE128 ring has 16 words more, all part of `cmd`):
 *
 * ```
 *   0 opcode | flags << 8 | ioprio << 16      8  user_data, low half
 *   1 fd, or index of a registered file       9  user_data, high half
 *   2 offset, low half   (uring_cmd: cmd_op)  10 buf_index | personality << 16
 *   3 offset, high half  (uring_cmd: 0)       11 file_index
 *   4 address, low half                       12 ┐
 *   5 address, high half                      13 │ uring_cmd: 16 bytes of command
 *   6 length                                  14 │ other operations: 0
 *   7 flags of the operation                  15 ┘
 * ```
 */
export const Opcode = {
  NOP: 0,
  FSYNC: 3,
  READ_FIXED: 4,
  WRITE_FIXED: 5,
  POLL_ADD: 6,
  SYNC_FILE_RANGE: 8,
  SENDMSG: 9,
  TIMEOUT: 11,
  ACCEPT: 13,
  ASYNC_CANCEL: 14,
  FALLOCATE: 17,
  READ: 22,
  WRITE: 23,
  RECV: 27,
  SHUTDOWN: 34,
  MSG_RING: 40,
  URING_CMD: 46,
} as const;

/** Flags of an SQE. */
export const SqeFlag = {
  FIXED_FILE: 1,
  /** Starts the next SQE only when this one has succeeded in full. */
  IO_LINK: 4,
  ASYNC: 16,
  /** Posts a CQE only on failure (Linux 5.17). */
  CQE_SKIP_SUCCESS: 64,
} as const;

/** Flags of `io_uring_setup` that a `Ring` takes. */
export const SetupFlag = {
  /** One bad SQE does not stop the batch. */
  SUBMIT_ALL: 0x80,
  /** The ring's flags show completions that wait for a call (SqRingFlag.TASKRUN). */
  TASKRUN_FLAG: 0x200,
  /** SQEs of 128 bytes, for commands that carry more than 16. */
  SQE128: 0x400,
  /** Only the thread that created the ring uses it. */
  SINGLE_ISSUER: 0x1000,
  /** Completions appear only while that thread waits; needs SINGLE_ISSUER. */
  DEFER_TASKRUN: 0x2000,
  /** SQEs are taken in the order of the ring, not by an array of indices (Linux 6.6). */
  NO_SQARRAY: 0x10000,
} as const;

export const EnterFlag = { GETEVENTS: 1, REGISTERED_RING: 0x10 } as const;

/** Bits of the submission ring's flags word. */
export const SqRingFlag = { CQ_OVERFLOW: 2, TASKRUN: 4 } as const;

export const FsyncFlag = { DATASYNC: 1 } as const;

/** `sync_range_flags` (`include/uapi/linux/fs.h`). */
export const SyncRangeFlag = { WAIT_BEFORE: 1 } as const;

/** `rw_flags` of reads and writes. */
export const RwFlag = { DSYNC: 2 } as const;

/** `msg_flags` of sends (`include/linux/socket.h`): no SIGPIPE; all of it, in as many pieces as it takes. */
export const MessageFlag = { WAITALL: 0x100, NOSIGNAL: 0x4000 } as const;

/** Modes of FALLOCATE (`include/uapi/linux/falloc.h`). */
export const FallocateMode = { KEEP_SIZE: 1, PUNCH_HOLE: 2, ZERO_RANGE: 16 } as const;

/** Protection and flags of mmap (`asm-generic/mman-common.h`). */
export const MapProtection = { READ: 1, WRITE: 2 } as const;
export const MapFlag = {
  SHARED: 1,
  NORESERVE: 0x4000,
  POPULATE: 0x8000,
  HUGETLB: 0x40000,
} as const;
