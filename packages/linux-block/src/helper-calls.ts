/**
 * System calls that may never return, made by another process. The user of this package provides them, for example
 * from
 * @blksnap/uring: this package has no native code.
 *
 * Device numbers are those of node:fs. A number as result is a negative errno: -ETIMEDOUT if there was none in time.
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

/** The result of LOOP_GET_STATUS64. */
export interface LoopStatus {
  /** `st_dev` and `st_ino` of the file or node behind a loop device. */
  readonly device: number;
  readonly inode: number;
  /** `st_rdev` of the block device behind it, else 0. */
  readonly special: number;
  /** `st_rdev` of the queried loop device. */
  readonly loop: number;
}

export interface PartRead {
  /** `st_rdev` of the device that was read; 0 for a file. */
  readonly special: number;
  /** Fewer than requested at the end. */
  readonly bytes: Buffer;
}

export interface MountsOfAll {
  /** One line of mountinfo per file system, one character per byte. */
  readonly mounts: readonly { readonly line: string }[];
  /** False: the time ended before all namespaces were seen. */
  readonly isComplete: boolean;
}

/** A file system that is held open, or the reason why not. */
export interface ReachedFileSystem {
  /** Leads to a directory or a regular file of it until release(); absent if it cannot be reached. */
  readonly path: string | undefined;
  /** The process by whose namespace or descriptor it was reached. */
  readonly pid: number;
  /**
   * The mount point in that namespace in mountinfo's notation, the descriptor in /proc, or the reason why there is
   * none.
   */
  readonly place: string;
}

export interface Reached {
  /** @param device "major:minor" */
  get(device: string): ReachedFileSystem;
  /** Invalidates the paths. */
  release(): void;
}

export interface HelperCalls {
  /** Path of a program that freezes file systems that are reached by a file; see libexec/freeze-guard.sh. */
  readonly freezeProgram: string;
  stat(path: string, timeoutMs: number): Promise<FileStatus | number>;
  /** One read(2). */
  read(
    node: string,
    startBytes: number,
    lengthBytes: number,
    timeoutMs: number,
  ): Promise<PartRead | number>;
  /** @param nodes of loop devices; all are queried, one after the other */
  loops(nodes: readonly string[], timeoutMs: number): Promise<(LoopStatus | number)[]>;
  /** File systems in all mount namespaces. @param types listed even without a block device */
  mounts(types: readonly string[], timeoutMs: number): Promise<MountsOfAll>;
  /** @param devices "major:minor" of file systems */
  reach(devices: readonly string[], timeoutMs: number): Promise<Reached>;
  /** Syncs file systems. @returns 0 or a negative errno for each path */
  sync(paths: readonly string[], timeoutMs: number): Promise<number[]>;
}
