/**
 * ublk's numbers, from `include/uapi/linux/ublk_cmd.h` of Linux 6.12 and 7.x (MIT side of its licence). Commands are
 * ioctl-encoded, which every kernel from 6.4 on accepts.
 */

/** Commands on /dev/ublk-control; each carries a `ublksrv_ctrl_cmd` (see layout.ts). */
export const ControlCommand = {
  GET_QUEUE_AFFINITY: 0x80207501,
  GET_DEV_INFO: 0x80207502,
  ADD_DEV: 0xc0207504,
  DEL_DEV: 0xc0207505,
  START_DEV: 0xc0207506,
  STOP_DEV: 0xc0207507,
  SET_PARAMS: 0xc0207508,
  GET_PARAMS: 0x80207509,
  START_USER_RECOVERY: 0xc0207510,
  END_USER_RECOVERY: 0xc0207511,
  GET_FEATURES: 0x80207513,
  /** Linux 6.9 and later: does not wait for openers. */
  DEL_DEV_ASYNC: 0x80207514,
  /** Linux 6.16 and later, where GET_FEATURES reports UPDATE_SIZE. */
  UPDATE_SIZE: 0xc0207515,
} as const;

/** Commands on /dev/ublkcN; each carries a `ublksrv_io_cmd`. */
export const IoCommand = {
  FETCH_REQ: 0xc0107520,
  COMMIT_AND_FETCH_REQ: 0xc0107521,
} as const;

/** `UBLK_F_*` of Linux 7.3: features of a device, negotiated at ADD_DEV. Later kernels have more. */
export const UblkFeature = {
  SUPPORT_ZERO_COPY: 0x1,
  URING_CMD_COMP_IN_TASK: 0x2,
  NEED_GET_DATA: 0x4,
  USER_RECOVERY: 0x8,
  USER_RECOVERY_REISSUE: 0x10,
  UNPRIVILEGED_DEV: 0x20,
  CMD_IOCTL_ENCODE: 0x40,
  USER_COPY: 0x80,
  ZONED: 0x100,
  USER_RECOVERY_FAIL_IO: 0x200,
  UPDATE_SIZE: 0x400,
  AUTO_BUF_REG: 0x800,
  QUIESCE: 0x1000,
  PER_IO_DAEMON: 0x2000,
  BUF_REG_OFF_DAEMON: 0x4000,
  BATCH_IO: 0x8000,
  INTEGRITY: 0x10000,
  SAFE_STOP_DEV: 0x20000,
  NO_AUTO_PART_SCAN: 0x40000,
  SHMEM_ZC: 0x80000,
  IO_DESC_SIZE: 0x100000,
} as const;

/** Operation of a request: the low byte of `op_flags`. */
export const UblkOp = {
  READ: 0,
  WRITE: 1,
  FLUSH: 2,
  DISCARD: 3,
  WRITE_ZEROES: 5,
} as const;

/** Flags of a request: bits 8 and up of `op_flags`. */
export const UblkIoFlag = { FUA: 0x2000, NOUNMAP: 0x8000, NEED_REG_BUF: 0x20000 } as const;

/** `UBLK_AUTO_BUF_REG_FALLBACK`: a request whose pages could not be registered comes with NEED_REG_BUF. */
export const AUTO_BUF_REG_FALLBACK = 1;

/** Offset in /dev/ublkcN of the bytes of a request, for devices with USER_COPY. */
export function userCopyOffset(queueId: number, tag: number): number {
  return 0x8000_0000 + queueId * 2 ** 41 + tag * 2 ** 25;
}

/** State of a device in GET_DEV_INFO. */
export const UblkState = { DEAD: 0, LIVE: 1, QUIESCED: 2, FAIL_IO: 3 } as const;

export const ParamType = { BASIC: 1, DISCARD: 2, DMA_ALIGN: 0x10 } as const;
export const ParamAttribute = { READ_ONLY: 1, ROTATIONAL: 2, VOLATILE_CACHE: 4, FUA: 8 } as const;

/** Result of a command whose device is going away; the tag must not be fetched again. */
export const IO_RES_ABORT = -19;

/** Bytes of one io descriptor (`ublksrv_io_desc`), and the most tags a queue can have. */
export const IO_DESC_BYTES = 24;
export const QUEUE_DEPTH_MAX = 4096;
