/**
 * System calls that may never return, made by another process. The program that uses this package
 * brings them, for example from @blksnap/uring: this package has no native code.
 *
 * Numbers of devices are as node:fs has them. An answer that is a number is a negative errno: -ETIMEDOUT where
 * there was none in time.
 */

export interface FileStatus {
  /** `st_dev`: of the file system. */
  readonly device: number;
  readonly inode: number;
  readonly mode: number;
  /** `st_rdev`: of the device that the file is. */
  readonly special: number;
  /** Without symbolic links. */
  readonly realPath: string;
}

/** What LOOP_GET_STATUS64 says. */
export interface LoopStatus {
  /** `st_dev` and `st_ino` of the file or node behind a loop device. */
  readonly device: number;
  readonly inode: number;
  /** `st_rdev` of a block device behind it, else 0. */
  readonly special: number;
  /** `st_rdev` of the loop device that was asked. */
  readonly loop: number;
}

export interface PartRead {
  /** `st_rdev` of the device that was read; 0 for a file. */
  readonly special: number;
  /** Fewer than asked for where it ends. */
  readonly bytes: Buffer;
}

export interface MountsOfAll {
  /** Of each file system one line of mountinfo, one character per byte. */
  readonly mounts: readonly { readonly line: string }[];
  /** False: the time was over before all namespaces were seen. */
  readonly isComplete: boolean;
}

/** A file system that is held open, or why it is not. */
export interface ReachedFileSystem {
  /** Leads to a directory or a regular file of it until release(); absent where it cannot be reached. */
  readonly path: string | undefined;
  /** The process whose namespace or descriptor it was reached by. */
  readonly pid: number;
  /** The mount point in that namespace as mountinfo has it, the descriptor in /proc, or why there is none. */
  readonly place: string;
}

export interface Reached {
  /** @param device "major:minor" */
  get(device: string): ReachedFileSystem;
  /** The paths lead nowhere any more. */
  release(): void;
}

export interface HelperCalls {
  /** Path of a program that freezes what is reached as a file; see libexec/freeze-guard.sh. */
  readonly freezeProgram: string;
  stat(path: string, timeoutMs: number): Promise<FileStatus | number>;
  /** One read(2). */
  read(
    node: string,
    startBytes: number,
    lengthBytes: number,
    timeoutMs: number,
  ): Promise<PartRead | number>;
  /** @param nodes of loop devices; all are asked, one after the other */
  loops(nodes: readonly string[], timeoutMs: number): Promise<(LoopStatus | number)[]>;
  /** File systems in all mount namespaces. @param types to be listed although no block device is theirs */
  mounts(types: readonly string[], timeoutMs: number): Promise<MountsOfAll>;
  /** @param devices "major:minor" of file systems */
  reach(devices: readonly string[], timeoutMs: number): Promise<Reached>;
  /** Writes back what file systems hold. @returns 0 or a negative errno for each path */
  sync(paths: readonly string[], timeoutMs: number): Promise<number[]>;
}
