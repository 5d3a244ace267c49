/**
 * Where a daemon's state lives: one directory on tmpfs, which outlives the process but not the
 * machine.
 *
 * ```
 *   lock                 held by the daemon that owns the directory
 *   tracker-N.record     what is needed to serve a front again
 *   cbt-N                CBT map of tracker N, mapped shared
 *   snapshot-UUID.record what is needed to go on with a snapshot
 *   area-UUID-N          map of tracker N's diff area, mapped shared
 *   store-UUID-N         memory store
 * ```
 *
 * A record (see record-format.ts) is replaced by rename, so a reader finds the old one or the new
 * one. One that is damaged is left alone and named; the others are not affected.
 */
import {
  closeSync,
  constants,
  existsSync,
  fstatSync,
  ftruncateSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  renameSync,
  statfsSync,
  unlinkSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { tryLockFile } from "@blksnap/uring";
import { ControlError } from "../control/control-error.js";
import { decodeRecord, encodeRecord } from "./record-format.js";

const { O_RDWR, O_CREAT, O_TRUNC } = constants;
const SUFFIX = ".record";

/** A file of maps, to be mapped shared. */
export interface MapFile {
  readonly name: string;
  readonly fd: number;
  readonly lengthBytes: number;
}

/** A record that was found; `problem` says why it cannot be used. */
export type FoundRecord =
  | { readonly name: string; readonly value: unknown; readonly problem?: undefined }
  | { readonly name: string; readonly problem: string };

export class StateDirectory {
  readonly path: string;
  readonly #lockFd: number;

  /**
   * Takes possession of the directory.
   * @throws ControlError ALREADY_RUNNING when another daemon has it; the error of mkdir(2)
   */
  constructor(path: string) {
    this.path = path;
    mkdirSync(path, { recursive: true, mode: 0o700 });
    this.#lockFd = openSync(join(path, "lock"), O_RDWR | O_CREAT, 0o600);
    if (tryLockFile(this.#lockFd)) return;
    closeSync(this.#lockFd);
    throw new ControlError("ALREADY_RUNNING", `another blksnapd uses ${path}`);
  }

  /** Gives the directory up; what is in it stays. */
  close(): void {
    closeSync(this.#lockFd);
  }

  /**
   * Makes an empty (all zero) map file; one of the same name is replaced. Its memory is taken when it
   * is written to, and there is no error then, only SIGBUS: so there must be room for all of it.
   * @throws ControlError OUT_OF_MEMORY
   */
  createMap(name: string, lengthBytes: number): MapFile {
    const path = join(this.path, name);
    let fd: number | undefined;
    try {
      this.#assertRoom(lengthBytes);
      fd = openSync(path, O_RDWR | O_CREAT | O_TRUNC, 0o600);
      ftruncateSync(fd, lengthBytes);
      return { name, fd, lengthBytes };
    } catch (error) {
      if (fd !== undefined) {
        closeSync(fd);
        unlinkSync(path);
      }
      const why = `cannot make the map ${path}: ${(error as Error).message}`;
      throw new ControlError("OUT_OF_MEMORY", why, { cause: error });
    }
  }

  #assertRoom(lengthBytes: number): void {
    const { blocks, bavail, bsize } = statfsSync(this.path);
    // A tmpfs without a limit has no blocks at all.
    const isUnlimited = blocks === 0;
    if (isUnlimited || bavail * bsize >= lengthBytes) return;
    throw new Error(`it takes ${lengthBytes} bytes, and ${bavail * bsize} are free`);
  }

  /** Opens a map file of an earlier daemon. @throws the error of open(2) */
  openMap(name: string): MapFile {
    const fd = openSync(join(this.path, name), O_RDWR);
    return { name, fd, lengthBytes: fstatSync(fd).size };
  }

  /** Closes a map file; it stays. */
  closeMap(file: MapFile): void {
    closeSync(file.fd);
  }

  /** Closes and removes a map file. */
  removeMap(file: MapFile): void {
    closeSync(file.fd);
    this.removeFile(file.name);
  }

  /** Removes a file; one that is not there is no error. */
  removeFile(name: string): void {
    try {
      unlinkSync(join(this.path, name));
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== "ENOENT") throw error;
    }
  }

  /** Writes or replaces a record. */
  writeRecord(name: string, value: unknown): void {
    const path = join(this.path, name + SUFFIX);
    writeFileSync(`${path}.new`, encodeRecord(value), { mode: 0o600 });
    renameSync(`${path}.new`, path);
  }

  removeRecord(name: string): void {
    this.removeFile(name + SUFFIX);
  }

  /** All records whose names begin so, in order of name. */
  readRecords(prefix: string): FoundRecord[] {
    return readRecords(this.path, prefix);
  }
}

/**
 * The records of a state directory, whoever owns it, whose names begin so, in order of name; none
 * where there is no directory.
 */
export function readRecords(directory: string, prefix: string): FoundRecord[] {
  if (!existsSync(directory)) return [];
  return readdirSync(directory)
    .filter((file) => file.startsWith(prefix) && file.endsWith(SUFFIX))
    .sort()
    .map((file) => readRecord(directory, file.slice(0, -SUFFIX.length)));
}

function readRecord(directory: string, name: string): FoundRecord {
  try {
    return { name, ...decodeRecord(readFileSync(join(directory, name + SUFFIX), "utf8")) };
  } catch (error) {
    return { name, problem: (error as Error).message };
  }
}
