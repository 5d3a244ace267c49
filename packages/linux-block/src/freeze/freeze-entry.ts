/** A file system of a take: access to it, and its result. */
import { closeSync, openSync } from "node:fs";
import type { Reached } from "../helper-calls.js";
import type { FileSystem, FileSystemStack } from "../stack/block-stack.js";
import { nodeName } from "../sysfs-text.js";
import type { FreezeSystem } from "./freeze-system.js";

/** Opens a place without querying its file system (fcntl.h; Node has no name for it). */
const O_PATH = 0o10000000;
/** Characters that mountinfo escapes. */
const ESCAPE = /\\([0-7]{3})/g;

/** The result for a file system. */
export interface FreezeReport {
  readonly source: string;
  /** "major:minor" */
  readonly device: string;
  /** Null if it is not mounted. */
  readonly type: string | null;
  readonly mountPoint: string | null;
  /** The process in whose namespace that is; null if it was not reached. */
  readonly pid: number | null;
  readonly state: "frozen" | "synced" | "not";
  /** Why it is not frozen. */
  readonly why: string | null;
}

export class FreezeEntry {
  readonly device: string;
  /** Larger than that of each file system beneath it. */
  readonly level: number;
  /** Mount point, or another name of it. */
  readonly name: string;
  /** A directory or a file of it; undefined if none is accessible. */
  readonly fd: number | undefined;
  /** Path to sync: that one, else its block device. */
  readonly syncPath: string | undefined;
  state: FreezeReport["state"] = "not";
  /** Why it is not frozen. */
  why: string | null = null;
  /** Negative errno of the last sync that counts; 0 for success, undefined for none. */
  syncStatus: number | undefined;
  readonly #mountPoint: string | null;
  readonly #pid: number | null;
  readonly type: string | null;
  readonly #source: string;

  /** @param fileSystem with its mounts, if it has some */
  constructor(
    fileSystem: Omit<FileSystem, "mounts"> & Partial<FileSystem>,
    reached: Reached,
    sysfs: string,
  ) {
    const { device, level, mounts: [mount] = [] } = fileSystem;
    const { path, pid, place } = reached.get(device);
    const node = nodeOf(device, sysfs);
    this.device = device;
    this.level = level;
    this.fd = path === undefined ? undefined : openPlace(path);
    this.syncPath = this.fd === undefined ? node : `/proc/${process.pid}/fd/${this.fd}`;
    if (this.fd === undefined) this.why = path === undefined ? place : "it was unmounted";
    const isMount = this.fd !== undefined && !place.startsWith("/proc/");
    this.#mountPoint = isMount ? unescaped(place) : (mount?.mountPoint ?? null);
    this.#pid = this.fd === undefined ? null : pid;
    this.type = mount?.fsType ?? null;
    this.#source = mount?.source ?? node ?? device;
    this.name = this.#mountPoint ?? this.#source;
  }

  get report(): FreezeReport {
    return {
      source: this.#source,
      device: this.device,
      type: this.type,
      mountPoint: this.#mountPoint,
      pid: this.#pid,
      state: this.state,
      why: this.why,
    };
  }

  close(): void {
    if (this.fd !== undefined) closeSync(this.fd);
  }
}

/** The file systems of a stack, and the devices without a known one. */
export async function openEntries(
  { fileSystems, others }: FileSystemStack,
  system: FreezeSystem,
  timeoutMs: number,
): Promise<{ entries: FreezeEntry[]; bare: string[] }> {
  const wanted = [...fileSystems, ...others];
  if (wanted.length === 0) return { entries: [], bare: [] };
  const reached = await system.reach(
    wanted.map(({ device }) => device),
    timeoutMs,
  );
  try {
    const isThere = ({ device }: { device: string }) => reached.get(device).path !== undefined;
    const entries = [...fileSystems, ...others.filter(isThere)]
      .map((one) => new FreezeEntry(one, reached, system.sysfs))
      .sort((one, other) => other.level - one.level);
    const bare = others.filter((one) => !isThere(one));
    return { entries, bare: bare.flatMap(({ device }) => nodeOf(device, system.sysfs) ?? []) };
  } finally {
    reached.release();
  }
}

function openPlace(path: string): number | undefined {
  try {
    return openSync(path, O_PATH);
  } catch {
    return undefined;
  }
}

function unescaped(field: string): string {
  const bytes = field.replace(ESCAPE, (_, digits: string) =>
    String.fromCharCode(Number.parseInt(digits, 8)),
  );
  return Buffer.from(bytes, "latin1").toString();
}

/** The node of a block device; undefined if there is none. */
function nodeOf(device: string, sysfs: string): string | undefined {
  const name = nodeName(device, sysfs);
  return name === undefined ? undefined : `/dev/${name}`;
}
