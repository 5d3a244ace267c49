import { constants } from "node:fs";

/** Opens for reading and writing. */
export const OPEN_READ_WRITE: number = constants.O_RDWR;
/** Exclusive: no other program holds the block device; no link is made to the unnamed file. */
export const OPEN_EXCLUSIVE: number = constants.O_EXCL;
export const OPEN_CREATE: number = constants.O_CREAT;
export const OPEN_NO_FOLLOW: number = constants.O_NOFOLLOW;
/** Direct I/O; its value differs between architectures, node knows it. */
export const OPEN_DIRECT: number = constants.O_DIRECT;
/**
 * An unnamed file in a directory. node:fs has no name for it. The kernel defines it as a bit of its
 * own together with O_DIRECTORY, so that old kernels refuse it instead of opening the directory.
 */
export const OPEN_UNNAMED_FILE: number = 0o20000000 | constants.O_DIRECTORY;
