import { dirname } from "node:path";
import type { MachineOptions, SimMachine } from "@blksnap/sim-kernel";
import type { DriverOptions } from "../../dist/index.js";

export const DISK_BYTES = 2 ** 20;
export const DISK_SECTORS = DISK_BYTES / 512;
/** Of originals that grow (growths.ts). */
export const GROWN_MAX_SECTORS: number = DISK_SECTORS + 1024;
/** Most sectors of a user's request: as many as one request of a front takes. */
export const IO_SECTORS_MAX = 64;
/** Long enough for others to meet copies in flight, and below every bound. */
export const SLOW_STORE_US: readonly [number, number] = [500, 4000];
/** Stores: a folder of the journals' disk, and a disk. */
export const KEPT_STORE = "/var/tmp";
export const BLOCK_STORE = "/dev/sds";
/** That disk under a lasting name, which persistent snapshots need. */
export const LINKED_STORE = "/dev/disk/by-id/sds";
export const STATE_DIRECTORY = "/run/blksnap/state";

/** UBLK_F_* of Linux 7.0, which has zero copy. */
const UBLK_FEATURES = 0xffff;
/** The same of Linux 6.16, which can resize devices. */
const RESIZING_FEATURES = 0x7ff;
/** One seed in so many has a kernel that cannot. */
const UNCHANGING_ONE_IN = 8;

/**
 * In half of the seeds the kernel has zero copy, which fails for some requests.
 * @param hasGrowth in most of the seeds it can resize devices
 */
export function kernelOf(seed: number, hasGrowth = false): MachineOptions {
  if (seed % 2 !== 0) return { seed, ublkFeatures: UBLK_FEATURES, pagesRefusedOneIn: 12 };
  if (!hasGrowth || seed % UNCHANGING_ONE_IN === 0) return { seed };
  return { seed, ublkFeatures: RESIZING_FEATURES };
}

/** The store of persistent snapshots: in one seed of four it is the disk. */
export function keptStoreOf(seed: number): string {
  return seed % 4 === 1 ? LINKED_STORE : KEPT_STORE;
}

/** As udev does at each boot. */
export function linkStore({ files }: SimMachine): void {
  if (files.exists(LINKED_STORE) || !files.exists(BLOCK_STORE)) return;
  files.mkdir(dirname(LINKED_STORE), true);
  files.symlink(BLOCK_STORE, LINKED_STORE);
}

export function isOnDisk(store: string | undefined): boolean {
  return store === BLOCK_STORE || store === LINKED_STORE;
}

const nothing = (): void => undefined;

/** Small devices, so that all of their states occur soon. */
export function driverOptions(log: (line: string) => void): DriverOptions {
  const say = (level: string) => (details: unknown, text?: string) => {
    const { err, ...rest } = (typeof details === "object" ? details : {}) as { err?: Error };
    const said = text ?? String(details);
    log(`${level}: ${said} ${JSON.stringify(rest)}${err === undefined ? "" : ` ${err.message}`}`);
  };
  const logger = {
    trace: nothing,
    debug: nothing,
    info: say("info"),
    warn: say("warn"),
    error: say("error"),
    fatal: say("fatal"),
  };
  return {
    logger: logger as never,
    stateDirectory: STATE_DIRECTORY,
    // No other program writes to the disks while they are down.
    trustReboots: true,
    persistentDirectory: "/var/lib/blksnap",
    reactors: 2,
    frontDepth: 8,
    imageDepth: 4,
    maxIoBytes: IO_SECTORS_MAX * 512,
    zeroCopy: "auto",
    // A few writes' time, so that takes reach it.
    freezeTimeoutMs: 8,
    portionBytes: 2 ** 18,
    parameters: { chunkMinimumShift: 15, trackingBlockMinimumShift: 14 },
  };
}
