/**
 * Records the mount of the file system on a persistent tracker's front: after a power cut, that proves that nothing
 * else has mounted it since. It checks only fronts that were written, so that an idle disk stays idle, and reads
 * through the ring, so that a disk that hangs blocks no thread.
 */
import { attribute } from "@blksnap/linux-block";
import { high32, low32, MappedMemory, type PromiseRing, prepareRead } from "@blksnap/uring";
import { MOUNT_POLL_INTERVAL_MS } from "../time-limits.js";
import type { Tracker } from "./tracker.js";

/** The superblock, and the second page, where another signature may be. */
const START_BYTES = 8192;
const WRITE_SECTORS_FIELD = 6;

type Watched = Pick<Tracker, "id" | "uuid" | "noteStart"> & {
  readonly front: Pick<Tracker["front"], "path">;
  readonly backing: Pick<Tracker["backing"], "fd">;
};

/** Reads the first bytes of an open device; undefined if it cannot. */
export type StartReader = (fd: number) => Promise<Uint8Array | undefined>;

export class MountWatch {
  readonly #trackers: () => Iterable<Watched>;
  readonly #read: StartReader;
  readonly #sysfs: string;
  /** By tracker: sectors written to its front at the last check. */
  readonly #seen = new Map<number, string>();
  readonly #reading = new Set<number>();
  readonly #timer: NodeJS.Timeout;

  constructor(
    trackers: () => Iterable<Watched>,
    read: StartReader,
    {
      sysfs = "/sys",
      intervalMs = MOUNT_POLL_INTERVAL_MS,
    }: { sysfs?: string; intervalMs?: number } = {},
  ) {
    this.#trackers = trackers;
    this.#read = read;
    this.#sysfs = sysfs;
    this.#timer = setInterval(() => void this.look(), intervalMs);
    this.#timer.unref();
  }

  stop(): void {
    clearInterval(this.#timer);
  }

  /** Resolves when all fronts that answer have been checked. */
  async look(): Promise<void> {
    const trackers = [...this.#trackers()].filter(({ uuid }) => uuid !== undefined);
    const ids = new Set(trackers.map(({ id }) => id));
    for (const id of this.#seen.keys()) if (!ids.has(id)) this.#seen.delete(id);
    await Promise.all(trackers.map((tracker) => this.#check(tracker)));
  }

  async #check(tracker: Watched): Promise<void> {
    const { id, front, backing } = tracker;
    const written = writtenSectors(this.#sysfs, front.path);
    if (written === undefined || written === this.#seen.get(id) || this.#reading.has(id)) return;
    this.#reading.add(id);
    try {
      const start = await this.#read(backing.fd);
      if (start === undefined) return;
      await tracker.noteStart(start);
      this.#seen.set(id, written);
    } catch {
      // Either the ring was closed meanwhile, or the next check repeats it.
    } finally {
      this.#reading.delete(id);
    }
  }
}

/** As text, because only a difference matters. Undefined if the front is not a device of this machine. */
function writtenSectors(sysfs: string, front: string): string | undefined {
  if (!front.startsWith("/dev/")) return undefined;
  const name = front.slice("/dev/".length);
  return attribute(`${sysfs}/block/${name}`, "stat")?.split(/\s+/)[WRITE_SECTORS_FIELD];
}

/** Bypasses the page cache, as the descriptor is opened for. */
export function ringStartReader(ring: PromiseRing): StartReader {
  return async (fd) => {
    const memory = MappedMemory.anonymous(START_BYTES);
    const { address } = memory;
    const status = await ring.submit(
      (target, low, high) =>
        prepareRead(target, fd, low32(address), high32(address), START_BYTES, 0, 0, low, high, 0),
      memory,
    );
    const start = new Uint8Array(memory.buffer, 0, START_BYTES).slice();
    memory.unmap();
    return status === START_BYTES ? start : undefined;
  };
}
