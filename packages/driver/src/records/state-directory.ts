/**
 * Where a daemon's state lives: one directory on tmpfs, which survives the process but not the machine.
 *
 * file-names.ts lists its files and their content.
 *
 * A record (see record-format.ts) is replaced by rename, so a reader finds the old one or the new one. It has a copy,
 * in case it is damaged: a front that cannot be served leaves its users waiting. If both are damaged they are reported
 * and left alone; other records are not affected.
 */
import { createHash } from "node:crypto";
import {
  chmodSync,
  close as closeCallback,
  closeSync,
  constants,
  existsSync,
  fstatSync,
  ftruncateSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  readSync,
  realpathSync,
  renameSync,
  rmSync,
  statfsSync,
  unlinkSync,
  write as writeCallback,
  writeFileSync,
  writeSync,
} from "node:fs";
import { dirname, join, resolve } from "node:path";
import { promisify } from "node:util";
import { ControlError } from "@blksnap/api";
import { tryLockFile } from "@blksnap/uring";
import { COPY_SUFFIX, RECORD_SUFFIX, StateFile, UNFINISHED_SUFFIX } from "./file-names.js";
import { type DecodedRecord, decodeRecord, encodeRecord } from "./record-format.js";

const { O_RDWR, O_CREAT, O_TRUNC } = constants;
const writePart = promisify(writeCallback);
const closeBeside = promisify(closeCallback);
/** Where a map file names its owner: at the end of the first page. */
const NAME_DIGEST_BYTES = 32;
const NAME_DIGEST_OFFSET = 4096 - NAME_DIGEST_BYTES;
const FILL_BYTES = 2 ** 20;

/** A map's file, to be mapped shared. */
export interface MapFile {
  readonly name: string;
  readonly fd: number;
  readonly lengthBytes: number;
}

/**
 * A record that was found; `problem` says why it cannot be used, `instead` why its copy is used instead.
 */
export type FoundRecord =
  | {
      readonly name: string;
      readonly value: unknown;
      readonly instead?: string;
      readonly problem?: undefined;
    }
  | { readonly name: string; readonly problem: string };

/**
 * Others may use the folders above, as the socket's group does: they stay accessible although this directory is
 * private, whatever the daemon's umask.
 */
function makeParent(path: string): void {
  const made = mkdirSync(dirname(resolve(path)), { recursive: true, mode: 0o755 });
  for (let at = dirname(resolve(path)); made !== undefined; at = dirname(at)) {
    chmodSync(at, 0o755);
    if (at === made) return;
  }
}

/** 32 bits that distinguish devices of daemons with different state directories. */
export function ownerTag(path: string): number {
  const real = existsSync(path) ? realpathSync(path) : resolve(path);
  return createHash("sha256").update(real).digest().readUInt32LE(0);
}

export class StateDirectory {
  readonly path: string;
  /** This directory's tag on its devices. */
  readonly owner: number;
  readonly #lockFd: number;

  /**
   * Takes possession of the directory.
   * @throws ControlError ALREADY_RUNNING if another daemon has it; the error of mkdir(2)
   */
  constructor(path: string) {
    this.path = path;
    makeParent(path);
    mkdirSync(path, { recursive: true, mode: 0o700 });
    this.#lockFd = openSync(join(path, StateFile.lock), O_RDWR | O_CREAT, 0o600);
    this.owner = ownerTag(path);
    if (tryLockFile(this.#lockFd)) return;
    closeSync(this.#lockFd);
    throw new ControlError("ALREADY_RUNNING", `another blksnapd uses ${path}`);
  }

  /** Gives up the directory; its content stays. */
  close(): void {
    closeSync(this.#lockFd);
  }

  /**
   * Makes an empty (all zero) map file; it replaces one of the same name. The memory of its first `hereBytes` is
   * allocated now: a store into a page that a full tmpfs cannot provide would end this process, and the next one when
   * the request comes again. The calling thread continues meanwhile: a large file takes seconds.
   * @throws ControlError OUT_OF_MEMORY
   */
  async createMap(
    name: string,
    lengthBytes: number,
    hereBytes: number = lengthBytes,
  ): Promise<MapFile> {
    const path = join(this.path, name);
    let fd: number | undefined;
    try {
      this.#assertRoom(hereBytes);
      fd = openSync(path, O_RDWR | O_CREAT | O_TRUNC, 0o600);
      await fillWithZeroes(fd, hereBytes);
      ftruncateSync(fd, lengthBytes);
      const file = { name, fd, lengthBytes };
      this.bindMap(file);
      return file;
    } catch (error) {
      if (fd !== undefined) {
        closeSync(fd);
        unlinkSync(path);
      }
      throw outOfMemory(`cannot make the map ${path}`, error);
    }
  }

  #assertRoom(lengthBytes: number): void {
    const { blocks, bavail, bsize } = statfsSync(this.path);
    // A tmpfs without a limit reports no blocks.
    const isUnlimited = blocks === 0;
    if (isUnlimited || bavail * bsize >= lengthBytes) return;
    throw new Error(`it needs ${lengthBytes} bytes, and ${bavail * bsize} are free`);
  }

  /** Writes the owner into the map; repeat it if the header was filled from elsewhere. */
  bindMap({ name, fd }: MapFile): void {
    writeSync(fd, nameDigest(name), 0, NAME_DIGEST_BYTES, NAME_DIGEST_OFFSET);
  }

  /**
   * A complete map takes the place of another one, whose memory is given back beside the calling thread.
   * @returns the map under its new name
   */
  replaceMap(before: MapFile, after: MapFile): MapFile {
    const file = { ...after, name: before.name };
    this.bindMap(file);
    renameSync(join(this.path, after.name), join(this.path, before.name));
    void closeBeside(before.fd);
    return file;
  }

  /** Opens a map file of an earlier daemon. @throws the error of open(2); Error if it has another owner */
  openMap(name: string): MapFile {
    const fd = openSync(join(this.path, name), O_RDWR);
    const found = Buffer.alloc(NAME_DIGEST_BYTES);
    readSync(fd, found, 0, NAME_DIGEST_BYTES, NAME_DIGEST_OFFSET);
    if (found.equals(nameDigest(name))) return { name, fd, lengthBytes: fstatSync(fd).size };
    closeSync(fd);
    throw new Error(`the map ${join(this.path, name)} is damaged, or belongs to another device`);
  }

  /** Closes a map file, which stays. */
  closeMap(file: MapFile): void {
    closeSync(file.fd);
  }

  /**
   * Removes and closes a map file; resolves when its memory is freed. Closing the last descriptor does that, at half a
   * millisecond per MiB, so the calling thread does not do it.
   */
  async removeMap(file: MapFile): Promise<void> {
    try {
      this.removeFile(file.name);
    } finally {
      await closeBeside(file.fd);
    }
  }

  /** Removes a file; a missing file is not an error. */
  removeFile(name: string): void {
    try {
      unlinkSync(join(this.path, name));
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== "ENOENT") throw error;
    }
  }

  /**
   * Writes or replaces a record.
   * @param version see encodeRecord()
   * @throws ControlError OUT_OF_MEMORY; the old record is still there
   */
  writeRecord(name: string, value: unknown, version?: number): void {
    const path = join(this.path, name + RECORD_SUFFIX);
    const text = encodeRecord(value, version);
    try {
      replaceFile(path, text);
    } catch (error) {
      throw outOfMemory(`cannot write the record ${path}`, error);
    }
    this.#writeCopy(name + COPY_SUFFIX, text);
  }

  /** If the copy cannot be written, the old one must not stay: it could be used one day. */
  #writeCopy(file: string, text: string): void {
    try {
      replaceFile(join(this.path, file), text);
    } catch {
      this.removeFile(file);
    }
  }

  removeRecord(name: string): void {
    // The record last: as long as it exists the copy belongs to it.
    this.removeFile(name + COPY_SUFFIX);
    this.removeFile(name + RECORD_SUFFIX);
  }

  /** Everything in the directory. */
  fileNames(): string[] {
    return readdirSync(this.path);
  }

  /** Names of all records, usable or not, in order. */
  recordNames(): string[] {
    return recordNames(this.path);
  }

  /** All records whose names begin with `prefix`, in order of name. */
  readRecords(prefix: string): FoundRecord[] {
    return readRecords(this.path, prefix);
  }
}

/**
 * The records of a state directory, of any owner, whose names begin with `prefix`, in order of name; none if the
 * directory does not exist.
 */
export function readRecords(directory: string, prefix: string): FoundRecord[] {
  if (!existsSync(directory)) return [];
  return recordNames(directory)
    .filter((name) => name.startsWith(prefix))
    .map((name) => readRecord(directory, name));
}

function recordNames(directory: string): string[] {
  return readdirSync(directory)
    .filter((file) => file.endsWith(RECORD_SUFFIX))
    .map((file) => file.slice(0, -RECORD_SUFFIX.length))
    .sort();
}

function readRecord(directory: string, name: string): FoundRecord {
  const found = decode(directory, name, RECORD_SUFFIX);
  if (found.problem === undefined) return { name, value: found.value };
  const copy = decode(directory, name, COPY_SUFFIX);
  if (copy.problem !== undefined) return { name, problem: found.problem };
  return { name, value: copy.value, instead: found.problem };
}

function decode(directory: string, name: string, suffix: string): DecodedRecord {
  try {
    const found = decodeRecord(readFileSync(join(directory, name + suffix), "utf8"));
    const id = found.problem === undefined && (found.value as { id?: unknown }).id;
    // A name ends with the id of what it belongs to.
    return id && !name.endsWith(`-${id}`) ? { problem: `it is that of ${id}` } : found;
  } catch (error) {
    return { problem: (error as Error).message };
  }
}

/** By rename: a reader finds the old one or the new one. */
function replaceFile(path: string, text: string): void {
  try {
    writeFileSync(`${path}${UNFINISHED_SUFFIX}`, text, { mode: 0o600 });
    renameSync(`${path}${UNFINISHED_SUFFIX}`, path);
  } catch (error) {
    rmSync(`${path}${UNFINISHED_SUFFIX}`, { force: true });
    throw error;
  }
}

function nameDigest(name: string): Buffer {
  return createHash("sha256").update(name).digest();
}

async function fillWithZeroes(fd: number, lengthBytes: number): Promise<void> {
  const zeroes = new Uint8Array(Math.min(lengthBytes, FILL_BYTES));
  for (let at = 0; at < lengthBytes; ) {
    const length = Math.min(zeroes.length, lengthBytes - at);
    at += (await writePart(fd, zeroes, 0, length, at)).bytesWritten;
  }
}

function outOfMemory(what: string, cause: unknown): ControlError {
  return new ControlError("OUT_OF_MEMORY", `${what}: ${(cause as Error).message}`, { cause });
}
