import { errnoName } from "@blksnap/errors";

export const Errno = {
  EPERM: 1,
  ENOENT: 2,
  EINTR: 4,
  EIO: 5,
  ENXIO: 6,
  EBADF: 9,
  EAGAIN: 11,
  ENOMEM: 12,
  EACCES: 13,
  EFAULT: 14,
  ENOTBLK: 15,
  EBUSY: 16,
  EEXIST: 17,
  ENODEV: 19,
  ENOTDIR: 20,
  EISDIR: 21,
  EINVAL: 22,
  ENOTTY: 25,
  ENOSPC: 28,
  ENOTEMPTY: 39,
  ELOOP: 40,
  ETIME: 62,
  EOPNOTSUPP: 95,
  ETIMEDOUT: 110,
  EALREADY: 114,
  ECANCELED: 125,
} as const;

/** A system call's failure, as `node:fs` throws it. */
export class SystemError extends Error {
  readonly code: string;
  readonly errno: number;
  readonly syscall: string;
  readonly path: string | undefined;

  constructor(errno: number, syscall: string, path?: string) {
    const code = errnoName(errno);
    super(`${code}: ${syscall}${path === undefined ? "" : ` '${path}'`} (simulated)`);
    this.code = code;
    this.errno = -Math.abs(errno);
    this.syscall = syscall;
    this.path = path;
  }
}

/** What a system call of a life that has ended throws: nobody is there who could continue. */
export class Killed extends Error {
  constructor(why = "the process was killed") {
    super(`${why} (simulated)`);
  }
}
