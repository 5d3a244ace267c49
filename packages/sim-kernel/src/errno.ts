import { errnoName, errnoNumber } from "@blksnap/errors";

/** The errnos of failing system calls. */
const NAMES = [
  "EPERM",
  "ENOENT",
  "EINTR",
  "EIO",
  "ENXIO",
  "EBADF",
  "EAGAIN",
  "ENOMEM",
  "EACCES",
  "EFAULT",
  "ENOTBLK",
  "EBUSY",
  "EEXIST",
  "ENODEV",
  "ENOTDIR",
  "EISDIR",
  "EINVAL",
  "ENOTTY",
  "ENOSPC",
  "ENOTEMPTY",
  "ELOOP",
  "ETIME",
  "EOPNOTSUPP",
  "ETIMEDOUT",
  "EALREADY",
  "ECANCELED",
] as const;

/** By name, from the common table. */
export const Errno: Readonly<Record<(typeof NAMES)[number], number>> = numbersOf(NAMES);

function numbersOf<Name extends string>(names: readonly Name[]): Record<Name, number> {
  const numbers = names.map((name) => {
    const number = errnoNumber(name);
    if (number === undefined) throw new Error(`the kernel has no ${name}`);
    return [name, number] as const;
  });
  return Object.fromEntries(numbers) as Record<Name, number>;
}

/** A system call's failure, in the form of `node:fs`. */
export class SystemError extends Error {
  readonly code: string;
  readonly errno: number;
  readonly syscall: string;
  readonly path: string | undefined;

  constructor(errno: number, syscall: string, path?: string) {
    const code = errnoName(errno);
    // Programs look for many missing files: a stack trace is useless there, and takes time.
    const { stackTraceLimit } = Error;
    Error.stackTraceLimit = 0;
    super(`${code}: ${syscall}${path === undefined ? "" : ` '${path}'`} (simulated)`);
    Error.stackTraceLimit = stackTraceLimit;
    this.code = code;
    this.errno = -Math.abs(errno);
    this.syscall = syscall;
    this.path = path;
  }
}

/** Thrown by a system call of a life that has ended: nothing may continue. */
export class Killed extends Error {
  constructor(why = "the process was killed") {
    super(`${why} (simulated)`);
  }
}
